//! Pulls from a hub that behaves well or badly.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    server::{Reply, Request, TestServer},
    *,
};

/// The files of the hub's test repository.
fn repository() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{\"t\":1}".to_vec()),
        ("1_Pooling/config.json", b"{\"p\":1}".to_vec()),
        ("README.md", b"not needed".to_vec()),
        ("model.safetensors", weights()),
    ]
}

const COMMIT: &str = "c0ffee00";

fn listing(weights_hash: &str) -> String {
    let siblings: Vec<_> = repository()
        .into_iter()
        .map(|(name, body)| {
            let mut file = serde_json::json!({"rfilename": name, "size": body.len()});
            if name == "model.safetensors" {
                file["lfs"] = serde_json::json!({"sha256": weights_hash, "size": body.len()});
            }
            file
        })
        .collect();
    serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string()
}

/// A hub that replies correctly, except for the weights, which `weights_reply` decides.
fn hub(weights_reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> TestServer {
    hub_listing(listing(&sha256(&weights())), weights_reply)
}

fn hub_listing(
    listing: String,
    weights_reply: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> TestServer {
    TestServer::start(move |request| {
        if request.path == "/api/models/owner/tiny/revision/main?blobs=true" {
            return Reply::whole(listing.clone());
        }
        let resolve = format!("/owner/tiny/resolve/{COMMIT}/");
        match request.path.strip_prefix(&resolve) {
            Some("model.safetensors") => weights_reply(request),
            Some(name) => match repository().into_iter().find(|(known, _)| *known == name) {
                Some((_, body)) => Reply::ranged(request, &body),
                None => Reply::status(404),
            },
            None => Reply::status(404),
        }
    })
}

fn pull_hub(server: &TestServer, models: &Path) -> Result<Pulled, PullError> {
    pull(&model(), &"hf:owner/tiny".parse().unwrap(), models, &server.remote(), &mut |_| {})
}

fn weight_ranges(server: &TestServer) -> Vec<Option<usize>> {
    let all = server.requests().into_iter();
    all.filter(|r| r.path.ends_with("model.safetensors")).map(|r| r.range).collect()
}

#[test]
fn a_hub_model_arrives_whole_and_only_what_is_needed() {
    let server = hub(|request| Reply::ranged(request, &weights()));
    let models = tempfile::tempdir().unwrap();
    let pulled = pull_hub(&server, models.path()).unwrap();
    assert!(!pulled.was_there);
    assert_eq!(fs::read(pulled.folder.join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read(pulled.folder.join("1_Pooling/config.json")).unwrap(), b"{\"p\":1}");
    assert!(!pulled.folder.join("README.md").exists());
    assert_eq!(pulled.manifest.commit.as_deref(), Some(COMMIT));
    let on_disk = cached(models.path(), &model()).unwrap();
    assert_eq!(on_disk, pulled.manifest);
    assert!(!models.path().join(".tiny.pull").exists());
}

#[test]
fn a_complete_model_is_left_alone_without_asking_the_server() {
    let server = hub(|request| Reply::ranged(request, &weights()));
    let models = tempfile::tempdir().unwrap();
    pull_hub(&server, models.path()).unwrap();
    let before = server.requests().len();
    assert!(pull_hub(&server, models.path()).unwrap().was_there);
    assert_eq!(server.requests().len(), before);
}

#[test]
fn a_cut_transfer_resumes_where_it_stopped() {
    let server = hub(|request| match request.range {
        None => Reply::whole(weights()).cut_after(100_000),
        Some(_) => Reply::ranged(request, &weights()),
    });
    let models = tempfile::tempdir().unwrap();
    let pulled = pull_hub(&server, models.path()).unwrap();
    assert_eq!(fs::read(pulled.folder.join("model.safetensors")).unwrap(), weights());
    let ranges = weight_ranges(&server);
    assert!(matches!(ranges[..], [None, Some(at)] if at > 0 && at <= 100_000), "{ranges:?}");
}

#[test]
fn a_later_pull_resumes_where_an_earlier_one_gave_up() {
    let models = tempfile::tempdir().unwrap();
    let cutting = hub(|request| Reply::ranged(request, &weights()).cut_after(0));
    let halfway = hub(|request| match request.range {
        None => Reply::whole(weights()).cut_after(100_000),
        Some(_) => Reply::status(503),
    });
    for server in [&cutting, &halfway] {
        let error = pull_hub(server, models.path()).unwrap_err();
        assert!(matches!(error, PullError::Unreachable { attempts: 4, .. }), "{error}");
    }
    assert_eq!(cached(models.path(), &model()), None);

    let server = hub(|request| Reply::ranged(request, &weights()));
    pull_hub(&server, models.path()).unwrap();
    let ranges = weight_ranges(&server);
    assert!(matches!(ranges[..], [Some(at)] if at > 0), "{ranges:?}");
}

#[test]
fn a_server_that_ignores_ranges_makes_the_transfer_start_over() {
    let tries = AtomicUsize::new(0);
    let server = hub(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::whole(weights()).cut_after(100_000),
        _ => Reply::whole(weights()),
    });
    let models = tempfile::tempdir().unwrap();
    let pulled = pull_hub(&server, models.path()).unwrap();
    assert_eq!(fs::read(pulled.folder.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn a_part_of_another_version_is_thrown_away() {
    let models = tempfile::tempdir().unwrap();
    let other = hub(|request| match request.range {
        None => Reply::whole(vec![7; weights().len()]).cut_after(100_000),
        Some(_) => Reply::status(500),
    });
    pull_hub(&other, models.path()).unwrap_err();

    let server = hub(|request| Reply::ranged(request, &weights()));
    let pulled = pull_hub(&server, models.path()).unwrap();
    assert_eq!(fs::read(pulled.folder.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn a_silent_server_is_disconnected_and_asked_again() {
    let server = hub(|request| match request.range {
        None => Reply::whole(weights()).cut_after(50_000).stalling(),
        Some(_) => Reply::ranged(request, &weights()),
    });
    let models = tempfile::tempdir().unwrap();
    pull_hub(&server, models.path()).unwrap();
    assert_eq!(weight_ranges(&server).len(), 2);
}

#[test]
fn a_busy_server_is_asked_again_and_the_reason_reported() {
    let tries = AtomicUsize::new(0);
    let server = hub(move |request| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(429).header("retry-after: 0".into()),
        _ => Reply::ranged(request, &weights()),
    });
    let models = tempfile::tempdir().unwrap();
    let mut reasons = Vec::new();
    let source = "hf:owner/tiny".parse().unwrap();
    pull(&model(), &source, models.path(), &server.remote(), &mut |event| {
        if let Event::Retrying { reason, after } = event {
            reasons.push((reason.to_owned(), after));
        }
    })
    .unwrap();
    assert_eq!(reasons.len(), 1);
    assert!(reasons[0].0.contains("429") && reasons[0].1.is_zero(), "{reasons:?}");
}

#[test]
fn a_wrong_hash_is_an_error_and_leaves_nothing() {
    let server = hub(|_| Reply::whole(vec![7; weights().len()]));
    let models = tempfile::tempdir().unwrap();
    let error = pull_hub(&server, models.path()).unwrap_err();
    assert!(matches!(error, PullError::Mismatch { what: "sha256", .. }), "{error}");
    let files = models.path().join(".tiny.pull/files");
    assert!(!files.join("model.safetensors").exists());
    assert!(!files.join("model.safetensors.part").exists());
    assert!(!models.path().join("tiny").exists());
}

#[test]
fn a_body_shorter_or_longer_than_announced_by_the_hub_is_an_error() {
    let models = tempfile::tempdir().unwrap();
    let short = hub(|_| Reply::whole(&weights()[..1000]));
    let error = pull_hub(&short, models.path()).unwrap_err();
    assert!(error.to_string().contains("1000 of 300000 bytes"), "{error}");
    let long = hub(|_| Reply::whole([weights(), vec![0]].concat()));
    let error = pull_hub(&long, models.path()).unwrap_err();
    assert!(matches!(error, PullError::Mismatch { what: "size", .. }), "{error}");
}

#[test]
fn a_missing_or_locked_repository_is_reported_with_its_remedy_at_once() {
    for (status, hint) in [(404, "check the name"), (401, "HF_TOKEN")] {
        let server = TestServer::start(move |_| Reply::status(status));
        let models = tempfile::tempdir().unwrap();
        let error = pull_hub(&server, models.path()).unwrap_err().to_string();
        assert!(error.contains(hint), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_where_it_redirects() {
    let storage = TestServer::start(|request| Reply::ranged(request, &weights()));
    let location = format!("location: {}/elsewhere", storage.url);
    let server = hub(move |_| Reply::status(302).header(location.clone()));
    let remote = Remote { hub_token: Some("hf_secret".into()), ..server.remote() };
    let models = tempfile::tempdir().unwrap();
    let source = "hf:owner/tiny".parse().unwrap();
    pull(&model(), &source, models.path(), &remote, &mut |_| {}).unwrap();
    let bearer = Some("Bearer hf_secret".to_owned());
    assert!(server.requests().iter().all(|request| request.authorization == bearer));
    assert!(storage.requests().iter().all(|request| request.authorization.is_none()));
    assert!(!storage.requests().is_empty());
}

#[test]
fn a_repository_without_safetensors_says_so() {
    let listing = serde_json::json!({"sha": COMMIT, "siblings": [
        {"rfilename": "config.json"}, {"rfilename": "pytorch_model.bin"},
    ]});
    let server = hub_listing(listing.to_string(), |_| Reply::status(404));
    let models = tempfile::tempdir().unwrap();
    let error = pull_hub(&server, models.path()).unwrap_err();
    assert!(
        matches!(&error, PullError::Lacking { file, .. } if file == "model.safetensors"),
        "{error}"
    );
}

#[test]
fn two_pulls_at_once_fetch_once() {
    let server = Arc::new(hub(|request| Reply::ranged(request, &weights())));
    let models = Arc::new(tempfile::tempdir().unwrap());
    let pulls: Vec<_> = (0..4)
        .map(|_| {
            let server = Arc::clone(&server);
            let models = Arc::clone(&models);
            thread::spawn(move || pull_hub(&server, models.path()).unwrap().was_there)
        })
        .collect();
    let was_there: Vec<bool> = pulls.into_iter().map(|pull| pull.join().unwrap()).collect();
    assert_eq!(was_there.iter().filter(|&&there| !there).count(), 1);
    assert_eq!(weight_ranges(&server), [None]);
}

#[test]
fn a_folder_without_manifest_is_replaced() {
    let server = hub(|request| Reply::ranged(request, &weights()));
    let models = tempfile::tempdir().unwrap();
    let folder = models.path().join("tiny");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.json"), "old").unwrap();
    fs::write(folder.join("stray"), "old").unwrap();
    assert!(!pull_hub(&server, models.path()).unwrap().was_there);
    assert_eq!(fs::read(folder.join("config.json")).unwrap(), b"{}");
    assert!(!folder.join("stray").exists());
}
