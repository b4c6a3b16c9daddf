//! Tokenizers of models that read queries otherwise than documents.

use tokenizers::AddedToken;

use crate::error::EngineError;
use crate::load::folder::ModelFolder;
use crate::load::token_reading::{Expansion, InputType, KindReading, TokenReading};
use crate::tokenizer::{Filler, Tokenizer, Tokens, library};

/// Mask tokens by the name that BERT gives them, and `RoBERTa`, where the tokenizer's configuration names none.
const MASKS: [&str; 2] = ["[MASK]", "<mask>"];

impl Tokenizer {
    /// A tokenizer of documents, with one of queries in it. `positions` is the most that the model reads: a length that
    /// is said for a kind of texts counts before the folder's for all texts.
    pub(crate) fn load_kinds(
        folder: &ModelFolder,
        positions: usize,
        gives_types: bool,
        reading: &TokenReading,
    ) -> Result<Self, EngineError> {
        let of_all = folder.tokens_max(positions);
        let length = |kind: &KindReading| kind.tokens_max.unwrap_or(of_all).min(positions);
        let load = |kind: &KindReading, tokens_max| {
            Self::load_with(folder, tokens_max, gives_types, &kind.prompt, |inner| {
                // Both are tokens in texts of either kind.
                reading.markers().try_for_each(|marker| register(inner, marker))
            })
        };
        let mut documents = load(&reading.documents, length(&reading.documents))?;
        let queries_max = match &reading.expansion {
            Some(expansion) if expansion.is_fixed => expansion.length.min(positions),
            Some(expansion) => length(&reading.queries).max(expansion.length).min(positions),
            None => length(&reading.queries),
        };
        let mut queries = load(&reading.queries, queries_max)?;
        let mask = folder.tokenizer_config().mask.as_deref();
        let filler = reading.expansion.as_ref().map(|expansion| queries.filler_of(expansion, mask));
        queries.filler = filler.transpose()?;
        documents.queries = Some(Box::new(queries));
        Ok(documents)
    }

    /// The tokenizer for texts of a kind; the same for both in most models.
    pub fn of(&self, input_type: InputType) -> &Self {
        match (&self.queries, input_type) {
            (Some(queries), InputType::Query) => queries,
            _ => self,
        }
    }

    /// The most tokens of a text of any kind.
    pub(crate) fn kinds_tokens_max(&self) -> usize {
        self.queries.as_ref().map_or(0, |queries| queries.tokens_max).max(self.tokens_max)
    }

    /// The id of a token, as the vocabulary writes it.
    pub(crate) fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token that queries are filled up with.
    pub(crate) fn filler_id(&self) -> Option<u32> {
        self.queries.as_ref()?.filler.map(|filler| filler.id)
    }

    fn filler_of(&self, expansion: &Expansion, mask: Option<&str>) -> Result<Filler, EngineError> {
        let named = expansion.token.as_deref().or(mask).map(|token| vec![token]);
        let names = named.unwrap_or_else(|| MASKS.to_vec());
        let id = names.iter().find_map(|name| self.token_id(name));
        let id = id.ok_or_else(|| EngineError::Tokenizer {
            problem: format!(
                "its vocabulary has none of {names:?}, which queries are filled up with"
            ),
        })?;
        Ok(Filler { id, length: expansion.length })
    }

    /// Fills a query up to its length.
    pub(super) fn filled(&self, mut tokens: Tokens) -> Tokens {
        if let Some(Filler { id, length }) = self.filler {
            let length = length.min(self.tokens_max).max(tokens.ids.len());
            tokens.ids.resize(length, id);
            tokens.first_len = length;
        }
        tokens
    }
}

/// Sees to it that a prompt's marker is one token, as it was in training, where the vocabulary has it: the whole of it,
/// or its first word.
fn register(inner: &mut tokenizers::Tokenizer, marker: &str) -> Result<(), EngineError> {
    let Some(word) = marker.split_whitespace().next() else { return Ok(()) };
    let Some(token) = [marker, word].into_iter().find(|it| inner.token_to_id(it).is_some()) else {
        return Ok(()); // it is ordinary text to this tokenizer
    };
    let tokens = library(|| inner.encode_fast(token, false))?;
    if tokens.get_tokens() != [token] {
        let token = AddedToken::from(token, true);
        library(|| inner.add_special_tokens([token]))?;
    }
    Ok(())
}
