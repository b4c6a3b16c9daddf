//! Other engines beside ours, on the same texts and the same model folder, where they are installed.
//!
//! They live in one Python program (`scripts/peers/engine.py`) that loads them once and then embeds when it is told
//! to, so that only embedding is measured.

use std::{
    env,
    io::{BufRead, BufReader, Lines, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// The packages that bring all of the peers.
const PACKAGES: &str = "sentence-transformers onnx onnxruntime openvino";

/// A peer, as the program introduces it.
#[derive(Deserialize)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The smallest cosine between its vectors and those of `PyTorch` in f32.
    pub(crate) cosine_min: f64,
}

#[derive(Deserialize)]
struct Hello {
    threads: usize,
    tokens: u64,
    peers: Vec<Peer>,
}

/// The program, with every peer loaded and warm.
pub(crate) struct Peers {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// On how many threads each of them runs.
    pub(crate) threads: usize,
    /// How many tokens the texts have.
    pub(crate) tokens: u64,
    pub(crate) all: Vec<Peer>,
}

impl Peers {
    /// Nothing, and a line that says so, where no Python has what they need.
    pub(crate) fn start(root: &Path, model: &Path, texts: &Path) -> Result<Option<Self>> {
        let Some(python) = python(root) else {
            eprintln!(
                "no peers of the engine: python3 -m venv .forebay/venv-bench && \
                 .forebay/venv-bench/bin/pip install {PACKAGES}, or set FOREBAY_BENCH_PYTHON"
            );
            return Ok(None);
        };
        let mut child = Command::new(&python)
            .args(["-W", "ignore"])
            .arg(root.join("scripts/peers/engine.py"))
            .arg("--model")
            .arg(model)
            .arg("--texts")
            .arg(texts)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("running {}", python.display()))?;
        let orders = child.stdin.take().context("its standard input")?;
        let output = child.stdout.take().context("its standard output")?;
        let mut answers = BufReader::new(output).lines();
        let hello = answers.next().context("the peers' program ended; it says why above")??;
        let Hello { threads, tokens, peers: all } = serde_json::from_str(&hello)?;
        Ok(Some(Self { child, orders, answers, threads, tokens, all }))
    }

    /// Tokens a second of one round of that peer.
    pub(crate) fn round(&mut self, peer: usize) -> Result<f64> {
        let name = &self.all.get(peer).context("no such peer")?.name;
        writeln!(self.orders, "round {name}")?;
        self.number("tokens_per_s")
    }

    /// The smallest cosine between the vectors in that file and those of `PyTorch` in f32.
    pub(crate) fn compare(&mut self, vectors: &Path) -> Result<f64> {
        writeln!(self.orders, "compare {}", vectors.display())?;
        self.number("cosine_min")
    }

    fn number(&mut self, key: &str) -> Result<f64> {
        let answer = self.answers.next().context("the peers' program ended")??;
        let answer: Value = serde_json::from_str(&answer)?;
        answer[key].as_f64().with_context(|| format!("no {key} in {answer}"))
    }

    /// Ends the program in good order.
    pub(crate) fn close(mut self) -> Result<()> {
        drop(self.orders);
        ensure!(self.child.wait()?.success(), "the peers' program failed");
        Ok(())
    }
}

/// The Python that has what every peer stands on; which peers it has is for the program to see.
fn python(root: &Path) -> Option<PathBuf> {
    let usual = root.join(".forebay/venv-bench/bin/python");
    let python = env::var_os("FOREBAY_BENCH_PYTHON").map_or(usual, PathBuf::from);
    let base = ["-c", "import numpy, tokenizers, torch, transformers"];
    let found = Command::new(&python).args(base).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success()).then_some(python)
}
