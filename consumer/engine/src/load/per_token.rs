//! Folders whose modules make something of every token: sparse vectors (SPLADE), or a vector each (`ColBERT`).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::EngineError;
use crate::load::fields::Fields;
use crate::load::files::{from_json, read, read_if_there};
use crate::load::pooling::OF_TEXT;

/// The most values of a sparse vector; the largest are kept. Texts of some hundred tokens have a few hundred.
pub const SPARSE_VALUES_MAX: usize = 1_024;

/// The output that the modules after the transformer make of hidden states.
#[derive(Debug, Clone)]
pub(crate) enum PerToken {
    /// Weights of the vocabulary, the largest (or the sum) over the tokens.
    Sparse(SpladePooling),
    /// Projected and normalised hidden states.
    Tokens(TokenModules),
}

/// How the outputs of a language model become a sparse vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpladePooling {
    /// The sum over the tokens instead of the largest.
    pub(crate) sums: bool,
    /// `log(1 + x)` is taken twice.
    pub(crate) logs_twice: bool,
}

/// The modules that make token vectors.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenModules {
    /// Linear layers, in their order.
    pub(crate) dense: Vec<TokenDense>,
    /// Tokens that are left out of a text's vectors, as the vocabulary writes them.
    pub(crate) skipped: Vec<String>,
    /// Whether they are left out of queries, and of documents.
    pub(crate) skips: [bool; 2],
    /// The classes of what follows the transformer, in their order.
    classes: Vec<String>,
}

impl TokenModules {
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

const MASK: &str = "MultiVectorMask";
const NORMALIZE: &str = "Normalize";
/// The output of modules that make something of every token.
const OF_TOKENS: &str = "token_embeddings";

/// A linear layer on every token.
#[derive(Debug, Clone)]
pub(crate) struct TokenDense {
    pub(crate) weights: PathBuf,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) has_bias: bool,
}

/// One line of `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
    path: PathBuf,
}

impl Module {
    /// The class without its package.
    fn class(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or_default()
    }
}

impl PerToken {
    /// The name of that output.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sparse(_) => "sparse vectors",
            Self::Tokens(_) => "token vectors",
        }
    }

    /// Reads `modules.json`; `None` where the folder makes a vector or scores of a whole text.
    pub(crate) fn find(folder: &Path) -> Result<Option<Self>, EngineError> {
        let path = folder.join("modules.json");
        let Some(json) = read_if_there(&path)? else { return Ok(None) };
        let modules: Vec<Module> = from_json(&path, &json)?;
        let has = |class: &str| modules.iter().any(|module| module.class() == class);
        if has("SpladePooling") {
            sparse(folder, &path, &modules).map(|pooling| Some(Self::Sparse(pooling)))
        } else if !has("Pooling") && (has("Dense") || has("MultiVectorMask")) {
            tokens(folder, &path, &modules).map(|modules| Some(Self::Tokens(modules)))
        } else {
            Ok(None)
        }
    }
}

/// A module that cannot stand where it stands.
fn refused(path: &Path, module: &Module, supported: &'static str) -> EngineError {
    EngineError::NotSupported {
        path: path.to_owned(),
        field: "type",
        value: module.kind.clone(),
        supported: supported.to_owned(),
    }
}

#[derive(Deserialize)]
struct SpladeFields {
    #[serde(default = "max")]
    pooling_strategy: String,
    #[serde(default = "relu")]
    activation_function: String,
}

fn max() -> String {
    "max".to_owned()
}
fn relu() -> String {
    "relu".to_owned()
}

fn sparse(folder: &Path, path: &Path, modules: &[Module]) -> Result<SpladePooling, EngineError> {
    let mut pooling = None;
    for module in modules {
        match module.class() {
            "Transformer" | "MLMTransformer" => {}
            "SpladePooling" if pooling.is_none() => {
                let path = folder.join(&module.path).join("config.json");
                let fields: SpladeFields = from_json(&path, &read(&path)?)?;
                let one_of = |field, value: &str, [no, yes]: [&str; 2], supported: &str| match value
                {
                    value if value == no => Ok(false),
                    value if value == yes => Ok(true),
                    _ => Err(EngineError::NotSupported {
                        path: path.clone(),
                        field,
                        value: value.to_owned(),
                        supported: supported.to_owned(),
                    }),
                };
                pooling = Some(SpladePooling {
                    sums: one_of(
                        "pooling_strategy",
                        &fields.pooling_strategy,
                        ["max", "sum"],
                        "max, sum",
                    )?,
                    logs_twice: one_of(
                        "activation_function",
                        &fields.activation_function,
                        ["relu", "log1p_relu"],
                        "relu, log1p_relu",
                    )?,
                });
            }
            _ => return Err(refused(path, module, "Transformer, then SpladePooling")),
        }
    }
    // There is one: `find` has seen it.
    Ok(pooling.unwrap_or(SpladePooling { sums: false, logs_twice: false }))
}

#[derive(Deserialize)]
struct DenseFields {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    activation_function: Option<String>,
    #[serde(default)]
    use_residual: bool,
}

fn yes() -> bool {
    true
}

#[derive(Default, Deserialize)]
struct MaskFields {
    #[serde(default)]
    skiplist_words: Vec<String>,
    skiplist_tasks: Option<Vec<String>>,
    keep_only_token_ids: Option<Vec<u32>>,
}

fn tokens(folder: &Path, path: &Path, modules: &[Module]) -> Result<TokenModules, EngineError> {
    let mut found = TokenModules::default();
    for module in modules {
        let folder = folder.join(&module.path);
        if module.class() != "Transformer" {
            found.classes.push(module.class().to_owned());
        }
        match module.class() {
            "Transformer" => {}
            NORMALIZE => of_tokens(&folder)?,
            "Dense" if found.classes.iter().any(|class| class == NORMALIZE) => {
                return Err(refused(path, module, "Normalize last"));
            }
            "Dense" => found.dense.push(token_dense(&folder)?),
            MASK => {
                let path = folder.join("config.json");
                let fields: MaskFields = from_json(&path, &read(&path)?)?;
                if fields.keep_only_token_ids.is_some_and(|ids| !ids.is_empty()) {
                    return Err(EngineError::NotSupported {
                        path,
                        field: "keep_only_token_ids",
                        value: "a list".to_owned(),
                        supported: "null".to_owned(),
                    });
                }
                let tasks = fields.skiplist_tasks.unwrap_or_else(|| vec!["document".to_owned()]);
                found.skipped = fields.skiplist_words;
                found.skips =
                    ["query", "document"].map(|kind| tasks.iter().any(|task| task == kind));
            }
            _ => {
                let supported = "Transformer, then Dense, MultiVectorMask, Normalize";
                return Err(refused(path, module, supported));
            }
        }
    }
    Ok(found)
}

/// Refuses a `Normalize` of something else than token vectors, which has nothing to normalise here.
fn of_tokens(folder: &Path) -> Result<(), EngineError> {
    let path = folder.join("config.json");
    let json = read_if_there(&path)?.unwrap_or_else(|| b"{}".to_vec());
    let mut fields = Fields::parse(&path, &json)?;
    let input: String = fields.or("module_input_name", OF_TEXT.to_owned())?;
    if input != OF_TOKENS {
        return Err(fields.not_supported("module_input_name", &input, &OF_TOKENS));
    }
    fields.only("module_output_name", &OF_TOKENS.to_owned())
}

fn token_dense(folder: &Path) -> Result<TokenDense, EngineError> {
    let path = folder.join("config.json");
    let fields: DenseFields = from_json(&path, &read(&path)?)?;
    let refuse = |field, value: String, supported: &str| {
        let supported = str::to_owned(supported);
        Err(EngineError::NotSupported { path: path.clone(), field, value, supported })
    };
    let activation = fields.activation_function.unwrap_or_else(|| "Tanh".to_owned());
    if !activation.ends_with("Identity") {
        return refuse("activation_function", activation, "Identity, for token vectors");
    }
    if fields.use_residual {
        return refuse("use_residual", "true".to_owned(), "false");
    }
    Ok(TokenDense {
        weights: folder.join("model.safetensors"),
        inputs: fields.in_features,
        outputs: fields.out_features,
        has_bias: fields.bias,
    })
}
