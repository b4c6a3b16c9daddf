//! Folders of Stanford's `ColBERT` library. They have no `modules.json`: the projection lies among the encoder's
//! weights, and `artifact.metadata` says how texts are read. What is made of them is what sentence-transformers makes.

use std::path::Path;

use forebay_kernels::Activation;

use crate::error::EngineError;
use crate::load::fields::{Fields, Ignored};
use crate::load::pooling::Dense;
use crate::load::safetensors::Weights;
use crate::load::token_modules::{DENSE, MASK, NORMALIZE, TokenModules};
use crate::load::token_reading::{
    Expansion, FILLED_LENGTH, KindReading, TokenReading, punctuation,
};

/// The class that such a folder's `config.json` lists.
const CLASS: &str = "HF_ColBERT";

/// How the model was trained, and how vectors are indexed, searched and compared.
const WITHOUT_EFFECT: &[&str] = &[
    "accumsteps",
    "amp",
    "avoid_fork_if_possible",
    "bsize",
    "centroid_score_threshold",
    "checkpoint",
    "clustering_mode",
    "collection",
    "config",
    "distillation_alpha",
    "doc_token",
    "experiment",
    "gpus",
    "ignore_scores",
    "index_bsize",
    "index_name",
    "index_path",
    "index_root",
    "interaction",
    "kmeans_niters",
    "load_index_with_mmap",
    "lr",
    "maxsteps",
    "meta",
    "model_name",
    "name",
    "nbits",
    "ncells",
    "ndocs",
    "nranks",
    "nway",
    "overwrite",
    "pool_factor",
    "protected_tokens",
    "queries",
    "query_token",
    "rank",
    "relu",
    "reranker",
    "resume",
    "root",
    "save_every",
    "similarity",
    "triples",
    "use_ib_negatives",
    "warmup",
    "warmup_bert",
];

/// Reads the folder, if it is one of these.
pub(super) fn find(
    folder: &Path,
    ignored: &mut Vec<Ignored>,
) -> Result<Option<TokenModules>, EngineError> {
    let mut config = Fields::parse_if_there(&folder.join("config.json"))?;
    let classes: Vec<String> = config.or("architectures", Vec::new())?;
    if !classes.iter().any(|class| class == CLASS) {
        return Ok(None);
    }
    let weights = folder.join("model.safetensors");
    let [outputs, inputs] = Weights::open(&weights)?.matrix("linear.weight")?;
    let mut metadata = Fields::parse_if_there(&folder.join("artifact.metadata"))?;
    metadata.only("dim", &outputs)?;
    let skips_punctuation = metadata.or("mask_punctuation", true)?;
    let skipped = if skips_punctuation { punctuation() } else { Vec::new() };
    let reading = reading(&mut metadata)?;
    metadata.without_effect(WITHOUT_EFFECT);
    ignored.extend(metadata.ignored());
    let dense = Dense {
        inputs,
        outputs,
        has_bias: false,
        activation: Activation::None,
        adds_inputs: false,
        weights,
    };
    Ok(Some(TokenModules {
        dense: vec![dense],
        skipped,
        skips: [false, true],
        reading: Some(reading),
        classes: [DENSE, MASK, NORMALIZE].map(str::to_owned).to_vec(),
    }))
}

fn reading(metadata: &mut Fields) -> Result<TokenReading, EngineError> {
    let mut kind = |field, default: &str, tokens_max| {
        let marker: String = metadata.or(field, String::new())?;
        let marker = if marker.is_empty() { default } else { &marker };
        let prompt = format!("{marker} ");
        Ok::<_, EngineError>(KindReading { marker: Some(prompt.clone()), prompt, tokens_max })
    };
    let queries = kind("query_token_id", "[unused0]", None)?;
    let documents = kind("doc_token_id", "[unused1]", None)?;
    let length = metadata.get("query_maxlen")?.filter(|&length| length > 0);
    Ok(TokenReading {
        queries,
        documents: KindReading { tokens_max: metadata.get("doc_maxlen")?, ..documents },
        expansion: Some(Expansion::fixed(
            length.unwrap_or(FILLED_LENGTH),
            metadata.or("attend_to_mask_tokens", false)?,
        )),
        skipped: None,
    })
}
