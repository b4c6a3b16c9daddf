//! The one way on which workers are ended, drained and launched.

use forebay_schemas::ModelId;
use futures_util::future::join_all;
use metrics::counter;

use super::{
    launcher::{Launcher, Order},
    launchers::within,
};
use crate::{
    decide::{Moves, Overdue},
    lead::Permit,
    unique::random_digits,
};

/// The outcome of the moves of one model.
#[derive(Debug, Default)]
pub struct Carried {
    /// The workers that were asked to drain.
    pub drained: Vec<String>,
    /// Why launches failed, one entry each.
    pub launch_failures: Vec<String>,
    /// Whether the permit ended before all was done: then nothing more may be done.
    pub permit_lost: bool,
}

/// Ends, drains and launches workers of one model, in this order, each only while the permit holds. What fails is
/// logged and counted; the next look finds the worker as it is, and decides again.
pub async fn carry_out(
    launcher: &dyn Launcher,
    model: &ModelId,
    moves: &Moves,
    permit: &Permit,
) -> Carried {
    let mut carried = Carried::default();
    if !moves.end.is_empty() {
        if !permit.holds().await {
            carried.permit_lost = true;
            return carried;
        }
        end(launcher, model, &moves.end).await;
    }
    if !moves.drain.is_empty() {
        if !permit.holds().await {
            carried.permit_lost = true;
            return carried;
        }
        if drain(launcher, model, &moves.drain).await {
            carried.drained.clone_from(&moves.drain);
        }
    }
    if !moves.launch.is_empty() {
        if !permit.holds().await {
            carried.permit_lost = true;
            return carried;
        }
        carried.launch_failures = launch(launcher, model, &moves.launch).await;
    }
    carried
}

async fn end(launcher: &dyn Launcher, model: &ModelId, all: &[Overdue]) {
    let ends = all.iter().map(async |overdue| {
        tracing::warn!(%model, worker = overdue.name, why = overdue.why, "ending worker");
        let labels = [("model", model.to_string()), ("reason", overdue.reason.to_owned())];
        counter!("forebay_workers_replaced_total", &labels).increment(1);
        let ended = within(launcher.kind(), "end a worker", launcher.end(&overdue.name));
        if let Err(error) = ended.await {
            tracing::warn!(%error, "could not end worker; deciding again next tick");
        }
    });
    join_all(ends).await;
}

/// Asks workers to drain. Whether that could be done.
async fn drain(launcher: &dyn Launcher, model: &ModelId, names: &[String]) -> bool {
    tracing::info!(%model, workers = ?names, "draining workers");
    match within(launcher.kind(), "drain workers", launcher.drain(model, names)).await {
        Ok(()) => {
            counter!("forebay_workers_drained_total", "model" => model.to_string())
                .increment(names.len() as u64);
            true
        }
        Err(error) => {
            tracing::warn!(%error, "could not drain workers; deciding again next tick");
            false
        }
    }
}

/// Launches a worker on each device. The reasons of those that failed.
async fn launch(launcher: &dyn Launcher, model: &ModelId, devices: &[String]) -> Vec<String> {
    let kind = launcher.kind();
    let launches = devices.iter().map(|device| {
        let name = format!("{model}-{}", random_digits());
        let order = Order { model: model.clone(), name, device: device.clone() };
        async move { within(kind, &format!("launch {}", order.name), launcher.launch(&order)).await }
    });
    let mut failures = Vec::new();
    for launched in join_all(launches).await {
        match launched {
            Ok(()) => counter!("forebay_workers_launched_total", "model" => model.to_string())
                .increment(1),
            Err(error) => {
                counter!("forebay_launch_failures_total", "launcher" => kind).increment(1);
                tracing::warn!(%error, "no worker was launched");
                failures.push(error.to_string());
            }
        }
    }
    failures
}
