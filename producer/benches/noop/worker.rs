//! A worker of a no-op model, and the folder and configuration that it needs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use forebay_fabric::Config;
use serde_json::json;
use tempfile::TempDir;

/// The model's name.
pub(crate) const MODEL: &str = "bench-noop";
const PATIENCE: Duration = Duration::from_secs(60);
/// Values in a vector: as many as all-MiniLM-L6-v2 has, so a result is some 1.6 KB.
const WIDTH: usize = 384;

/// A no-op model has no best batch size that could be found by measuring.
const BATCH_TOKENS: usize = 4_096;

/// The model and its configuration, in a temporary folder.
pub(crate) struct Fixture {
    folder: TempDir,
    program: PathBuf,
}

impl Fixture {
    /// Creates the folder. The tokenizer is that of the model in `like`.
    pub(crate) fn create(like: &Path) -> Result<Self> {
        let program =
            std::env::var_os("FOREBAY_WORKER_PROGRAM").context("FOREBAY_WORKER_PROGRAM")?.into();
        let folder = TempDir::new()?;
        let model = folder.path().join(MODEL);
        fs::create_dir(&model)?;
        fs::copy(like.join("tokenizer.json"), model.join("tokenizer.json"))
            .with_context(|| format!("the tokenizer in {}", like.display()))?;
        let config = json!({
            "architectures": ["ForebayNoop"], "model_type": "forebay-noop", "vocab_size": 30_522,
            "hidden_size": WIDTH, "max_position_embeddings": 256,
        });
        fs::write(model.join("config.json"), config.to_string())?;
        // The first token's vector: the mean would have to be computed.
        fs::create_dir(model.join("1_Pooling"))?;
        let pooling = json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false });
        fs::write(model.join("1_Pooling/config.json"), pooling.to_string())?;
        let modules = json!([
            { "idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer" },
            { "idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling" },
        ]);
        fs::write(model.join("modules.json"), modules.to_string())?;
        let settings = format!(
            "models_dir = \"{}\"\n[models.{MODEL}]\nsource = \"folder:{}\"\n\
             [worker]\nbatch_tokens_max = {BATCH_TOKENS}\n",
            folder.path().display(),
            model.display()
        );
        fs::write(folder.path().join("forebay.toml"), settings)?;
        Ok(Self { folder, program })
    }

    /// The configuration, with the servers named in the environment.
    pub(crate) fn config(&self) -> Result<Config> {
        Ok(Config::load(Some(&self.settings()))?.config)
    }

    /// Its configuration file.
    pub(crate) fn settings(&self) -> PathBuf {
        self.folder.path().join("forebay.toml")
    }

    /// Starts a worker, which keeps loading for some tenths of a second.
    pub(crate) fn start(&self) -> Result<Worker> {
        let log = self.folder.path().join("worker.log");
        let child = Command::new(&self.program)
            .args(["--model", MODEL])
            .env("FOREBAY_CONFIG", self.settings())
            .env("FOREBAY_TELEMETRY__LISTEN", "127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        Ok(Worker { child, log })
    }
}

/// A running worker, killed when this is dropped.
pub(crate) struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it is subscribed.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let began = Instant::now();
        while !fs::read_to_string(&self.log)?.contains("model loaded") {
            if let Some(status) = self.child.try_wait()? {
                bail!("the worker ended, {status}: {}", fs::read_to_string(&self.log)?);
            }
            ensure!(began.elapsed() < PATIENCE, "the worker does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // It subscribes right after.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(())
    }

    /// Stops it with SIGTERM and waits for its end.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let id = self.child.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &id]).status()?.success(), "kill {id}");
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(began.elapsed() < PATIENCE, "the worker does not stop");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
