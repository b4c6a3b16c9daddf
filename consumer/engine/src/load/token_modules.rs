//! The modules that make a vector of every token (`ColBERT`), as sentence-transformers and `PyLate` write them.

use std::path::Path;

use serde_json::Value;

use crate::error::EngineError;
use crate::load::fields::{Fields, Ignored};
use crate::load::files::read;
use crate::load::modules::Modules;
use crate::load::pooling::{Dense, OF_TEXT, OF_TOKENS};
use crate::load::token_reading::TokenReading;

pub(super) const DENSE: &str = "Dense";
pub(super) const MASK: &str = "MultiVectorMask";
pub(super) const NORMALIZE: &str = "Normalize";

/// The modules that make token vectors.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenModules {
    /// Linear layers, in their order.
    pub(crate) dense: Vec<Dense>,
    /// Tokens that are left out of a text's vectors, as the vocabulary writes them.
    pub(crate) skipped: Vec<String>,
    /// Whether they are left out of queries, and of documents.
    pub(crate) skips: [bool; 2],
    /// How texts are read, where it is not the files of sentence-transformers that say so.
    pub(crate) reading: Option<TokenReading>,
    /// The classes of what follows the transformer, in their order.
    pub(crate) classes: Vec<String>,
}

impl TokenModules {
    /// Whether there are any of them that alone make token vectors.
    pub(super) fn are_in(modules: &Modules) -> bool {
        modules.has(DENSE) || modules.has(MASK)
    }

    /// Reads the modules' files, and refuses a module that the engine has no counterpart for.
    pub(super) fn read(modules: &Modules, ignored: &mut Vec<Ignored>) -> Result<Self, EngineError> {
        let mut found = TokenModules::default();
        for module in modules.rest() {
            let has = |class: &str| found.classes.iter().any(|known| known == class);
            match module.class() {
                NORMALIZE => of_tokens(&module.folder, ignored)?,
                DENSE if has(NORMALIZE) => return Err(modules.refused(module, "Normalize last")),
                DENSE => found.dense.push(Dense::read(&module.folder, OF_TOKENS, ignored)?),
                MASK if has(MASK) => return Err(modules.refused(module, "one MultiVectorMask")),
                MASK => mask(&module.folder, &mut found, ignored)?,
                _ => {
                    let supported = "Transformer, then Dense, MultiVectorMask, Normalize";
                    return Err(modules.refused(module, supported));
                }
            }
            found.classes.push(module.class().to_owned());
        }
        Ok(found)
    }

    /// Refuses modules that give other vectors than those of length 1, or none of queries' fillers.
    pub(crate) fn check(&self, folder: &Path, has_fillers: bool) -> Result<(), EngineError> {
        let has_mask = self.classes.iter().any(|class| class == MASK);
        // A mask changes no vector, and stands on either side.
        let last = self.classes.iter().rfind(|class| *class != MASK);
        let supported = if last.is_none_or(|class| class != NORMALIZE) {
            "Transformer, then Dense, then Normalize of token_embeddings"
        } else if has_fillers && !has_mask {
            "MultiVectorMask too, where queries are filled up"
        } else {
            return Ok(());
        };
        Err(EngineError::NotSupported {
            path: folder.join("modules.json"),
            field: "type",
            value: self.classes.join(", "),
            supported: supported.to_owned(),
        })
    }
}

fn mask(
    folder: &Path,
    found: &mut TokenModules,
    ignored: &mut Vec<Ignored>,
) -> Result<(), EngineError> {
    let path = folder.join("config.json");
    let mut fields = Fields::parse(&path, &read(&path)?)?;
    found.skipped = fields.or("skiplist_words", Vec::new())?;
    let tasks: Vec<String> = match fields.get("skiplist_tasks")? {
        None => vec!["document".to_owned()],
        // One by itself counts as a list.
        Some(Value::String(task)) => vec![task],
        Some(tasks) => serde_json::from_value(tasks)
            .map_err(|error| fields.problem(format!("skiplist_tasks: {error}")))?,
    };
    found.skips = ["query", "document"].map(|kind| tasks.iter().any(|task| task == kind));
    fields.only_empty("keep_only_token_ids")?;
    ignored.extend(fields.ignored());
    Ok(())
}

/// Refuses a `Normalize` of something else than token vectors, which has nothing to normalise here.
fn of_tokens(folder: &Path, ignored: &mut Vec<Ignored>) -> Result<(), EngineError> {
    let mut fields = Fields::parse_if_there(&folder.join("config.json"))?;
    let input: String = fields.or("module_input_name", OF_TEXT.to_owned())?;
    if input != OF_TOKENS {
        return Err(fields.not_supported("module_input_name", &input, &OF_TOKENS));
    }
    fields.only("module_output_name", &OF_TOKENS.to_owned())?;
    ignored.extend(fields.ignored());
    Ok(())
}
