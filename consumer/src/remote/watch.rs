//! Reports the circuit: as a condition of the worker's health, in its record, and as a metric.

use std::sync::Arc;

use forebay_fabric::telemetry::Health;
use forebay_schemas::{CircuitState, RemoteRecord};
use metrics::gauge;
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use crate::{decode::REMOTE, registry::Registry};

/// Reports each change until `stop`.
pub async fn report(gate: Arc<Gate>, health: Health, registry: Registry, stop: CancellationToken) {
    let mut changes = gate.changes();
    let mut reported = None;
    loop {
        let (circuit, until) = gate.circuit();
        if reported != Some(circuit) {
            reported = Some(circuit);
            let is_open = circuit == CircuitState::Open;
            gauge!("forebay_remote_circuit_open").set(f64::from(u8::from(is_open)));
            // Half open it takes jobs: without one nothing would try whether the endpoint is back.
            let open = || Err("the endpoint fails; it is tried again soon".to_owned());
            health.set(REMOTE, if is_open { open() } else { Ok(()) });
            registry.update(|record| record.remote = Some(RemoteRecord { circuit })).await;
        }
        let next = async {
            tokio::select! {
                // The gate has the sender.
                _ = changes.changed() => {}
                () = until_then(until) => {}
            }
        };
        if stop.run_until_cancelled(next).await.is_none() {
            return;
        }
    }
}

async fn until_then(until: Option<tokio::time::Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
