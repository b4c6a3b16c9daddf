//! Small crates with a planted circle, and without: the check finds what it is for, and nothing else.

use std::fs;

use super::graph::Graph;
use super::tree::Tree;

/// The circles of a crate that consists of these files, as the files' names in order.
fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let tree = Tree::read(&folder.path().join("lib.rs"));
    let circles = Graph::of(&tree, folder.path()).circles();
    let names = circles.into_iter().map(|circle| {
        let mut files: Vec<_> =
            circle.0.iter().map(|(from, ..)| from.display().to_string()).collect();
        files.sort();
        files
    });
    names.collect()
}

#[track_caller]
fn finds(files: &[(&str, &str)], circle: &[&str]) {
    assert_eq!(circles(files), [circle]);
}

#[track_caller]
fn finds_none(files: &[(&str, &str)]) {
    assert_eq!(circles(files), Vec::<Vec<String>>::new());
}

#[test]
fn two_modules_that_import_each_other_are_a_circle() {
    finds(
        &[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "use crate::a::A; pub struct B(Vec<A>);"),
        ],
        &["a.rs", "b.rs"],
    );
}

#[test]
fn a_circle_hidden_by_a_re_export_is_found() {
    finds(
        &[
            ("lib.rs", "mod a; mod b; pub use a::A; pub use b::B as Renamed;"),
            ("a.rs", "use crate::Renamed; pub struct A(Renamed);"),
            ("b.rs", "use crate::A; pub struct B(Vec<A>);"),
        ],
        &["a.rs", "b.rs"],
    );
}

#[test]
fn a_child_that_uses_what_its_parent_defines_is_a_circle_with_it() {
    finds(
        &[
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod child; use self::child::run; pub struct A; fn f(a: A) { run(a) }"),
            ("a/child.rs", "pub fn run(_: super::A) {}"),
        ],
        &["a/child.rs", "a/mod.rs"],
    );
}

#[test]
fn a_circle_through_globs_is_found() {
    finds(
        &[
            ("lib.rs", "mod a; mod b; mod prelude;"),
            ("prelude.rs", "pub use crate::a::*; pub use crate::b::*;"),
            ("a.rs", "use crate::prelude::*; pub struct A(Option<B>);"),
            ("b.rs", "use crate::prelude::*; pub struct B; impl B { fn f() -> A { todo() } }"),
        ],
        &["a.rs", "b.rs"],
    );
}

#[test]
fn a_circle_of_three_is_found_whole() {
    finds(
        &[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "pub const A: u32 = crate::b::B;"),
            ("b.rs", "pub const B: u32 = crate::c::C;"),
            ("c.rs", "pub const C: u32 = 0; pub fn f() -> u32 { crate::a::A }"),
        ],
        &["a.rs", "b.rs", "c.rs"],
    );
}

#[test]
fn uses_within_macros_and_attributes_count() {
    finds(
        &[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub fn f() { println!(\"{}\", crate::b::g(1)); }"),
            (
                "b.rs",
                "macro_rules! m { () => { $crate::a::f() } } pub fn g(n: u32) -> u32 { m!(); n }",
            ),
        ],
        &["a.rs", "b.rs"],
    );
    finds(
        &[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "#[derive(S)] pub struct A { #[serde(default = \"crate::b::one\")] n: u32 }"),
            ("b.rs", "use crate::a; pub fn one() -> u32 { 1 } pub fn g(_: a::A) {}"),
        ],
        &["a.rs", "b.rs"],
    );
}

#[test]
fn what_is_for_tests_only_does_not_count() {
    let plain = ("a.rs", "use crate::b::B; pub struct A(B);");
    let in_module =
        "pub struct B; #[cfg(test)] mod tests { use super::*; use crate::a::A; fn f(_: A) {} }";
    let in_item = "pub struct B; #[cfg(all(test, unix))] fn f(_: crate::a::A) {}";
    for text in [in_module, in_item] {
        finds_none(&[("lib.rs", "mod a; mod b;"), plain, ("b.rs", text)]);
    }
    let for_more = "pub struct B; #[cfg(any(test, feature = \"x\"))] fn f(_: crate::a::A) {}";
    finds(&[("lib.rs", "mod a; mod b;"), plain, ("b.rs", for_more)], &["a.rs", "b.rs"]);
}

#[test]
fn declarations_re_exports_and_uses_of_an_ancestor_alone_are_no_circle() {
    finds_none(&[
        ("lib.rs", "mod a; pub use a::A; pub const ONE: u32 = 1;"),
        ("a/mod.rs", "mod child; pub use child::Child as A; pub fn shared() {}"),
        ("a/child.rs", "pub struct Child; fn f() -> u32 { super::shared(); crate::ONE }"),
    ]);
}

#[test]
fn a_variable_with_the_name_of_a_function_is_no_use_of_it() {
    finds_none(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "pub use crate::b::now; pub struct A; pub fn f(now: u32) -> u32 { now }"),
        ("b.rs", "pub fn now(_: crate::a::A) {}"),
    ]);
}
