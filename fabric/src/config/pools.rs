//! The pools of workers that the autoscaler runs, and their launchers.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use super::{error::ConfigError, folders::user_folder};

/// The pool of a model's workers: its size, and the devices that it runs on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// The fewest workers: 0 is serverless, 1 or more is dedicated.
    pub min: u32,
    /// The most workers; equal to `min` the size is fixed.
    pub max: u32,
    /// The target wait, in seconds: how long working off the waiting jobs may take.
    #[serde(alias = "wait_s")]
    pub target_wait_s: f64,
    /// How long a worker without work is kept, in seconds. Unset, as long as its cold start is worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_s: Option<f64>,
    /// A model without workers gets one when more jobs wait than this.
    pub activation_jobs: u64,
    /// The launcher of the workers.
    pub launcher: LauncherKind,
    /// The kind of device that a worker computes on.
    pub device: DeviceKind,
    /// Models with a higher priority get devices first when there are too few.
    pub priority: i32,
    /// Jobs that one worker does in a second, until it is measured.
    pub jobs_per_s_prior: f64,
    /// Seconds from launch to ready, until they are measured.
    pub cold_start_s_prior: f64,
}

/// A launcher of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LauncherKind {
    /// No launcher: the workers of this model are run by other means.
    None,
    /// Processes beside the autoscaler.
    Process,
    /// Containers, by the Docker Engine API.
    Docker,
    /// Pods, by the scale of a Deployment.
    Kubernetes,
}

impl LauncherKind {
    /// The name in the configuration, in reports and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Process => "process",
            Self::Docker => "docker",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// The kind of device that a worker computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
    /// None of this fleet's: the workers of a remote model call its endpoint. Not to be configured: such a model has
    /// it.
    Remote,
}

/// The autoscaler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoscalerConfig {
    /// How often queues and workers are observed, in milliseconds.
    pub tick_ms: u64,
    /// The lease of the leader election: how long a leader stays leader without renewing it, in milliseconds.
    pub lease_ms: u64,
    /// How long a worker may hold jobs without progress before it is replaced, in seconds.
    pub stuck_s: u64,
    /// How long a worker may take to become ready, in seconds.
    pub start_s_max: u64,
    /// The grace period of a drained worker, in seconds: it is ended if it takes longer.
    #[serde(alias = "drain_s_max")]
    pub grace_s: u64,
    /// The GPUs of this host that processes and containers may use, by number. Unset, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Vec<u32>>,
    /// The most workers on one GPU.
    pub workers_per_gpu: u32,
    /// Processes.
    pub process: ProcessConfig,
    /// Containers.
    pub docker: DockerConfig,
    /// Pods.
    pub kubernetes: KubernetesConfig,
}

/// Workers as processes beside the autoscaler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessConfig {
    /// The worker's program; unset, `forebay-worker` beside the autoscaler's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// The folder of the workers' logs and process ids; the user's state folder unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// The most workers that share the processor; 0 is one for every two cores.
    pub cpu_slots: u32,
    /// Whether workers stay when the autoscaler stops. They are drained otherwise.
    pub leave_on_stop: bool,
    /// The longest log of one worker, in bytes. A longer one is rotated; one rotated log is kept.
    pub log_bytes_max: u64,
}

/// Workers as containers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DockerConfig {
    /// The Docker Engine's socket.
    pub socket: PathBuf,
    /// The image, with the worker's program in its PATH.
    pub image: String,
    /// The network that workers join; unset, the engine's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Mounts: `volume-or-folder:/path[:ro]`.
    pub volumes: Vec<String>,
    /// More environment of each worker. The autoscaler's own settings that a worker reads are handed on in any case.
    pub environment: Environment,
    /// Distinguishes the containers of this fleet from those of another on the same engine.
    pub fleet: String,
    /// The most containers of all models together.
    pub workers_max: u32,
    /// The most memory of one container, in bytes; 0 is no limit.
    pub memory_bytes_max: u64,
    /// The processor time of one container, in cores; 0 is no limit. Its worker computes on as many threads.
    pub cpus: f64,
    /// The most processes and threads in one container; 0 is no limit.
    pub pids_max: u64,
}

/// Variables and their values, which are never printed: they may be passwords.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Environment(pub BTreeMap<String, String>);

impl Environment {
    fn hidden(&self) -> BTreeMap<&str, &str> {
        self.0.keys().map(|name| (name.as_str(), "***")).collect()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hidden().fmt(f)
    }
}

impl Serialize for Environment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.hidden().serialize(to)
    }
}

/// Workers as pods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesConfig {
    /// The namespace; unset, that of the pod or of the kubeconfig.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The Deployment of a model, with `{model}` for its id. Where that has dots or underscores, these become dashes,
    /// and a hash of the id is added.
    pub deployment: String,
    /// A kubeconfig; unset, the pod's service account, else `KUBECONFIG` or `~/.kube/config`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            min: 0,
            max: 1,
            target_wait_s: 10.0,
            idle_s: None,
            activation_jobs: 0,
            launcher: LauncherKind::Process,
            device: DeviceKind::Cpu,
            priority: 0,
            // Two processor cores do some 300 jobs of one short text. A prior that is too low launches one worker too
            // many once; one that is too high makes the first burst wait.
            jobs_per_s_prior: 100.0,
            cold_start_s_prior: 2.0,
        }
    }
}

impl Default for AutoscalerConfig {
    fn default() -> Self {
        Self {
            tick_ms: 500,
            lease_ms: 5_000,
            // Twice the longest that one batch may compute.
            stuck_s: 600,
            start_s_max: 600,
            grace_s: 120,
            gpus: None,
            workers_per_gpu: 1,
            process: ProcessConfig::default(),
            docker: DockerConfig::default(),
            kubernetes: KubernetesConfig::default(),
        }
    }
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            program: None,
            state_dir: None,
            cpu_slots: 0,
            leave_on_stop: false,
            log_bytes_max: 10_000_000,
        }
    }
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self {
            socket: "/var/run/docker.sock".into(),
            image: "forebay:local".into(),
            network: None,
            volumes: Vec::new(),
            environment: Environment::default(),
            fleet: "forebay".into(),
            workers_max: 8,
            // Enough for the larger encoders in f32 with a batch.
            memory_bytes_max: 4 << 30,
            // As the process launcher: a worker for every two cores.
            cpus: 2.0,
            pids_max: 512,
        }
    }
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self { namespace: None, deployment: "forebay-worker-{model}".into(), kubeconfig: None }
    }
}

impl ProcessConfig {
    /// The folder of the workers' logs and process ids: `state_dir`, else the user's state folder. There is no other:
    /// in a folder that others may write to, any of them could name processes to be ended.
    pub fn state_dir(&self) -> Result<PathBuf, ConfigError> {
        if let Some(folder) = &self.state_dir {
            return Ok(folder.clone());
        }
        user_folder("XDG_STATE_HOME", ".local/state", |name| std::env::var_os(name))
            .map(|state| state.join("forebay").join("workers"))
            .ok_or(ConfigError::NoFolder {
                key: "autoscaler.process.state_dir",
                variable: "XDG_STATE_HOME",
            })
    }
}

impl PoolConfig {
    /// Checks what the types don't say. The error names the key, which begins with `table`.
    pub(super) fn check(&self, table: &str) -> Result<(), String> {
        if self.min > self.max {
            return Err(format!(
                "`{table}.min` is {} and `{table}.max` is {}: raise the maximum or lower the minimum",
                self.min, self.max
            ));
        }
        if self.launcher == LauncherKind::Kubernetes && self.priority != 0 {
            return Err(format!(
                "`{table}.priority` is {} and has no effect with the launcher `kubernetes`, where the cluster's \
                 scheduler says who gets a node: leave it out, and set `priorityClassName` in the model's Deployment",
                self.priority
            ));
        }
        if self.max > WORKERS_MAX {
            return Err(format!("`{table}.max` is {}: use {WORKERS_MAX} or less", self.max));
        }
        let positive = |key: &str, value: f64| {
            if value.is_finite() && value > 0.0 {
                return Ok(());
            }
            Err(format!("`{table}.{key}` is {value}: use a number above 0"))
        };
        positive("target_wait_s", self.target_wait_s)?;
        positive("jobs_per_s_prior", self.jobs_per_s_prior)?;
        positive("cold_start_s_prior", self.cold_start_s_prior)?;
        match self.idle_s {
            Some(idle) if !idle.is_finite() || idle < 0.0 => {
                Err(format!("`{table}.idle_s` is {idle}: use 0 or more"))
            }
            _ => Ok(()),
        }
    }
}

/// The most workers that one pool may have.
const WORKERS_MAX: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_has_one_name_in_the_configuration_and_in_reports() {
        use LauncherKind::{Docker, Kubernetes, None, Process};
        for kind in [None, Process, Docker, Kubernetes] {
            assert_eq!(toml::Value::try_from(kind).unwrap().as_str(), Some(kind.as_str()));
        }
    }

    #[test]
    fn a_priority_that_has_no_effect_is_an_error_by_name() {
        let pool = PoolConfig { priority: 5, ..PoolConfig::default() };
        assert_eq!(pool.check("models.m.pool"), Ok(()));
        let pool = PoolConfig { launcher: LauncherKind::Kubernetes, ..pool };
        let error = pool.check("models.m.pool").unwrap_err();
        assert!(error.contains("models.m.pool.priority") && error.contains("priorityClassName"));
    }

    #[test]
    fn the_environment_of_containers_is_read_and_not_shown() {
        let config: DockerConfig = toml::from_str("environment.TOKEN = 's3cret'").unwrap();
        assert_eq!(config.environment.0["TOKEN"], "s3cret");
        let shown = format!("{config:?} {}", toml::to_string(&config).unwrap());
        assert!(shown.contains("TOKEN") && !shown.contains("s3cret"), "{shown}");
    }
}
