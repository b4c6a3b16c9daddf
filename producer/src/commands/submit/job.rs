//! The jobs that texts are submitted in, as the options describe them.

use std::{collections::BTreeMap, time::Duration};

use forebay_client::{EmbedParams, Job, ModelId, Work};
use forebay_schemas::{
    GenerateParams, InputType, Message, Prompt, RerankParams, SparseParams, Task, TokensParams,
    limits::METADATA_VALUE_CHARS_MAX,
};

use super::super::{duration, input::Label, sampling::SamplingArgs};
use crate::error::CommandError;

/// Options of the job itself.
#[derive(clap::Args)]
#[group(id = "job")]
pub(super) struct JobArgs {
    /// `embed`, `embed_sparse`, `embed_tokens`, `rerank`, `classify` or `generate`
    #[arg(long, default_value = "embed", value_parser = parse_task)]
    task: Task,
    /// The query that the texts are ranked against
    #[arg(long, required_if_eq("task", "rerank"))]
    query: Option<String>,
    /// Texts in a job; 1, or for `rerank` all that fit
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Keep only the first N dimensions of the vectors
    #[arg(long, value_name = "N")]
    dimensions: Option<u32>,
    /// Leave the vectors' lengths as they are
    #[arg(long)]
    no_normalize: bool,
    /// Refuse texts that are longer than the model reads instead of cutting them
    #[arg(long)]
    no_truncate: bool,
    /// Keep only the N largest values of each vector, for `embed_sparse`
    #[arg(long, value_name = "N")]
    top_k: Option<u32>,
    /// The kind of the texts, for `embed_tokens`: `document` or `query`
    #[arg(long, value_name = "TYPE", default_value = "document", value_parser = parse_input_type)]
    input_type: InputType,
    /// The texts are messages to a model, for `generate`: its template is put around them
    #[arg(long)]
    chat: bool,
    /// The part that the model is to play, for `generate`; implies --chat
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Give the job up if no worker has computed it after this time
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    expires_in: Option<Duration>,
    /// How long the results are kept [default: 1d]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    ttl: Option<Duration>,
    /// A tenant label for the job; Forebay does not use it
    #[arg(long)]
    tenant: Option<String>,
    /// Returned with the result; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A job without its texts.
pub(super) struct Template {
    model: ModelId,
    task: Task,
    query: String,
    batch: usize,
    embed: EmbedParams,
    sparse: SparseParams,
    tokens: TokensParams,
    generate: GenerateParams,
    /// The turns in front of each text, where the texts are messages.
    chat: Option<Vec<Message>>,
    expires_in_ms: Option<u64>,
    result_ttl_s: Option<u64>,
    tenant: Option<String>,
    metadata: BTreeMap<String, String>,
}

impl Template {
    pub(super) fn new(
        args: &JobArgs,
        model: &ModelId,
        inputs_max: usize,
    ) -> Result<Self, CommandError> {
        let batch = args.batch.unwrap_or(match args.task {
            Task::Rerank => inputs_max,
            Task::Embed
            | Task::EmbedSparse
            | Task::EmbedTokens
            | Task::Classify
            | Task::Generate => 1,
        });
        if batch == 0 || batch > inputs_max {
            return Err(CommandError::Usage(format!("--batch is {batch}: use 1 to {inputs_max}")));
        }
        if args.task == Task::Generate && batch > 1 {
            return Err(CommandError::Usage(
                "a `generate` job has one text: leave out --batch".into(),
            ));
        }
        Ok(Self {
            model: model.clone(),
            task: args.task,
            query: args.query.clone().unwrap_or_default(),
            batch,
            embed: EmbedParams {
                normalize: !args.no_normalize,
                truncate: !args.no_truncate,
                dimensions: args.dimensions,
            },
            sparse: SparseParams { truncate: !args.no_truncate, top_k: args.top_k },
            tokens: TokensParams { truncate: !args.no_truncate, input_type: args.input_type },
            generate: args.sampling.params(),
            chat: (args.chat || args.system.is_some())
                .then(|| args.system.iter().map(|text| Message::new("system", text)).collect()),
            expires_in_ms: args.expires_in.map(|time| time.as_millis() as u64),
            result_ttl_s: args.ttl.map(|time| time.as_secs()),
            tenant: args.tenant.clone(),
            metadata: args.metadata.iter().cloned().collect(),
        })
    }

    /// The number of texts in a job.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    /// The job with these texts. The id of a single text is added to the metadata, so that the result can be
    /// identified by it.
    pub(super) fn job(&self, labels: &[Label], texts: Vec<String>) -> Job {
        let mut job = Job::new(self.model.clone(), self.work(texts));
        job.expires_in_ms = self.expires_in_ms;
        job.result_ttl_s = self.result_ttl_s;
        job.tenant.clone_from(&self.tenant);
        job.metadata.clone_from(&self.metadata);
        if let [Label { id: Some(id), .. }] = labels
            && id.chars().count() <= METADATA_VALUE_CHARS_MAX
        {
            job.metadata.entry("id".to_owned()).or_insert_with(|| id.clone());
        }
        job
    }

    fn work(&self, texts: Vec<String>) -> Work {
        match self.task {
            Task::Embed => Work::Embed { input: texts, params: self.embed.clone() },
            Task::EmbedSparse => Work::EmbedSparse { input: texts, params: self.sparse.clone() },
            Task::EmbedTokens => Work::EmbedTokens { input: texts, params: self.tokens.clone() },
            Task::Classify => Work::Classify { input: texts },
            Task::Rerank => Work::Rerank {
                query: self.query.clone(),
                documents: texts,
                params: RerankParams::default(),
            },
            Task::Generate => Work::Generate {
                // One text: `new` refuses larger batches.
                prompt: match &self.chat {
                    None => Prompt::Text(texts.concat()),
                    Some(before) => {
                        let mut messages = before.clone();
                        messages.push(Message::new("user", texts.concat()));
                        Prompt::Messages(messages)
                    }
                },
                params: self.generate.clone(),
            },
        }
    }
}

/// Parses `--task`.
fn parse_task(text: &str) -> Result<Task, String> {
    text.parse().map_err(|error: forebay_schemas::job::UnknownTask| error.to_string())
}

/// Parses `--input-type`.
fn parse_input_type(text: &str) -> Result<InputType, String> {
    text.parse().map_err(|error: forebay_schemas::job::UnknownInputType| error.to_string())
}
