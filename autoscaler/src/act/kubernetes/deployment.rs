//! From the pods and scales of a cluster to the workers that a look lists, given what the looks before it listed.

use std::collections::{BTreeMap, HashMap, HashSet};

use forebay_schemas::ModelId;

use super::pods::{Stage, Worker};
use crate::act::launcher::{Instance, InstanceState};

/// The Deployment of one model with its pods, at one look.
pub(super) struct DeploymentScale {
    pub model: ModelId,
    pub deployment: String,
    /// How many pods its Deployment is to have.
    pub replicas: usize,
    /// All of its pods.
    pub workers: Vec<Worker>,
}

/// The ends and pods that were reported. It holds no more than there is in the cluster.
#[derive(Default)]
pub(super) struct Reported {
    /// Ends, by the pod's uid and the end's name, and the models whose they were.
    ends: HashMap<(String, String), ModelId>,
    /// The pods that were there at the last look, by name.
    seen: HashMap<String, Instance>,
    /// Since when pods are asked for that are not there yet, by the name that they are listed under.
    awaited: HashMap<String, Awaited>,
}

struct Awaited {
    model: ModelId,
    since_ms: u64,
}

impl DeploymentScale {
    /// The pods that the Deployment counts.
    fn live(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(|worker| worker.is_live())
    }

    /// How many pods go that are not being deleted yet: there are more than there are to be.
    pub fn surplus(&self) -> usize {
        self.live().count().saturating_sub(self.replicas)
    }

    /// How many pods are asked for that are not there yet.
    pub fn missing(&self) -> usize {
        self.replicas.saturating_sub(self.live().count())
    }

    /// The name of the `k`th pod that is asked for and not there yet, from 1. No pod can have such a name.
    fn awaited(&self, k: usize) -> String {
        format!("{}#{k}", self.deployment)
    }

    /// The changes that draining these workers takes.
    pub fn drains(&self, names: &[String]) -> Drains<'_> {
        let names: HashSet<&str> = names.iter().map(String::as_str).collect();
        let surplus = self.surplus();
        let (drained, others): (Vec<_>, Vec<_>) =
            self.live().partition(|worker| names.contains(worker.name.as_str()));
        let (marked, unmarked): (Vec<_>, Vec<_>) =
            drained.into_iter().partition(|worker| worker.is_marked());
        let prefix = format!("{}#", self.deployment);
        let awaited = names.iter().filter(|name| name.starts_with(&prefix)).count();
        Drains {
            // Marked pods beyond the scale were drained before: their Deployment has not deleted them yet.
            fewer: unmarked.len()
                + marked.len().saturating_sub(surplus)
                + awaited.min(self.missing()),
            // Marked for a change that was not made: they would be deleted instead of the others.
            stale: if surplus == 0 {
                others.into_iter().filter(|worker| worker.is_marked()).collect()
            } else {
                Vec::new()
            },
            to_mark: unmarked,
        }
    }
}

/// The changes that draining some workers takes.
pub(super) struct Drains<'a> {
    pub to_mark: Vec<&'a Worker>,
    pub stale: Vec<&'a Worker>,
    /// By how much the scale is to be lowered.
    pub fewer: usize,
}

impl Reported {
    /// The model of a pod that was listed as asked for and not there yet.
    pub fn model_awaited(&self, name: &str) -> Option<ModelId> {
        self.awaited.get(name).map(|awaited| awaited.model.clone())
    }

    /// The workers that are there now, and those that ended since the last look.
    pub fn report(&mut self, scales: &[DeploymentScale], now_ms: u64) -> Vec<Instance> {
        let mut instances = Vec::new();
        let mut ends_there = HashSet::new();
        for scale in scales {
            let present = present(scale);
            self.report_ends(scale, &present, &mut ends_there, &mut instances);
            self.report_awaited(scale, now_ms, &mut instances);
            let names = present.iter().map(|instance| instance.name.clone());
            self.seen.extend(names.zip(present.iter().cloned()));
            instances.extend(present);
        }
        let looked_at = |model: &ModelId| scales.iter().any(|scale| scale.model == *model);
        self.ends.retain(|end, model| !looked_at(model) || ends_there.contains(end));
        instances
    }

    fn report_ends(
        &mut self,
        scale: &DeploymentScale,
        present: &[Instance],
        ends_there: &mut HashSet<(String, String)>,
        instances: &mut Vec<Instance>,
    ) {
        for worker in &scale.workers {
            for end in &worker.ends {
                let key = (worker.uid.clone(), end.name.clone());
                if self.ends.insert(key.clone(), scale.model.clone()).is_none() {
                    let state = InstanceState::Ended { how: end.how.clone(), well: end.well };
                    instances.push(Instance { name: end.name.clone(), ..instance(worker, state) });
                }
                ends_there.insert(key);
            }
            if worker.stage == Stage::Ended {
                self.seen.remove(&worker.name);
            }
        }
        let there: HashSet<&str> = present.iter().map(|one| one.name.as_str()).collect();
        let gone = |name: &String, seen: &mut Instance| {
            seen.model == scale.model.as_str() && !there.contains(name.as_str())
        };
        // A pod that is deleted gets SIGTERM first, and drains.
        instances.extend(self.seen.extract_if(gone).map(|(_, seen)| {
            let state = InstanceState::Ended { how: "its pod was deleted".into(), well: true };
            Instance { state, ..seen }
        }));
    }

    fn report_awaited(
        &mut self,
        scale: &DeploymentScale,
        now_ms: u64,
        instances: &mut Vec<Instance>,
    ) {
        let names: BTreeMap<usize, String> =
            (1..=scale.missing()).map(|k| (k, scale.awaited(k))).collect();
        let there: HashSet<&String> = names.values().collect();
        self.awaited.retain(|name, one| one.model != scale.model || there.contains(name));
        for name in names.into_values() {
            let model = scale.model.clone();
            let awaited =
                self.awaited.entry(name.clone()).or_insert(Awaited { model, since_ms: now_ms });
            instances.push(Instance {
                name,
                model: scale.model.to_string(),
                device: None,
                launched_at_ms: awaited.since_ms,
                state: InstanceState::Pending,
            });
        }
    }
}

/// The pods that have not ended.
fn present(scale: &DeploymentScale) -> Vec<Instance> {
    let mut surplus = scale.surplus();
    let alive = scale.workers.iter().filter(|worker| worker.stage != Stage::Ended);
    let present = alive.map(|worker| {
        let state = match worker.stage {
            Stage::Terminating => InstanceState::Draining,
            // Marked, and too many: its Deployment takes it next.
            _ if worker.is_marked() && surplus > 0 => {
                surplus -= 1;
                InstanceState::Draining
            }
            Stage::Running => InstanceState::Running,
            _ => InstanceState::Pending,
        };
        instance(worker, state)
    });
    present.collect()
}

fn instance(worker: &Worker, state: InstanceState) -> Instance {
    Instance {
        name: worker.name.clone(),
        model: worker.model.clone(),
        device: worker.device.clone(),
        launched_at_ms: worker.created_at_ms,
        state,
    }
}
