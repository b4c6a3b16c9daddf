//! Models that are broken on the disk, and disks that are full.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use forebay_tests::patience::PATIENT;
use forebay_tests::record::result;
use forebay_tests::stack::Stack;

use forebay_tests::workload::Workload;

/// Replaces the link to the tiny model by a copy of its files, which may be broken; answers the weights.
fn own_copy(stack: &Stack) -> PathBuf {
    let folder = stack.tiny_model();
    let original = fs::canonicalize(&folder).unwrap();
    fs::remove_file(&folder).unwrap();
    copy(&original, &folder);
    folder.join("model.safetensors")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The worker ends with an error that names the file.
async fn is_refused(stack: &Stack, file: &str) {
    let mut worker = stack.starting_worker(&[]);
    let code = worker.exit_code(PATIENT).await;
    let log = worker.log();
    assert!(code == 1 || code == 2, "ended with {code}:\n{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains(file), "{file} is not named:\n{log}");
}

#[tokio::test]
async fn half_written_weights_are_refused_by_name() {
    let stack = Stack::start().await.tiny();
    let weights = own_copy(&stack);
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    is_refused(&stack, "model.safetensors").await;
}

#[tokio::test]
async fn corrupt_weights_are_refused_by_name() {
    let stack = Stack::start().await.tiny();
    let weights = own_copy(&stack);
    let mut bytes = fs::read(&weights).unwrap();
    bytes[..64].fill(0xff);
    fs::write(&weights, &bytes).unwrap();
    is_refused(&stack, "model.safetensors").await;
    fs::write(&weights, b"").unwrap();
    is_refused(&stack, "model.safetensors").await;
}

#[tokio::test]
async fn corrupt_settings_of_a_model_are_refused_by_name() {
    let stack = Stack::start().await.tiny();
    let folder = own_copy(&stack).parent().unwrap().to_owned();
    for file in ["config.json", "tokenizer.json"] {
        let good = fs::read(folder.join(file)).unwrap();
        fs::write(folder.join(file), &good[..good.len() / 2]).unwrap();
        is_refused(&stack, file).await;
        fs::write(folder.join(file), good).unwrap();
    }
}

#[tokio::test]
async fn weights_that_are_no_numbers_never_make_a_result() {
    let mut workload = Workload::new().await;
    let weights = own_copy(&workload.stack);
    let mut bytes = fs::read(&weights).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let data = 8 + usize::try_from(header).unwrap();
    for value in bytes[data..].as_chunks_mut().0 {
        *value = f32::NAN.to_le_bytes();
    }
    fs::write(&weights, &bytes).unwrap();
    let job = workload.job("text");
    workload.submit(&job).await;
    let mut worker = workload.stack.starting_worker(&[]);
    // Either it refuses to serve such a model, or it fails every job.
    let ended = forebay_tests::patience::holds_within(PATIENT, async || {
        worker.ended().is_some()
            || forebay_tests::record::find(&mut workload.redis, job.id()).await.is_some()
    });
    assert!(ended.await, "neither refused nor answered");
    if let Some(code) = worker.ended() {
        assert_ne!(code, 0);
        return;
    }
    let record = result(&mut workload.redis, job.id()).await;
    assert_eq!((record.state(), record.error_code()), ("failed", "numerical_error"));
}

/// A file system of its own that is soon full; `None` where this process may not mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", "size=256k", "tmpfs"], folder);
        mounted.then(|| Self(folder.to_owned()))
    }

    fn grow(&self) {
        assert!(mount(&["-o", "remount,size=16m"], &self.0), "more room");
    }
}

fn mount(arguments: &[&str], folder: &Path) -> bool {
    let status = Command::new("mount").args(arguments).arg(folder).status();
    status.is_ok_and(|status| status.success())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_stops_a_pull_and_leaves_no_half_model() {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let stack = Stack::start().await.tiny();
    let folder = stack.store.folder().join("small");
    let disk = is_root.then(|| SmallDisk::mount(&folder)).flatten();
    let Some(disk) = disk else {
        eprintln!("NOT TESTED: a full disk; only root may mount a small one");
        return;
    };
    let pull = || {
        let models = folder.to_str().unwrap();
        let mut command = stack.program("forebay", &[("FOREBAY_MODELS_DIR", models)]);
        command.args(["pull", "tiny"]);
        stack.run(command)
    };
    let full = pull().await;
    assert_eq!(full.code, 1, "{full:?}");
    assert!(full.errors.contains("space"), "{full:?}");
    assert!(!folder.join("tiny/config.json").exists(), "half a model");
    disk.grow();
    let enough = pull().await;
    assert_eq!(enough.code, 0, "{enough:?}");
    assert!(folder.join("tiny/model.safetensors").exists());
}
