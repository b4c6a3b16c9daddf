//! Calls for vectors: of texts, of token ids, and of texts whose vectors may be in the cache.

use forebay_client::{Output, Work};
use forebay_schemas::{EmbedOutput, EmbedParams};

use super::{
    cache::{Key, Row, View},
    calls::{Call, Fleet, IN_PLACE_BYTES_MAX, Outputs, distinct, elsewhere},
    distinct::Distinct,
};
use crate::error::ApiError;

/// Vectors with the tokens that they took.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// The vectors of each job; all of one dimension.
    parts: Vec<EmbedOutput>,
    /// Vectors that were there before; of the same dimension.
    cached: Vec<Row>,
    /// For each text which of the vectors is its own: first those of the jobs, then those that were there.
    order: Vec<usize>,
    /// Tokens read.
    pub tokens: u64,
    /// For how many of the texts the vector was there, where that was looked at.
    pub hits: Option<usize>,
}

impl Vectors {
    /// The vectors in the texts' order.
    pub fn rows(&self) -> Vec<&[f32]> {
        let computed = self.parts.iter().flat_map(EmbedOutput::rows);
        let rows: Vec<&[f32]> = computed.chain(self.cached.iter().map(|row| &row[..])).collect();
        self.order.iter().filter_map(|&item| rows.get(item).copied()).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.order.len()
    }

    /// The bytes that they take.
    pub fn bytes(&self) -> usize {
        let computed = self.parts.first().map(|part| part.dim);
        let dim = computed.or_else(|| self.cached.first().map(|row| row.len())).unwrap_or(0);
        self.order.len() * dim * size_of::<f32>()
    }
}

impl Fleet {
    /// One vector for each text.
    pub async fn embed(
        &self,
        call: &Call,
        texts: Vec<String>,
        params: &EmbedParams,
    ) -> Result<Vectors, ApiError> {
        let work = |input| Work::Embed { input, params: params.clone() };
        let texts = distinct(texts).await;
        let cache = self.cache.as_ref();
        match cache.and_then(|cache| cache.view(&call.tenant, &call.model, params)) {
            None => {
                vectors(self.outputs_of(call, texts, 0, work, embedded).await?, Vec::new(), None)
            }
            Some(view) => self.embed_beside(call, &view, texts, work).await,
        }
    }

    /// One vector for each text, of which those are not computed that are in the cache.
    async fn embed_beside(
        &self,
        call: &Call,
        view: &View,
        texts: Distinct<String>,
        work: impl Fn(Vec<String>) -> Work,
    ) -> Result<Vectors, ApiError> {
        let (texts, keys) = keyed(view, texts).await;
        let Distinct { items, firsts, order } = texts;
        let mut inputs = vec![0; items.len()];
        for &item in &order {
            inputs[item] += 1;
        }
        let found = view.get(&keys, &inputs);
        let is_hit = |item: &usize| found.get(*item).is_some_and(Option::is_some);
        let hits = order.iter().copied().filter(&is_hit).count();
        let missing: Vec<usize> = (0..items.len()).filter(|item| !is_hit(item)).collect();
        let mut items: Vec<Option<String>> = items.into_iter().map(Some).collect();
        let computed = Distinct {
            items: missing.iter().filter_map(|&item| items[item].take()).collect(),
            firsts: missing.iter().map(|&item| firsts[item]).collect(),
            order: Vec::new(),
        };
        let outputs = self.outputs_of(call, computed, 0, work, embedded).await?;
        let mut new_keys = missing.iter().map(|&item| keys[item]);
        for (part, (worker, count)) in outputs.parts.iter().zip(&outputs.workers) {
            view.put(worker, new_keys.by_ref().take(*count).zip(part.rows()));
        }
        // Where each item's vector is: those that were computed come first.
        let mut at = vec![0; keys.len()];
        let kept = (0..keys.len()).filter(&is_hit);
        missing.iter().copied().chain(kept).enumerate().for_each(|(row, item)| at[item] = row);
        let order = order.into_iter().map(|item| at[item]).collect();
        let cached = found.into_iter().flatten().collect();
        vectors(Outputs { order, ..outputs }, cached, Some(hits))
    }

    /// One vector for each sequence of the ids of `tokenizer`, which has to be that of the call's model: ids mean other
    /// texts to any other.
    pub async fn embed_ids(
        &self,
        call: &Call,
        sequences: Vec<Vec<u32>>,
        tokenizer: &str,
        params: &EmbedParams,
    ) -> Result<Vectors, ApiError> {
        if tokenizer != call.model.as_str() {
            let named: String = tokenizer.chars().take(80).collect();
            let message = format!(
                "`tokenizer` is `{named}`, and this request goes to the model `{}`: send texts, or ids of that \
                 model's own tokenizer and its name",
                call.model
            );
            return Err(ApiError::invalid("tokenizer", message));
        }
        let work = |input_ids| Work::EmbedIds { input_ids, params: params.clone() };
        vectors(self.outputs(call, sequences, 0, work, embedded).await?, Vec::new(), None)
    }
}

/// The keys of texts, made on another thread where there are many bytes to hash.
async fn keyed(view: &View, texts: Distinct<String>) -> (Distinct<String>, Vec<Key>) {
    let bytes: usize = texts.items.iter().map(String::len).sum();
    let view = view.clone();
    let work = move || {
        let keys = texts.items.iter().map(|text| view.key(text)).collect();
        (texts, keys)
    };
    if bytes <= IN_PLACE_BYTES_MAX { work() } else { elsewhere(work).await }
}

fn vectors(
    outputs: Outputs<EmbedOutput>,
    cached: Vec<Row>,
    hits: Option<usize>,
) -> Result<Vectors, ApiError> {
    let Outputs { parts, order, tokens, .. } = outputs;
    let mut dims = parts.iter().map(|part| part.dim).chain(cached.iter().map(|row| row.len()));
    let dim = dims.next();
    if dims.any(|other| Some(other) != dim) {
        // Two versions of a model at once, while one replaces the other.
        return Err(ApiError::unavailable("unavailable", "the model is being replaced: try again"));
    }
    Ok(Vectors { parts, cached, order, tokens, hits })
}

fn embedded(output: Output, inputs: usize) -> Option<EmbedOutput> {
    match output {
        Output::Embed(vectors) if vectors.count() == inputs => Some(vectors),
        _ => None,
    }
}
