//! `forebay check`

mod compare;
mod reference;
mod rows;

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use forebay_client::ModelId;
use forebay_engine::{DType, Ignored, KindInfo, LoadOptions, Model, ModelTask, load};
use forebay_fabric::config::OpenTask;
use serde::Serialize;

use self::{
    compare::Compared,
    reference::{Answer, Request},
};
use crate::{
    context::{Context, unless_stopped},
    error::{CommandError, CommandResult},
    output::{Output, plain},
};

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// The model, by its name in the cache, or the path of a model folder
    #[arg(value_name = "MODEL")]
    model: String,
    /// In which number type to compute: f32, bf16 or int8
    #[arg(long, default_value = "f32")]
    dtype: DType,
    /// The task of a language model whose files leave it open, where the configuration doesn't say: rerank
    #[arg(long, value_name = "TASK", value_parser = ["rerank"])]
    task: Option<String>,
    /// The Python that has sentence-transformers or transformers
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// Compare on this text instead of the samples; several may be given
    #[arg(long = "text", value_name = "TEXT")]
    texts: Vec<String>,
}

/// All that was understood of a model folder, and how it compares.
#[derive(Serialize)]
struct Report {
    forebay: &'static str,
    folder: PathBuf,
    family: &'static str,
    task: &'static str,
    labels: Vec<String>,
    dimensions: usize,
    tokens_max: usize,
    truncates: &'static str,
    token_types: bool,
    pooling: Vec<String>,
    after_pooling: Vec<String>,
    /// How queries are read, and documents, where each token has a vector.
    reading: Vec<(&'static str, String)>,
    prompts: std::collections::BTreeMap<String, String>,
    default_prompt: Option<String>,
    /// The prompt that a query and a document become.
    pair_prompt: Option<String>,
    stored_dtypes: Vec<String>,
    dtype: String,
    ignored: Vec<Ignored>,
    comparison: Option<Comparison>,
}

/// The comparison with a library, or why there is none.
#[derive(Serialize)]
#[serde(untagged)]
enum Comparison {
    Made {
        library: String,
        #[serde(flatten)]
        result: Compared,
    },
    NotMade {
        reason: String,
    },
}

pub(crate) async fn run(args: Args, context: &mut Context) -> CommandResult {
    let folder = folder(&args.model, context)?;
    let reranks = args.task.is_some() || is_reranker(&args.model, context);
    // Loading and Python take their time on a thread of their own; Ctrl-C ends the program.
    let work = tokio::task::spawn_blocking(move || check(&folder, reranks, &args));
    let work = async { work.await.map_err(|error| CommandError::Failed(error.to_string()))? };
    let report = unless_stopped(&context.stop, work).await?;
    if context.output.json {
        context.output.json_line(&report)?;
    } else {
        print(&report, &mut context.output)?;
    }
    match report.comparison {
        Some(Comparison::Made { result, .. }) if !result.agrees => Err(CommandError::Failed(
            "the model computes something else here than in Python; please report it with the lines above"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

/// The folder that is meant: a path, or a model's in the cache.
fn folder(model: &str, context: &Context) -> Result<PathBuf, CommandError> {
    let path = Path::new(model);
    if path.join("config.json").is_file() || model.contains('/') {
        return Ok(path.to_owned());
    }
    let id: ModelId = model.parse().map_err(|error| {
        CommandError::Usage(format!("{model:?} is neither a model folder nor a model: {error}"))
    })?;
    if let Some(entry) = context.config.models.get(&id).filter(|entry| entry.remote.is_some()) {
        return Err(CommandError::Usage(format!(
            "`{model}` has no files to check: it is {}",
            entry.origin()
        )));
    }
    Ok(context.config.model_dir(&id)?)
}

/// Whether the configuration says of a model of the cache that it reranks.
fn is_reranker(model: &str, context: &Context) -> bool {
    let id: Option<ModelId> = model.parse().ok();
    let entry = id.and_then(|id| context.config.models.get(&id));
    entry.is_some_and(|entry| entry.task == Some(OpenTask::Rerank))
}

fn check(folder: &Path, reranks: bool, args: &Args) -> Result<Report, CommandError> {
    let failed = |error: forebay_engine::EngineError| CommandError::Failed(error.to_string());
    let options = LoadOptions { dtype: Some(args.dtype), reranks, ..LoadOptions::default() };
    let mut model = load(folder, &options).map_err(failed)?;
    let texts = if args.texts.is_empty() { compare::samples() } else { args.texts.clone() };
    let pairs = if model.info.task == ModelTask::Rerank { compare::pairs(&texts) } else { vec![] };
    let rows = rows::rows(&mut model, &texts, &pairs).map_err(failed)?;
    let info = &model.info;
    let names = rows::names(info.task, &texts);
    let of_words = info.sparse_pooling.iter().map(ToString::to_string);
    let pooling: Vec<String> =
        info.pooling.iter().map(ToString::to_string).chain(of_words).collect();
    let is_plain =
        pooling.len() == 1 && info.after_pooling.is_empty() && info.default_prompt.is_none();
    let request = Request {
        folder,
        task: task_name(info.task),
        texts: &texts,
        pairs: &pairs,
        has_prompt: info.pair_prompt.is_some(),
        answered: if reranks { rows::ids(&model, &pairs).map_err(failed)? } else { vec![] },
        tokens_max: info.tokens_max,
        values_max: info.sparse_pooling.map(|pooling| pooling.values_max),
        pooling: pooling.first().filter(|_| is_plain).cloned(),
    };
    let comparison = match reference::ask(&args.python, &request) {
        Answer::Rows { library, rows: expected } => Comparison::Made {
            library,
            result: compare::compare(info.task, args.dtype, &names, &rows, &expected),
        },
        Answer::NotThere(reason) => Comparison::NotMade { reason },
        Answer::Refused(error) => {
            Comparison::NotMade { reason: format!("the library can't run it: {error}") }
        }
    };
    Ok(report(folder, &model, pooling, comparison))
}

fn report(folder: &Path, model: &Model, pooling: Vec<String>, comparison: Comparison) -> Report {
    let info = &model.info;
    Report {
        forebay: env!("CARGO_PKG_VERSION"),
        folder: folder.to_owned(),
        family: info.architecture,
        task: task_name(info.task),
        labels: info.labels.clone(),
        dimensions: info.dim,
        tokens_max: info.tokens_max,
        truncates: if info.keeps_end { "the beginning" } else { "the end" },
        token_types: model.tokenizer.gives_types(),
        pooling,
        after_pooling: info.after_pooling.clone(),
        reading: info.kinds.iter().flat_map(reading).collect(),
        prompts: info.prompts.clone(),
        default_prompt: info.default_prompt.clone(),
        pair_prompt: info.pair_prompt.clone(),
        stored_dtypes: info.stored_dtypes.clone(),
        dtype: info.dtype.to_string(),
        ignored: info.ignored.clone(),
        comparison: Some(comparison),
    }
}

fn task_name(task: ModelTask) -> &'static str {
    match task {
        ModelTask::Embed => "embed",
        ModelTask::EmbedSparse => "embed_sparse",
        ModelTask::EmbedTokens => "embed_tokens",
        ModelTask::Classify => "classify",
        ModelTask::Rerank => "rerank",
        ModelTask::Generate => "generate",
    }
}

/// How a model of token vectors reads queries, and documents.
fn reading([queries, documents]: &[KindInfo; 2]) -> [(&'static str, String); 2] {
    let words = |kind: &KindInfo| {
        let filled = kind.filled_to.map(|length| {
            let seen = if kind.sees_fillers { "see" } else { "don't see" };
            format!(", filled up to {length} with tokens that the others {seen}")
        });
        let skipped = (kind.skipped > 0)
            .then(|| format!(", no vectors of {} tokens of the vocabulary", kind.skipped));
        format!(
            "at most {} tokens{}{}",
            kind.tokens_max,
            filled.unwrap_or_default(),
            skipped.unwrap_or_default()
        )
    };
    [("queries", words(queries)), ("documents", words(documents))]
}

/// The facts that count for the model's task.
fn lines_of_task(report: &Report) -> Vec<(&'static str, String)> {
    let dimensions = report.dimensions;
    let mut lines = match report.task {
        "embed" => {
            let after = report.after_pooling.iter().map(|step| format!(", then {step}"));
            let pooling = report.pooling.join(" + ") + &after.collect::<String>();
            vec![("pooling", pooling), ("vector", format!("{dimensions} dimensions"))]
        }
        "embed_sparse" => vec![
            ("pooling", report.pooling.join(" + ")),
            ("vector", format!("sparse, {dimensions} dimensions: the vocabulary's words")),
        ],
        "embed_tokens" => {
            let vector = ("vector", format!("{dimensions} dimensions, one for each token"));
            [vector].into_iter().chain(report.reading.clone()).collect()
        }
        _ => {
            let marked = if report.token_types { "are marked" } else { "are not marked" };
            let pairs = match &report.pair_prompt {
                Some(prompt) => ("pairs", format!("asked as {prompt:?}")),
                None => ("pairs", format!("tokens of the second text {marked} as such")),
            };
            let labels = Some(("labels", report.labels.join(", ")));
            return labels
                .filter(|_| !report.labels.is_empty())
                .into_iter()
                .chain([pairs])
                .collect();
        }
    };
    // A model of token vectors puts them before its texts itself, by the kind of a text.
    let by = if report.task == "embed_tokens" {
        "put before a text of that kind"
    } else {
        let default = report.default_prompt.as_ref().map(|prompt| format!("{prompt:?}"));
        lines.push(("prompt", default.unwrap_or_else(|| "none by default".to_owned())));
        "for callers to put before a text"
    };
    for (name, prompt) in report.prompts.iter().filter(|(_, prompt)| !prompt.is_empty()) {
        lines.push(("prompt", format!("{name}: {prompt:?}, {by}")));
    }
    lines
}

fn print(report: &Report, to: &mut Output) -> std::io::Result<()> {
    let mut lines = vec![
        ("forebay", report.forebay.to_owned()),
        ("folder", report.folder.display().to_string()),
        ("family", report.family.to_owned()),
        ("task", report.task.to_owned()),
        (
            "length",
            format!("{} tokens; a longer text loses {}", report.tokens_max, report.truncates),
        ),
        (
            "types",
            format!("stored as {}, computed in {}", report.stored_dtypes.join(", "), report.dtype),
        ),
    ];
    lines.extend(lines_of_task(report));
    for Ignored { file, field, value, .. } in report.ignored.iter().filter(|f| !f.is_known) {
        lines.push(("ignored", format!("NOT KNOWN: {field} = {value} in {file}")));
    }
    let known = report.ignored.iter().filter(|field| field.is_known);
    let known: Vec<&str> = known.map(|field| field.field.as_str()).collect();
    if !known.is_empty() {
        lines.push(("ignored", format!("without effect here: {}", known.join(", "))));
    }
    for (name, value) in lines {
        to.line(format_args!("{name:<9} {}", plain(&value)))?;
    }
    match &report.comparison {
        None => Ok(()),
        Some(Comparison::NotMade { reason }) => {
            to.line(format_args!("compared  no: {}", plain(reason)))
        }
        Some(Comparison::Made { library, result }) => {
            for row in &result.rows {
                to.line(format_args!("compared  {row}"))?;
            }
            let verdict = if result.agrees { "agrees with" } else { "DIFFERS from" };
            to.line(format_args!("result    {verdict} {library}: {}", result.worst()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(task: &'static str) -> String {
        let kind = |tokens_max, filled_to, skipped| KindInfo {
            tokens_max,
            filled_to,
            sees_fillers: false,
            skipped,
        };
        let kinds = [kind(32, Some(32), 0), kind(100, None, 30)];
        let report = Report {
            forebay: "0",
            folder: PathBuf::new(),
            family: "bert",
            task,
            labels: vec!["low".to_owned()],
            dimensions: 16,
            tokens_max: 100,
            truncates: "the end",
            token_types: true,
            pooling: vec!["mean".to_owned()],
            after_pooling: vec!["normalize".to_owned()],
            reading: reading(&kinds).to_vec(),
            prompts: [("query".to_owned(), "search: ".to_owned())].into(),
            default_prompt: None,
            pair_prompt: None,
            stored_dtypes: Vec::new(),
            dtype: "f32".to_owned(),
            ignored: Vec::new(),
            comparison: None,
        };
        let lines = lines_of_task(&report).into_iter();
        let lines: Vec<String> = lines.map(|(name, value)| format!("{name} {value}")).collect();
        lines.join("\n")
    }

    #[test]
    fn each_task_has_its_own_facts() {
        for (task, there, absent) in [
            ("embed", "pooling mean, then normalize", "pairs"),
            ("embed_sparse", "vector sparse, 16 dimensions", "pairs"),
            ("embed_sparse", "pooling mean", "queries"),
            ("embed_tokens", "16 dimensions, one for each token", "pairs"),
            (
                "embed_tokens",
                "queries at most 32 tokens, filled up to 32 with tokens that the others don't see",
                "pooling",
            ),
            (
                "embed_tokens",
                "documents at most 100 tokens, no vectors of 30 tokens of the vocabulary",
                "pooling",
            ),
            ("embed_tokens", "query: \"search: \", put before a text of that kind", "callers"),
            ("classify", "labels low", "vector"),
            ("rerank", "pairs tokens of the second text are marked", "prompt"),
        ] {
            let lines = lines(task);
            assert!(lines.contains(there) && !lines.contains(absent), "{task}: {lines}");
        }
    }
}
