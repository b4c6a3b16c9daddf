//! `config_sentence_transformers.json`: the prompts of a model, and what its vectors are cut to.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::EngineError;
use crate::load::fields::{Fields, Ignored};
use crate::load::modules::RowsOf;
use crate::load::token_reading::TokenReading;

/// The settings of the whole model.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prompts {
    /// All prompts, by their names.
    pub(crate) named: BTreeMap<String, String>,
    /// The one that the model expects before every text by default.
    pub(crate) default: Option<String>,
    /// The most values of a sparse vector, where the model limits them.
    pub(crate) sparse_values_max: Option<usize>,
}

/// Versions and what they need; what clients do with vectors; the kind of model; what a `CrossEncoder` does with
/// scores, which are raw here, and which of its layers stay in f32.
const WITHOUT_EFFECT: &[&str] = &[
    "__version__",
    "activation_fn",
    "keep_in_fp32_modules",
    "model_type",
    "requirements",
    "similarity_fn_name",
];

impl Prompts {
    /// Reads the file in `folder`, where there is one.
    pub(crate) fn read(
        folder: &Path,
        rows: RowsOf,
        ignored: &mut Vec<Ignored>,
    ) -> Result<Self, EngineError> {
        let mut fields = Fields::parse_if_there(&folder.join("config_sentence_transformers.json"))?;
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
        let is_sparse = rows == RowsOf::Words;
        let sparse_values_max = if is_sparse { fields.get("max_active_dims")? } else { None };
        if sparse_values_max == Some(0) {
            return Err(fields.problem("max_active_dims is 0; it must be 1 or more".to_owned()));
        }
        fields.without_effect(WITHOUT_EFFECT);
        if rows == RowsOf::Tokens {
            fields.taken_elsewhere(TokenReading::OF_MAIN);
        } else {
            fields.without_effect(TokenReading::OF_MAIN);
        }
        // A cut of dimensions is each job's choice, but a model that always cuts gives other vectors.
        fields.only_empty("truncate_dim")?;
        ignored.extend(fields.ignored());
        Ok(Self { named, default, sparse_values_max })
    }
}
