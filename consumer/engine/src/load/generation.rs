//! A model folder's settings of generation: the tokens that end a text, the chat template, and the parameters that its
//! makers recommend.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::EngineError;
use crate::load::files::{from_json, read_if_there};

/// A model's settings of generation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationInfo {
    /// Tokens that end a text.
    pub end_token_ids: Vec<u32>,
    /// The template of a chat, in Jinja.
    pub chat_template: Option<String>,
    /// The texts of special tokens by the names that templates know them by, such as `bos_token`.
    pub special_tokens: Vec<(String, String)>,
    /// Parameters that the model's makers recommend.
    pub recommended: Recommended,
}

/// Parameters of sampling that a model's makers recommend; `None` where they don't say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Recommended {
    /// 0 for the likeliest token.
    pub temperature: Option<f32>,
    /// As [`crate::Sampling::top_k`].
    pub top_k: Option<usize>,
    /// As [`crate::Sampling::top_p`].
    pub top_p: Option<f32>,
    /// As [`crate::Sampling::min_p`].
    pub min_p: Option<f32>,
    /// As [`crate::Sampling::repetition_penalty`].
    pub repetition_penalty: Option<f32>,
}

/// `generation_config.json`, as far as it counts.
#[derive(Default, Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<Ids>,
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
}

/// One id, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Several(Vec<u32>),
}

impl Ids {
    fn list(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Several(ids) => ids,
        }
    }
}

/// The end of texts in `config.json`.
#[derive(Default, Deserialize)]
struct Config {
    eos_token_id: Option<Ids>,
}

/// Reads `generation_config.json`, `tokenizer_config.json` and `chat_template.jinja`, as far as they are there. The end
/// tokens are those of the first that names any, else of `config.json`.
pub(crate) fn of_folder(folder: &Path) -> Result<GenerationInfo, EngineError> {
    let generation: GenerationConfig = parsed(&folder.join("generation_config.json"))?;
    let config: Config = parsed(&folder.join("config.json"))?;
    let tokenizer: Map<String, Value> = parsed(&folder.join("tokenizer_config.json"))?;
    let eos = generation.eos_token_id.or(config.eos_token_id);
    let path = folder.join("chat_template.jinja");
    let template = match read_if_there(&path)? {
        None => tokenizer.get("chat_template").and_then(default_template),
        Some(bytes) => Some(String::from_utf8(bytes).map_err(|error| EngineError::Config {
            path,
            problem: format!("it is no UTF-8: {error}"),
        })?),
    };
    Ok(GenerationInfo {
        end_token_ids: eos.map(Ids::list).unwrap_or_default(),
        chat_template: template,
        special_tokens: tokenizer.iter().filter_map(special_token).collect(),
        recommended: Recommended {
            // Without it transformers takes the likeliest token whatever else is set.
            temperature: if generation.do_sample == Some(true) {
                generation.temperature
            } else {
                generation.do_sample.map(|_| 0.0)
            },
            top_k: generation.top_k,
            top_p: generation.top_p,
            min_p: generation.min_p,
            repetition_penalty: generation.repetition_penalty,
        },
    })
}

/// The template among several that is for plain chats: the one called `default`.
fn default_template(value: &Value) -> Option<String> {
    let list = match value {
        Value::String(template) => return Some(template.clone()),
        other => other.as_array()?,
    };
    let default = list.iter().find(|named| named["name"] == "default")?;
    default["template"].as_str().map(ToOwned::to_owned)
}

/// A field such as `bos_token`: by itself, or with how it is split off.
fn special_token((name, value): (&String, &Value)) -> Option<(String, String)> {
    let text = value.as_str().or_else(|| value["content"].as_str())?;
    name.ends_with("_token").then(|| (name.clone(), text.to_owned()))
}

/// A JSON file; what stands for an empty one where there is none.
fn parsed<T: Default + serde::de::DeserializeOwned>(path: &Path) -> Result<T, EngineError> {
    read_if_there(path)?.map_or_else(|| Ok(T::default()), |json| from_json(path, &json))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn end_tokens_are_those_of_the_generation_s_configuration_first() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(of_folder(folder.path()).unwrap(), GenerationInfo::default());
        write("config.json", r#"{"eos_token_id": 2}"#);
        assert_eq!(of_folder(folder.path()).unwrap().end_token_ids, [2]);
        write(
            "generation_config.json",
            r#"{"eos_token_id": [7, 8], "do_sample": true, "temperature": 0.7}"#,
        );
        let info = of_folder(folder.path()).unwrap();
        assert_eq!(info.end_token_ids, [7, 8]);
        assert_eq!(info.recommended.temperature, Some(0.7));
    }

    #[test]
    fn a_template_of_its_own_file_counts_before_those_of_the_tokenizer() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "tokenizer_config.json",
            r#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>", "unk_token": null, "chat_template":
                [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#,
        );
        let info = of_folder(folder.path()).unwrap();
        assert_eq!(info.chat_template.as_deref(), Some("d"));
        let [bos, eos] = &info.special_tokens[..] else { panic!("{info:?}") };
        assert_eq!([bos.1.as_str(), eos.1.as_str()], ["<s>", "</s>"]);
        write("chat_template.jinja", "j");
        assert_eq!(of_folder(folder.path()).unwrap().chat_template.as_deref(), Some("j"));
    }
}
