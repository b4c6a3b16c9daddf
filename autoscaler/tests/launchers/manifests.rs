//! The manifests of deploy/kubernetes: whole, of one piece, and with no more rights than the launcher uses.

use std::{collections::BTreeSet, fs, path::PathBuf};

use forebay_autoscaler::act::{Launcher, kubernetes::KubernetesLauncher};
use forebay_fabric::{
    Config,
    config::{KubernetesConfig, LauncherKind},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{
        ConfigMap, Namespace, PersistentVolumeClaim, PodSpec, Secret, Service, ServiceAccount,
    },
    policy::v1::PodDisruptionBudget,
    rbac::v1::{Role, RoleBinding},
};
use serde_json::Value;

use crate::{
    cluster::{Fault, Server},
    contract::{Watch, order},
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes")
}

fn documents(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder().join(file)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// All that is applied, as the kustomization lists it.
fn applied() -> Vec<Value> {
    let kustomization = documents("kustomization.yaml").remove(0);
    let files = kustomization["resources"].as_array().unwrap();
    files.iter().flat_map(|file| documents(file.as_str().unwrap())).collect()
}

fn all_of<T: serde::de::DeserializeOwned>(kind: &str) -> Vec<T> {
    let found = applied().into_iter().filter(|document| document["kind"] == kind);
    found.map(|document| serde_json::from_value(document).unwrap()).collect()
}

fn deployment(name: &str) -> Deployment {
    let mut all = all_of::<Deployment>("Deployment");
    all.retain(|one| one.metadata.name.as_deref() == Some(name));
    all.pop().unwrap_or_else(|| panic!("there is no Deployment {name}"))
}

fn config() -> Config {
    let map = all_of::<ConfigMap>("ConfigMap").remove(0);
    let text = &map.data.unwrap()["forebay.toml"];
    let (config, warnings) = Config::parse("forebay.toml".as_ref(), text, []).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    config
}

#[test]
fn each_document_is_what_it_says_and_in_the_fleet_s_namespace() {
    for document in applied() {
        let kind = document["kind"].as_str().unwrap();
        let metadata = &document["metadata"];
        if kind == "Namespace" {
            assert_eq!(metadata["name"], "forebay");
        } else {
            assert_eq!(metadata["namespace"], "forebay", "{kind} {}", metadata["name"]);
        }
    }
    let counts = [
        all_of::<Namespace>("Namespace").len(),
        all_of::<ServiceAccount>("ServiceAccount").len(),
        all_of::<RoleBinding>("RoleBinding").len(),
        all_of::<PersistentVolumeClaim>("PersistentVolumeClaim").len(),
        all_of::<Job>("Job").len(),
        all_of::<Service>("Service").len(),
        all_of::<PodDisruptionBudget>("PodDisruptionBudget").len(),
    ];
    assert_eq!(counts, [1, 1, 1, 1, 1, 3, 3]);
}

#[tokio::test]
async fn the_role_allows_what_the_launcher_calls_and_nothing_else() {
    let config = config();
    let models: Vec<_> = config.models.keys().cloned().collect();
    let named: Vec<String> = models.iter().map(|model| name_of(model.as_str())).collect();
    let server = Server::start(&named.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let launcher = KubernetesLauncher::new(&server.config());
    for model in &models {
        launcher.launch(&order(model)).await.unwrap();
        launcher.launch(&order(model)).await.unwrap();
        let mut watch = Watch::new(&launcher, std::slice::from_ref(model));
        watch.until("both run", |watch| watch.running().len() == 2).await;
        server.fail("PATCH /apis/apps", Fault::Answer(500, "InternalError", "no"));
        launcher.drain(model, &watch.running()).await.unwrap_err();
        launcher.drain(model, &watch.running()[1..]).await.unwrap();
        launcher.end(&watch.running()[0]).await.unwrap();
    }
    let mut allowed = BTreeSet::new();
    for rule in all_of::<Role>("Role").remove(0).rules.unwrap() {
        let names = rule.resource_names.unwrap_or_default();
        let names =
            if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
        for resource in rule.resources.unwrap() {
            let group = if resource == "deployments/scale" { "apps" } else { "" };
            assert_eq!(rule.api_groups, Some(vec![group.to_owned()]));
            for (verb, name) in
                rule.verbs.iter().flat_map(|verb| names.iter().map(move |name| (verb, name)))
            {
                allowed.insert((verb.clone(), resource.clone(), name.clone()));
            }
        }
    }
    assert_eq!(allowed, server.cluster().calls);
}

fn name_of(model: &str) -> String {
    let pattern = KubernetesConfig::default().deployment;
    pattern.replace("{model}", &model.replace(['.', '_'], "-"))
}

#[test]
fn each_model_has_its_deployment_under_the_name_and_label_that_the_launcher_looks_for() {
    for (model, settings) in &config().models {
        assert_eq!(settings.pool.launcher, LauncherKind::Kubernetes);
        let spec = deployment(&name_of(model.as_str())).spec.unwrap();
        assert_eq!(spec.replicas, None, "applying it again would set them back");
        let labels = spec.template.metadata.unwrap().labels.unwrap();
        assert_eq!(labels["forebay.model"], model.as_str());
        let pod = spec.template.spec.unwrap();
        let arguments = pod.containers[0].args.clone().unwrap().join(" ");
        assert!(arguments.contains(&format!("--model {model} ")), "{arguments}");
        // Without these a worker would compute on all cores of its node.
        assert!(arguments.ends_with("--threads $(CORES)"), "{arguments}");
        let limits = pod.containers[0].resources.clone().unwrap().limits.unwrap();
        assert!(limits.contains_key("cpu"), "{limits:?}");
        let variables = pod.containers[0].env.clone().unwrap();
        let name = variables.iter().find(|one| one.name == "FOREBAY_WORKER_NAME").unwrap();
        let field = name.value_from.clone().unwrap().field_ref.unwrap().field_path;
        assert_eq!(field, "metadata.name");
        // The environment stands above the file; an orchestrator's own names do not count.
        let idle = variables.iter().find(|one| one.name == "FOREBAY_WORKER__IDLE_S_MAX");
        assert_eq!(idle.unwrap().value.as_deref(), Some("0"));
        let grace_s = config().worker.grace_s;
        let allowed_s = pod.termination_grace_period_seconds.unwrap().unsigned_abs();
        assert!(allowed_s > grace_s, "{allowed_s} s to settle what takes {grace_s} s");
    }
}

#[test]
fn selectors_select_what_they_are_for() {
    let deployments = all_of::<Deployment>("Deployment");
    let mut pods = Vec::new();
    for deployment in deployments {
        let spec = deployment.spec.unwrap();
        let labels = spec.template.metadata.unwrap().labels.unwrap();
        let selector = spec.selector.match_labels.unwrap();
        assert!(selector.iter().all(|(key, value)| labels.get(key) == Some(value)));
        pods.push((labels, spec.template.spec.unwrap()));
    }
    let selects = |selector: &std::collections::BTreeMap<String, String>| {
        let fits = |labels: &std::collections::BTreeMap<String, String>| {
            selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        pods.iter().filter(|(labels, _)| fits(labels)).count()
    };
    for budget in all_of::<PodDisruptionBudget>("PodDisruptionBudget") {
        let selector = budget.spec.unwrap().selector.unwrap().match_labels.unwrap();
        assert_eq!(selects(&selector), 1);
    }
    for service in all_of::<Service>("Service") {
        assert_eq!(selects(&service.spec.unwrap().selector.unwrap()), 1);
    }
    let accounts = all_of::<ServiceAccount>("ServiceAccount");
    let account = accounts[0].metadata.name.as_deref();
    let with_account: Vec<_> =
        pods.iter().filter(|(_, pod)| pod.service_account_name.is_some()).collect();
    assert_eq!(with_account.len(), 1);
    assert_eq!(with_account[0].1.service_account_name.as_deref(), account);
    let binding = all_of::<RoleBinding>("RoleBinding").remove(0);
    assert_eq!(Some(binding.subjects.unwrap()[0].name.as_str()), account);
    assert_eq!(Some(binding.role_ref.name), all_of::<Role>("Role").remove(0).metadata.name);
}

#[test]
fn no_container_has_more_rights_than_it_needs() {
    let mut pods: Vec<PodSpec> = all_of::<Deployment>("Deployment")
        .into_iter()
        .map(|one| one.spec.unwrap().template.spec.unwrap())
        .collect();
    pods.extend(
        all_of::<Job>("Job").into_iter().map(|one| one.spec.unwrap().template.spec.unwrap()),
    );
    for pod in pods {
        let speaks_to_the_cluster = pod.service_account_name.is_some();
        assert_eq!(pod.automount_service_account_token, Some(speaks_to_the_cluster));
        // Kubernetes would name services in variables that begin with FOREBAY_.
        assert_eq!(pod.enable_service_links, Some(false));
        let context = pod.security_context.unwrap();
        assert_eq!((context.run_as_non_root, context.run_as_user), (Some(true), Some(10001)));
        assert_eq!(context.seccomp_profile.unwrap().type_, "RuntimeDefault");
        for container in pod.containers {
            let resources = container.resources.unwrap();
            assert!(resources.limits.unwrap().contains_key("memory"), "{}", container.name);
            let context = container.security_context.unwrap();
            assert_eq!(context.allow_privilege_escalation, Some(false));
            assert_eq!(context.read_only_root_filesystem, Some(true));
            assert_eq!(context.capabilities.unwrap().drop, Some(vec!["ALL".into()]));
            // The gateway alone must outlive its endpoint; all others are to get SIGTERM at once.
            let waits = container.lifecycle.is_some();
            assert_eq!(waits, container.name == "gateway", "{}", container.name);
        }
    }
}

#[test]
fn the_secret_is_an_example_that_is_not_applied() {
    let secret: Secret =
        serde_json::from_value(documents("secret.example.yaml").remove(0)).unwrap();
    let values = secret.string_data.unwrap();
    assert!(values.values().all(|value| value.contains("PASSWORD")));
    assert!(!applied().iter().any(|document| document["kind"] == "Secret"));
    let name = secret.metadata.name.unwrap();
    let autoscaler = deployment("forebay-autoscaler").spec.unwrap().template.spec.unwrap();
    let sources = autoscaler.containers[0].env_from.clone().unwrap();
    assert_eq!(sources[0].secret_ref.clone().unwrap().name, name);
    // A worker and a gateway get what they need of it, and nothing else.
    let workers = config().models.into_keys().map(|model| name_of(model.as_str()));
    for program in workers.chain(["forebay-gateway".to_owned()]) {
        let pod = deployment(&program).spec.unwrap().template.spec.unwrap();
        let container = &pod.containers[0];
        assert_eq!(container.env_from, None);
        let sources = container.env.iter().flatten().filter_map(|one| one.value_from.as_ref());
        let keys = sources.filter_map(|source| source.secret_key_ref.as_ref());
        let keys: Vec<(&str, &str)> =
            keys.map(|key| (key.name.as_str(), key.key.as_str())).collect();
        assert_eq!(keys, [(name.as_str(), "FOREBAY_AMQP_URL"), (&name, "FOREBAY_REDIS_URL")]);
    }
    let environment = values.into_iter().filter(|(key, _)| key.starts_with("FOREBAY_"));
    let (_, warnings) = Config::parse("none".as_ref(), "", environment).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn keda_scales_the_same_deployment_by_the_queues_of_its_model() {
    let documents = documents("keda-scaledobject.yaml");
    let authentication = &documents[0];
    let scaled = &documents[1];
    let model = config().models.keys().next().unwrap().to_string();
    assert_eq!(scaled["spec"]["scaleTargetRef"]["name"], name_of(&model));
    let lanes = ["interactive", "batch"].map(|lane| format!("forebay.jobs.{model}.{lane}"));
    let triggers = scaled["spec"]["triggers"].as_array().unwrap();
    let queues: Vec<&str> =
        triggers.iter().map(|one| one["metadata"]["queueName"].as_str().unwrap()).collect();
    assert_eq!(queues, lanes);
    for trigger in triggers {
        assert_eq!(trigger["authenticationRef"]["name"], authentication["metadata"]["name"]);
    }
    let files = applied();
    assert!(!files.iter().any(|document| document["kind"] == "ScaledObject"));
}

#[test]
fn the_gpu_component_changes_the_worker_s_own_container() {
    let mut patches = documents("gpu/worker.yaml");
    let patch: Deployment = serde_json::from_value(patches.remove(0)).unwrap();
    let worker = deployment(patch.metadata.name.as_deref().unwrap());
    let text = fs::read_to_string(folder().join("gpu/worker.yaml")).unwrap();
    let container = &worker.spec.unwrap().template.spec.unwrap().containers[0];
    assert!(text.contains(&format!("- name: {}\n", container.name)));
    let model = &container.args.clone().unwrap()[2];
    assert!(text.contains(&format!("--model, {model}, --device, \"cuda:0\"]")));
}

#[test]
fn the_gateway_is_reached_through_its_service_and_stops_within_its_pod_s_grace() {
    let spec = deployment("forebay-gateway").spec.unwrap();
    assert!(spec.replicas.is_some_and(|replicas| replicas >= 2));
    let pod = spec.template.spec.unwrap();
    let container = &pod.containers[0];
    let listen = config().gateway.listen;
    assert!(listen.ip().is_unspecified(), "the pod's address is not known before");
    let ports = container.ports.clone().unwrap();
    let http = ports.iter().find(|port| port.name.as_deref() == Some("http")).unwrap();
    assert_eq!(http.container_port, i32::from(listen.port()));
    let probes = [&container.liveness_probe, &container.readiness_probe]
        .map(|probe| probe.clone().unwrap().http_get.unwrap().path.unwrap());
    assert_eq!(probes, ["/healthz", "/readyz"]);
    let pause = container.lifecycle.clone().unwrap().pre_stop.unwrap().exec.unwrap().command;
    let pause_s: u64 = pause.unwrap()[1].parse().unwrap();
    let allowed_s = pod.termination_grace_period_seconds.unwrap().unsigned_abs();
    // Cancelling what is left takes five seconds at most.
    assert!(allowed_s >= pause_s + config().gateway.grace_s + 5, "{allowed_s} s");
    let services = all_of::<Service>("Service").into_iter();
    let mut ports = services.flat_map(|one| one.spec.unwrap().ports.unwrap());
    assert!(ports.any(|port| port.name.as_deref() == Some("http")));
}

#[test]
fn prometheus_finds_every_program_by_one_label() {
    let monitor = documents("podmonitor.yaml").remove(0);
    let label = &monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/part-of"];
    let port = &monitor["spec"]["podMetricsEndpoints"][0]["port"];
    for deployment in all_of::<Deployment>("Deployment") {
        let template = deployment.spec.unwrap().template;
        let labels = template.metadata.unwrap().labels.unwrap();
        assert_eq!(labels["app.kubernetes.io/part-of"], label.as_str().unwrap());
        let ports = template.spec.unwrap().containers[0].ports.clone().unwrap();
        assert_eq!(ports[0].name.as_deref(), port.as_str());
    }
}
