//! Imports point down inside each crate: no circle of modules, and no use of a layer above. Every source file is in a
//! module.
//!
//! A module uses another if its code names an item that is defined there, however many re-exports and globs lie
//! between. `mod x;` and `pub use` alone are no uses, and neither are methods called on values. Code for tests only is
//! left out. An import runs up if it leads from a module to one that uses it, at any distance (which is a circle), or
//! from a module of [`LAYERS`] to one on its right.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use toml::{Table, Value};

use self::graph::Graph;
use self::tree::Tree;
use super::files::{assert_none, root, sources};

mod graph;
mod orphans;
mod planted;
mod source;
mod tree;

/// In a source folder: modules that never use those on the right, since these are built from them or stand beside them.
const LAYERS: &[(&str, &[&str], &[&str])] = &[
    ("consumer/kernels/src", &["ops"], &["cpu", "cuda", "dispatch"]),
    ("consumer/kernels/src", &["cpu"], &["cuda", "dispatch"]),
    ("consumer/kernels/src", &["cuda"], &["cpu", "dispatch"]),
    ("consumer/engine/src", &["load", "tokenizer"], &["families", "encode", "model"]),
    ("consumer/engine/src", &["encode"], &["families", "model"]),
    ("consumer/engine/src", &["families"], &["model"]),
    (
        "consumer/src",
        &["journal", "settle"],
        &["decode", "admit", "tokenize", "encode", "pipeline", "worker"],
    ),
    ("consumer/src", &["decode", "admit", "tokenize"], &["encode", "pipeline", "worker"]),
    ("autoscaler/src", &["decide"], &["observe", "act", "pool", "scaler", "service"]),
    ("autoscaler/src", &["observe"], &["pool", "scaler", "service"]),
    ("autoscaler/src", &["act"], &["observe", "pool", "scaler", "service"]),
    ("autoscaler/src", &["simulate"], &["act", "observe", "pool", "scaler", "service"]),
    ("fabric/src", &["config"], &["broker", "store", "telemetry"]),
    ("fabric/src", &["broker", "store"], &["answer", "intake"]),
    (
        "gateway/src",
        &["error", "failures", "fields", "inputs", "openai", "rerank", "tei", "native"],
        &["fleet", "http", "service"],
    ),
    ("gateway/src", &["fleet"], &["http", "service"]),
    ("producer/src", &["pull"], &["commands", "cli"]),
    ("tests/src", &["broker", "store"], &["stack", "workload", "chaos"]),
];

/// The folders of the workspace's members.
fn members(root: &Path) -> Vec<PathBuf> {
    let manifest: Table = fs::read_to_string(root.join("Cargo.toml")).unwrap().parse().unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap().iter();
    members.map(|member| root.join(member.as_str().unwrap())).collect()
}

/// The root file of every crate in `member`: its library and programs, its tests, examples and benches.
fn crate_roots(member: &Path) -> Vec<PathBuf> {
    let manifest: Table = fs::read_to_string(member.join("Cargo.toml")).unwrap().parse().unwrap();
    let kinds = ["bin", "example", "test", "bench"]
        .into_iter()
        .filter_map(|kind| manifest.get(kind)?.as_array());
    let written = kinds.flatten().filter_map(|target| target.get("path").and_then(Value::as_str));
    let mut roots: Vec<PathBuf> = written.map(|path| member.join(path)).collect();
    roots.extend(["src/lib.rs", "src/main.rs", "build.rs"].map(|file| member.join(file)));
    for folder in ["src/bin", "tests", "examples", "benches"] {
        let entries = fs::read_dir(member.join(folder)).into_iter().flatten();
        for path in entries.map(|entry| entry.unwrap().path()) {
            let is_source = path.extension().is_some_and(|extension| extension == "rs");
            roots.push(if is_source { path } else { path.join("main.rs") });
        }
    }
    roots.retain(|file| file.exists());
    roots.sort();
    roots.dedup();
    roots
}

/// The graphs of all crates.
fn graphs() -> &'static [Graph] {
    static GRAPHS: LazyLock<Vec<Graph>> = LazyLock::new(|| {
        let roots = members(root()).into_iter().flat_map(|member| crate_roots(&member));
        roots.map(|file| Graph::of(&Tree::read(&file), root())).collect()
    });
    &GRAPHS
}

#[test]
fn every_source_file_is_in_a_module() {
    // Its own workspace, with programs that its manifest names.
    let apart = ["fuzz", "tests/clients/async-openai"].map(|package| root().join(package));
    let roots = members(root()).into_iter().chain(apart).flat_map(|member| crate_roots(&member));
    let files = sources("rs").into_iter().map(|source| root().join(&source.path));
    let orphans = orphans::orphans(roots, files);
    let paths: Vec<String> = orphans.iter().map(|file| file.display().to_string()).collect();
    assert_none("files in no module of any crate: declare them with `mod`, or delete them", &paths);
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    let circles = graphs().iter().flat_map(|graph| {
        let knotted = graph.knotted().len();
        let circles = graph.clone().circles().into_iter();
        circles.map(move |circle| format!("of {knotted} files in circles: {circle}"))
    });
    assert_none("circles of modules", &circles.collect::<Vec<_>>());
}

#[test]
fn no_module_uses_a_layer_above_it() {
    let graphs = graphs();
    let mut offences = Vec::new();
    for (folder, lower, upper) in LAYERS {
        let folder = root().join(folder);
        let file = |layer: &str| folder.join(layer).with_extension("rs");
        let is_there = |layer: &&&str| folder.join(layer).exists() || file(layer).exists();
        let gone = lower.iter().chain(*upper).find(|layer| !is_there(layer));
        offences
            .extend(gone.map(|layer| format!("there is no layer {layer} in {}", folder.display())));
        let is_in = |layers: &[&str], path: &Path| {
            let path = root().join(path);
            layers.iter().any(|layer| path.starts_with(folder.join(layer)) || path == file(layer))
        };
        let uses = graphs
            .iter()
            .map(|graph| graph.uses(|file| is_in(lower, file), |file| is_in(upper, file)));
        offences.extend(uses.flatten());
    }
    assert_none("uses of an upper layer", &offences);
}
