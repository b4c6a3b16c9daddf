//! Asking workers that seem to be lost, before any decision rests on that.
//!
//! A worker may be silent because its heartbeats do not come through, and without progress because it waits for a
//! server. [`decide::is_doubted`] says who is to be asked, and [`decide`](crate::decide) what follows from the answers.

use std::collections::BTreeMap;

use forebay_schemas::ModelId;
use futures_util::{StreamExt, stream};

use crate::{
    act::launchers::Launchers,
    decide::{self, Timeouts},
    pool::{ModelPool, PoolLook},
};

/// The most workers that are asked at one look; the others are not ended before they were asked.
const ASKED_MAX: usize = 64;
/// The most that are asked at once.
const ASKED_AT_ONCE_MAX: usize = 16;

/// Asks the workers that are over their time, each by its launcher.
pub async fn ask(
    pools: &mut BTreeMap<ModelId, ModelPool>,
    looks: &mut BTreeMap<ModelId, PoolLook>,
    launchers: &Launchers,
    timeouts: &Timeouts,
) {
    let mut questions = Vec::new();
    for (model, look) in looks.iter() {
        let Some(pool) = pools.get(model) else { continue };
        let Ok(launcher) = launchers.get(pool.config.launcher) else { continue };
        let doubted =
            look.seen.workers.iter().filter(|worker| decide::is_doubted(worker, timeouts));
        for worker in doubted {
            let name = worker.id.clone();
            let question = async move {
                let answer = launcher.ask(&name).await;
                tracing::info!(%model, worker = name, ?answer, "asked a worker that seems lost");
                (model.clone(), name, answer)
            };
            questions.push(question);
        }
    }
    questions.truncate(ASKED_MAX);
    let answers: Vec<_> =
        stream::iter(questions).buffer_unordered(ASKED_AT_ONCE_MAX).collect().await;
    for (model, name, answer) in answers {
        if let (Some(pool), Some(look)) = (pools.get_mut(&model), looks.get_mut(&model)) {
            pool.answered(look, &name, answer);
        }
    }
}
