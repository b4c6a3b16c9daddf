//! Folders whose modules make something of every token: sparse vectors (SPLADE), or a vector each (`ColBERT`).

use std::fmt;
use std::path::Path;

use crate::error::EngineError;
use crate::load::fields::{Fields, Ignored};
use crate::load::files::read;
use crate::load::modules::{Modules, RowsOf};
use crate::load::sentence_config;
use crate::load::stanford;
use crate::load::token_modules::TokenModules;

/// The most values of a sparse vector; the largest are kept. Texts of some hundred tokens have a few hundred.
pub const SPARSE_VALUES_MAX: usize = 1_024;

/// The output that the modules after the transformer make of hidden states.
#[derive(Debug, Clone)]
pub(crate) enum PerToken {
    /// Weights of the vocabulary, the largest (or the sum) over the tokens.
    Sparse(SpladePooling),
    /// Projected and normalised hidden states.
    Tokens(Box<TokenModules>),
}

/// How the outputs of a language model become a sparse vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpladePooling {
    /// The sum over the tokens instead of the largest.
    pub sums: bool,
    /// `log(1 + x)` is taken twice.
    pub logs_twice: bool,
    /// How many values of a vector are kept, the largest ones.
    pub values_max: usize,
}

impl fmt::Display for SpladePooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let strategy = STRATEGIES[usize::from(self.sums)];
        let activation = ACTIVATIONS[usize::from(self.logs_twice)];
        write!(f, "{strategy} over the tokens, {activation}, the {} largest", self.values_max)
    }
}

/// The task of a transformer that is a language model.
const LANGUAGE_MODEL: &str = "fill-mask";
const STRATEGIES: [&str; 2] = ["max", "sum"];
const ACTIVATIONS: [&str; 2] = ["relu", "log1p_relu"];

impl PerToken {
    /// The things that it makes rows of.
    pub(crate) fn rows_of(&self) -> RowsOf {
        match self {
            Self::Sparse(_) => RowsOf::Words,
            Self::Tokens(_) => RowsOf::Tokens,
        }
    }

    /// The name of that output.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sparse(_) => "sparse vectors",
            Self::Tokens(_) => "token vectors",
        }
    }

    /// Reads the modules' files; `None` where they make a vector or scores of a whole text. A folder without
    /// `modules.json` may be one of Stanford's.
    pub(crate) fn find(
        folder: &Path,
        modules: Option<&Modules>,
        ignored: &mut Vec<Ignored>,
    ) -> Result<Option<Self>, EngineError> {
        let Some(modules) = modules else {
            return Ok(stanford::find(folder, ignored)?.map(Self::tokens));
        };
        if modules.has("SpladePooling") {
            sparse(modules, ignored).map(|pooling| Some(Self::Sparse(pooling)))
        } else if !modules.has("Pooling")
            && (TokenModules::are_in(modules) || makes_token_vectors(folder)?)
        {
            TokenModules::read(modules, ignored).map(|modules| Some(Self::tokens(modules)))
        } else {
            Ok(None)
        }
    }

    fn tokens(modules: TokenModules) -> Self {
        Self::Tokens(Box::new(modules))
    }
}

/// Whether the folder says that it does, whatever its modules are.
fn makes_token_vectors(folder: &Path) -> Result<bool, EngineError> {
    let mut fields = Fields::parse_if_there(&folder.join("config_sentence_transformers.json"))?;
    let kind: Option<String> = fields.get("model_type")?;
    Ok(matches!(kind.as_deref(), Some("ColBERT" | "MultiVectorEncoder")))
}

fn sparse(modules: &Modules, ignored: &mut Vec<Ignored>) -> Result<SpladePooling, EngineError> {
    let [module] = modules.rest() else {
        // There is one at least: `find` has seen it.
        return Err(modules.refused(&modules.rest()[1], "Transformer, then SpladePooling"));
    };
    let mut own = sentence_config::fields(modules.transformer())?;
    let default = if modules.is_language_model() { LANGUAGE_MODEL } else { "feature-extraction" };
    let task: String = own.or("transformer_task", default.to_owned())?;
    if task != LANGUAGE_MODEL {
        let supported = "fill-mask before SpladePooling";
        return Err(own.not_supported("transformer_task", &task, &supported));
    }
    let path = module.folder.join("config.json");
    let mut fields = Fields::parse(&path, &read(&path)?)?;
    let pooling = SpladePooling {
        sums: fields.choice("pooling_strategy", &STRATEGIES)? == 1,
        logs_twice: fields.choice("activation_function", &ACTIVATIONS)? == 1,
        values_max: SPARSE_VALUES_MAX,
    };
    // The vocabulary's size, and how many tokens are pooled at once.
    fields.without_effect(&["chunk_size", "embedding_dimension", "word_embedding_dimension"]);
    ignored.extend(fields.ignored());
    Ok(pooling)
}
