//! Loading of models whose rows are made of every token: sparse vectors and token vectors. They compute on the
//! processor.

use std::collections::BTreeSet;
use std::path::Path;

use crate::encode::dense::DenseLayer;
use crate::encode::per_token::{PerTokenEncoder, PerTokenHead};
use crate::encode::token_vectors::TokenVectors;
use crate::error::EngineError;
use crate::families::architecture::Architecture;
use crate::families::classifier::OF_CLASSIFIERS;
use crate::families::masked_lm;
use crate::info::{KindInfo, ModelInfo, ModelTask};
use crate::load::fields::Fields;
use crate::load::files::read;
use crate::load::folder::ModelFolder;
use crate::load::options::{Device, LoadOptions};
use crate::load::per_token::{PerToken, SpladePooling};
use crate::load::safetensors::Weights;
use crate::load::token_modules::TokenModules;
use crate::load::token_reading::{Expansion, InputType, TokenReading};
use crate::tokenizer::Tokenizer;

/// Families whose attention can leave tokens unseen.
const FILLED_UNSEEN: &str =
    "bert, roberta, xlm-roberta, camembert, distilbert, mpnet, nomic_bert, new, gte, modernbert";

/// Loads the model in `folder`, which has these modules.
pub(crate) fn load(
    folder: &ModelFolder,
    modules: &PerToken,
    options: &LoadOptions,
) -> Result<(Tokenizer, PerTokenEncoder, ModelInfo), EngineError> {
    let config_path = folder.config_path();
    let (architecture, mut fields, _) = Architecture::read(&config_path)?;
    fields.without_effect(OF_CLASSIFIERS);
    let sizes = architecture.sizes();
    let name = architecture.name();
    let task = task(modules);
    check_device(&config_path, modules, options.device)?;
    let f32_only = architecture.is_f32_only().then_some(name);
    let dtype = options.resolve_dtype(task == ModelTask::EmbedSparse, f32_only)?;
    let threads = options.resolve_threads();
    let weights = || Weights::open(&folder.weights_path());
    let mut kinds = None;
    let (tokenizer, head, unseen) = match modules {
        PerToken::Sparse(pooling) => {
            let tokens_max = folder.tokens_max(sizes.positions);
            let tokenizer = Tokenizer::load(folder, tokens_max, architecture.gives_types())?;
            // All of them again: some are the encoder's too.
            let mut of_head = Fields::parse(&config_path, &read(&config_path)?)?;
            let head = masked_lm::load(&mut of_head, name, &weights()?, sizes, *pooling)?;
            fields.without_those_of(&of_head);
            (tokenizer, PerTokenHead::Sparse(head), None)
        }
        PerToken::Tokens(modules) => {
            let reading = folder.token_reading()?;
            let gives_types = architecture.gives_types();
            let tokenizer = Tokenizer::load_kinds(folder, sizes.positions, gives_types, &reading)?;
            let head = token_vectors(folder, modules, &reading, &tokenizer, sizes.hidden)?;
            kinds = Some(kind_infos(&tokenizer, &reading, &head));
            let hides = reading.expansion.as_ref().is_some_and(|expansion| !expansion.attend);
            let unseen = tokenizer.filler_id().filter(|_| hides);
            if unseen.is_some() {
                check_unseen(&config_path, &architecture, &reading)?;
            }
            (tokenizer, PerTokenHead::Tokens(head), unseen)
        }
    };
    let info = ModelInfo {
        architecture: name,
        task,
        dim: head.dim(sizes),
        labels: Vec::new(),
        tokens_max: tokenizer.kinds_tokens_max(),
        vocabulary: sizes.vocabulary,
        keeps_end: tokenizer.keeps_end(),
        pooling: Vec::new(),
        sparse_pooling: sparse_pooling(modules),
        kinds,
        pair_prompt: None,
        after_pooling: Vec::new(),
        prompts: folder.prompts().named.clone(),
        default_prompt: folder.prompts().default.clone(),
        ignored: fields.ignored().into_iter().chain(folder.ignored().iter().cloned()).collect(),
        stored_dtypes: weights()?.dtypes(),
        dtype,
        device: options.device,
        gpu: None,
        threads,
        bytes_per_token: architecture.bytes_per_token(dtype),
        generation: None,
    };
    let layers = architecture.layers(weights, dtype, &candle_core::Device::Cpu)?;
    let encoder = PerTokenEncoder::new(sizes, layers, head, unseen, threads, dtype.tensor())?;
    Ok((tokenizer, encoder, info))
}

fn sparse_pooling(modules: &PerToken) -> Option<SpladePooling> {
    match modules {
        PerToken::Sparse(pooling) => Some(*pooling),
        PerToken::Tokens(_) => None,
    }
}

fn task(modules: &PerToken) -> ModelTask {
    match modules {
        PerToken::Sparse(_) => ModelTask::EmbedSparse,
        PerToken::Tokens(_) => ModelTask::EmbedTokens,
    }
}

/// Refuses GPUs: no kernel there makes rows of every token.
fn check_device(path: &Path, modules: &PerToken, device: Device) -> Result<(), EngineError> {
    if device == Device::Cpu {
        return Ok(());
    }
    Err(EngineError::NotSupported {
        path: path.to_owned(),
        field: "modules",
        value: format!("{} on {device}", modules.name()),
        supported: "vectors and scores of whole texts on a GPU; use --device cpu".to_owned(),
    })
}

/// Refuses fillers that other tokens don't see where attention can't leave them out: in other families, and where they
/// would be so many that the last ones' window has no token that is seen.
fn check_unseen(
    path: &Path,
    architecture: &Architecture,
    reading: &TokenReading,
) -> Result<(), EngineError> {
    let length = reading.expansion.as_ref().map_or(0, |expansion| expansion.length);
    let refused = |value: String, supported: &str| {
        Err(EngineError::NotSupported {
            path: path.to_owned(),
            field: "query_expansion",
            value,
            supported: supported.to_owned(),
        })
    };
    match architecture.window_unseen() {
        None => refused(format!("attend: false for {}", architecture.name()), FILLED_UNSEEN),
        Some(window) if length > window => refused(
            format!("{length} tokens, which are not attended to"),
            "no more than half of local_attention",
        ),
        Some(_) => Ok(()),
    }
}

fn token_vectors(
    folder: &ModelFolder,
    modules: &TokenModules,
    reading: &TokenReading,
    tokenizer: &Tokenizer,
    hidden: usize,
) -> Result<TokenVectors, EngineError> {
    // PyLate has no modules for what it does with every token.
    if reading.skipped.is_none() {
        modules.check(folder.root(), reading.expansion.is_some())?;
    }
    let skipped = reading.skipped.as_ref().unwrap_or(&modules.skipped);
    // PyLate leaves them out of documents alone.
    let skips = if reading.skipped.is_some() { [false, true] } else { modules.skips };
    // Words that the vocabulary lacks are no tokens of any text.
    let ids: BTreeSet<u32> = skipped.iter().filter_map(|word| tokenizer.token_id(word)).collect();
    let mut dense = Vec::new();
    for layer in &modules.dense {
        let width = dense.last().map_or(hidden, DenseLayer::outputs);
        dense.push(DenseLayer::load(layer, width)?);
    }
    Ok(TokenVectors {
        dense,
        skipped: skips.map(|skips| if skips { ids.clone() } else { BTreeSet::new() }),
    })
}

/// How queries are read, and documents.
fn kind_infos(tokenizer: &Tokenizer, reading: &TokenReading, head: &TokenVectors) -> [KindInfo; 2] {
    let [of_queries, of_documents] = &head.skipped;
    let kind = |input_type, expansion: Option<&Expansion>, skipped: &BTreeSet<u32>| {
        let tokens_max = tokenizer.of(input_type).tokens_max();
        KindInfo {
            tokens_max,
            filled_to: expansion.map(|expansion| expansion.length.min(tokens_max)),
            sees_fillers: expansion.is_some_and(|expansion| expansion.attend),
            skipped: skipped.len(),
        }
    };
    [
        kind(InputType::Query, reading.expansion.as_ref(), of_queries),
        kind(InputType::Document, None, of_documents),
    ]
}
