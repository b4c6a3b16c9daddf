//! The Kubernetes API: connecting, a time-out on every call, and errors that say what to do.

use std::{
    error::Error as StdError,
    fmt::Write as _,
    future::Future,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use forebay_fabric::config::KubernetesConfig;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, Config, Error,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::time::timeout;

/// The longest that one call may take.
const CALL_S_MAX: u64 = 10;

/// Why the API server did not do what it was asked.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The HTTP status, where it answered: then it is certain that nothing was changed.
    pub status: Option<u16>,
    /// The cause and what to do.
    pub reason: String,
}

/// The parts of the API that are used.
#[derive(Clone)]
pub(super) struct Apis {
    pub deployments: Api<Deployment>,
    pub pods: Api<Pod>,
}

/// A connection that is made when it is first needed.
pub(super) struct Cluster {
    config: KubernetesConfig,
    apis: Mutex<Option<Apis>>,
}

impl Cluster {
    pub fn new(config: KubernetesConfig) -> Self {
        Self { config, apis: Mutex::default() }
    }

    /// Makes a call. A token that is not accepted is read again and tried once more: it may have been replaced.
    pub async fn call<T, C: Future<Output = Result<T, Error>>>(
        &self,
        call: impl Fn(Apis) -> C,
    ) -> Result<T, Refusal> {
        let outcome = within(call(self.connect().await?)).await;
        if !matches!(outcome, Err(Refusal { status: Some(401), .. })) {
            return outcome;
        }
        *self.apis.lock().unwrap_or_else(PoisonError::into_inner) = None;
        within(call(self.connect().await?)).await
    }

    async fn connect(&self) -> Result<Apis, Refusal> {
        if let Some(apis) = &*self.apis.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(apis.clone());
        }
        let late = || format!("getting the credentials took longer than {CALL_S_MAX} s");
        // A kubeconfig may name a program to get a token from.
        let made = timeout(Duration::from_secs(CALL_S_MAX), self.make()).await;
        let made = made.unwrap_or_else(|_| Err(late()));
        let apis = made.map_err(|reason| Refusal { status: None, reason })?;
        *self.apis.lock().unwrap_or_else(PoisonError::into_inner) = Some(apis.clone());
        Ok(apis)
    }

    async fn make(&self) -> Result<Apis, String> {
        let mut config = load(&self.config).await?;
        // A repeated patch may be one too many; the caller knows what may be repeated.
        config.default_retry = false;
        // Taken from the environment; only talk to the outside goes by it.
        config.proxy_url = None;
        let call_max = Some(Duration::from_secs(CALL_S_MAX));
        config.connect_timeout = call_max;
        config.read_timeout = call_max;
        config.write_timeout = call_max;
        config.reset_reader_on_write = true;
        let namespace = self.config.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| chain(&error))?;
        Ok(Apis {
            deployments: Api::namespaced(client.clone(), &namespace),
            pods: Api::namespaced(client, &namespace),
        })
    }
}

async fn load(config: &KubernetesConfig) -> Result<Config, String> {
    let options = KubeConfigOptions::default();
    if let Some(path) = &config.kubeconfig {
        let in_file = |error: &dyn StdError| {
            format!("`autoscaler.kubernetes.kubeconfig` {}: {}", path.display(), chain(error))
        };
        let kubeconfig = Kubeconfig::read_from(path).map_err(|error| in_file(&error))?;
        let loaded = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        return loaded.map_err(|error| in_file(&error));
    }
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Config::incluster().map_err(|error| {
            format!(
                "the pod's service account can't be used: {} (see `automountServiceAccountToken`)",
                chain(&error)
            )
        });
    }
    Config::from_kubeconfig(&options).await.map_err(|error| {
        format!(
            "there is no cluster to speak to: {}. Run it in a pod with a service account, or name a kubeconfig in \
             `autoscaler.kubernetes.kubeconfig` or KUBECONFIG",
            chain(&error)
        )
    })
}

/// Awaits a call, at most for as long as one may take.
async fn within<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Refusal> {
    match timeout(Duration::from_secs(CALL_S_MAX), call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Error::Api(status))) => Err(Refusal {
            status: Some(status.code),
            reason: with_remedy(status.code, &status.message),
        }),
        Ok(Err(error)) => {
            let reason = format!("the API server can't be reached: {}", chain(&error));
            Err(Refusal { status: None, reason })
        }
        Err(_) => {
            let reason = format!("the API server did not answer within {CALL_S_MAX} s");
            Err(Refusal { status: None, reason })
        }
    }
}

/// The server's own words, and what to do where they leave that open.
fn with_remedy(status: u16, message: &str) -> String {
    let remedy = match status {
        401 => {
            "the API server does not accept this account's token; see the pod's service account or the kubeconfig"
        }
        403 => {
            "give the account the rights of deploy/kubernetes/rbac.yaml, for each model's Deployment"
        }
        404 if message.contains("deployments") => {
            "make a Deployment for the model (deploy/kubernetes/worker.yaml is one), or say in \
             `autoscaler.kubernetes.deployment` what it is called"
        }
        _ => return format!("the API server answered {status}: {message}"),
    };
    format!("{message}: {remedy}")
}

/// An error with its causes: what was wrong often stands in the last one.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            // Writing to a string does not fail.
            let _ = write!(text, ": {words}");
        }
        cause = error.source();
    }
    text
}
