//! The table of CUDA sources, held to the folder of sources and to the kernels that they define. That launches name
//! kernels that are defined, the tests of each operation show: the executor refuses other names.

use std::fs;
use std::path::Path;

use super::executor::Executor;
use crate::cuda::sources::{SOURCES, source_of};

#[test]
fn every_source_is_in_the_table_and_no_other() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
    let mut sources: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    sources.sort();
    let table: Vec<&str> = SOURCES.iter().map(|source| source.name).collect();
    assert_eq!(table, sources, "the table in src/cuda/sources.rs, and the files of cuda/");
}

#[test]
fn every_kernel_is_found_in_the_source_that_defines_it() {
    let kernels = Executor::with(Executor::kernels);
    assert!(kernels.len() > SOURCES.len(), "{kernels:?}");
    for (path, kernel) in kernels {
        let found = source_of(&kernel).map(|source| source.name);
        let defined = path.file_stem().and_then(|stem| stem.to_str());
        assert_eq!(found, defined, "{kernel}");
    }
}

#[test]
fn a_kernel_that_no_source_can_have_is_not_found() {
    assert!(source_of("softmax_bf16").is_none());
}
