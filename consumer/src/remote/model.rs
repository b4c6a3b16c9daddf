//! [`Remote`]: the model that a worker calls for, in place of one that it has loaded.

use std::{sync::Arc, time::Duration};

use forebay_fabric::{config::RemoteConfig, tls::Tls};

use super::{endpoint::Endpoint, gate::Gate};
use crate::error::WorkerError;

/// Values of a vector for which memory is set aside until its job is settled: those of the largest models in use.
pub const ROW_VALUES_MAX: usize = 4_096;

/// A remote model. Clones share it.
#[derive(Clone)]
pub struct Remote {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Where calls wait for their turn.
    pub gate: Arc<Gate>,
    /// How it is called.
    pub config: RemoteConfig,
}

impl Remote {
    /// A model whose endpoint is not called yet.
    pub fn new(config: RemoteConfig, tls: &Tls) -> Result<Self, WorkerError> {
        let endpoint = Arc::new(Endpoint::new(&config, tls)?);
        let open_for = Duration::from_millis(config.circuit_open_ms);
        let gate = Arc::new(Gate::new(config.circuit_failures, open_for));
        Ok(Self { endpoint, gate, config })
    }
}
