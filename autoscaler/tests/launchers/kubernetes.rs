//! Pods, on an API server in this process.

use forebay_autoscaler::act::{
    Instance, InstanceState, LaunchError, Launcher, kubernetes::KubernetesLauncher,
};
use forebay_schemas::ModelId;
use serde_json::{Value, json};

use crate::{
    cluster::{Fault, Server},
    contract::{self, Bench, Watch, launch, model, order, other_model},
    pods::{self, COST},
};

const DEPLOYMENT: &str = "forebay-worker-all-minilm-l6-v2";
const OTHER_DEPLOYMENT: &str = "forebay-worker-bge-small-en";

async fn server() -> Option<Server> {
    Some(Server::start(&[DEPLOYMENT, OTHER_DEPLOYMENT]).await)
}

impl Bench for Server {
    fn launcher(&self) -> Box<dyn Launcher> {
        Box::new(KubernetesLauncher::new(&self.config()))
    }

    async fn crash(&self, name: &str) {
        self.change(name, |pod| pods::back_off(pod, 1, 3));
    }
}

impl Server {
    fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut cluster = self.cluster();
        change(cluster.pods.iter_mut().find(|pod| pod["metadata"]["name"] == name).unwrap());
    }

    fn replicas(&self) -> i64 {
        self.cluster().deployments[DEPLOYMENT].0
    }

    /// The pods that are marked to go first.
    fn marked(&self) -> Vec<String> {
        let cluster = self.cluster();
        let marked =
            cluster.pods.iter().filter(|pod| pod["metadata"]["annotations"][COST] == "-1000");
        marked.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }
}

fn ended(instances: &[Instance]) -> Vec<(&str, &str, bool)> {
    let ends = instances.iter().filter_map(|one| match &one.state {
        InstanceState::Ended { how, well } => Some((one.name.as_str(), how.as_str(), *well)),
        _ => None,
    });
    ends.collect()
}

async fn launch_fails(server: &Server) -> LaunchError {
    server.launcher().launch(&order(&model())).await.unwrap_err()
}

contract::holds!(server());

#[tokio::test]
async fn a_change_that_another_writer_came_before_is_made_to_the_newer_version() {
    let server = server().await.unwrap();
    for _ in 0..3 {
        server.fail("PATCH /apis/apps", Fault::Overtaken);
    }
    let launcher = server.launcher();
    let first = order(&model());
    let second = order(&model());
    let (first, second) = tokio::join!(launcher.launch(&first), launcher.launch(&second));
    first.unwrap();
    second.unwrap();
    assert_eq!(server.replicas(), 2);
}

#[tokio::test]
async fn many_launches_at_once_are_all_made_and_don_t_come_before_one_another() {
    let server = server().await.unwrap();
    let launcher = server.launcher();
    let orders: Vec<_> = (0..40).map(|_| order(&model())).collect();
    let launches = orders.iter().map(|order| launcher.launch(order));
    for launched in futures_util::future::join_all(launches).await {
        launched.unwrap();
    }
    assert_eq!((server.replicas(), server.cluster().conflicts), (40, 0));
}

#[tokio::test]
async fn changes_that_are_always_overtaken_end_in_an_error() {
    let server = server().await.unwrap();
    for _ in 0..20 {
        server.fail("PATCH /apis/apps", Fault::Overtaken);
    }
    let error = launch_fails(&server).await;
    assert!(error.reason.contains("409") && error.reason.contains("has been modified"), "{error}");
    assert_eq!(server.replicas(), 0);
}

#[tokio::test]
async fn workers_that_were_drained_go_and_not_the_youngest() {
    let server = server().await.unwrap();
    let launcher = server.launcher();
    let mut watch = launch(&*launcher, 4).await;
    let oldest = watch.running()[..2].to_vec();
    launcher.drain(&model(), &oldest).await.unwrap();
    watch.until("two are left", |watch| watch.now.len() == 2).await;
    assert!(oldest.iter().all(|name| watch.end_of(name).is_some_and(|end| end.1)));
    assert_eq!(server.replicas(), 2);
}

#[tokio::test]
async fn a_drain_whose_scaling_failed_leaves_everything_as_it_was() {
    let server = server().await.unwrap();
    let launcher = server.launcher();
    let mut watch = launch(&*launcher, 2).await;
    let names = watch.running();
    server.change(&names[0], |pod| pod["metadata"]["annotations"][COST] = json!("7"));
    server.fail("PATCH /apis/apps", Fault::Answer(500, "InternalError", "etcd has no leader"));
    let error = launcher.drain(&model(), &names[..1]).await.unwrap_err();
    assert!(error.reason.contains("500: etcd has no leader"), "{error}");
    assert_eq!(server.replicas(), 2);
    server.change(&names[0], |pod| assert_eq!(pod["metadata"]["annotations"][COST], "7"));
    watch.look().await;
    assert_eq!(watch.running(), names);
}

#[tokio::test]
async fn a_pod_that_can_t_be_marked_is_not_replaced_by_another_that_goes() {
    let server = server().await.unwrap();
    let launcher = server.launcher();
    let mut watch = launch(&*launcher, 2).await;
    let names = watch.running();
    server.fail("PATCH /api/v1", Fault::Answer(403, "Forbidden", "cannot patch resource \"pods\""));
    let error = launcher.drain(&model(), &names).await.unwrap_err();
    assert!(error.reason.contains("rbac.yaml"), "{error}");
    assert_eq!((server.replicas(), server.marked().len()), (2, 0));
    watch.look().await;
    assert_eq!(watch.running(), names);
}

#[tokio::test]
async fn a_drain_that_controllers_are_slow_to_follow_lowers_the_scale_once() {
    let server = server().await.unwrap();
    let launcher = server.launcher();
    let mut watch = launch(&*launcher, 3).await;
    let names = watch.running();
    server.cluster().controllers_stand = true;
    for _ in 0..3 {
        launcher.drain(&model(), &names[..1]).await.unwrap();
    }
    assert_eq!(server.replicas(), 2);
    watch.look().await;
    assert_eq!(watch.names(&InstanceState::Draining), names[..1]);
    // Another one meanwhile, by an autoscaler that knows of nothing.
    server.launcher().drain(&model(), &names[..2]).await.unwrap();
    assert_eq!(server.replicas(), 1);
    server.cluster().controllers_stand = false;
    watch.until("one is left", |watch| watch.now.len() == 1).await;
    assert_eq!(watch.running(), names[2..]);
}

#[tokio::test]
async fn a_scaling_without_an_answer_is_reported_as_such_and_takes_no_other_pod_later() {
    let server = server().await.unwrap();
    let launcher = server.launcher();
    let mut watch = launch(&*launcher, 2).await;
    let names = watch.running();
    server.fail("PATCH /apis/apps", Fault::Silence);
    let model = model();
    let drained = launcher.drain(&model, &names[1..]);
    let stop_the_clock = async {
        server.silent.notified().await;
        tokio::time::pause();
    };
    let (error, ()) = tokio::join!(drained, stop_the_clock);
    tokio::time::resume();
    let error = error.unwrap_err();
    assert!(error.reason.contains("did not answer within 10 s"), "{error}");
    // Whether the scale was changed is not known then, so the mark stays; here it was not.
    assert_eq!(server.marked(), names[1..]);
    watch.look().await;
    assert_eq!(watch.running(), names);
    launcher.drain(&model, &names[..1]).await.unwrap();
    watch.until("one is left", |watch| watch.now.len() == 1).await;
    assert_eq!(watch.running(), names[1..]);
}

#[tokio::test]
async fn pods_that_are_asked_for_and_not_there_are_listed_and_can_be_called_off() {
    let server = server().await.unwrap();
    server.cluster().controllers_stand = true;
    let launcher = server.launcher();
    for _ in 0..3 {
        launcher.launch(&order(&model())).await.unwrap();
    }
    let mut watch = Watch::new(&*launcher, &[model()]);
    watch.look().await;
    let names = [1, 2, 3].map(|number| format!("{DEPLOYMENT}#{number}"));
    assert_eq!(watch.names(&InstanceState::Pending), names);
    let since = watch.now[0].launched_at_ms;
    launcher.drain(&model(), &names[2..]).await.unwrap();
    assert_eq!(server.replicas(), 2);
    watch.look().await;
    assert_eq!(watch.names(&InstanceState::Pending), names[..2]);
    assert_eq!(watch.now[0].launched_at_ms, since);
    launcher.end(&names[0]).await.unwrap();
    launcher.end(&names[2]).await.unwrap();
    assert_eq!(server.replicas(), 1);
    server.cluster().controllers_stand = false;
    watch.until("the last comes", |watch| watch.running().len() == 1).await;
    launcher.drain(&model(), &names).await.unwrap();
    assert_eq!(server.replicas(), 1);
}

#[tokio::test]
async fn a_container_that_fails_over_and_over_counts_and_each_of_its_ends_is_listed() {
    let server = server().await.unwrap();
    let launcher = server.launcher();
    let mut watch = launch(&*launcher, 1).await;
    let name = watch.running()[0].clone();
    server.change(&name, |pod| pods::back_off(pod, 1, 2));
    watch.look().await;
    assert_eq!(watch.names(&InstanceState::Pending), [name.as_str()]);
    server.change(&name, |pod| pods::back_off(pod, 2, 139));
    watch.look().await;
    server.change(&name, |pod| pods::run_again(pod, 3, &pods::terminated(3, 137, "OOMKilled")));
    watch.look().await;
    assert_eq!(watch.running(), [name.as_str()]);
    let expected = [
        ("00000001", "exit code 2"),
        ("00000002", "killed by signal 11"),
        ("00000003", "OOMKilled"),
    ];
    for (life, how) in expected {
        assert_eq!(watch.ends[&format!("{name}#{life}")], (how.to_owned(), false));
    }
    assert_eq!((watch.ends.len(), server.replicas()), (3, 1));
}

#[tokio::test]
async fn an_image_that_can_t_be_pulled_is_listed_once_beside_the_pod_that_waits() {
    let server = server().await.unwrap();
    let launcher = server.launcher();
    launcher.launch(&order(&model())).await.unwrap();
    let mut watch = Watch::new(&*launcher, &[model()]);
    watch.until("it waits", |watch| !watch.now.is_empty()).await;
    let name = watch.now[0].name.clone();
    server.change(&name, pods::no_image);
    let listed = launcher.list(&[model()]).await.unwrap();
    let how = "ImagePullBackOff: Back-off pulling image \"forebay:gone\"";
    assert_eq!(ended(&listed), [(&*format!("{name}#ImagePullBackOff"), how, false)]);
    assert!(listed.iter().any(|one| one.name == name && one.state == InstanceState::Pending));
    assert_eq!(ended(&launcher.list(&[model()]).await.unwrap()), []);
}

#[tokio::test]
async fn an_evicted_pod_is_listed_with_why_and_its_successor_counts() {
    let server = server().await.unwrap();
    let launcher = server.launcher();
    let mut watch = launch(&*launcher, 1).await;
    let name = watch.running()[0].clone();
    server.change(&name, pods::evict);
    watch.until("another runs", |watch| !watch.running().is_empty()).await;
    assert_eq!(watch.ends[&name], ("Evicted: The node was low on resource: memory.".into(), false));
    assert_eq!((watch.now.len(), watch.ends.len()), (1, 1));
    // A look at another model in between makes no end forgotten.
    launcher.list(&[other_model()]).await.unwrap();
    assert_eq!(ended(&launcher.list(&[model()]).await.unwrap()), []);
}

#[tokio::test]
async fn a_pod_that_another_client_deletes_is_replaced_and_listed() {
    let server = server().await.unwrap();
    let launcher = server.launcher();
    let mut watch = launch(&*launcher, 1).await;
    let name = watch.running()[0].clone();
    server.cluster().pods.clear();
    watch.until("another runs", |watch| !watch.running().is_empty()).await;
    assert_eq!(watch.ends[&name], ("its pod was deleted".into(), true));
    assert_ne!(watch.running(), [name]);
}

#[tokio::test]
async fn a_model_without_a_deployment_is_said_to_be_so_and_harms_no_other() {
    let server = Server::start(&[OTHER_DEPLOYMENT]).await;
    let error = launch_fails(&server).await;
    assert!(error.reason.contains(&format!("deployments.apps \"{DEPLOYMENT}\" not found")));
    assert!(error.reason.contains("autoscaler.kubernetes.deployment"), "{error}");
    let launcher = server.launcher();
    launcher.launch(&order(&other_model())).await.unwrap();
    let mut watch = Watch::new(&*launcher, &[model(), other_model()]);
    watch.until("the other runs", |watch| watch.running().len() == 1).await;
}

#[tokio::test]
async fn a_model_that_the_role_does_not_name_harms_no_other() {
    let server = server().await.unwrap();
    let launcher = server.launcher();
    launcher.launch(&order(&other_model())).await.unwrap();
    let mut watch = Watch::new(&*launcher, &[model(), other_model()]);
    for _ in 0..3 {
        let call = "GET /apis/apps/v1/namespaces/forebay/deployments/forebay-worker-all";
        server.fail(call, Fault::Answer(403, "Forbidden", "cannot get resource"));
        watch.look().await;
    }
    assert_eq!(watch.running().len(), 1);
}

#[tokio::test]
async fn a_look_that_fails_is_an_error_and_never_an_empty_cluster() {
    let server = server().await.unwrap();
    let launcher = server.launcher();
    launch(&*launcher, 1).await;
    for call in ["GET /api/v1", "GET /apis/apps"] {
        let faults = [
            Fault::Answer(500, "InternalError", "etcd has no leader"),
            Fault::Answer(403, "Forbidden", "pods is forbidden: User \"u\" cannot list"),
            Fault::Answer(429, "TooManyRequests", "try again later"),
        ];
        for fault in faults {
            server.fail(call, fault);
            let error = launcher.list(&[model()]).await.unwrap_err();
            assert_eq!((error.launcher, error.action.as_str()), ("kubernetes", "list its workers"));
        }
    }
    assert_eq!(launcher.list(&[model()]).await.unwrap().len(), 1);
    let gone = server.launcher();
    drop(server);
    assert!(gone.list(&[model()]).await.is_err());
}

#[tokio::test]
async fn rights_that_are_missing_are_named_with_where_they_stand() {
    let server = server().await.unwrap();
    let message = "deployments.apps \"forebay-worker-all-minilm-l6-v2\" is forbidden: User \
                   \"system:serviceaccount:forebay:forebay-autoscaler\" cannot patch resource \"deployments/scale\"";
    server.fail("PATCH /apis/apps", Fault::Answer(403, "Forbidden", message));
    let error = launch_fails(&server).await;
    assert!(error.reason.starts_with(message), "{error}");
    assert!(error.reason.contains("deploy/kubernetes/rbac.yaml"), "{error}");
}

#[tokio::test]
async fn a_token_that_was_replaced_is_read_again_and_never_shown() {
    let server = server().await.unwrap();
    let launcher = server.launcher();
    launcher.list(&[model()]).await.unwrap();
    server.cluster().token = "second-token".into();
    let error = launcher.list(&[model()]).await.unwrap_err().to_string();
    assert!(error.contains("does not accept this account's token"), "{error}");
    assert!(!error.contains("first-token"), "{error}");
    server.write_token("second-token");
    launcher.list(&[model()]).await.unwrap();
}

#[tokio::test]
async fn a_kubeconfig_that_can_t_be_used_is_named() {
    let server = server().await.unwrap();
    let mut config = server.config();
    let path = config.kubeconfig.as_mut().unwrap();
    path.set_file_name("none");
    let error = KubernetesLauncher::new(&config).list(&[model()]).await.unwrap_err();
    assert!(error.reason.starts_with("`autoscaler.kubernetes.kubeconfig` "), "{error}");
    assert!(error.reason.contains("none") && error.reason.contains("No such file"), "{error}");
}

#[tokio::test]
async fn models_whose_ids_differ_in_a_dot_or_an_underscore_have_deployments_of_their_own() {
    let names = ["forebay-worker-bge-small-en-704322ae", "forebay-worker-bge-small-en-4ec112b2"];
    let server = Server::start(&names).await;
    let launcher = server.launcher();
    for model in ["bge.small_en", "bge_small.en", "bge_small.en"] {
        launcher.launch(&order(&model.parse().unwrap())).await.unwrap();
    }
    let replicas = names.map(|name| server.cluster().deployments[name].0);
    assert_eq!(replicas, [1, 2]);
}

#[tokio::test]
async fn a_deployment_of_another_model_is_not_taken_for_one_s_own() {
    // Its name is what both ids were once made to; its pods are the other's.
    let server = Server::start(&[OTHER_DEPLOYMENT]).await;
    let model: ModelId = "bge_small.en".parse().unwrap();
    let error = server.launcher().launch(&order(&model)).await.unwrap_err();
    assert!(error.reason.contains("forebay-worker-bge-small-en-4ec112b2"), "{error}");
    assert_eq!(server.cluster().deployments[OTHER_DEPLOYMENT].0, 0);
    server.launcher().launch(&order(&other_model())).await.unwrap();
    assert_eq!(server.cluster().deployments[OTHER_DEPLOYMENT].0, 1);
}
