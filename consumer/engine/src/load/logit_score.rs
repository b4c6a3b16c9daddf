//! `LogitScore` of sentence-transformers: a language model that is asked whether a document answers a query, whose
//! score is made of the logits of its answers.

use std::path::Path;

use crate::error::EngineError;
use crate::load::fields::{Fields, Ignored};
use crate::load::files::read;

/// The module's class.
pub(crate) const CLASS: &str = "LogitScore";

/// The tokens that a score is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogitScore {
    /// The answer that a document is one.
    pub(crate) yes: u32,
    /// The answer that it isn't, whose logit is subtracted.
    pub(crate) no: Option<u32>,
}

impl LogitScore {
    /// Reads the `config.json` of the module in `folder`.
    pub(crate) fn read(folder: &Path, ignored: &mut Vec<Ignored>) -> Result<Self, EngineError> {
        let path = folder.join("config.json");
        let mut fields = Fields::parse(&path, &read(&path)?)?;
        let score =
            Self { yes: fields.required("true_token_id")?, no: fields.get("false_token_id")? };
        fields.only("module_input_name", &"causal_logits".to_owned())?;
        ignored.extend(fields.ignored());
        Ok(score)
    }
}
