//! Workers as containers, by the Docker Engine API on its unix socket.
//!
//! All that is known of a container is in its labels, so the next autoscaler adopts it. One that ended is listed once
//! with how, and removed at the next look.

mod container;
mod engine;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use bollard::{
    Docker,
    query_parameters::{
        CreateContainerOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
        LogsOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder,
    },
};
use container::{Container, DRAINING, FLEET, Stage};
use engine::{unless_done, within};
use forebay_fabric::{
    clock,
    config::{DockerConfig, LauncherKind},
};
use forebay_schemas::ModelId;
use futures_util::{
    FutureExt, StreamExt,
    future::{self, BoxFuture},
};

use super::{
    ask::ask,
    environment::is_workers_setting,
    launcher::{Instance, InstanceState, LaunchError, Launcher, Order},
};
use crate::decide::Answer;

const KIND: &str = LauncherKind::Docker.as_str();

/// The most ends that one look lists; the others are listed by the next looks.
const ENDS_LISTED_MAX: usize = 32;

/// The port on which a worker of the image listens.
const TELEMETRY_PORT: u16 = 9_100;

/// How much of a failed worker's last line is reported.
const LAST_WORDS_CHARS_MAX: usize = 200;

/// Exit codes of a worker that drained: its own, and that of a SIGTERM that came before it listened.
const DRAINED_CODES: [i64; 2] = [0, 143];

/// Launches workers as containers.
pub struct DockerLauncher {
    config: DockerConfig,
    /// The autoscaler's own settings, passwords among them: never shown.
    environment: BTreeMap<String, String>,
    /// The ids of containers whose end was listed.
    ends_listed: Mutex<HashSet<String>>,
    /// Held from counting containers until the next one is there: launches come several at a time.
    creating: tokio::sync::Mutex<()>,
}

impl DockerLauncher {
    /// A launcher that hands on what workers read of the `FOREBAY_*` in `environment`; paths among them have to be the
    /// image's too, or be mounted. Nothing is asked of the engine yet.
    pub fn new(
        config: &DockerConfig,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let ours = environment.into_iter().filter(|(name, _)| is_workers_setting(name));
        Self {
            config: config.clone(),
            environment: ours.collect(),
            ends_listed: Mutex::default(),
            creating: tokio::sync::Mutex::default(),
        }
    }

    async fn connect(&self) -> Result<Docker, String> {
        engine::connect(&self.config.socket).await
    }

    /// The containers of this fleet, those that ended included.
    async fn containers(&self, docker: &Docker) -> Result<Vec<Container>, String> {
        let label = format!("{FLEET}={}", self.config.fleet);
        let filters = HashMap::from([("label", vec![label.as_str()])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = within(docker.list_containers(Some(options))).await;
        let listed = listed.map_err(|refusal| refusal.reason)?;
        let ours = listed.into_iter().filter_map(Container::read);
        Ok(ours.filter(|container| container.stage != Stage::Removing).collect())
    }

    async fn launch_one(&self, order: &Order) -> Result<(), String> {
        let docker = self.connect().await?;
        match self.create(&docker, order).await? {
            Some(id) => start(&docker, &id).await,
            None => Ok(()),
        }
    }

    /// Creates an order's container. The id of what is to be started; `None` where it was started before.
    async fn create(&self, docker: &Docker, order: &Order) -> Result<Option<String>, String> {
        let _one_at_a_time = self.creating.lock().await;
        let ours = self.containers(docker).await?;
        if let Some(there) = ours.iter().find(|container| container.name == order.name) {
            // Launched before, by a call that got no answer. It may have been cut off before the start.
            return Ok((there.stage == Stage::Created).then(|| there.id.clone()));
        }
        let alive = ours.iter().filter(|container| container.stage != Stage::Ended).count();
        if alive >= self.config.workers_max as usize {
            return Err(format!(
                "{alive} containers of the fleet `{}` are there: raise `autoscaler.docker.workers_max` for more",
                self.config.fleet
            ));
        }
        let body = container::body(&self.config, &self.environment, order, clock::now_ms())?;
        let options = CreateContainerOptionsBuilder::new().name(&order.name).build();
        let created = within(docker.create_container(Some(options), body)).await;
        let created = created.map_err(|refusal| match refusal.status {
            Some(409) => format!(
                "a container that is not of the fleet `{}` has that name: remove it (`docker rm --force {}`)",
                self.config.fleet, order.name
            ),
            _ => refusal.reason,
        })?;
        Ok(Some(created.id))
    }

    async fn drain_all(&self, model: &ModelId, names: &[String]) -> Result<(), String> {
        let docker = self.connect().await?;
        let ours = self.containers(&docker).await?;
        let to_drain = ours.iter().filter(|container| {
            container.model == model.as_str()
                && names.contains(&container.name)
                && !container.draining
                && container.stage != Stage::Ended
        });
        // One that fails keeps no other from draining.
        let outcomes = future::join_all(to_drain.map(|container| drain(&docker, container))).await;
        outcomes.into_iter().collect()
    }

    async fn end_one(&self, name: &str) -> Result<(), String> {
        let docker = self.connect().await?;
        let ours = self.containers(&docker).await?;
        for container in ours.iter().filter(|container| container.name == name) {
            remove(&docker, &container.id).await?;
        }
        Ok(())
    }

    /// Where the worker of this name listens: at its container's address, on the image's port.
    async fn address(&self, name: &str) -> Option<SocketAddr> {
        let docker = self.connect().await.ok()?;
        let ours = self.containers(&docker).await.ok()?;
        let id = &ours.iter().find(|container| container.name == name)?.id;
        let inspected = within(docker.inspect_container(id, None)).await.ok()?;
        let networks = inspected.network_settings?.networks?;
        let address = networks.into_values().find_map(|network| {
            network.ip_address.filter(|address| !address.is_empty())?.parse::<IpAddr>().ok()
        });
        Some(SocketAddr::new(address?, TELEMETRY_PORT))
    }

    async fn look(&self) -> Result<Vec<Instance>, String> {
        let docker = self.connect().await?;
        let containers = self.containers(&docker).await?;
        let listed = self.ends_listed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut instances = Vec::new();
        let mut listed_now = HashSet::new();
        for container in &containers {
            let state = match container.stage {
                Stage::Created => InstanceState::Pending,
                Stage::Ended if listed.contains(&container.id) => {
                    if let Err(reason) = remove(&docker, &container.id).await {
                        tracing::warn!(name = container.name, reason, "can't remove a container");
                    }
                    continue;
                }
                Stage::Ended if listed_now.len() == ENDS_LISTED_MAX => continue,
                Stage::Ended => {
                    listed_now.insert(container.id.clone());
                    ended(&docker, container).await?
                }
                _ if container.draining => InstanceState::Draining,
                _ => InstanceState::Running,
            };
            instances.push(Instance {
                name: container.name.clone(),
                model: container.model.clone(),
                device: container.device.clone(),
                launched_at_ms: container.launched_at_ms,
                state,
            });
        }
        // Only now: a look that failed or was cancelled has listed nothing.
        let mut listed = self.ends_listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.retain(|id| containers.iter().any(|container| container.id == *id));
        listed.extend(listed_now);
        Ok(instances)
    }
}

/// Starts a container. One that can't be started is removed: it would stay for ever.
async fn start(docker: &Docker, id: &str) -> Result<(), String> {
    let Err(refusal) = within(docker.start_container(id, None)).await else {
        return Ok(());
    };
    if let Err(reason) = remove(docker, id).await {
        tracing::warn!(id, reason, "can't remove a container that did not start");
    }
    Err(refusal.reason)
}

async fn drain(docker: &Docker, container: &Container) -> Result<(), String> {
    let options = KillContainerOptionsBuilder::new().signal("SIGTERM").build();
    unless_done(within(docker.kill_container(&container.id, Some(options))).await)?;
    let name = format!("{}{DRAINING}", container.name);
    let options = RenameContainerOptionsBuilder::new().name(&name).build();
    if let Err(refusal) = within(docker.rename_container(&container.id, options)).await {
        // It drains all the same; only a later look does not see that it does.
        tracing::debug!(name, reason = refusal.reason, "can't rename a container that drains");
    }
    Ok(())
}

/// Removes a container, and kills it first if it runs.
async fn remove(docker: &Docker, id: &str) -> Result<(), String> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    unless_done(within(docker.remove_container(id, Some(options))).await)
}

/// How a container ended.
async fn ended(docker: &Docker, container: &Container) -> Result<InstanceState, String> {
    let state = match within(docker.inspect_container(&container.id, None)).await {
        Ok(inspected) => inspected.state.unwrap_or_default(),
        Err(refusal) if refusal.status == Some(404) => {
            let how = "removed by another client".into();
            return Ok(InstanceState::Ended { how, well: container.draining });
        }
        Err(refusal) => return Err(refusal.reason),
    };
    let code = state.exit_code.unwrap_or_default();
    if state.oom_killed == Some(true) {
        return Ok(InstanceState::Ended { how: "OOMKilled".into(), well: false });
    }
    let well = code == 0 || container.draining && DRAINED_CODES.contains(&code);
    let mut how = match code {
        129..=159 => format!("killed by signal {}", code - 128),
        _ => format!("exit code {code}"),
    };
    if !well {
        let words = match state.error.filter(|error| !error.is_empty()) {
            Some(error) => Some(error),
            None => last_words(docker, &container.id).await,
        };
        how.extend(words.into_iter().flat_map(|words| [": ".to_owned(), words]));
    }
    Ok(InstanceState::Ended { how, well })
}

/// The last line that a worker wrote: with its container its log goes too.
async fn last_words(docker: &Docker, id: &str) -> Option<String> {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("1").build();
    let lines = docker.logs(id, Some(options)).take(1).collect::<Vec<_>>();
    let lines = within(lines.map(Ok)).await.ok()?;
    let line = lines.into_iter().last()?.ok()?.to_string();
    let words = line.trim().chars().take(LAST_WORDS_CHARS_MAX).collect::<String>();
    Some(words).filter(|words| !words.is_empty())
}

fn failed(action: String) -> impl FnOnce(String) -> LaunchError {
    |reason| LaunchError { launcher: KIND, action, reason }
}

impl Launcher for DockerLauncher {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn launch<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<(), LaunchError>> {
        let action = format!("launch {}", order.name);
        async { self.launch_one(order).await.map_err(failed(action)) }.boxed()
    }

    fn drain<'a>(
        &'a self,
        model: &'a ModelId,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<(), LaunchError>> {
        let action = format!("drain {}", names.join(", "));
        async move { self.drain_all(model, names).await.map_err(failed(action)) }.boxed()
    }

    fn end<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), LaunchError>> {
        async move { self.end_one(name).await.map_err(failed(format!("end {name}"))) }.boxed()
    }

    /// Asks the worker at its container's address. One that another client paused does not answer.
    fn ask<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Answer> {
        async move {
            match self.address(name).await {
                Some(address) => ask(address).await,
                None => Answer::Unreachable,
            }
        }
        .boxed()
    }

    /// All of this fleet, of whichever model: the label says whose they are.
    fn list<'a>(
        &'a self,
        _models: &'a [ModelId],
    ) -> BoxFuture<'a, Result<Vec<Instance>, LaunchError>> {
        async { self.look().await.map_err(failed("list its workers".into())) }.boxed()
    }
}
