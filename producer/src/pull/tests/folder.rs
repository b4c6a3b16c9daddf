//! Pulls from a folder.

use std::fs;

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
    assert!(matches!(error, PullError::Lacking { file: "model.safetensors", .. }), "{error}");
    let error = pull_folder(&origin.path().join("nowhere"), models.path()).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
}
