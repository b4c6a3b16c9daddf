//! Workers as pods, by the scale of one Deployment a model.
//!
//! A Deployment takes counts and no names: to launch is one more, to drain is fewer, after those that are to go were
//! marked as the cheapest to delete. A worker's name is its pod's. A pod that a Deployment was asked for and does not
//! have yet is listed as `<deployment>#1` and so on; an end that a pod outlived, as `<pod>#` and a distinguishing text.
//! A pod whose container can't start or starts again and again is listed as pending, for its Deployment has it, and
//! each of those ends is listed once beside it.

mod api;
mod deployment;
mod names;
mod pods;
mod scale;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use api::{Cluster, Refusal};
use deployment::{DeploymentScale, Reported};
use forebay_fabric::{
    clock,
    config::{KubernetesConfig, LauncherKind},
};
use forebay_schemas::ModelId;
use futures_util::{
    FutureExt, StreamExt, TryStreamExt,
    future::{self, BoxFuture},
    stream,
};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use pods::{DELETE_FIRST, DELETION_COST, MODEL, Worker};
use serde_json::json;

use super::launcher::{Instance, LaunchError, Launcher, Order};
use crate::decide::Answer;

const KIND: &str = LauncherKind::Kubernetes.as_str();

/// Pods a page, and pages at most: more pods than any pool may have workers.
const PAGE_PODS: u32 = 500;
const PAGES_MAX: usize = 16;

/// Calls of one look that are made at once.
const CALLS_AT_ONCE_MAX: usize = 8;

/// Launches workers as pods.
pub struct KubernetesLauncher {
    cluster: Cluster,
    /// The name of a model's Deployment, with `{model}` for the model's.
    deployment: String,
    /// The Deployments that were found of models whose ids need another name.
    named: Mutex<BTreeMap<ModelId, String>>,
    reported: Mutex<Reported>,
    /// The kubelet's word on each pod, as of the last look.
    answers: Mutex<BTreeMap<String, Answer>>,
    /// Held while a scale is changed: launches come several at a time, and would conflict.
    scaling: tokio::sync::Mutex<()>,
}

impl KubernetesLauncher {
    /// A launcher that connects when it is first asked for something.
    pub fn new(config: &KubernetesConfig) -> Self {
        Self {
            cluster: Cluster::new(config.clone()),
            deployment: config.deployment.clone(),
            named: Mutex::default(),
            reported: Mutex::default(),
            answers: Mutex::default(),
            scaling: tokio::sync::Mutex::default(),
        }
    }

    /// The Deployment of a model: by its own name, or, where there is none, by the name that it had before names were
    /// made distinct, if that one is of this model by its selector.
    async fn deployment(&self, model: &ModelId) -> Result<String, String> {
        let known = || self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known().get(model) {
            return Ok(name.clone());
        }
        let name = names::distinct(&self.deployment, model);
        let former = names::former(&self.deployment, model);
        if former == name {
            return Ok(name);
        }
        let found = match (self.selector(&name).await?, self.selector(&former).await?) {
            (Some(_), _) => name,
            (None, Some(selector)) if names::selects(&selector, model) => former,
            // There is none yet.
            (None, _) => return Ok(name),
        };
        known().insert(model.clone(), found.clone());
        Ok(found)
    }

    /// By which labels a Deployment knows its pods; `None` where there is no such Deployment, or none of ours.
    async fn selector(&self, deployment: &str) -> Result<Option<String>, String> {
        match self.cluster.selector(deployment).await {
            Ok(selector) => Ok(Some(selector)),
            Err(refusal) if matches!(refusal.status, Some(403 | 404)) => Ok(None),
            Err(refusal) => Err(refusal.reason),
        }
    }

    async fn launch_one(&self, model: &ModelId) -> Result<(), String> {
        let deployment = self.deployment(model).await?;
        let _one_at_a_time = self.scaling.lock().await;
        let launched = self.cluster.rescale(&deployment, |replicas| replicas.saturating_add(1));
        launched.await.map_err(reason)
    }

    async fn drain_all(&self, model: &ModelId, names: &[String]) -> Result<(), String> {
        let _one_at_a_time = self.scaling.lock().await;
        let mut scales = self.scales(std::slice::from_ref(model)).await?;
        let Some(scale) = scales.pop() else {
            return Ok(());
        };
        let drains = scale.drains(names);
        if drains.fewer == 0 {
            return Ok(());
        }
        self.set_costs(drains.stale.iter().map(|worker| (*worker, None))).await?;
        let marks = drains.to_mark.iter().map(|worker| (*worker, Some(DELETE_FIRST)));
        let marked = self.set_costs(marks).await;
        let fewer = u32::try_from(drains.fewer).unwrap_or(u32::MAX);
        let scaled = match marked {
            Ok(()) => self
                .cluster
                .rescale(&scale.deployment, |replicas| replicas.saturating_sub(fewer))
                .await
                .map_err(|refusal| (refusal.status.is_some(), refusal.reason)),
            Err(reason) => Err((true, reason)),
        };
        let Err((nothing_changed, reason)) = scaled else {
            return Ok(());
        };
        if nothing_changed {
            let before = drains.to_mark.iter().map(|worker| (*worker, worker.cost.as_deref()));
            if let Err(reason) = self.set_costs(before).await {
                tracing::warn!(%model, reason, "can't take back that pods are to go first");
            }
        }
        Err(reason)
    }

    /// Sets the deletion costs of these pods. A pod that is gone is skipped; one that fails does not keep the others
    /// from theirs.
    async fn set_costs<'a>(
        &self,
        costs: impl Iterator<Item = (&'a Worker, Option<&'a str>)>,
    ) -> Result<(), String> {
        let calls = costs.map(|(worker, cost)| async move {
            let patch = json!({ "metadata": { "annotations": { DELETION_COST: cost } } });
            let params = &PatchParams::default();
            let patch = &Patch::Merge(patch);
            let patched = self
                .cluster
                .call(|apis| async move { apis.pods.patch(&worker.name, params, patch).await });
            unless_gone(patched.await.map(drop))
        });
        let calls: Vec<_> = calls.collect();
        let outcomes: Vec<_> =
            stream::iter(calls).buffer_unordered(CALLS_AT_ONCE_MAX).collect().await;
        outcomes.into_iter().collect()
    }

    async fn end_one(&self, name: &str) -> Result<(), String> {
        if name.contains('#') {
            let reported = || self.reported.lock().unwrap_or_else(PoisonError::into_inner);
            let awaited = reported().model_awaited(name);
            return match awaited {
                Some(model) => self.drain_all(&model, &[name.to_owned()]).await,
                None => Ok(()),
            };
        }
        let params = &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let deleted =
            self.cluster.call(|apis| async move { apis.pods.delete(name, params).await }).await;
        unless_gone(deleted.map(drop))
    }

    fn answers(&self) -> MutexGuard<'_, BTreeMap<String, Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self, models: &[ModelId]) -> Result<Vec<Instance>, String> {
        let scales = self.scales(models).await?;
        *self.answers() = scales
            .iter()
            .flat_map(|scale| &scale.workers)
            .map(|worker| (worker.name.clone(), worker.answer))
            .collect();
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(reported.report(&scales, clock::now_ms()))
    }

    /// The Deployments of these models with their pods.
    async fn scales(&self, models: &[ModelId]) -> Result<Vec<DeploymentScale>, String> {
        if models.is_empty() {
            return Ok(Vec::new());
        }
        let mut by_model = self.workers(models).await?;
        let scales = models.iter().map(|model| {
            let workers = by_model.remove(model.as_str()).unwrap_or_default();
            async move {
                let deployment = self.deployment(model).await?;
                let replicas = match self.cluster.replicas(&deployment).await {
                    Ok(Some(replicas)) => replicas,
                    // A model that was not provided for, and of which nothing is there. Not an error of the look: it
                    // would hold the size of every other model too. A launch says what is wrong.
                    Ok(None) => 0,
                    Err(refusal) if refusal.status == Some(403) && workers.is_empty() => 0,
                    Err(refusal) => return Err(refusal.reason),
                };
                let model = model.clone();
                let replicas = replicas as usize;
                Ok(DeploymentScale { model, deployment, replicas, workers })
            }
        });
        let scales: Vec<_> = scales.collect();
        stream::iter(scales).buffered(CALLS_AT_ONCE_MAX).try_collect().await
    }

    async fn workers(&self, models: &[ModelId]) -> Result<BTreeMap<String, Vec<Worker>>, String> {
        let names: Vec<&str> = models.iter().map(ModelId::as_str).collect();
        let selector = format!("{MODEL} in ({})", names.join(","));
        let mut params = ListParams::default().labels(&selector).limit(PAGE_PODS);
        let mut workers: BTreeMap<String, Vec<Worker>> = BTreeMap::new();
        for _ in 0..PAGES_MAX {
            let page = &params;
            let listed = self.cluster.call(|apis| async move { apis.pods.list(page).await }).await;
            let listed = listed.map_err(reason)?;
            for worker in listed.items.into_iter().filter_map(Worker::read) {
                workers.entry(worker.model.clone()).or_default().push(worker);
            }
            match listed.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params.continue_token = Some(next),
                None => return Ok(workers),
            }
        }
        let most = PAGES_MAX * PAGE_PODS as usize;
        Err(format!(
            "there are more than {most} pods with the label {MODEL}: delete those that ended"
        ))
    }
}

fn reason(refusal: Refusal) -> String {
    refusal.reason
}

fn unless_gone(outcome: Result<(), Refusal>) -> Result<(), String> {
    match outcome {
        Err(Refusal { status: Some(404), .. }) | Ok(()) => Ok(()),
        Err(refusal) => Err(refusal.reason),
    }
}

fn failed(action: String) -> impl FnOnce(String) -> LaunchError {
    |reason| LaunchError { launcher: KIND, action, reason }
}

impl Launcher for KubernetesLauncher {
    fn kind(&self) -> &'static str {
        KIND
    }

    /// One more pod. Its name is not the order's: a Deployment chooses it.
    fn launch<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<(), LaunchError>> {
        let action = format!("launch one more worker of {}", order.model);
        async { self.launch_one(&order.model).await.map_err(failed(action)) }.boxed()
    }

    fn drain<'a>(
        &'a self,
        model: &'a ModelId,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<(), LaunchError>> {
        if names.is_empty() {
            return future::ready(Ok(())).boxed();
        }
        let action = format!("drain {}", names.join(", "));
        async move { self.drain_all(model, names).await.map_err(failed(action)) }.boxed()
    }

    /// Deletes the pod at once. Its Deployment replaces it unless it was drained before: the count is the scale's.
    fn end<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), LaunchError>> {
        async move { self.end_one(name).await.map_err(failed(format!("end {name}"))) }.boxed()
    }

    /// The kubelet asks `/healthz` all the while, and starts a container again that does not answer: its word is taken.
    fn ask<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Answer> {
        let answer = self.answers().get(name).copied().unwrap_or(Answer::Unreachable);
        future::ready(answer).boxed()
    }

    /// The workers of these models and of no others: a Deployment that no configuration gives to this launcher is not
    /// its own.
    fn list<'a>(
        &'a self,
        models: &'a [ModelId],
    ) -> BoxFuture<'a, Result<Vec<Instance>, LaunchError>> {
        async { self.look(models).await.map_err(failed("list its workers".into())) }.boxed()
    }
}
