//! `forebay models`

use super::{CommandResult, Context, unless_stopped};
use crate::output::size;

pub(super) async fn run(context: &mut Context) -> CommandResult {
    let client = context.client()?;
    let workers = unless_stopped(&context.stop, async { Ok(client.workers().await?) }).await;
    if let Err(error) = &workers {
        eprintln!("forebay: {error}");
    }
    let models = client.models(workers.ok().as_deref());
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
        .map(|model| {
            let cached = match (model.cached_bytes, &model.source) {
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
