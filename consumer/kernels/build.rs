//! Compiles the CUDA kernels, with the feature `cuda` alone: machine code for two architectures, and PTX that the
//! drivers of newer devices compile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const ARCHITECTURES: &[&str] = &[
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_90,code=sm_90",
    "-gencode=arch=compute_90,code=compute_90",
];

/// Sources whose names end in `_sm90a` are for Hopper alone.
const SM_90A: &[&str] = &["-gencode=arch=compute_90a,code=sm_90a"];

fn main() {
    println!("cargo::rerun-if-changed=cuda");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for entry in fs::read_dir("cuda").into_iter().flatten().flatten() {
        let source = entry.path();
        if source.extension().is_some_and(|extension| extension == "cu") {
            compile(&source, &out);
        }
    }
}

fn compile(source: &Path, out: &Path) {
    let compiler = env::var_os("CUDA_HOME")
        .map_or_else(|| PathBuf::from("nvcc"), |home| Path::new(&home).join("bin/nvcc"));
    let mut output = out.join(source.file_name().unwrap_or_default());
    output.set_extension("fatbin");
    let hopper = source.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("_sm90a"));
    let status = Command::new(&compiler)
        .args(["-std=c++17", "-O3", "-Icuda", "-fatbin", "-o"])
        .arg(&output)
        .arg(source)
        .args(if hopper { SM_90A } else { ARCHITECTURES })
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{} on {}: {status}", compiler.display(), source.display()),
        Err(error) => panic!(
            "{}: {error}. The feature `cuda` needs the CUDA toolkit: install it, or run `make cuda`, which fetches it",
            compiler.display()
        ),
    }
}
