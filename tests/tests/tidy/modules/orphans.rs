//! Source files that no crate compiles, because no `mod` declares them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::tree::Tree;

/// Those of `files` that are in no module of the crates with these root files, test modules included.
pub fn orphans(
    roots: impl IntoIterator<Item = PathBuf>,
    files: impl IntoIterator<Item = PathBuf>,
) -> Vec<PathBuf> {
    // `#[path]` may lead through `..`.
    let real = |file: &PathBuf| {
        fs::canonicalize(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    };
    let mut compiled: BTreeSet<PathBuf> = BTreeSet::new();
    for root in roots {
        let tree = Tree::read_with_tests(&root);
        compiled.extend(tree.modules.iter().map(|module| real(&module.file)));
    }
    files.into_iter().filter(|file| !compiled.contains(&real(file))).collect()
}

#[test]
fn a_file_that_no_module_declares_is_found_and_test_modules_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let written = [
        ("src/lib.rs", "mod a; #[cfg(test)] mod tests; mod inline { mod nested; }"),
        ("src/a/mod.rs", "mod child; #[path = \"../../shared/other.rs\"] mod other;"),
        ("src/a/child.rs", ""),
        ("src/tests.rs", "mod more;"),
        ("src/tests/more.rs", ""),
        ("src/inline/nested.rs", ""),
        ("shared/other.rs", ""),
        ("src/a/forgotten.rs", "pub fn f() {}"),
        ("src/child.rs", "pub fn f() {}"),
    ];
    for (name, text) in written {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let file = |name: &str| folder.path().join(name);
    let found = orphans([file("src/lib.rs")], written.map(|(name, _)| file(name)));
    assert_eq!(found, ["src/a/forgotten.rs", "src/child.rs"].map(file));
}
