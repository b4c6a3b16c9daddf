//! Builds and finds the programs under test.
//!
//! `cargo test` builds a package's programs for that package's own tests only, so the first test that needs
//! one asks cargo for all of them, in the profile and target folder of the test itself. When they are
//! fresh, that takes a fraction of a second. They have their fail points, which no released program has.
//! `FOREBAY_TEST_BIN_DIR` names a folder of ready-made programs instead.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| match env::var_os("FOREBAY_TEST_BIN_DIR") {
    Some(folder) => folder.into(),
    None => build(),
});

/// The path of the program `name`.
pub fn binary(name: &str) -> PathBuf {
    let path = FOLDER.join(name);
    assert!(path.exists(), "no program {name} in {}", FOLDER.display());
    path
}

/// The folder of this checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests live in the checkout")
}

/// The test runs as `<target>/<profile>/deps/<test>`.
fn build() -> PathBuf {
    let test = env::current_exe().expect("the path of the test");
    let folder = test.ancestors().nth(2).expect("a profile folder").to_owned();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(checkout()).args([
        "build",
        "--workspace",
        "--bins",
        "--examples", // as `scripts/test` does: with the features of the tests, nothing is built twice
        "--quiet",
        "--features",
        "forebay-consumer/fail-points,forebay-autoscaler/fail-points",
        "--target-dir",
    ]);
    cargo.arg(folder.parent().expect("a target folder"));
    // `cargo test` describes the tested package in these, and build scripts that watch them would run again.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("run cargo");
    assert!(status.success(), "cargo can't build the programs under test");
    folder
}
