//! An image with a stand-in for the worker: this machine's shell, and a script that takes signals as a worker does.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use bollard::{Docker, body_full, query_parameters::CreateImageOptionsBuilder};
use futures_util::TryStreamExt;

/// On SIGTERM it ends well, on SIGUSR1 with exit code 3 and a last word. A stuck one ends on a second SIGTERM only.
const WORKER: &str = r#"#!/bin/sh
[ "$FOREBAY_REDIS_URL" = redis://:secret@store ] || exit 9
trap 'exit 0' TERM
trap 'echo "it began" >&2; echo "the model folder is missing" >&2; exit 3' USR1
[ "$FOREBAY_STAND_IN" != stuck ] || trap 'signals=x$signals; [ $signals = x ] || exit 7' TERM
echo "$@"
while :; do sleep 0.05; done
"#;

/// Makes the image.
pub async fn make(docker: &Docker, name: &str) {
    let root = tempfile::tempdir().unwrap();
    for program in ["/bin/sh", "/bin/sleep"] {
        copy(Path::new(program), root.path());
        for library in libraries(program) {
            copy(Path::new(&library), root.path());
        }
    }
    let bin = root.path().join("usr/local/bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("forebay-worker"), WORKER).unwrap();
    let made_runnable =
        Command::new("chmod").arg("755").arg(bin.join("forebay-worker")).status().unwrap();
    assert!(made_runnable.success());
    let archive = Command::new("tar").arg("-cC").arg(root.path()).arg(".").output().unwrap();
    assert!(archive.status.success(), "tar: {}", String::from_utf8_lossy(&archive.stderr));
    let (repository, tag) = name.split_once(':').unwrap();
    let options = CreateImageOptionsBuilder::new().from_src("-").repo(repository).tag(tag).build();
    let body = body_full(archive.stdout.into());
    docker.create_image(Some(options), Some(body), None).try_collect::<Vec<_>>().await.unwrap();
}

/// The paths that the dynamic linker would take a program's libraries from.
fn libraries(program: &str) -> BTreeSet<String> {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

fn copy(from: &Path, root: &Path) {
    let to = root.join(from.strip_prefix("/").unwrap());
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    // Follows links: what is copied is the file itself, under the name that it is asked for by.
    fs::copy(from, to).unwrap();
}
