//! The calls of every launcher, and the types that go with them.
//!
//! `launch` asks for one more worker and does not wait until it is ready: the worker reports that itself, in its
//! registry record, whose id is the instance's name. `drain` asks workers to finish what they hold and end. `end` is
//! for one that is stuck, or silent: where there is a way to `ask` it, that comes first. `list` returns what is there,
//! whichever autoscaler launched it: so an autoscaler that comes back adopts what its predecessor left.

use forebay_schemas::ModelId;
use futures_util::{
    FutureExt,
    future::{BoxFuture, ready},
};

use crate::decide::Answer;

/// The device of workers that call an endpoint and compute nothing.
pub const REMOTE_DEVICE: &str = "remote";

/// A worker to launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The model that it is to run.
    pub model: ModelId,
    /// The name that it is to have, as its registry record and, where that is possible, as a process, a container or
    /// a pod: `<model>-<8 hexadecimal digits>`. A launcher that can't choose names ignores it.
    pub name: String,
    /// The device on which it is to compute: `cpu` or `cuda:N`, as `forebay-worker --device` takes it.
    pub device: String,
}

/// A worker as its launcher knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The id of its registry record.
    pub name: String,
    /// The model that it runs.
    pub model: String,
    /// The device on which it computes, when that is known.
    pub device: Option<String>,
    /// When it was launched, in Unix milliseconds.
    pub launched_at_ms: u64,
    /// The stage of its life.
    pub state: InstanceState,
}

/// The stage of an instance's life, as far as its launcher can see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceState {
    /// Asked for, and not there yet: an image is pulled, or a node is awaited.
    Pending,
    /// Running.
    Running,
    /// Asked to drain, and still running.
    Draining,
    /// Ended. Listed at least once after it did.
    Ended {
        /// How: `exit code 2`, `killed by signal 9`, `OOMKilled`.
        how: String,
        /// Whether it ended as it should: after a drain, or by its own idle limit.
        well: bool,
    },
}

impl Instance {
    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, InstanceState::Ended { .. })
    }
}

/// The failure of a call to a launcher.
#[derive(Debug, thiserror::Error)]
#[error("the {launcher} launcher could not {action}: {reason}")]
pub struct LaunchError {
    /// The launcher.
    pub launcher: &'static str,
    /// The action: `launch m-1a2b3c4d`, `list its workers`.
    pub action: String,
    /// The cause and what to do.
    pub reason: String,
}

/// Launches workers and takes them down.
///
/// `drain` and `end` may be repeated after a failure. `launch` is idempotent where the launcher names the worker: a
/// second launch of the same name does nothing. Kubernetes counts instead, so a call that succeeded and whose answer
/// was lost counts twice when it is repeated; the next observation finds the worker that is too many.
pub trait Launcher: Send + Sync {
    /// `process`, `docker` or `kubernetes`.
    fn kind(&self) -> &'static str;

    /// Asks for one more worker.
    fn launch<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<(), LaunchError>>;

    /// Asks these workers of one model to finish what they hold and end. One that has ended already is no error.
    fn drain<'a>(
        &'a self,
        model: &'a ModelId,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<(), LaunchError>>;

    /// Ends a worker at once.
    fn end<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), LaunchError>>;

    /// Asks a worker itself, or who watches over it, whether it is there. A launcher that has no way to do that says
    /// so.
    fn ask<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Answer> {
        let _ = name;
        ready(Answer::Unreachable).boxed()
    }

    /// The workers that this launcher launched, now or in an earlier life: those of these models, and of others as far
    /// as they can be found.
    fn list<'a>(
        &'a self,
        models: &'a [ModelId],
    ) -> BoxFuture<'a, Result<Vec<Instance>, LaunchError>>;
}
