//! The other gateways, in front of a server that answers at once: `LiteLLM`'s proxy and SMG, where they are installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    http::{TEXT, Target},
    program::{Program, free_port},
    worker::MODEL,
};

const KEY: &str = "sk-bench-7d1f";

/// Another gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    LiteLlm,
    Smg,
}

impl Peer {
    pub(crate) const ALL: [Self; 2] = [Self::LiteLlm, Self::Smg];

    fn package(self) -> &'static str {
        match self {
            Self::LiteLlm => "litellm",
            Self::Smg => "smg",
        }
    }

    /// Its name and version, if the environment has it.
    pub(crate) fn installed(self, environment: &Path) -> Option<String> {
        let package = self.package();
        let version = format!("import importlib.metadata as m; print(m.version('{package}'))");
        let output =
            Command::new(environment.join("bin/python")).args(["-c", &version]).output().ok()?;
        let version = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        Some(format!("{package} {}", version.trim()))
    }

    /// Starts it in front of the server on `backend`, with a key and with limits that are counted and never reached.
    /// `LiteLLM` has keys and budgets of tenants only with a database: here it checks its master key and counts what
    /// its one deployment does.
    pub(crate) fn start(
        self,
        environment: &Path,
        folder: &Path,
        backend: u16,
    ) -> Result<(Program, Target)> {
        let port = free_port()?;
        let program = environment.join("bin").join(self.package());
        ensure!(program.exists(), "no {}", program.display());
        let mut command = Command::new(program);
        let listen = port.to_string();
        match self {
            Self::LiteLlm => {
                let config = litellm_config(folder, backend)?;
                command.arg("--config").arg(config).args([
                    "--host",
                    "127.0.0.1",
                    "--port",
                    &listen,
                ]);
                // It would fetch prices from the network.
                command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
            }
            Self::Smg => {
                let url = format!("http://127.0.0.1:{backend}");
                let metrics = free_port()?.to_string();
                let tenant = format!("bench:{KEY}");
                command.args([
                    "launch",
                    "--host",
                    "127.0.0.1",
                    "--port",
                    &listen,
                    "--worker-urls",
                    &url,
                ]);
                command.args(["--prometheus-port", &metrics, "--tenant-api-key", &tenant]);
                command.args(["--max-concurrent-requests", "10000"]);
                command.args(["--rate-limit-tokens-per-second", "1000000", "--log-level", "warn"]);
            }
        }
        let program = Program::start(self.package(), command, folder)?;
        Ok((program, Target::embeddings(port, MODEL, TEXT, KEY)))
    }
}

fn litellm_config(folder: &Path, backend: u16) -> Result<PathBuf> {
    let path = folder.join("litellm.yaml");
    // JSON is YAML.
    let config = json!({
        "model_list": [{
            "model_name": MODEL,
            "litellm_params": {
                "model": format!("openai/{MODEL}"), "api_base": format!("http://127.0.0.1:{backend}/v1"),
                "api_key": "none", "rpm": 1_000_000_000, "tpm": 1_000_000_000,
            },
        }],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"telemetry": false},
    });
    fs::write(&path, config.to_string()).context("LiteLLM's configuration")?;
    Ok(path)
}
