//! Two fleets: one whose gateway is the endpoint of the other's remote model `far`.

use std::fs;
use std::os::unix::fs::symlink;

use crate::endpoint::Endpoint;
use crate::gateway::Gateway;
use crate::model::{SETTINGS, TINY};
use crate::service::Service;
use crate::stack::Stack;

/// The remote model's name in the near fleet.
pub const FAR: &str = "far";
/// A second model of the near fleet, which is the tiny one too.
pub const TWIN: &str = "twin";

/// Both fleets.
#[derive(Debug)]
pub struct TwoFleets {
    /// The fleet under test.
    pub near: Stack,
    /// The endpoint of `far`, before the far fleet's gateway.
    pub endpoint: Endpoint,
    /// The far fleet's gateway.
    pub far_gateway: Gateway,
    _far_worker: Service,
    _far: Stack,
}

impl TwoFleets {
    /// Both with a small model of this kind, the far one with a worker. `remote` are lines of `[models.far.remote]`,
    /// `rest` is the end of the near fleet's configuration.
    pub async fn start(kind: &str, remote: &str, rest: &str) -> Self {
        let far = Stack::start().await.tiny_of(kind);
        let far_worker = far.worker(&[]).await;
        let far_gateway = Gateway::of(&far, &[]).await;
        let endpoint = Endpoint::before(far_gateway.port);
        let near = Stack::start().await.tiny_of(kind);
        let fleets = Self { near, endpoint, far_gateway, _far_worker: far_worker, _far: far };
        let models = fleets.near.tiny_model();
        symlink(fs::canonicalize(&models).unwrap(), models.with_file_name(TWIN)).unwrap();
        fleets.configure("pool.launcher = \"none\"", remote, &format!("{rest}{SETTINGS}"));
        fleets
    }

    /// Writes the near fleet's configuration. `own` are lines of `[models.tiny]`.
    pub fn configure(&self, own: &str, remote: &str, rest: &str) {
        let source = fs::canonicalize(self.near.tiny_model()).unwrap();
        let source = source.display();
        let url = self.endpoint.url();
        self.near.write_config(&format!(
            "[models.{TINY}]\nsource = \"folder:{source}\"\n{own}\n\
             [models.{TWIN}]\nsource = \"folder:{source}\"\npool.launcher = \"none\"\n\
             [models.{FAR}]\npool.launcher = \"none\"\n\
             [models.{FAR}.remote]\nurl = \"{url}\"\nmodel = \"{TINY}\"\n{remote}\n{rest}\n"
        ));
    }

    /// A worker of one of the near fleet's models, ready.
    pub async fn worker(&self, model: &str, overrides: &[(&str, &str)]) -> Service {
        self.starting_worker(model, overrides).ready().await
    }

    /// Starts a worker and does not wait until it is ready.
    pub fn starting_worker(&self, model: &str, overrides: &[(&str, &str)]) -> Service {
        let mut command = self.near.program("forebay-worker", overrides);
        command.args(["--model", model]);
        if model != FAR {
            command.args(["--threads", "1", "--dtype", "f32"]);
        }
        Service::start("forebay-worker", command, self.near.store.folder())
    }
}
