//! The body that a worker's container is created with, and how a container is read back from its labels.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, ContainerSummary, ContainerSummaryStateEnum, DeviceRequest, HostConfig,
    HostConfigLogConfig, RestartPolicy, RestartPolicyNameEnum,
};
use forebay_fabric::config::DockerConfig;

use crate::act::launcher::{Order, REMOTE_DEVICE};

/// The label that distinguishes the containers of one fleet from those of another.
pub(super) const FLEET: &str = "forebay.fleet";
const MODEL: &str = "forebay.model";
const NAME: &str = "forebay.name";
const DEVICE: &str = "forebay.device";
const LAUNCHED_AT_MS: &str = "forebay.launched-at-ms";

/// A container that drains is renamed to its worker's name with this behind it. The engine can't change labels, and a
/// mark in memory alone would not outlive this program: a second SIGTERM ends a worker at once.
pub(super) const DRAINING: &str = ".draining";

/// How long the engine waits after SIGTERM before it kills, when another client stops the container, in seconds. A
/// little longer than `worker.grace_s`.
const STOP_S: i64 = 40;

/// A worker's container, as the engine lists it.
#[derive(Debug, Clone)]
pub(super) struct Container {
    pub id: String,
    /// The worker's name; the container's own may differ.
    pub name: String,
    pub model: String,
    pub device: Option<String>,
    pub launched_at_ms: u64,
    pub draining: bool,
    pub stage: Stage,
}

/// The stage of a container's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Created, and not started yet.
    Created,
    Runs,
    Ended,
    /// Is being removed, and counts no longer.
    Removing,
}

impl Container {
    /// `None` for one whose labels are not ours.
    pub fn read(summary: ContainerSummary) -> Option<Self> {
        let mut labels = summary.labels?;
        let name = labels.remove(NAME)?;
        let draining = format!("/{name}{DRAINING}");
        Some(Self {
            id: summary.id?,
            model: labels.remove(MODEL)?,
            device: labels.remove(DEVICE),
            launched_at_ms: labels.remove(LAUNCHED_AT_MS)?.parse().ok()?,
            draining: summary.names.unwrap_or_default().contains(&draining),
            stage: match summary.state? {
                ContainerSummaryStateEnum::CREATED => Stage::Created,
                ContainerSummaryStateEnum::EXITED | ContainerSummaryStateEnum::DEAD => Stage::Ended,
                ContainerSummaryStateEnum::REMOVING => Stage::Removing,
                _ => Stage::Runs,
            },
            name,
        })
    }
}

/// The body that the container of an order is created with. `environment` holds passwords: the body is for the engine
/// alone.
pub(super) fn body(
    config: &DockerConfig,
    environment: &BTreeMap<String, String>,
    order: &Order,
    now_ms: u64,
) -> Result<ContainerCreateBody, String> {
    let (device, gpus) = device(&order.device)?;
    let model = order.model.to_string();
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let labels = HashMap::from([
        label(FLEET, &config.fleet),
        label(MODEL, &model),
        label(NAME, &order.name),
        label(DEVICE, &order.device),
        label(LAUNCHED_AT_MS, &now_ms.to_string()),
    ]);
    let mut variables = environment.clone();
    variables.extend(config.environment.0.clone());
    let command = ["forebay-worker", "--model", &model, "--device", &device, "--name", &order.name];
    Ok(ContainerCreateBody {
        image: Some(config.image.clone()),
        cmd: Some(command.map(str::to_owned).into()),
        env: Some(variables.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(labels),
        stop_timeout: Some(STOP_S),
        host_config: Some(HostConfig { device_requests: gpus, ..host_config(config) }),
        ..ContainerCreateBody::default()
    })
}

/// A limit as the engine takes it; 0 is none.
fn limit(most: u64) -> Option<i64> {
    i64::try_from(most).ok().filter(|most| *most > 0)
}

/// As little as a worker needs: nothing of the host but what is mounted, and no right to get more.
fn host_config(config: &DockerConfig) -> HostConfig {
    let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    HostConfig {
        binds: Some(config.volumes.clone()),
        network_mode: config.network.clone(),
        // One that ended is looked at once before it is removed, by the launcher.
        auto_remove: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        // A worker that takes more than its share ends alone, and takes no neighbour with it.
        memory: limit(config.memory_bytes_max),
        nano_cpus: limit((config.cpus * 1e9) as u64),
        pids_limit: limit(config.pids_max),
        init: Some(true),
        readonly_rootfs: Some(true),
        tmpfs: Some(HashMap::from([text("/tmp", "size=64m")])),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges".into()]),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(HashMap::from([text("max-size", "10m"), text("max-file", "2")])),
        }),
        ..HostConfig::default()
    }
}

/// The device that the worker is given, and the GPU that its container gets. In there that GPU is the only one,
/// number 0.
fn device(device: &str) -> Result<(String, Option<Vec<DeviceRequest>>), String> {
    if device == "cpu" || device == REMOTE_DEVICE {
        return Ok(("cpu".to_owned(), None));
    }
    let number = device.strip_prefix("cuda:").filter(|n| n.parse::<u32>().is_ok());
    let number = number.ok_or_else(|| format!("`{device}` is no device: use cpu or cuda:N"))?;
    let request = DeviceRequest {
        driver: Some("nvidia".into()),
        device_ids: Some(vec![number.to_owned()]),
        capabilities: Some(vec![vec!["gpu".into()]]),
        ..DeviceRequest::default()
    };
    Ok(("cuda:0".into(), Some(vec![request])))
}

#[cfg(test)]
mod tests {
    use forebay_fabric::config::Environment;

    use super::*;

    fn order(device: &str) -> Order {
        let name = "m-1a2b3c4d".into();
        Order { model: "m".parse().unwrap(), name, device: device.into() }
    }

    fn text(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_gpu_of_the_host_is_the_containers_only_one() {
        let body = body(&DockerConfig::default(), &text(&[]), &order("cuda:3"), 7).unwrap();
        let command = body.cmd.unwrap().join(" ");
        assert_eq!(command, "forebay-worker --model m --device cuda:0 --name m-1a2b3c4d");
        let request = &body.host_config.unwrap().device_requests.unwrap()[0];
        assert_eq!(request.driver.as_deref(), Some("nvidia"));
        assert_eq!(request.device_ids, Some(vec!["3".into()]));
        assert_eq!(request.capabilities, Some(vec![vec!["gpu".into()]]));
        assert_eq!(body.labels.unwrap()[DEVICE], "cuda:3");
    }

    #[test]
    fn what_is_configured_stands_above_what_the_autoscaler_has() {
        let own = text(&[("FOREBAY_AMQP_URL", "amqp://a"), ("FOREBAY_WORKER__IDLE_S_MAX", "60")]);
        let environment = text(&[("FOREBAY_AMQP_URL", "amqp://b"), ("RUST_LOG", "debug")]);
        let config =
            DockerConfig { environment: Environment(environment), ..DockerConfig::default() };
        let body = body(&config, &own, &order("cpu"), 7).unwrap();
        let expected = ["FOREBAY_AMQP_URL=amqp://b", "FOREBAY_WORKER__IDLE_S_MAX=60"];
        assert_eq!(body.env.unwrap(), [&expected[..], &["RUST_LOG=debug"]].concat());
    }

    #[test]
    fn a_container_has_limits_unless_they_are_0() {
        let host = |config: &DockerConfig| {
            body(config, &text(&[]), &order("cpu"), 7).unwrap().host_config.unwrap()
        };
        let limits = host(&DockerConfig::default());
        assert_eq!(limits.memory, Some(4 << 30));
        assert_eq!((limits.nano_cpus, limits.pids_limit), (Some(2_000_000_000), Some(512)));
        let none =
            DockerConfig { memory_bytes_max: 0, cpus: 0.0, pids_max: 0, ..DockerConfig::default() };
        let limits = host(&none);
        assert_eq!((limits.memory, limits.nano_cpus, limits.pids_limit), (None, None, None));
    }

    #[test]
    fn a_device_that_is_none_is_refused() {
        for wrong in ["", "gpu", "cuda", "cuda:", "cuda:x", "cuda:-1"] {
            let reason = body(&DockerConfig::default(), &text(&[]), &order(wrong), 7).unwrap_err();
            assert!(reason.contains("cpu or cuda:N"), "{reason}");
        }
    }
}
