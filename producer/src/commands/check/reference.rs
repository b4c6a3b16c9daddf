//! Asks Python for the rows that sentence-transformers or transformers computes.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

/// The program that Python runs.
const PROGRAM: &str = include_str!("reference.py");

/// The rows that are asked for.
#[derive(Serialize)]
pub(super) struct Request<'a> {
    pub(super) folder: &'a Path,
    /// The model's task, as a job names it.
    pub(super) task: &'a str,
    pub(super) texts: &'a [String],
    /// Texts of a reranker, two by two.
    pub(super) pairs: &'a [[String; 2]],
    /// Whether the model reads pairs in a prompt.
    pub(super) has_prompt: bool,
    /// The tokens of the pairs in their prompts, where only the model's makers say which these are: they are taken as
    /// they were made here. Else none.
    pub(super) answered: Vec<Vec<u32>>,
    pub(super) tokens_max: usize,
    /// The most values of a sparse vector.
    pub(super) values_max: Option<usize>,
    /// The pooling, where transformers alone suffices for it.
    pub(super) pooling: Option<String>,
}

/// The rows, or why there are none.
pub(super) enum Answer {
    /// A row for each text or pair (of token vectors for each text as a document, then for each as a query),
    /// by a library of this version.
    Rows { library: String, rows: Vec<Vec<f32>> },
    /// Python or the libraries are not there: why nothing was compared.
    NotThere(String),
    /// The library can't run the model: its words.
    Refused(String),
}

#[derive(Default, Deserialize)]
struct Output {
    library: Option<String>,
    #[serde(default)]
    rows: Vec<Vec<f32>>,
    missing: Option<String>,
    error: Option<String>,
}

/// Runs `python`. It waits until that ends.
pub(super) fn ask(python: &str, request: &Request<'_>) -> Answer {
    match run(python, request) {
        Err(error) => Answer::NotThere(format!("{python}: {error}")),
        Ok(Output { library: Some(library), rows, .. }) => Answer::Rows { library, rows },
        Ok(Output { error: Some(error), .. }) => Answer::Refused(error),
        Ok(Output { missing, .. }) => {
            let missing = missing.unwrap_or_default();
            Answer::NotThere(format!("{python} has no {missing}; name another one with --python"))
        }
    }
}

fn run(python: &str, request: &Request<'_>) -> Result<Output, String> {
    let mut child = Command::new(python)
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let json = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    // A Python that ends early closes its input, and says on standard error why.
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(&json));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        format!("{}: {last} ({written:?})", output.status)
    })
}
