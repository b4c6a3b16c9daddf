//! A model folder as sentence-transformers lays it out: its files, and the settings in the smaller ones.
//!
//! `modules.json` lists the stages: a transformer (whose files lie in the folder itself or below it), a
//! pooling with its own `config.json`, and perhaps a normalisation, which callers choose for themselves.
//! A folder without `modules.json` is a bare transformer: mean pooling, as sentence-transformers does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forebay_kernels::Pooling;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::EngineError;
use crate::load::config::from_json;

/// The files of one model.
pub(crate) struct ModelFolder {
    transformer: PathBuf,
    pooling_config: Option<PathBuf>,
    sentence: SentenceConfig,
    /// The prompt that the model expects before every text by default.
    default_prompt: Option<String>,
}

/// `config_sentence_transformers.json`.
#[derive(Default, Deserialize)]
struct PromptConfig {
    #[serde(default)]
    prompts: BTreeMap<String, String>,
    default_prompt_name: Option<String>,
}

/// One line of `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
    path: PathBuf,
}

/// `sentence_bert_config.json`.
#[derive(Default, Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

/// The one field of `tokenizer_config.json` that bounds a sequence. Written as a huge float when unset.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    model_max_length: Option<f64>,
}

impl ModelFolder {
    /// Finds the model's files, and refuses a module that the engine has no counterpart for.
    pub(crate) fn open(folder: &Path) -> Result<Self, EngineError> {
        let path = folder.join("modules.json");
        let mut transformer = folder.to_owned();
        let mut pooling_config = None;
        for module in read_json_if_there::<Vec<Module>>(&path)?.unwrap_or_default() {
            match module.kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => transformer = folder.join(module.path),
                "Pooling" => pooling_config = Some(folder.join(module.path).join("config.json")),
                "Normalize" => {}
                _ => {
                    return Err(EngineError::NotSupported {
                        path,
                        field: "type",
                        value: module.kind,
                        supported: "Transformer, Pooling, Normalize",
                    });
                }
            }
        }
        let sentence =
            read_json_if_there(&transformer.join("sentence_bert_config.json"))?.unwrap_or_default();
        let default_prompt = default_prompt(&folder.join("config_sentence_transformers.json"))?;
        Ok(Self { transformer, pooling_config, sentence, default_prompt })
    }

    /// The prompt that goes before every text that is embedded; most models have none.
    pub(crate) fn default_prompt(&self) -> Option<&str> {
        self.default_prompt.as_deref()
    }

    /// The model's configuration.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.transformer.join("config.json")
    }

    /// The most tokens a text may have: what the model was trained for, never more than it has positions.
    pub(crate) fn tokens_max(&self, positions: usize) -> Result<usize, EngineError> {
        let asked = match self.sentence.max_seq_length {
            Some(tokens) => tokens,
            None => self.tokenizer_tokens_max()?.unwrap_or(positions),
        };
        Ok(asked.min(positions))
    }

    fn tokenizer_tokens_max(&self) -> Result<Option<usize>, EngineError> {
        let path = self.transformer.join("tokenizer_config.json");
        let config: TokenizerConfig = read_json_if_there(&path)?.unwrap_or_default();
        // The cast saturates, which is what a huge "unset" should do.
        Ok(config.model_max_length.map(|length| length as usize))
    }

    /// How the model pools. A mode or a mixture that the engine lacks is refused by name.
    pub(crate) fn pooling(&self) -> Result<Pooling, EngineError> {
        let Some(path) = &self.pooling_config else {
            return Ok(Pooling::Mean);
        };
        let config: Map<String, Value> = from_json(path, &read(path)?)?;
        if config.get("include_prompt") == Some(&Value::Bool(false))
            && self.default_prompt.is_some()
        {
            return Err(EngineError::NotSupported {
                path: path.clone(),
                field: "include_prompt",
                value: "false".to_owned(),
                supported: "true, where there is a default prompt",
            });
        }
        match pooling_modes(&config).as_slice() {
            ["mean_tokens"] => Ok(Pooling::Mean),
            ["cls_token"] => Ok(Pooling::Cls),
            ["lasttoken"] => Ok(Pooling::Last),
            ["max_tokens"] => Ok(Pooling::Max),
            modes => Err(EngineError::NotSupported {
                path: path.clone(),
                field: "pooling_mode",
                value: modes.join("+"),
                supported: "mean_tokens, cls_token, lasttoken, max_tokens",
            }),
        }
    }

    /// True when texts are lower-cased before tokenization.
    pub(crate) fn lower_cases(&self) -> bool {
        self.sentence.do_lower_case
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

/// The prompt that is named as the default, if one is.
fn default_prompt(path: &Path) -> Result<Option<String>, EngineError> {
    let config: PromptConfig = read_json_if_there(path)?.unwrap_or_default();
    let Some(name) = config.default_prompt_name else { return Ok(None) };
    match config.prompts.get(&name) {
        Some(prompt) => Ok(Some(prompt.clone()).filter(|prompt| !prompt.is_empty())),
        None => Err(EngineError::Config {
            path: path.to_owned(),
            problem: format!("default_prompt_name {name:?} is none of its prompts"),
        }),
    }
}

/// The switches that are on in a pooling's `config.json`, without their common prefix. As in
/// sentence-transformers, the mean is on where its switch is absent.
fn pooling_modes(config: &Map<String, Value>) -> Vec<&str> {
    const PREFIX: &str = "pooling_mode_";
    const MEAN: &str = "mean_tokens";
    let switches =
        config.iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)));
    let mut modes: Vec<&str> =
        switches.filter(|(_, value)| **value == Value::Bool(true)).map(|(mode, _)| mode).collect();
    if !config.contains_key(&format!("{PREFIX}{MEAN}")) {
        modes.push(MEAN);
    }
    modes
}

/// The file's bytes, or an error that names it.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, EngineError> {
    std::fs::read(path).map_err(|source| EngineError::File { path: path.to_owned(), source })
}

fn read_json_if_there<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EngineError> {
    match std::fs::read(path) {
        Ok(json) => from_json(path, &json).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EngineError::File { path: path.to_owned(), source }),
    }
}
