//! Pulls from a folder.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use super::*;

fn pull_folder(origin: &Path, models: &Path) -> Result<Pulled, PullError> {
    let source = Source::Folder(origin.to_owned());
    pull(&model(), &source, models, &Remote::from_env(), &mut |_| {})
}

fn origin(names: &[&str]) -> tempfile::TempDir {
    let origin = tempfile::tempdir().unwrap();
    for name in names {
        let path = origin.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    origin
}

#[test]
fn a_folder_is_copied_without_what_is_not_needed() {
    let needed = ["1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json"];
    let origin = origin(&[&needed[..], &["README.md", "onnx/config.json"]].concat());
    let models = tempfile::tempdir().unwrap();
    let pulled = pull_folder(origin.path(), models.path()).unwrap();
    let paths: Vec<_> = pulled.manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, needed);
    assert_eq!(fs::read(pulled.folder.join("config.json")).unwrap(), b"config.json");
    assert!(pull_folder(origin.path(), models.path()).unwrap().was_there);
}

#[test]
fn another_source_replaces_the_model() {
    let first = origin(&["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]);
    let second = origin(&["config.json", "model.safetensors", "tokenizer.json"]);
    let models = tempfile::tempdir().unwrap();
    pull_folder(first.path(), models.path()).unwrap();
    let pulled = pull_folder(second.path(), models.path()).unwrap();
    assert!(!pulled.was_there);
    assert!(!pulled.folder.join("vocab.txt").exists());
}

#[test]
fn a_folder_that_lacks_a_file_says_which() {
    let origin = origin(&["config.json"]);
    let models = tempfile::tempdir().unwrap();
    let error = pull_folder(origin.path(), models.path()).unwrap_err();
    assert!(
        matches!(&error, PullError::Lacking { file, .. } if file == "model.safetensors"),
        "{error}"
    );
    let error = pull_folder(&origin.path().join("nowhere"), models.path()).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn a_model_that_is_replaced_is_there_all_the_while() {
    let names = ["config.json", "model.safetensors", "tokenizer.json"];
    let origins = [origin(&names), origin(&names)];
    let models = tempfile::tempdir().unwrap();
    let config = pull_folder(origins[0].path(), models.path()).unwrap().folder.join("config.json");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reads = scope.spawn(|| {
            let mut opened = 0_u64;
            while !done.load(Relaxed) {
                fs::File::open(&config).map_err(|error| format!("{error} after {opened}"))?;
                opened += 1;
            }
            Ok::<_, String>(opened)
        });
        for round in 1..=200 {
            assert!(!pull_folder(origins[round % 2].path(), models.path()).unwrap().was_there);
        }
        done.store(true, Relaxed);
        assert!(reads.join().unwrap().unwrap() > 200);
    });
}
