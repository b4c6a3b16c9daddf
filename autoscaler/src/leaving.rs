//! Workers that are to leave, all of them: those of a model that another launcher runs now, and processes when the
//! autoscaler stops.
//!
//! They leave by the same rules as workers of a pool that shrinks: [`decide::leave`] says who is drained and who has
//! drained for too long, and [`carry_out`] does it while the permit holds.

use std::collections::BTreeMap;

use forebay_fabric::store::Registered;
use forebay_schemas::ModelId;

use crate::{
    act::{Instance, Launcher, carry_out::carry_out},
    decide::{self, Timeouts},
    lead::Permit,
    observe::workers::ObservedWorkers,
};

/// Follows the leaving workers of one launcher from look to look.
#[derive(Default)]
pub struct Leaving {
    models: BTreeMap<ModelId, ObservedWorkers>,
}

impl Leaving {
    /// Drains those of `instances` that do not drain yet, and ends those that have drained for too long. What fails is
    /// tried again at the next step.
    pub async fn step(
        &mut self,
        now_ms: u64,
        instances: &[Instance],
        registry: Option<&Registered>,
        launcher: &dyn Launcher,
        timeouts: &Timeouts,
        permit: &Permit,
    ) {
        let mut by_model: BTreeMap<ModelId, Vec<Instance>> = BTreeMap::new();
        for instance in instances {
            if let Ok(model) = instance.model.parse() {
                by_model.entry(model).or_default().push(instance.clone());
            }
        }
        self.models.retain(|model, _| by_model.contains_key(model));
        for (model, instances) in by_model {
            let observed = self.models.entry(model.clone()).or_default();
            let look = observed.look(now_ms, &instances, registry);
            let moves = decide::leave(&look.workers, timeouts);
            let carried = carry_out(launcher, &model, &moves, permit).await;
            observed.asked_to_drain(now_ms, &carried.drained);
            if carried.permit_lost {
                return;
            }
        }
    }
}
