//! A model folder as sentence-transformers lays it out: its files, and the settings in the smaller ones.
//!
//! `modules.json` lists the modules: a transformer (whose files lie in the folder itself or below it), a pooling with
//! its own `config.json`, and perhaps linear layers and normalisations of the pooled vector. A folder without
//! `modules.json` is a bare transformer: mean pooling, as sentence-transformers does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::error::EngineError;
use crate::load::fields::{Fields, Ignored};
use crate::load::files::{from_json, read, read_if_there};
use crate::load::per_token::PerToken;
use crate::load::pooling::{self, After, Dense, OF_TEXT, Pooling};
use crate::load::token_reading::TokenReading;
use crate::load::tokenizer_config::TokenizerConfig;

/// The files of one model.
pub(crate) struct ModelFolder {
    root: PathBuf,
    transformer: PathBuf,
    /// `None` where `modules.json` has no pooling.
    pooling: Option<Vec<Pooling>>,
    after: Vec<After>,
    /// The output for every token, where the modules make no vector of a whole text.
    per_token: Option<PerToken>,
    sentence: SentenceConfig,
    tokenizer: TokenizerConfig,
    prompts: Prompts,
    ignored: Vec<Ignored>,
}

/// The prompts of `config_sentence_transformers.json`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prompts {
    /// All of them, by their names.
    pub(crate) named: BTreeMap<String, String>,
    /// The one that the model expects before every text by default.
    pub(crate) default: Option<String>,
}

/// One line of `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
    path: PathBuf,
}

/// `sentence_bert_config.json`, or its counterpart for another family.
#[derive(Default)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
}

/// The names of that file, in the order in which sentence-transformers looks for them.
const SENTENCE_CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

impl ModelFolder {
    /// Finds the model's files, and refuses a module that the engine has no counterpart for.
    pub(crate) fn open(folder: &Path) -> Result<Self, EngineError> {
        let mut ignored = Vec::new();
        let prompts = Prompts::read(folder, &mut ignored)?;
        let path = folder.join("modules.json");
        let per_token = PerToken::find(folder)?;
        let mut transformer = folder.to_owned();
        let mut pooling = None;
        let mut after = Vec::new();
        let modules: Vec<Module> = match read_if_there(&path)? {
            Some(json) => from_json(&path, &json)?,
            None => Vec::new(),
        };
        for module in modules {
            let folder = folder.join(&module.path);
            let config =
                || Fields::parse(&folder.join("config.json"), &read(&folder.join("config.json"))?);
            match module.kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" | "MLMTransformer" => transformer = folder,
                _ if per_token.is_some() => {} // read by `PerToken`
                "Pooling" if pooling.is_none() => {
                    let (modes, more) = pooling::parse(config()?, prompts.default.is_some())?;
                    pooling = Some(modes);
                    ignored.extend(more);
                }
                "Dense" if pooling.is_some() => {
                    let (dense, more) = Dense::parse(&folder, config()?)?;
                    after.push(After::Dense(dense));
                    ignored.extend(more);
                }
                "Normalize" => {
                    let path = folder.join("config.json");
                    let json = read_if_there(&path)?.unwrap_or_else(|| b"{}".to_vec());
                    let mut fields = Fields::parse(&path, &json)?;
                    fields.only("module_input_name", &OF_TEXT.to_owned())?;
                    fields.only("module_output_name", &OF_TEXT.to_owned())?;
                    ignored.extend(fields.ignored());
                    after.push(After::Normalize);
                }
                _ => {
                    return Err(EngineError::NotSupported {
                        path,
                        field: "type",
                        value: module.kind,
                        supported: "Transformer, then Pooling, then Dense and Normalize".to_owned(),
                    });
                }
            }
        }
        // The last normalisation is the callers' choice: their jobs say whether vectors are normalised.
        while matches!(after.last(), Some(After::Normalize)) {
            after.pop();
        }
        let sentence = SentenceConfig::read(&transformer, per_token.as_ref(), &mut ignored)?;
        let tokenizer = TokenizerConfig::read(&transformer)?;
        Ok(Self {
            root: folder.to_owned(),
            transformer,
            pooling,
            after,
            per_token,
            sentence,
            tokenizer,
            prompts,
            ignored,
        })
    }

    /// The prompts that the model knows.
    pub(crate) fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// The fields of the smaller files that are ignored.
    pub(crate) fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// The output for every token, where the modules make no vector of a whole text.
    pub(crate) fn per_token(&self) -> Option<&PerToken> {
        self.per_token.as_ref()
    }

    /// How a model of token vectors reads queries and documents.
    pub(crate) fn token_reading(&self) -> Result<TokenReading, EngineError> {
        TokenReading::read(&self.root, &self.transformer)
    }

    /// Where the model lies, with the files that are no module's.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The model's configuration.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.transformer.join("config.json")
    }

    /// The most tokens a text may have: what the model was trained for, never more than it has positions.
    pub(crate) fn tokens_max(&self, positions: usize) -> usize {
        let asked = self.sentence.max_seq_length.or(self.tokenizer.tokens_max);
        asked.unwrap_or(positions).min(positions)
    }

    /// Whether `modules.json` makes a vector of each text.
    pub(crate) fn has_pooling(&self) -> bool {
        self.pooling.is_some()
    }

    /// How the model pools; the vectors of several ways stand side by side.
    pub(crate) fn pooling(&self) -> Vec<Pooling> {
        self.pooling.clone().unwrap_or_else(|| vec![Pooling::Mean])
    }

    /// The modules after the pooling, in order.
    pub(crate) fn after(&self) -> &[After] {
        &self.after
    }

    /// True when texts are lower-cased before tokenization.
    pub(crate) fn lower_cases(&self) -> bool {
        self.sentence.do_lower_case
    }

    /// The settings of the tokenizer's configuration.
    pub(crate) fn tokenizer_config(&self) -> &TokenizerConfig {
        &self.tokenizer
    }

    /// The tokenizer's file.
    pub(crate) fn tokenizer_path(&self) -> PathBuf {
        self.transformer.join("tokenizer.json")
    }

    /// The weights' file.
    pub(crate) fn weights_path(&self) -> PathBuf {
        self.transformer.join("model.safetensors")
    }
}

impl Prompts {
    fn read(folder: &Path, ignored: &mut Vec<Ignored>) -> Result<Self, EngineError> {
        let path = folder.join("config_sentence_transformers.json");
        let Some(json) = read_if_there(&path)? else { return Ok(Self::default()) };
        let mut fields = Fields::parse(&path, &json)?;
        let named: BTreeMap<String, Option<String>> = fields.or("prompts", BTreeMap::new())?;
        let named = named.into_iter().map(|(name, text)| (name, text.unwrap_or_default()));
        let named: BTreeMap<String, String> = named.collect();
        let default = match fields.get::<String>("default_prompt_name")? {
            None => None,
            Some(name) => {
                let Some(prompt) = named.get(&name) else {
                    let problem = format!("default_prompt_name {name:?} is none of its prompts");
                    return Err(fields.problem(problem));
                };
                Some(prompt.clone()).filter(|prompt| !prompt.is_empty())
            }
        };
        // Versions; what clients do with vectors; the kind of model; what a CrossEncoder does with scores, which are
        // raw here.
        fields.without_effect(&[
            "__version__",
            "activation_fn",
            "model_type",
            "similarity_fn_name",
        ]);
        // `TokenReading` takes these, where the folder makes token vectors.
        fields.without_effect(TokenReading::OF_MAIN);
        // A cut of dimensions is each job's choice, but a model that always cuts gives other vectors.
        fields.only_empty("truncate_dim")?;
        ignored.extend(fields.ignored());
        Ok(Self { named, default })
    }
}

impl SentenceConfig {
    fn read(
        folder: &Path,
        per_token: Option<&PerToken>,
        ignored: &mut Vec<Ignored>,
    ) -> Result<Self, EngineError> {
        for name in SENTENCE_CONFIGS {
            let path = folder.join(name);
            let Some(json) = read_if_there(&path)? else { continue };
            let mut fields = Fields::parse(&path, &json)?;
            let mut max_seq_length = fields.get("max_seq_length")?;
            let do_lower_case = fields.or("do_lower_case", false)?;
            // Arguments that go to the tokenizer; the second name is the one of before version 5.4.
            for field in ["processor_kwargs", "tokenizer_args"] {
                let arguments: BTreeMap<String, Value> = fields.or(field, BTreeMap::new())?;
                for (name, value) in arguments {
                    match (name.as_str(), value.as_u64()) {
                        ("model_max_length", Some(tokens)) => {
                            max_seq_length = max_seq_length.or(usize::try_from(tokens).ok());
                        }
                        ("padding_side" | "use_fast" | "clean_up_tokenization_spaces", _) => {}
                        _ => return Err(fields.not_supported(field, &name, &"model_max_length")),
                    }
                }
            }
            for field in ["processing_kwargs", "config_args", "config_kwargs"] {
                fields.only_empty(field)?;
            }
            only_hidden_states(&mut fields, per_token)?;
            // `TokenReading` takes these, where the folder makes token vectors.
            fields.without_effect(TokenReading::OF_TRANSFORMER);
            // How its matrices are computed, and what the output is called there.
            fields.without_effect(&[
                "model_args",
                "model_kwargs",
                "module_output_name",
                "unpad_inputs",
            ]);
            ignored.extend(fields.ignored());
            return Ok(Self { max_seq_length, do_lower_case });
        }
        Ok(Self::default())
    }
}

/// Refuses a transformer of which something else is taken than its last hidden states, a classifier's scores, or the
/// words that a sparse encoder weighs.
fn only_hidden_states(
    fields: &mut Fields,
    per_token: Option<&PerToken>,
) -> Result<(), EngineError> {
    let task: String = fields.or("transformer_task", "feature-extraction".to_owned())?;
    let is_sparse = matches!(per_token, Some(PerToken::Sparse(_)));
    let is_read = match task.as_str() {
        "feature-extraction" | "sequence-classification" => true,
        "fill-mask" => is_sparse,
        _ => false,
    };
    if !is_read {
        let supported =
            "feature-extraction, sequence-classification, fill-mask before SpladePooling";
        return Err(fields.not_supported("transformer_task", &task, &supported));
    }
    let modalities: Value = fields.or("modality_config", Value::Null)?;
    let output = &modalities["text"]["method_output_name"];
    match output.as_str() {
        None if output.is_null() => Ok(()),
        Some("last_hidden_state" | "logits") => Ok(()),
        _ => Err(fields.not_supported("modality_config", output, &"last_hidden_state, logits")),
    }
}
