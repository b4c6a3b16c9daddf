//! Containers, on this machine's Docker Engine. Where none answers these tests say so and hold nothing.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::atomic::{AtomicU32, Ordering},
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::ContainerInspectResponse,
    query_parameters::{
        CreateContainerOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
        LogsOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
    },
};
use forebay_autoscaler::act::{InstanceState, Launcher, Order, docker::DockerLauncher};
use forebay_fabric::config::DockerConfig;
use futures_util::StreamExt;
use tokio::net::UnixStream;

use crate::{
    contract::{self, Bench, PATIENCE, Watch, launch, model, order},
    image,
};

/// An image and a fleet of its own; both go with it.
struct Engine {
    docker: Docker,
    config: DockerConfig,
}

async fn connect(config: &DockerConfig) -> Result<Docker, bollard::errors::Error> {
    let socket = config.socket.to_str().unwrap();
    Docker::connect_with_unix(socket, 60, API_DEFAULT_VERSION)?.negotiate_version().await
}

async fn engine() -> Option<Engine> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let fleet = format!("forebay-launcher-test-{}-{number}", std::process::id());
    let config = DockerConfig { image: format!("{fleet}:local"), fleet, ..DockerConfig::default() };
    if let Err(error) = UnixStream::connect(&config.socket).await {
        // Not by a macro: the test harness hides what those print.
        let at = config.socket.display();
        let words = format!("PASSED OVER, nothing was tested: no Docker Engine at {at}: {error}\n");
        io::stderr().write_all(words.as_bytes()).unwrap();
        return None;
    }
    let docker = connect(&config).await.unwrap();
    image::make(&docker, &config.image).await;
    Some(Engine { docker, config })
}

impl Engine {
    fn launcher_with(&self, change: impl FnOnce(&mut DockerConfig)) -> DockerLauncher {
        let mut config = self.config.clone();
        change(&mut config);
        let environment = [("FOREBAY_REDIS_URL", "redis://:secret@store"), ("NOT_OURS", "1")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        DockerLauncher::new(&config, environment)
    }

    async fn inspect(&self, name: &str) -> ContainerInspectResponse {
        self.docker.inspect_container(name, None).await.unwrap()
    }

    /// Waits until a stand-in has said something: by then it listens for signals.
    async fn listens(&self, name: &str) {
        let options = LogsOptionsBuilder::new().stdout(true).follow(true).build();
        let mut lines = std::pin::pin!(self.docker.logs(name, Some(options)));
        tokio::time::timeout(PATIENCE, lines.next()).await.unwrap().unwrap().unwrap();
    }

    async fn signal(&self, name: &str, signal: &str) {
        self.listens(name).await;
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        self.docker.kill_container(name, Some(options)).await.unwrap();
    }
}

impl Bench for Engine {
    fn launcher(&self) -> Box<dyn Launcher> {
        Box::new(self.launcher_with(|_| ()))
    }

    async fn crash(&self, name: &str) {
        self.signal(name, "SIGUSR1").await;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let config = self.config.clone();
        let cleaned = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(clean(&config)).unwrap();
        });
        assert!(cleaned.join().is_ok() || std::thread::panicking(), "something is left behind");
    }
}

async fn clean(config: &DockerConfig) -> Result<(), bollard::errors::Error> {
    let docker = connect(config).await?;
    let ours = [("ancestor", vec![config.image.as_str()])].into();
    let options = ListContainersOptionsBuilder::new().all(true).filters(&ours).build();
    for container in docker.list_containers(Some(options)).await? {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        docker.remove_container(&container.id.unwrap(), Some(options)).await?;
    }
    let options = RemoveImageOptionsBuilder::new().build();
    docker.remove_image(&config.image, Some(options), None).await.map(drop)
}

contract::holds!(engine());

/// The order that the first worker was launched by.
fn again(watch: &Watch<'_>) -> Order {
    Order { name: watch.running()[0].clone(), ..order(&model()) }
}

#[tokio::test]
async fn a_container_has_no_rights_that_a_worker_does_not_need() {
    let Some(engine) = engine().await else { return };
    let launcher = engine.launcher_with(|config| config.volumes = vec!["/usr:/models:ro".into()]);
    let watch = launch(&launcher, 1).await;
    let instance = &watch.now[0];
    let inspected = engine.inspect(&instance.name).await;
    let config = inspected.config.unwrap();
    let host = inspected.host_config.unwrap();
    let name = instance.name.clone();
    let command = format!("forebay-worker --model {} --device cpu --name {name}", model());
    assert_eq!(config.cmd.unwrap().join(" "), command);
    assert_eq!(instance.device.as_deref(), Some("cpu"));
    let environment = config.env.unwrap();
    assert!(!environment.iter().any(|line| line.starts_with("NOT_OURS")), "{environment:?}");
    let labels: BTreeMap<_, _> = config.labels.unwrap().into_iter().collect();
    assert_eq!(labels["forebay.fleet"], engine.config.fleet);
    assert_eq!(labels["forebay.launched-at-ms"], instance.launched_at_ms.to_string());
    assert_eq!(config.stop_timeout, Some(40));
    assert_eq!(host.readonly_rootfs, Some(true));
    assert_eq!(host.cap_drop, Some(vec!["ALL".into()]));
    assert_eq!(host.security_opt, Some(vec!["no-new-privileges".into()]));
    assert_eq!(host.init, Some(true));
    assert_ne!(host.privileged, Some(true));
    assert_eq!(host.binds, Some(vec!["/usr:/models:ro".into()]));
    assert_eq!(host.tmpfs.unwrap().keys().collect::<Vec<_>>(), ["/tmp"]);
    let log = host.log_config.unwrap();
    assert_eq!(log.typ.as_deref(), Some("json-file"));
    assert_eq!(log.config.unwrap()["max-size"], "10m");
}

#[tokio::test]
async fn an_order_that_comes_again_launches_nothing_more() {
    let Some(engine) = engine().await else { return };
    let launcher = engine.launcher();
    let mut watch = launch(&*launcher, 1).await;
    launcher.launch(&again(&watch)).await.unwrap();
    watch.look().await;
    assert_eq!(watch.now.len(), 1, "{:?}", watch.now);
}

#[tokio::test]
async fn a_launch_that_was_cut_off_before_the_start_is_finished() {
    let Some(engine) = engine().await else { return };
    let launcher = engine.launcher();
    let watch = launch(&*launcher, 1).await;
    let name = &watch.running()[0];
    let inspected = engine.inspect(name).await;
    launcher.end(name).await.unwrap();
    let config = serde_json::to_value(inspected.config.unwrap()).unwrap();
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    let body = serde_json::from_value(config).unwrap();
    engine.docker.create_container(Some(options), body).await.unwrap();
    let mut watch = Watch::new(&*launcher, &[model()]);
    watch.look().await;
    assert_eq!(watch.names(&InstanceState::Pending), [name.as_str()]);
    launcher.launch(&Order { name: name.clone(), ..order(&model()) }).await.unwrap();
    watch.until("it runs", |watch| watch.running() == [name.as_str()]).await;
}

#[tokio::test]
async fn a_worker_that_drains_is_signalled_once_and_known_to_the_next_autoscaler() {
    let Some(engine) = engine().await else { return };
    let launcher = engine.launcher_with(|config| {
        config.environment.0.insert("FOREBAY_STAND_IN".into(), "stuck".into());
    });
    let watch = launch(&launcher, 1).await;
    let names = watch.running();
    engine.listens(&names[0]).await;
    launcher.drain(&model(), &names).await.unwrap();
    let next = engine.launcher();
    let mut watch = Watch::new(&*next, &[model()]);
    watch.look().await;
    assert_eq!(watch.names(&InstanceState::Draining), names);
    next.drain(&model(), &names).await.unwrap();
    // Were it signalled again it would have ended after this exchange with its engine.
    for _ in 0..20 {
        watch.look().await;
    }
    assert_eq!(watch.names(&InstanceState::Draining), names, "{:?}", watch.ends);
    let shown = engine.inspect(&format!("{}.draining", names[0])).await.name.unwrap();
    assert_eq!(shown, format!("/{}.draining", names[0]));
    next.end(&names[0]).await.unwrap();
    watch.look().await;
    assert_eq!((watch.now.len(), watch.ends.len()), (0, 0));
}

#[tokio::test]
async fn a_failed_worker_s_last_words_are_reported_and_its_container_is_removed_then() {
    let Some(engine) = engine().await else { return };
    let launcher = engine.launcher();
    let mut watch = launch(&*launcher, 1).await;
    let name = watch.running()[0].clone();
    engine.crash(&name).await;
    watch.until("its end is listed", |watch| !watch.ends.is_empty()).await;
    assert_eq!(watch.ends[&name], ("exit code 3: the model folder is missing".into(), false));
    engine.inspect(&name).await;
    watch.look().await;
    assert!(engine.docker.inspect_container(&name, None).await.is_err(), "it is still there");
}

#[tokio::test]
async fn a_worker_that_is_killed_has_not_ended_well() {
    let Some(engine) = engine().await else { return };
    let launcher = engine.launcher();
    let mut watch = launch(&*launcher, 1).await;
    let name = watch.running()[0].clone();
    engine.signal(&name, "SIGKILL").await;
    watch.until("its end is listed", |watch| !watch.ends.is_empty()).await;
    let (how, well) = &watch.ends[&name];
    assert!(how.starts_with("killed by signal 9") && !well, "{how}");
}

#[tokio::test]
async fn what_keeps_a_worker_from_starting_is_said_with_what_to_do() {
    let Some(engine) = engine().await else { return };
    let reason = async |launcher: &DockerLauncher| {
        let error = launcher.launch(&order(&model())).await.unwrap_err();
        assert_eq!(launcher.list(&[model()]).await.unwrap(), [], "something is left of it");
        let text = error.to_string();
        assert!(!text.contains("secret"), "{text}");
        assert!(text.starts_with("the docker launcher could not launch all-minilm"), "{text}");
        error.reason
    };
    let no_image = engine.launcher_with(|config| config.image = "forebay-nowhere:gone".into());
    let text = reason(&no_image).await;
    assert!(text.contains("No such image") && text.contains("autoscaler.docker.image"), "{text}");
    let no_network = engine.launcher_with(|config| config.network = Some("nowhere".into()));
    let text = reason(&no_network).await;
    assert!(text.contains("nowhere") && text.contains("autoscaler.docker.network"), "{text}");
    let bad_volume = engine.launcher_with(|config| config.volumes = vec!["models".into()]);
    let text = reason(&bad_volume).await;
    assert!(text.contains("models"), "{text}");
    let full = engine.launcher_with(|config| config.workers_max = 0);
    assert!(reason(&full).await.contains("autoscaler.docker.workers_max"));
}

#[tokio::test]
async fn launches_at_the_same_time_keep_to_the_most_that_there_may_be() {
    let Some(engine) = engine().await else { return };
    let launcher = engine.launcher_with(|config| config.workers_max = 2);
    let orders: Vec<_> = (0..4).map(|_| order(&model())).collect();
    let launches = orders.iter().map(|order| launcher.launch(order));
    let launched = futures_util::future::join_all(launches).await;
    assert_eq!(launched.iter().filter(|launched| launched.is_ok()).count(), 2, "{launched:?}");
    assert_eq!(launcher.list(&[model()]).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_name_that_another_fleet_has_is_not_taken_for_launched() {
    let Some(engine) = engine().await else { return };
    let launcher = engine.launcher();
    let watch = launch(&*launcher, 1).await;
    let other = engine.launcher_with(|config| config.fleet.push_str("-other"));
    let error = other.launch(&again(&watch)).await.unwrap_err();
    assert!(error.reason.contains("not of the fleet"), "{error}");
    // Nor is what another fleet has listed, drained or ended.
    let names = watch.running();
    assert_eq!(other.list(&[model()]).await.unwrap(), []);
    other.drain(&model(), &names).await.unwrap();
    other.end(&names[0]).await.unwrap();
    assert_eq!(launcher.list(&[model()]).await.unwrap().len(), 1);
}
