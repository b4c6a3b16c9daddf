//! A worker's pod, read from the API's answer.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};

use crate::decide::Answer;

/// The label that says which model a pod runs.
pub(super) const MODEL: &str = "forebay.model";
/// The label, if there is one, that names the device on which it computes.
const DEVICE: &str = "forebay.device";
/// Pods with a lower one go first when their Deployment has too many.
pub(super) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The deletion cost of a pod that is to go first.
pub(super) const DELETE_FIRST: &str = "-1000";

/// How much of a pod's message about its end is reported.
const WORDS_CHARS_MAX: usize = 200;

/// Why a container can't even begin. The kubelet tries again by itself.
const NO_START: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// A worker's pod.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub name: String,
    pub uid: String,
    pub model: String,
    pub device: Option<String>,
    pub created_at_ms: u64,
    pub stage: Stage,
    /// Its kubelet's word on the worker in it.
    pub answer: Answer,
    /// Its deletion cost, if it has one.
    pub cost: Option<String>,
    /// Ends that are behind it: a pod outlives its containers.
    pub ends: Vec<End>,
}

/// The stage of a pod's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Pending,
    Running,
    /// Is being deleted.
    Terminating,
    /// Ended for good: nothing in it is started again.
    Ended,
}

/// How a container of a pod ended, or why it could not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// The pod's name; of an end that the pod outlived, `<pod>#<distinguishing text>`.
    pub name: String,
    pub how: String,
    pub well: bool,
}

impl Worker {
    /// `None` for a pod without a model.
    pub fn read(pod: Pod) -> Option<Self> {
        let mut labels = pod.metadata.labels.unwrap_or_default();
        let name = pod.metadata.name?;
        let status = pod.status.unwrap_or_default();
        let stage = match status.phase.as_deref() {
            Some("Failed" | "Succeeded") => Stage::Ended,
            _ if pod.metadata.deletion_timestamp.is_some() => Stage::Terminating,
            // A node that can't be reached leaves its pods `Unknown`: they may run.
            Some("Running" | "Unknown") if !waits_to_run_again(&status) => Stage::Running,
            _ => Stage::Pending,
        };
        let created = pod.metadata.creation_timestamp.map(|at| at.0.as_millisecond());
        let cost = pod.metadata.annotations.unwrap_or_default().remove(DELETION_COST);
        let is_asked = pod.spec.is_some_and(|spec| {
            spec.containers.iter().any(|container| container.liveness_probe.is_some())
        });
        Some(Self {
            answer: if is_asked { answer(stage, &status) } else { Answer::Unreachable },
            ends: ends(&name, stage, &status),
            uid: pod.metadata.uid.unwrap_or_default(),
            model: labels.remove(MODEL)?,
            device: labels.remove(DEVICE),
            created_at_ms: created.unwrap_or_default().max(0).unsigned_abs(),
            stage,
            cost,
            name,
        })
    }

    /// Whether it is one of those that its Deployment counts.
    pub fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Pending | Stage::Running)
    }

    /// Whether it is marked to go first.
    pub fn is_marked(&self) -> bool {
        self.cost.as_deref() == Some(DELETE_FIRST)
    }
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.container_statuses.iter().flatten()
}

/// The kubelet's word on a worker that it asks. A node that is lost leaves its pods' conditions unknown.
fn answer(stage: Stage, status: &PodStatus) -> Answer {
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    match (stage, ready.map(|ready| ready.status.as_str())) {
        (Stage::Running, Some("True")) => Answer::Ready,
        (Stage::Running, Some("False")) => Answer::Waits,
        _ => Answer::Unreachable,
    }
}

/// Whether its container ended and is started again after a while: `CrashLoopBackOff`.
fn waits_to_run_again(status: &PodStatus) -> bool {
    let waits = |one: &ContainerStatus| one.state.as_ref().is_some_and(|now| now.running.is_none());
    containers(status).any(waits)
}

fn ends(pod: &str, stage: Stage, status: &PodStatus) -> Vec<End> {
    if stage == Stage::Ended {
        return vec![end_of_pod(pod, status)];
    }
    let mut ends = Vec::new();
    for container in containers(status).chain(status.init_container_statuses.iter().flatten()) {
        let now = container.state.as_ref();
        let init = !containers(status).any(|other| other.name == container.name);
        let terminated = [now, container.last_state.as_ref()].into_iter().flatten();
        for end in terminated.filter_map(|state| state.terminated.as_ref()) {
            // An init container ends before the worker begins.
            if !(init && end.exit_code == 0) {
                let name = format!("{pod}#{}", which(end));
                ends.push(End { name, how: how(end), well: end.exit_code == 0 });
            }
        }
        let waits = now.and_then(|state| state.waiting.as_ref());
        let reason = waits.and_then(|waits| waits.reason.as_deref());
        if let Some(reason) = reason.filter(|reason| NO_START.contains(reason)) {
            let message = waits.and_then(|waits| waits.message.as_deref());
            let how = with_words(reason, message);
            ends.push(End { name: format!("{pod}#{reason}"), how, well: false });
        }
    }
    ends
}

fn end_of_pod(pod: &str, status: &PodStatus) -> End {
    let well = status.phase.as_deref() == Some("Succeeded");
    let terminated = || containers(status).find_map(|one| one.state.as_ref()?.terminated.as_ref());
    // A pod says itself why it was evicted; its containers say why they failed.
    let how = match (&status.reason, terminated()) {
        (Some(reason), _) => with_words(reason, status.message.as_deref()),
        (None, Some(end)) => how(end),
        (None, None) => status.phase.clone().unwrap_or_default(),
    };
    End { name: pod.to_owned(), how, well }
}

/// Distinguishes this end of a container from others: the first digits of the container's id.
fn which(end: &ContainerStateTerminated) -> String {
    let id = end.container_id.as_deref().unwrap_or_default();
    let id = id.rsplit("//").next().unwrap_or_default();
    match &end.finished_at {
        _ if !id.is_empty() => id.chars().take(8).collect(),
        Some(at) => at.0.as_second().to_string(),
        None => "ended".into(),
    }
}

fn how(end: &ContainerStateTerminated) -> String {
    let signal = end.signal.filter(|signal| *signal > 0);
    let signal = signal.or((129..=159).contains(&end.exit_code).then_some(end.exit_code - 128));
    let how = match (end.reason.as_deref(), signal) {
        (Some("OOMKilled"), _) => "OOMKilled".into(),
        (_, Some(signal)) => format!("killed by signal {signal}"),
        _ => format!("exit code {}", end.exit_code),
    };
    with_words(&how, end.message.as_deref())
}

fn with_words(how: &str, words: Option<&str>) -> String {
    let words: String = words.unwrap_or_default().trim().chars().take(WORDS_CHARS_MAX).collect();
    if words.is_empty() { how.to_owned() } else { format!("{how}: {words}") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn asked(probe: &Value, ready: &str) -> Answer {
        let pod = json!({
            "metadata": { "name": "p", "labels": { "forebay.model": "m" } },
            "spec": { "containers": [{ "name": "worker", "livenessProbe": probe }] },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] },
        });
        Worker::read(serde_json::from_value(pod).unwrap()).unwrap().answer
    }

    #[test]
    fn the_kubelet_answers_for_a_worker_that_it_asks_and_whose_node_is_there() {
        let probe = json!({ "httpGet": { "path": "/healthz", "port": "telemetry" } });
        assert_eq!(asked(&probe, "True"), Answer::Ready);
        assert_eq!(asked(&probe, "False"), Answer::Waits);
        assert_eq!(asked(&probe, "Unknown"), Answer::Unreachable);
        assert_eq!(asked(&Value::Null, "True"), Answer::Unreachable);
    }
}
