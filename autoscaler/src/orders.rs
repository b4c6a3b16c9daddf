//! Carries out what one pool is to do: ends, drains and launches workers, each only while the lease holds.

use forebay_schemas::JobId;
use futures_util::future::join_all;
use metrics::counter;

use crate::{
    act::{Launcher, Order, launchers::within},
    fleet::Overdue,
    lead::Lead,
    pool::{self, Plan, Pool},
};

/// What one pool is to do, once the places are shared.
pub struct Orders {
    /// The size that it may have.
    pub granted: u32,
    /// Who goes.
    pub leaving: Vec<String>,
    /// Where new ones are to compute, one each.
    pub devices: Vec<String>,
}

/// Ends, drains and launches for one pool, each only while the lease holds. Whether it did.
pub async fn carry_out(
    pool: &mut Pool,
    launcher: &dyn Launcher,
    lead: &Lead,
    token: u64,
    now_ms: u64,
    plan: &Plan,
    orders: &Orders,
) -> bool {
    if !plan.overdue.is_empty() {
        if !lead.may_act(token).await {
            return false;
        }
        end_overdue(pool, launcher, &plan.overdue).await;
    }
    if !plan.observed {
        return true;
    }
    if !orders.leaving.is_empty() {
        if !lead.may_act(token).await {
            return false;
        }
        drain(pool, launcher, now_ms, &orders.leaving).await;
    }
    let starting = pool::starting(&plan.workers);
    let allowed = pool.circuit.allows(now_ms, orders.devices.len() as u32, starting) as usize;
    if allowed > 0 {
        if !lead.may_act(token).await {
            return false;
        }
        launch(pool, launcher, now_ms, &orders.devices[..allowed]).await;
    }
    true
}

async fn end_overdue(pool: &Pool, launcher: &dyn Launcher, all: &[Overdue]) {
    let ends = all.iter().map(async |overdue| {
        tracing::warn!(model = %pool.model, worker = overdue.name, why = overdue.why, "ends a worker");
        let labels = [("model", pool.model.to_string()), ("reason", overdue.reason.to_owned())];
        counter!("forebay_workers_replaced_total", &labels).increment(1);
        if let Err(error) =
            within(launcher.kind(), "end a worker", launcher.end(&overdue.name)).await
        {
            tracing::warn!(%error, "it stays for now");
        }
    });
    join_all(ends).await;
}

async fn drain(pool: &mut Pool, launcher: &dyn Launcher, now_ms: u64, names: &[String]) {
    let model = pool.model.clone();
    tracing::info!(%model, workers = ?names, "drains");
    match within(launcher.kind(), "drain workers", launcher.drain(&model, names)).await {
        Ok(()) => {
            pool.told_to_end(now_ms, names);
            counter!("forebay_workers_drained_total", "model" => model.to_string())
                .increment(names.len() as u64);
        }
        Err(error) => tracing::warn!(%error, "they stay for now"),
    }
}

async fn launch(pool: &mut Pool, launcher: &dyn Launcher, now_ms: u64, devices: &[String]) {
    let (kind, model) = (launcher.kind(), pool.model.clone());
    let launches = devices.iter().map(|device| {
        let name = format!("{model}-{}", random_digits());
        let order = Order { model: model.clone(), name, device: device.clone() };
        async move { within(kind, &format!("launch {}", order.name), launcher.launch(&order)).await }
    });
    for launched in join_all(launches).await {
        match launched {
            Ok(()) => counter!("forebay_workers_launched_total", "model" => model.to_string())
                .increment(1),
            Err(error) => {
                counter!("forebay_launch_failures_total", "launcher" => kind).increment(1);
                tracing::warn!(%error, "no worker");
                pool.circuit.failed(now_ms, error.to_string());
            }
        }
    }
}

/// Eight hexadecimal digits that nobody else has.
pub fn random_digits() -> String {
    // The end of a new id is random.
    let random = JobId::random().to_string();
    random[random.len() - 8..].to_owned()
}
