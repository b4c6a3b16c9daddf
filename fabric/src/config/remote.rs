//! `[models.X.remote]`: a model that somebody else's endpoint computes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::secret::SecretUrl;

/// An endpoint that computes a model. Its workers call it instead of computing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteConfig {
    /// The address below which the endpoint's paths are: `https://host/v1`.
    pub url: SecretUrl,
    /// The model's name there.
    pub model: String,
    /// The variable that has the API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// The file that has the API key, alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<PathBuf>,
    /// The task of the model.
    #[serde(default)]
    pub task: RemoteTask,
    /// How vectors are asked for.
    #[serde(default)]
    pub encoding: RemoteEncoding,
    /// The scale of the scores of a ranking.
    #[serde(default)]
    pub scores: RemoteScores,
    /// Whether the endpoint cuts texts that are too long, rather than refusing them.
    #[serde(default = "yes")]
    pub truncates: bool,
    /// The most calls at once, of one worker.
    #[serde(default = "concurrency_max")]
    pub concurrency_max: usize,
    /// The longest that one call may take, in milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// The most texts or documents in one call.
    #[serde(default = "inputs_max")]
    pub inputs_max: usize,
    /// The most calls for one part of a job before the job waits in its queue.
    #[serde(default = "tries_max")]
    pub tries_max: u32,
    /// So many failures one after the other open the circuit.
    #[serde(default = "circuit_failures")]
    pub circuit_failures: u32,
    /// How long an open circuit stays open before one call tries the endpoint, in milliseconds.
    #[serde(default = "circuit_open_ms")]
    pub circuit_open_ms: u64,
}

fn yes() -> bool {
    true
}

/// As many as providers' lowest tiers take without refusing.
fn concurrency_max() -> usize {
    16
}

/// Ten times what providers take for a full call.
fn timeout_ms() -> u64 {
    60_000
}

/// Within the limits of the usual providers and servers, but for text-embeddings-inference (32 by default).
fn inputs_max() -> usize {
    96
}

fn tries_max() -> u32 {
    3
}

fn circuit_failures() -> u32 {
    5
}

fn circuit_open_ms() -> u64 {
    10_000
}

/// The task of a remote model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemoteTask {
    /// Texts to vectors, by OpenAI's `/embeddings`.
    #[default]
    Embed,
    /// Documents to scores, by Cohere's and Jina's `/rerank`.
    Rerank,
}

/// How vectors are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemoteEncoding {
    /// The base64 of floats: exact, and a third of the bytes.
    #[default]
    Base64,
    /// Lists of numbers, for endpoints that know nothing else.
    Float,
}

/// The scale of the scores of a ranking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemoteScores {
    /// From 0 to 1.
    #[default]
    Relevance,
    /// A model's own, without bounds.
    Raw,
}

impl RemoteConfig {
    /// Checks what the types don't say. The error names the key, which is under `table`.
    pub(super) fn check(&self, table: &str) -> Result<(), String> {
        let url = self.url.expose();
        if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(format!("`{table}.url` is `{}`: write https://HOST/v1", self.url));
        }
        if url.contains(['?', '#']) {
            return Err(format!(
                "`{table}.url` is `{}`: write it without what begins with ? or #",
                self.url
            ));
        }
        if self.url.has_login() {
            return Err(format!(
                "`{table}.url` has a login: use `api_key_env` or `api_key_file` for the key"
            ));
        }
        if self.model.is_empty() {
            return Err(format!("`{table}.model` is empty: write the model's name there"));
        }
        if self.api_key_env.is_some() && self.api_key_file.is_some() {
            return Err(format!("`{table}` has both `api_key_env` and `api_key_file`: keep one"));
        }
        for (key, value, most) in [
            // Each is a thread that waits.
            ("concurrency_max", self.concurrency_max as u64, 256),
            ("timeout_ms", self.timeout_ms, 900_000),
            ("inputs_max", self.inputs_max as u64, 2_048),
            ("tries_max", self.tries_max.into(), 100),
            ("circuit_failures", self.circuit_failures.into(), 1_000),
            ("circuit_open_ms", self.circuit_open_ms, 600_000),
        ] {
            if !(1..=most).contains(&value) {
                return Err(format!("`{table}.{key}` is {value}: use 1 to {most}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn loaded(lines: &str) -> Result<Config, String> {
        let text = format!("[models.m]\n[models.m.remote]\n{lines}\n");
        let parsed = Config::parse(Path::new("f"), &text, []);
        parsed.map(|(config, _)| config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_remote_model_needs_an_address_and_a_name_and_no_source() {
        let config = loaded("url = \"https://h/v1\"\nmodel = \"x\"").unwrap();
        let remote = config.models[&"m".parse().unwrap()].remote.as_ref().unwrap();
        assert_eq!((remote.concurrency_max, remote.task), (16, RemoteTask::Embed));
        let printed = config.to_toml();
        assert!(
            printed.contains("url = \"https://h/v1\"") && !printed.contains("source"),
            "{printed}"
        );
    }

    #[test]
    fn a_mistake_is_named_by_its_key() {
        for (lines, expected) in [
            ("model = \"x\"", "missing field `url`"),
            ("url = \"h\"\nmodel = \"x\"", "`models.m.remote.url` is `h`: write https://HOST/v1"),
            ("url = \"https://u:p@h\"\nmodel = \"x\"", "`models.m.remote.url` has a login"),
            ("url = \"https://h\"\nmodel = \"\"", "`models.m.remote.model` is empty"),
            (
                "url = \"https://h\"\nmodel = \"x\"\napi_key_env = \"A\"\napi_key_file = \"/b\"",
                "keep one",
            ),
            (
                "url = \"https://h\"\nmodel = \"x\"\ntimeout_ms = 0",
                "`models.m.remote.timeout_ms` is 0",
            ),
            ("url = \"https://h\"\nmodel = \"x\"\napi_key = \"sk-1\"", "unknown field `api_key`"),
        ] {
            let error = loaded(lines).unwrap_err();
            assert!(error.contains(expected), "{lines}: {error}");
            assert!(!error.contains("sk-1"), "{error}");
        }
        let neither = Config::parse(Path::new("f"), "[models.m]\n", []).unwrap_err().to_string();
        assert!(neither.contains("`models.m` has no `source`"), "{neither}");
        let both = "[models.m]\nsource = \"folder:/a\"\n[models.m.remote]\nurl = \"http://h\"\nmodel = \"x\"\n";
        let both = Config::parse(Path::new("f"), both, []).unwrap_err().to_string();
        assert!(both.contains("both `source` and `remote`"), "{both}");
    }

    #[test]
    fn the_reference_page_has_every_key_with_its_default() {
        let page = include_str!("../../../docs/configuration.md");
        let start = page.find("### `[models.<model id>.remote]`").expect("a section");
        let section = &page[start..];
        let section = &section[..section[1..].find("\n#").map_or(section.len(), |at| at + 1)];
        let config = loaded("url = \"https://h/v1\"\nmodel = \"x\"").unwrap();
        let remote = config.models[&"m".parse().unwrap()].remote.as_ref().unwrap();
        for (key, value) in toml::Table::try_from(remote).unwrap() {
            if ["url", "model"].contains(&key.as_str()) {
                continue;
            }
            let value =
                value.as_str().map_or_else(|| value.to_string(), |text| format!("`{text}`"));
            let row = format!("| `{key}` | {value} |");
            assert!(section.contains(&row), "it lacks: {row}");
        }
        for key in ["url", "model", "api_key_env", "api_key_file"] {
            assert!(section.contains(&format!("| `{key}` |")), "it lacks `{key}`");
        }
    }
}
