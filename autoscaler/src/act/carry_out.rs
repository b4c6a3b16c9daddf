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

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex, atomic::AtomicU64},
        time::Duration,
    };

    use futures_util::{FutureExt as _, future::BoxFuture};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        act::launcher::{Instance, LaunchError},
        lead::Lead,
        testing::store_with_lease,
    };

    /// Writes down what it is asked for.
    #[derive(Default)]
    struct Asked(Mutex<Vec<&'static str>>);

    impl Asked {
        fn add<'a>(&self, call: &'static str) -> BoxFuture<'a, Result<(), LaunchError>> {
            self.0.lock().unwrap().push(call);
            async { Ok(()) }.boxed()
        }
    }

    impl Launcher for Asked {
        fn kind(&self) -> &'static str {
            "process"
        }

        fn launch<'a>(&'a self, _: &'a Order) -> BoxFuture<'a, Result<(), LaunchError>> {
            self.add("launch")
        }

        fn drain<'a>(
            &'a self,
            _: &'a ModelId,
            _: &'a [String],
        ) -> BoxFuture<'a, Result<(), LaunchError>> {
            self.add("drain")
        }

        fn end<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), LaunchError>> {
            self.add("end")
        }

        fn list<'a>(
            &'a self,
            _: &'a [ModelId],
        ) -> BoxFuture<'a, Result<Vec<Instance>, LaunchError>> {
            async { Ok(Vec::new()) }.boxed()
        }
    }

    fn moves() -> [(&'static str, Moves); 3] {
        let overdue = Overdue { name: "a".into(), reason: "stuck", why: "it is stuck".into() };
        [
            ("end", Moves { end: vec![overdue], ..Moves::default() }),
            ("drain", Moves { drain: vec!["b".into()], ..Moves::default() }),
            ("launch", Moves { launch: vec!["cpu".into()], ..Moves::default() }),
        ]
    }

    /// The requests to the launcher for these moves, and whether the permit was found lost.
    async fn asked(moves: &Moves, permit: &Permit) -> (Vec<&'static str>, bool) {
        let launcher = Asked::default();
        let carried = carry_out(&launcher, &"m".parse().unwrap(), moves, permit).await;
        (launcher.0.into_inner().unwrap(), carried.permit_lost)
    }

    #[tokio::test]
    async fn no_worker_is_ended_drained_or_launched_without_the_lease() {
        let store = store_with_lease(Arc::new(AtomicU64::new(7)), Duration::ZERO).await;
        let minute = Duration::from_secs(60);
        let stop = CancellationToken::new();
        let (lead, keeper) = Lead::start(store, "me".into(), minute, minute, stop.clone());
        tokio::time::timeout(minute, async {
            while lead.held().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        for (call, moves) in moves() {
            assert_eq!(asked(&moves, &lead.permit(7)).await, (vec![call], false));
            assert_eq!(asked(&moves, &lead.permit(6)).await, (Vec::new(), true), "{call}");
        }
        stop.cancel();
        keeper.await.unwrap();
        for (call, moves) in moves() {
            assert_eq!(asked(&moves, &lead.permit(7)).await, (Vec::new(), true), "{call}");
        }
    }
}
