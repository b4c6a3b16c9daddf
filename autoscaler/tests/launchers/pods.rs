//! Pods as the API server of a cluster reports them.

use serde_json::{Value, json};

pub const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Deployments and their models. The second has the name that it was given before names were distinct.
pub const MODELS: [(&str, &str); 4] = [
    ("forebay-worker-all-minilm-l6-v2", "all-minilm-l6-v2"),
    ("forebay-worker-bge-small-en", "bge.small_en"),
    ("forebay-worker-bge-small-en-704322ae", "bge.small_en"),
    ("forebay-worker-bge-small-en-4ec112b2", "bge_small.en"),
];

/// One that was just made, and has a node.
pub fn pending(deployment: &str, number: u64) -> Value {
    let model = MODELS.iter().find(|(of, _)| *of == deployment).unwrap().1;
    let name = format!("{deployment}-7d9c5b8f6-{number:05}");
    json!({
        "metadata": {
            "name": name,
            "generateName": format!("{deployment}-7d9c5b8f6-"),
            "namespace": "forebay",
            "uid": format!("5f1c0a9b-0000-4000-8000-{number:012}"),
            "resourceVersion": number.to_string(),
            "creationTimestamp": "2026-11-25T08:00:00Z",
            "labels": {
                "app.kubernetes.io/name": "forebay-worker", "forebay.model": model,
                "pod-template-hash": "7d9c5b8f6",
            },
            "annotations": {},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{deployment}-7d9c5b8f6"),
                "uid": "0b6f", "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": { "nodeName": "node-1", "containers": [{ "name": "worker", "image": "forebay:local" }] },
        "status": {
            "phase": "Pending",
            "conditions": [{ "type": "PodScheduled", "status": "True" }],
            "containerStatuses": [
                container(&json!({ "waiting": { "reason": "ContainerCreating" } }), &json!({}), 0),
            ],
            "qosClass": "Burstable",
        },
    })
}

fn container(state: &Value, last_state: &Value, restarts: u64) -> Value {
    json!({
        "name": "worker", "image": "forebay:local", "imageID": "", "ready": !state["running"].is_null(),
        "restartCount": restarts, "started": !state["running"].is_null(), "state": state, "lastState": last_state,
    })
}

fn runs() -> Value {
    json!({ "running": { "startedAt": "2026-11-25T08:00:10Z" } })
}

/// How a container ended, as its status says.
pub fn terminated(life: u64, code: i64, reason: &str) -> Value {
    json!({ "terminated": {
        "containerID": format!("containerd://{life:08}e3b0c44298fc1c149afbf4c8996fb924"),
        "exitCode": code, "reason": reason,
        "startedAt": "2026-11-25T08:00:10Z", "finishedAt": "2026-11-25T08:00:30Z",
    } })
}

/// Has a container waiting for a reason after it ended, as one that fails over and over does.
pub fn back_off(pod: &mut Value, life: u64, code: i64) {
    let waits = json!({ "waiting": {
        "reason": "CrashLoopBackOff",
        "message": "back-off 10s restarting failed container=worker pod=...",
    } });
    pod["status"]["phase"] = json!("Running");
    pod["status"]["containerStatuses"] =
        json!([container(&waits, &terminated(life, code, "Error"), life)]);
}

/// Has a container run again after it ended.
pub fn run_again(pod: &mut Value, life: u64, end: &Value) {
    pod["status"]["phase"] = json!("Running");
    pod["status"]["containerStatuses"] = json!([container(&runs(), end, life)]);
}

/// Has the image missing.
pub fn no_image(pod: &mut Value) {
    let waits = json!({ "waiting": {
        "reason": "ImagePullBackOff", "message": "Back-off pulling image \"forebay:gone\"",
    } });
    pod["status"]["containerStatuses"] = json!([container(&waits, &json!({}), 0)]);
}

/// Has the node out of memory: the pod stays, failed.
pub fn evict(pod: &mut Value) {
    pod["status"] = json!({
        "phase": "Failed", "reason": "Evicted",
        "message": "The node was low on resource: memory.",
    });
}

/// One step of the kubelet: a pod that can start runs. One that waits because it failed is left waiting.
pub fn advance(pod: &mut Value) {
    let state = &pod["status"]["containerStatuses"][0]["state"];
    if pod["status"]["phase"] == "Pending" && state["waiting"]["reason"] == "ContainerCreating" {
        pod["status"]["phase"] = json!("Running");
        pod["status"]["containerStatuses"] = json!([container(&runs(), &json!({}), 0)]);
    }
}

pub fn deployment(pod: &Value) -> String {
    let owner = pod["metadata"]["ownerReferences"][0]["name"].as_str().unwrap();
    owner.rsplit_once('-').unwrap().0.to_owned()
}

pub fn is_active(pod: &Value) -> bool {
    let phase = &pod["status"]["phase"];
    pod["metadata"]["deletionTimestamp"].is_null() && phase != "Failed" && phase != "Succeeded"
}

/// The order in which a `ReplicaSet` takes pods away: those that don't run, those that aren't ready, the cheapest, the
/// youngest.
pub fn rank(pod: &Value) -> (bool, bool, i64, std::cmp::Reverse<String>) {
    let cost =
        pod["metadata"]["annotations"][COST].as_str().map_or(0, |cost| cost.parse().unwrap());
    let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    (pod["status"]["phase"] == "Running", ready, cost, std::cmp::Reverse(name))
}
