//! `sentence_bert_config.json`, or its counterpart for another family: how texts get into the transformer.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::EngineError;
use crate::load::fields::{Fields, Ignored};
use crate::load::modules::RowsOf;

/// Its settings.
#[derive(Debug, Default)]
pub(crate) struct SentenceConfig {
    /// The most tokens of a text.
    pub(crate) tokens_max: Option<usize>,
    /// Whether texts are lower-cased before tokenization.
    pub(crate) lower_cases: bool,
    /// How pairs are put into the model's chat template; `None` where they are read as they are.
    pub(crate) messages: Option<Messages>,
}

/// How texts are put into a chat template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Messages {
    pub(crate) add_generation_prompt: bool,
    /// Whether the tokens behind the texts stay where the prompt is cut.
    pub(crate) keeps_closing: bool,
    /// Variables of the template.
    pub(crate) arguments: Map<String, Value>,
}

impl Default for Messages {
    fn default() -> Self {
        Self { add_generation_prompt: false, keeps_closing: true, arguments: Map::new() }
    }
}

/// The names of that file, in the order in which sentence-transformers looks for them.
const NAMES: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Arguments that say where files come from, which its loader sets itself.
const OF_LOADING: &[&str] = &[
    "cache_dir",
    "force_download",
    "local_files_only",
    "revision",
    "subfolder",
    "token",
    "trust_remote_code",
    "use_auth_token",
];
/// How batches are padded; and how tokens would become text again.
const OF_TOKENIZERS: &[&str] = &["clean_up_tokenization_spaces", "padding_side", "use_fast"];
/// How matrices are computed and in which number type, which is each worker's choice; and a layer that is not used.
const OF_MODELS: &[&str] = &[
    "add_pooling_layer",
    "attn_implementation",
    "device_map",
    "dtype",
    "export",
    "file_name",
    "low_cpu_mem_usage",
    "provider",
    "torch_dtype",
    "unpad_inputs",
    "use_memory_efficient_attention",
    "use_safetensors",
];
/// Arguments that would make other weights.
const OF_OTHER_WEIGHTS: [&str; 6] = [
    "adapter_kwargs",
    "gguf_file",
    "load_in_4bit",
    "load_in_8bit",
    "quantization_config",
    "variant",
];

/// Arguments of rendering that are no variables of a template.
const OF_RENDERING: [&str; 8] = [
    "chat_template",
    "continue_final_message",
    "documents",
    "max_length",
    "padding",
    "return_tensors",
    "tools",
    "truncation",
];

/// The fields of the first of these files in a transformer's folder that says anything.
pub(super) fn fields(folder: &Path) -> Result<Fields, EngineError> {
    for name in NAMES {
        let fields = Fields::parse_if_there(&folder.join(name))?;
        if !fields.is_empty() {
            return Ok(fields);
        }
    }
    Fields::parse(&folder.join(NAMES[0]), b"{}")
}

/// The lengths that queries and documents are cut to and filled up to, where each token has a vector.
const OF_TOKEN_VECTORS: &[&str] = &["query_length", "document_length", "query_expansion"];

impl SentenceConfig {
    /// Reads the file in a transformer's folder, of which the modules behind it make such rows.
    pub(crate) fn read(
        folder: &Path,
        rows: RowsOf,
        ignored: &mut Vec<Ignored>,
    ) -> Result<Self, EngineError> {
        Self::parse(fields(folder)?, rows, ignored)
    }

    fn parse(
        mut fields: Fields,
        rows: RowsOf,
        ignored: &mut Vec<Ignored>,
    ) -> Result<Self, EngineError> {
        let of_texts = fields.get("max_seq_length")?;
        let lower_cases = fields.or("do_lower_case", false)?;
        let mut of_tokenizer = arguments(&mut fields, ["processor_kwargs", "tokenizer_args"])?;
        if of_tokenizer.is_null("model_max_length") {
            return Err(fields.not_supported(
                "processor_kwargs",
                &"model_max_length: null",
                &"a number",
            ));
        }
        let tokens_max = match of_tokenizer.get("model_max_length")? {
            Some(tokens) => Some(tokens),
            None => of_texts,
        };
        of_tokenizer.without_effect(OF_LOADING);
        of_tokenizer.without_effect(OF_TOKENIZERS);
        of_tokenizer.nothing_else("processor_kwargs", &"model_max_length")?;
        let mut of_model = arguments(&mut fields, ["model_kwargs", "model_args"])?;
        of_model.without_effect(OF_LOADING);
        of_model.without_effect(OF_MODELS);
        for field in OF_OTHER_WEIGHTS {
            of_model.only_empty(field)?;
        }
        let mut of_config = arguments(&mut fields, ["config_kwargs", "config_args"])?;
        of_config.without_effect(OF_LOADING);
        of_config.without_effect(&["use_cache"]);
        of_config.nothing_else("config_kwargs", &"none that changes a field of config.json")?;
        fields.only_empty("tokenizer_name_or_path")?;
        let of_template = messages(&mut fields)?;
        let messages = only_known_outputs(&mut fields, rows)?.then_some(of_template);
        if rows == RowsOf::Tokens {
            fields.taken_elsewhere(OF_TOKEN_VECTORS);
        } else {
            fields.without_effect(OF_TOKEN_VECTORS);
        }
        // What the output is called there, and whether batches are padded.
        fields.without_effect(&["backend", "module_output_name", "unpad_inputs"]);
        for fields in [fields, of_tokenizer, of_model, of_config] {
            ignored.extend(fields.ignored());
        }
        Ok(Self { tokens_max, lower_cases, messages })
    }
}

/// Takes arguments by their name of today, and by the one of before version 5.4, which counts where both are there.
fn arguments(
    fields: &mut Fields,
    [today, before]: [&'static str; 2],
) -> Result<Fields, EngineError> {
    if fields.has(before) {
        fields.without_effect(&[today]);
        return fields.object(before);
    }
    fields.object(today)
}

/// Takes the arguments of the chat template.
fn messages(fields: &mut Fields) -> Result<Messages, EngineError> {
    const FIELD: &str = "processing_kwargs";
    let mut of_processing = fields.object(FIELD)?;
    let mut arguments: Map<String, Value> = of_processing.or("chat_template", Map::new())?;
    of_processing.nothing_else(FIELD, &"chat_template")?;
    arguments.retain(|_, value| !value.is_null());
    if let Some(name) = OF_RENDERING.iter().find(|name| arguments.contains_key(**name)) {
        let value = format!("chat_template: {name}: {}", arguments[*name]);
        return Err(fields.not_supported(FIELD, &value, &"variables of the template"));
    }
    let mut switch = |name: &str, default| match arguments.remove(name) {
        None => Ok(default),
        Some(Value::Bool(value)) => Ok(value),
        Some(value) => {
            let value = format!("chat_template: {name}: {value}");
            Err(fields.not_supported(FIELD, &value, &"true, false"))
        }
    };
    Ok(Messages {
        add_generation_prompt: switch("add_generation_prompt", false)?,
        keeps_closing: switch("restore_suffix", true)?,
        arguments,
    })
}

/// Refuses a transformer of which something else is taken than its last hidden states, a classifier's scores, the words
/// that a sparse encoder weighs, or the logits that scores are made of. Returns whether pairs are put into its chat
/// template.
fn only_known_outputs(fields: &mut Fields, rows: RowsOf) -> Result<bool, EngineError> {
    const FIELD: &str = "modality_config";
    let task: String = fields.or("transformer_task", "feature-extraction".to_owned())?;
    let is_read = match task.as_str() {
        "feature-extraction" | "sequence-classification" => rows != RowsOf::Logits,
        "fill-mask" => rows == RowsOf::Words,
        "text-generation" => rows == RowsOf::Logits,
        _ => false,
    };
    if !is_read {
        let supported = "feature-extraction, sequence-classification, fill-mask before SpladePooling, text-generation \
                         before LogitScore";
        return Err(fields.not_supported("transformer_task", &task, &supported));
    }
    let modalities: Value = fields.or(FIELD, Value::Null)?;
    let message = &modalities["message"];
    let is_flat = message["format"].as_str().unwrap_or("flat") == "flat";
    // Of a single text it would be the message of a user.
    let is_of_pairs = matches!(rows, RowsOf::Scores | RowsOf::Logits);
    let is_plain = message.is_null() || (is_of_pairs && is_flat);
    if !is_plain {
        let supported = "text, or for pairs a message whose format is flat";
        return Err(fields.not_supported(FIELD, &format!("message: {message}"), &supported));
    }
    let kinds = ["text", "message"].map(|kind| &modalities[kind]);
    let names =
        [("method", &["forward"][..]), ("method_output_name", &["last_hidden_state", "logits"])];
    for (kind, (name, known)) in kinds.iter().flat_map(|kind| names.map(|name| (kind, name))) {
        let value = &kind[name];
        if !value.is_null() && !value.as_str().is_some_and(|value| known.contains(&value)) {
            let value = format!("{name}: {value}");
            return Err(fields.not_supported(FIELD, &value, &known.join(", ")));
        }
    }
    Ok(!message.is_null())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<(SentenceConfig, Vec<Ignored>), EngineError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, json) in files {
            std::fs::write(folder.path().join(name), json).unwrap();
        }
        let mut ignored = Vec::new();
        let config = SentenceConfig::read(folder.path(), RowsOf::Texts, &mut ignored)?;
        Ok((config, ignored))
    }

    fn tokens_max(json: &str) -> Option<usize> {
        read(&[("sentence_bert_config.json", json)]).unwrap().0.tokens_max
    }

    #[test]
    fn the_length_in_a_tokenizers_arguments_counts_before_the_one_of_texts() {
        for (json, expected) in [
            (r#"{"max_seq_length": 40}"#, Some(40)),
            (r#"{"max_seq_length": 40, "processor_kwargs": {}}"#, Some(40)),
            (r#"{"max_seq_length": 40, "processor_kwargs": {"model_max_length": 24}}"#, Some(24)),
            (r#"{"max_seq_length": 24, "tokenizer_args": {"model_max_length": 40}}"#, Some(40)),
            (
                r#"{"processor_kwargs": {"model_max_length": 24}, "tokenizer_args": {"model_max_length": 40}}"#,
                Some(40),
            ),
            (r#"{"processor_kwargs": {"model_max_length": 24}, "tokenizer_args": {}}"#, None),
            (r#"{"max_seq_length": null}"#, None),
        ] {
            assert_eq!(tokens_max(json), expected, "{json}");
        }
    }

    #[test]
    fn a_file_that_says_nothing_leaves_it_to_the_next_one() {
        let next = ("sentence_xlnet_config.json", r#"{"max_seq_length": 12}"#);
        let (config, _) = read(&[("sentence_bert_config.json", "{}"), next]).unwrap();
        assert_eq!(config.tokens_max, Some(12));
    }

    #[test]
    fn pairs_are_messages_where_the_transformer_alone_or_its_logits_score_them() {
        let messages = |rows, more: &str| {
            let json =
                format!(r#"{{"modality_config": {{"message": {{"format": "flat"}}}}{more}}}"#);
            let fields = Fields::parse("sentence_bert_config.json".as_ref(), json.as_bytes())?;
            Ok(SentenceConfig::parse(fields, rows, &mut Vec::new())?.messages)
        };
        let plain: Result<_, EngineError> = messages(RowsOf::Scores, "");
        assert_eq!(plain.unwrap(), Some(Messages::default()));
        let with = r#", "transformer_task": "text-generation", "processing_kwargs":
            {"chat_template": {"add_generation_prompt": true, "restore_suffix": false, "enable_thinking": false}}"#;
        let found = messages(RowsOf::Logits, with).unwrap().unwrap();
        assert!(found.add_generation_prompt && !found.keeps_closing);
        assert_eq!(found.arguments.keys().collect::<Vec<_>>(), ["enable_thinking"]);
        assert!(messages(RowsOf::Texts, "").is_err());
        assert!(messages(RowsOf::Logits, "").is_err(), "it isn't a language model by its task");
    }

    #[test]
    fn arguments_are_refused_listed_or_unknown() {
        for (json, field) in [
            (r#"{"tokenizer_args": {"truncation_side": "left"}}"#, "processor_kwargs"),
            (r#"{"config_args": {"hidden_act": "relu"}}"#, "config_kwargs"),
            (r#"{"model_kwargs": {"variant": "fp16"}}"#, "variant"),
            (r#"{"processing_kwargs": {"text": {"max_length": 9}}}"#, "processing_kwargs"),
            (r#"{"tokenizer_name_or_path": "other"}"#, "tokenizer_name_or_path"),
            (r#"{"transformer_task": "fill-mask"}"#, "transformer_task"),
            (r#"{"modality_config": {"text": {"method": "embed"}}}"#, "modality_config"),
            (
                r#"{"modality_config": {"text": {"method_output_name": ["hidden_states", -2]}}}"#,
                "modality_config",
            ),
            (r#"{"modality_config": {"message": {"format": "flat"}}}"#, "modality_config"),
        ] {
            let error = read(&[("sentence_bert_config.json", json)]).err().unwrap();
            let EngineError::NotSupported { field: named, .. } = error else { panic!("{error}") };
            assert_eq!(named, field, "{json}");
        }
        let json = r#"{"model_args": {"torch_dtype": "float16", "typo": 1},
            "config_args": {"trust_remote_code": true}, "tokenizer_args": {"padding_side": "left"}}"#;
        let (_, ignored) = read(&[("sentence_bert_config.json", json)]).unwrap();
        let names = |is_known| {
            let these = ignored.iter().filter(move |it| it.is_known == is_known);
            these.map(|it| it.field.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(
            names(true),
            [
                "tokenizer_args.padding_side",
                "model_args.torch_dtype",
                "config_args.trust_remote_code",
            ]
        );
        assert_eq!(names(false), ["model_args.typo"]);
    }
}
