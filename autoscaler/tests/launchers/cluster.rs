//! A Kubernetes API server in this process, with the controllers behind it: real HTTP, and answers of the shapes that a
//! real one gives. Each look at the pods moves the cluster on by one step.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use forebay_fabric::config::KubernetesConfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};

use crate::pods::{self, COST};

/// The failure of one call.
pub enum Fault {
    /// It is answered with this status, reason and message.
    Answer(u16, &'static str, &'static str),
    /// It is not answered at all.
    Silence,
    /// Another writer changes the Deployment first.
    Overtaken,
}

/// The contents of the cluster.
pub struct Cluster {
    pub token: String,
    /// How many pods each Deployment is to have, and its version.
    pub deployments: BTreeMap<String, (i64, u64)>,
    pub pods: Vec<Value>,
    /// The failure of the next call whose `METHOD path` contains the text.
    pub faults: Vec<(&'static str, Fault)>,
    /// Each kind of call that was made: verb, resource and, of a Deployment, its name.
    pub calls: BTreeSet<(String, String, Option<String>)>,
    /// Changes that came too late.
    pub conflicts: u32,
    /// Controllers that are slow do nothing when the pods are looked at.
    pub controllers_stand: bool,
    version: u64,
}

/// The server, until it is dropped.
pub struct Server {
    cluster: Arc<Mutex<Cluster>>,
    /// Notified when a call is met with silence.
    pub silent: Arc<Notify>,
    pub port: u16,
    task: JoinHandle<()>,
    folder: TempDir,
}

type Shared = (Arc<Mutex<Cluster>>, Arc<Notify>);

impl Server {
    /// With these Deployments, of no pods.
    pub async fn start(deployments: &[&str]) -> Self {
        let deployments = deployments.iter().map(|name| ((*name).to_owned(), (0, 1))).collect();
        let cluster = Cluster {
            token: "first-token".into(),
            deployments,
            pods: Vec::new(),
            faults: Vec::new(),
            calls: BTreeSet::new(),
            conflicts: 0,
            controllers_stand: false,
            version: 1,
        };
        let cluster = Arc::new(Mutex::new(cluster));
        let silent = Arc::new(Notify::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared: Shared = (Arc::clone(&cluster), Arc::clone(&silent));
        let app = Router::new().fallback(answer).with_state(shared);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let server = Self { cluster, silent, port, task, folder: tempfile::tempdir().unwrap() };
        server.write_token("first-token");
        server.write_kubeconfig(&json!({ "server": format!("http://127.0.0.1:{port}") }));
        server
    }

    pub fn config(&self) -> KubernetesConfig {
        let kubeconfig = Some(self.folder.path().join("config"));
        KubernetesConfig { kubeconfig, ..KubernetesConfig::default() }
    }

    /// Says where the launcher finds the API server.
    pub fn write_kubeconfig(&self, cluster: &Value) {
        let token = self.folder.path().join("token");
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "c", "cluster": cluster }],
            "users": [{ "name": "u", "user": { "tokenFile": token } }],
            "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u", "namespace": "forebay" } }],
            "current-context": "x",
        });
        fs::write(self.folder.path().join("config"), kubeconfig.to_string()).unwrap();
    }

    /// Puts a token where the launcher reads it.
    pub fn write_token(&self, token: &str) {
        fs::write(self.folder.path().join("token"), token).unwrap();
    }

    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn fail(&self, call: &'static str, fault: Fault) {
        self.cluster().faults.push((call, fault));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State((cluster, silent)): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answered = {
        let mut cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
        let bearer = format!("Bearer {}", cluster.token);
        if headers.get(header::AUTHORIZATION).is_none_or(|sent| *sent != *bearer) {
            Some(failure(401, "Unauthorized", "Unauthorized"))
        } else {
            cluster.answer(&method, &uri, &body)
        }
    };
    let Some((status, body)) = answered else {
        silent.notify_one();
        return std::future::pending().await;
    };
    let json = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::from_u16(status).unwrap(), json, body.to_string()).into_response()
}

fn failure(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    (code, body)
}

impl Cluster {
    /// `None` is silence.
    fn answer(&mut self, method: &Method, uri: &Uri, body: &[u8]) -> Option<(u16, Value)> {
        let call = format!("{method} {}", uri.path());
        let fault = self.faults.iter().position(|(text, _)| call.contains(text));
        match fault.map(|at| self.faults.remove(at).1) {
            Some(Fault::Answer(code, reason, message)) => {
                return Some(failure(code, reason, message));
            }
            Some(Fault::Silence) => return None,
            Some(Fault::Overtaken) => self.touch_all(),
            None => {}
        }
        let parts: Vec<&str> = uri.path().trim_start_matches('/').split('/').collect();
        let sent = || serde_json::from_slice::<Value>(body).unwrap();
        Some(match (method.as_str(), &parts[..]) {
            (
                "GET",
                ["apis", "apps", "v1", "namespaces", "forebay", "deployments", name, "scale"],
            ) => {
                self.record("get", "deployments/scale", Some(name));
                self.scale(name)
            }
            (
                "PATCH",
                ["apis", "apps", "v1", "namespaces", "forebay", "deployments", name, "scale"],
            ) => {
                self.record("patch", "deployments/scale", Some(name));
                self.patch_scale(name, &sent())
            }
            ("GET", ["api", "v1", "namespaces", "forebay", "pods"]) => {
                self.record("list", "pods", None);
                let query = uri.query().unwrap_or_default();
                if !query.contains("continue=") {
                    self.step();
                }
                self.list(query)
            }
            ("PATCH", ["api", "v1", "namespaces", "forebay", "pods", name]) => {
                self.record("patch", "pods", None);
                self.patch_pod(name, &sent())
            }
            ("DELETE", ["api", "v1", "namespaces", "forebay", "pods", name]) => {
                self.record("delete", "pods", None);
                self.delete_pod(name, &sent())
            }
            _ => failure(403, "Forbidden", &format!("{call} is forbidden")),
        })
    }

    fn record(&mut self, verb: &str, resource: &str, name: Option<&str>) {
        self.calls.insert((verb.into(), resource.into(), name.map(str::to_owned)));
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn touch_all(&mut self) {
        let version = self.next_version();
        for deployment in self.deployments.values_mut() {
            deployment.1 = version;
        }
    }

    fn scale(&self, name: &str) -> (u16, Value) {
        let Some((replicas, version)) = self.deployments.get(name) else {
            return failure(404, "NotFound", &format!("deployments.apps \"{name}\" not found"));
        };
        let of = pods::MODELS.iter().find(|(of, _)| *of == name);
        let model = of.map_or("none", |(_, model)| model);
        let selector = format!("app.kubernetes.io/name=forebay-worker,forebay.model={model}");
        let body = json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {
                "name": name, "namespace": "forebay", "uid": format!("uid-of-{name}"),
                "resourceVersion": version.to_string(), "creationTimestamp": "2026-11-20T08:00:00Z",
            },
            "spec": { "replicas": replicas },
            "status": { "replicas": self.active(name).len(), "selector": selector },
        });
        (200, body)
    }

    fn patch_scale(&mut self, name: &str, patch: &Value) -> (u16, Value) {
        let Some((_, version)) = self.deployments.get(name).copied() else {
            return self.scale(name);
        };
        if patch["metadata"]["resourceVersion"].as_str() != Some(&version.to_string()) {
            self.conflicts += 1;
            let message = format!(
                "Operation cannot be fulfilled on deployments.apps \"{name}\": the object has been modified; please \
                 apply your changes to the latest version and try again"
            );
            return failure(409, "Conflict", &message);
        }
        let replicas = patch["spec"]["replicas"].as_i64().unwrap();
        assert!(replicas >= 0, "the real server refuses {replicas}");
        let version = self.next_version();
        self.deployments.insert(name.to_owned(), (replicas, version));
        self.scale(name)
    }

    fn list(&self, query: &str) -> (u16, Value) {
        let selector = query.split('&').find_map(|pair| pair.strip_prefix("labelSelector="));
        let selector = selector.unwrap().replace("%28", "(").replace("%29", ")").replace('+', " ");
        let selector = selector.replace("%2C", ",").replace("%20", " ");
        let models =
            selector.strip_prefix("forebay.model in (").unwrap().strip_suffix(')').unwrap();
        let models: Vec<&str> = models.split(',').collect();
        let of_model = |pod: &&Value| {
            models.contains(&pod["metadata"]["labels"]["forebay.model"].as_str().unwrap())
        };
        let found: Vec<&Value> = self.pods.iter().filter(of_model).collect();
        // Two a page, so that the launcher has to turn pages.
        let from = query.split('&').find_map(|pair| pair.strip_prefix("continue="));
        let from = from.map_or(0, |from| from.parse::<usize>().unwrap());
        let page: Vec<&&Value> = found.iter().skip(from).take(2).collect();
        let more = found.len() > from + 2;
        let next = if more { (from + 2).to_string() } else { String::new() };
        let body = json!({
            "kind": "PodList", "apiVersion": "v1",
            "metadata": { "resourceVersion": self.version.to_string(), "continue": next },
            "items": page,
        });
        (200, body)
    }

    fn pod(&mut self, name: &str) -> Option<usize> {
        self.pods.iter().position(|pod| pod["metadata"]["name"] == name)
    }

    fn patch_pod(&mut self, name: &str, patch: &Value) -> (u16, Value) {
        let Some(at) = self.pod(name) else {
            return failure(404, "NotFound", &format!("pods \"{name}\" not found"));
        };
        let cost = &patch["metadata"]["annotations"][COST];
        let annotations = self.pods[at]["metadata"]["annotations"].as_object_mut().unwrap();
        match cost {
            Value::Null => annotations.remove(COST),
            cost => annotations.insert(COST.into(), cost.clone()),
        };
        (200, self.pods[at].clone())
    }

    fn delete_pod(&mut self, name: &str, options: &Value) -> (u16, Value) {
        let Some(at) = self.pod(name) else {
            return failure(404, "NotFound", &format!("pods \"{name}\" not found"));
        };
        assert_eq!(options["gracePeriodSeconds"], 0);
        (200, self.pods.remove(at))
    }

    /// The pods that a Deployment counts.
    fn active(&self, deployment: &str) -> Vec<usize> {
        let counts = |pod: &Value| pods::deployment(pod) == deployment && pods::is_active(pod);
        (0..self.pods.len()).filter(|&at| counts(&self.pods[at])).collect()
    }

    /// One step of the kubelet and the controllers.
    pub fn step(&mut self) {
        if self.controllers_stand {
            return;
        }
        self.pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        self.pods.iter_mut().for_each(pods::advance);
        for (deployment, (replicas, _)) in self.deployments.clone() {
            let mut active = self.active(&deployment);
            active.sort_by_key(|&at| pods::rank(&self.pods[at]));
            for _ in active.len()..usize::try_from(replicas).unwrap() {
                let number = self.next_version();
                self.pods.push(pods::pending(&deployment, number));
            }
            let surplus = active.len().saturating_sub(usize::try_from(replicas).unwrap());
            for &at in &active[..surplus] {
                self.pods[at]["metadata"]["deletionTimestamp"] = json!("2026-11-25T08:01:00Z");
            }
        }
    }
}
