//! Builds the executor from the kernels' sources with the machine's C++ compiler, as they are or with mistakes planted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How sources are compiled: the executor by itself, the kernels with every access to memory reported to it.
const EXECUTOR_FLAGS: &[&str] = &["-std=c++17", "-O2", "-g", "-Wall", "-Wextra", "-Werror"];
const KERNEL_FLAGS: &[&str] = &[
    "-xc++",
    "-std=c++17",
    "-O1",
    "-g",
    "-Wall",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-fsanitize=thread",
    "-includeexecutor.h",
];

/// The sources by their path under `cuda/`.
#[derive(Clone)]
pub(super) struct Program {
    sources: BTreeMap<PathBuf, String>,
}

impl Program {
    /// The kernels as they are.
    pub(super) fn kernels() -> Self {
        let root = root();
        let mut sources = BTreeMap::new();
        for folder in ["", "executor"] {
            for entry in fs::read_dir(root.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let known = ["cu", "cuh", "cpp", "h"];
                if path.extension().is_some_and(|extension| known.iter().any(|&k| extension == k)) {
                    let name = path.strip_prefix(&root).unwrap().to_owned();
                    sources.insert(name, fs::read_to_string(&path).unwrap());
                }
            }
        }
        Self { sources }
    }

    /// The executor with other kernels.
    pub(super) fn only(name: &str, source: &str) -> Self {
        let mut program = Self::kernels();
        program
            .sources
            .retain(|path, _| path.extension().is_none_or(|extension| extension != "cu"));
        program.sources.insert(name.into(), source.to_owned());
        program
    }

    /// The program with a piece of one source replaced, which stands there once.
    pub(super) fn with(mut self, name: &str, piece: &str, replacement: &str) -> Self {
        let source = self.sources.get_mut(Path::new(name)).unwrap();
        assert_eq!(source.matches(piece).count(), 1, "{name} has {piece:?} not once");
        *source = source.replace(piece, replacement);
        self
    }

    /// The built program. What was built before from the same sources is taken again.
    pub(super) fn build(&self) -> PathBuf {
        let folder =
            std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("cuda-executor");
        fs::create_dir_all(&folder).unwrap();
        // One process builds, others wait for what it leaves.
        let lock = File::create(folder.join("lock")).unwrap();
        lock.lock().unwrap();
        let includes = self.lay_out(&folder);
        let mut objects = Vec::new();
        for (path, source) in &self.sources {
            let flags = match path.extension().unwrap().to_str().unwrap() {
                "cu" => KERNEL_FLAGS,
                "cpp" => EXECUTOR_FLAGS,
                _ => continue,
            };
            let object = folder.join(format!("{:016x}.o", self.hash_of(source, flags)));
            if !object.exists() {
                let include = format!("-I{}", includes.join("executor").display());
                let source = includes.join(path);
                compile(&object, flags, &[&include, "-c", source.to_str().unwrap()]);
            }
            objects.push(object);
        }
        let mut hasher = DefaultHasher::new();
        objects.hash(&mut hasher);
        let program = folder.join(format!("{:016x}", hasher.finish()));
        if !program.exists() {
            let objects: Vec<&str> =
                objects.iter().map(|object| object.to_str().unwrap()).collect();
            compile(&program, &["-no-pie"], &objects);
        }
        program
    }

    /// Writes the sources to a folder that their content names.
    fn lay_out(&self, folder: &Path) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        self.sources.hash(&mut hasher);
        let folder = folder.join(format!("sources-{:016x}", hasher.finish()));
        for (path, source) in &self.sources {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, source).unwrap();
        }
        folder
    }

    /// Of a source, its flags and all headers.
    fn hash_of(&self, source: &str, flags: &[&str]) -> u64 {
        let mut hasher = DefaultHasher::new();
        (source, flags).hash(&mut hasher);
        for (path, header) in &self.sources {
            if path.extension().is_some_and(|extension| extension == "h" || extension == "cuh") {
                header.hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda")
}

/// Runs the C++ compiler; what it makes appears whole or not at all.
fn compile(output: &Path, flags: &[&str], inputs: &[&str]) {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
    let partial = output.with_extension("partial");
    let result = Command::new(&compiler).args(flags).args(inputs).arg("-o").arg(&partial).output();
    let result = result.unwrap_or_else(|error| {
        panic!("{compiler}: {error}. The kernels' tests need a C++ compiler: install g++, or name one in CXX")
    });
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    fs::rename(partial, output).unwrap();
}
