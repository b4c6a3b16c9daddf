//! `forebay models`

use forebay_client::{ModelId, ModelInfo};
use forebay_producer::pull;
use serde::Serialize;

use crate::{
    context::{Context, unless_stopped},
    error::CommandResult,
    output::size,
};

/// A model as it is listed.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    info: ModelInfo,
    /// The size of the copy in this machine's cache; absent when there is no complete one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_bytes: Option<u64>,
}

pub(crate) async fn run(context: &mut Context) -> CommandResult {
    let client = context.client()?;
    let workers = unless_stopped(&context.stop, async { Ok(client.workers().await?) }).await;
    if let Err(error) = &workers {
        eprintln!("forebay: {error}");
    }
    let folder = context.config.models_dir()?;
    let listed = |info: ModelInfo| {
        // A worker may serve a model under an invalid id, which has no folder in the cache.
        let id: Option<ModelId> = info.id.parse().ok();
        let manifest = id.and_then(|id| pull::cached(&folder, &id));
        Listed { info, cached_bytes: manifest.map(|manifest| manifest.bytes()) }
    };
    let models: Vec<Listed> =
        client.models(workers.ok().as_deref()).into_iter().map(listed).collect();
    if context.output.json {
        for model in &models {
            context.output.json_line(model)?;
        }
        return Ok(());
    }
    if models.is_empty() {
        eprintln!("forebay: no models: add a [models.<name>] table to forebay.toml");
    }
    let rows: Vec<[String; 4]> = models
        .into_iter()
        .map(|Listed { info: model, cached_bytes }| {
            let cached = match (cached_bytes, &model.source) {
                _ if model.is_remote => "not needed".to_owned(),
                (Some(bytes), _) => size(bytes),
                (None, Some(_)) => format!("no: `forebay pull {}`", model.id),
                (None, None) => "no".to_owned(),
            };
            let workers = match (model.workers_ready, model.workers) {
                (Some(ready), Some(all)) => format!("{ready} ready of {all}"),
                _ => "unknown".to_owned(),
            };
            let source = model.source.unwrap_or_else(|| "not configured here".to_owned());
            [model.id, cached, workers, source]
        })
        .collect();
    Ok(context.output.table(["MODEL", "CACHED", "WORKERS", "SOURCE"], &rows)?)
}
