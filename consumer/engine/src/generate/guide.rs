//! Guided output: answers that fit a JSON schema, a regular expression or a choice, by masks of the tokens that a text
//! can go on with. The grammars are llguidance's, over the model's own vocabulary.
//!
//! A guide's state is a function of the tokens that it took, so the guide of a resumed sequence takes those again.

use std::fmt::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{
    InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv,
};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Map, Value as Json, json};

use super::sample::TokenMask;
use crate::tokenizer::vocabulary::{Beginning, Vocabulary};

/// The longest schema, expression or list of choices that is read.
const SOURCE_BYTES_MAX: usize = 256 << 10;
/// Tokens with more bytes are never picked under a guide: the trie of tokens can't hold them.
const TOKEN_BYTES_MAX: usize = 1_000;
/// States of one guide's lexer, of up to 2 KB each.
const STATES_MAX: usize = 20_000;
/// White space that JSON may have between its parts: a space, or a new line with an indentation. Without a bound some
/// models write nothing else until their tokens are used up.
const WHITE_SPACE: &str = r"\x20|\x0A\x20{0,24}";

/// The form that an answer has to have.
#[derive(Clone, Debug, PartialEq)]
pub enum Guided {
    /// JSON that a schema describes.
    JsonSchema(Json),
    /// A text that a regular expression matches as a whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
}

/// Why there is no guide, or why it ended.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GuideError {
    /// The form can't be read: the request is at fault.
    #[error("response_format can't be followed: {0}")]
    Unreadable(String),
    /// A grammar became too large on the way, or a token came that it doesn't allow.
    #[error("response_format can't be followed further: {0}")]
    Broken(String),
    /// The model can't be guided.
    #[error("this model can't be guided: {0}")]
    Model(String),
}

/// Turns a text within an answer into the model's tokens, without special tokens around them.
pub type Tokenize = Box<dyn Fn(&str) -> Vec<u32> + Send + Sync>;

/// Makes guides for a model. It is thread-safe.
pub struct Guides {
    factory: ParserFactory,
    ends: Arc<[u32]>,
}

impl Guides {
    /// Takes a second for the largest vocabularies. `end_tokens` are those that end an answer of the model.
    pub fn new(
        vocabulary: &Vocabulary,
        end_tokens: &[u32],
        tokenize: Tokenize,
    ) -> Result<Self, GuideError> {
        let count = vocabulary.len() as u32;
        let ends: Vec<u32> = end_tokens.iter().copied().filter(|&token| token < count).collect();
        let Some(&end) = ends.first() else {
            return Err(GuideError::Model("no token of its vocabulary ends an answer".to_owned()));
        };
        let words: Vec<Vec<u8>> = (0..count)
            .map(|token| match vocabulary.bytes(token) {
                bytes if bytes.len() > TOKEN_BYTES_MAX => Vec::new(),
                // Such a token is no part of any text, also where the vocabulary calls an end token ordinary.
                bytes if vocabulary.is_special(token) || ends.contains(&token) => {
                    [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat()
                }
                bytes => bytes.to_vec(),
            })
            .collect();
        let factory = contained(|| {
            let trie = TokTrie::from(&TokRxInfo::new(count, end), &words).with_eos_tokens(&ends);
            // A tokenizer that puts a space before every text can't be asked for the tokens of a part.
            let is_canonical = vocabulary.beginning == Beginning::Whole;
            let environment: TokEnv = Arc::new(Environment { trie, tokenize, is_canonical });
            let capabilities =
                InferenceCapabilities { ff_tokens: true, ..InferenceCapabilities::default() };
            let slices = llguidance::earley::SlicedBiasComputer::general_slices();
            let mut factory = ParserFactory::new(&environment, capabilities, &slices)
                .map_err(|error| error.to_string())?;
            factory.quiet();
            let limits = factory.limits_mut();
            limits.max_lexer_states = STATES_MAX;
            limits.verbose_errors = false;
            Ok(factory)
        });
        Ok(Self { factory: factory.map_err(GuideError::Model)?, ends: ends.into() })
    }

    /// A guide at the beginning of an answer.
    pub fn guide(&self, guided: &Guided) -> Result<Guide, GuideError> {
        let grammar = grammar(guided)?;
        let parser =
            contained(|| self.factory.create_parser(grammar).map_err(|error| error.to_string()))
                .map_err(GuideError::Unreadable)?;
        let matcher = Matcher::new(Ok(parser));
        match matcher.get_error() {
            Some(problem) => Err(GuideError::Unreadable(problem)),
            None => Ok(Guide { matcher, ends: Arc::clone(&self.ends) }),
        }
    }
}

/// The grammar of an answer.
fn grammar(guided: &Guided) -> Result<TopLevelGrammar, GuideError> {
    let unreadable = |problem: &str| Err(GuideError::Unreadable(problem.to_owned()));
    let bytes = match guided {
        Guided::JsonSchema(schema) => schema.to_string().len(),
        Guided::Regex(expression) => expression.len(),
        Guided::Choice(choices) => choices.iter().map(|choice| choice.len() + 1).sum(),
    };
    if bytes > SOURCE_BYTES_MAX {
        return Err(GuideError::Unreadable(format!(
            "it has {bytes} bytes, and the most are {SOURCE_BYTES_MAX}"
        )));
    }
    Ok(match guided {
        Guided::JsonSchema(schema) => {
            let mut schema = match schema {
                Json::Object(schema) => schema.clone(),
                Json::Bool(true) => Map::new(),
                _ => return unreadable("a JSON schema is an object"),
            };
            schema.insert("x-guidance".to_owned(), json!({"whitespace_pattern": WHITE_SPACE}));
            TopLevelGrammar::from_json_schema(Json::Object(schema))
        }
        Guided::Regex(expression) => TopLevelGrammar::from_regex(without_anchors(expression)),
        Guided::Choice(choices) if choices.is_empty() => return unreadable("there is no choice"),
        Guided::Choice(choices) => {
            let choices: Vec<String> = choices.iter().map(|choice| escaped(choice)).collect();
            TopLevelGrammar::from_regex(&format!("({})", choices.join("|")))
        }
    })
}

/// The expression without anchors around it, as it has to match the whole text anyway.
fn without_anchors(expression: &str) -> &str {
    let inner = expression.strip_prefix('^').unwrap_or(expression);
    match inner.strip_suffix('$') {
        // An odd number of backslashes makes it a dollar sign of the text.
        Some(rest) if rest.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 0 => rest,
        _ => inner,
    }
}

/// An expression that matches this text alone.
fn escaped(text: &str) -> String {
    let mut expression = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() && !character.is_ascii_alphanumeric() {
            // Writing to a string doesn't fail.
            let _ = write!(expression, "\\x{:02x}", u32::from(character));
        } else {
            expression.push(character);
        }
    }
    expression
}

/// The grammar of one answer, and how far the answer is.
pub struct Guide {
    matcher: Matcher,
    ends: Arc<[u32]>,
}

impl Guide {
    /// The tokens that the answer can go on with. Where it is complete, those that end it are among them; where it
    /// can't go on, there are no others.
    pub fn mask(&mut self) -> Result<TokenMask, GuideError> {
        let mask = self.matcher.compute_mask_or_eos().map_err(broken)?;
        Ok(TokenMask::from_words(mask.as_slice().to_vec()))
    }

    /// Goes on by these tokens: one that was picked, those that are forced, or all of a sequence that is resumed.
    pub fn take(&mut self, tokens: &[u32]) -> Result<(), GuideError> {
        for token in tokens {
            // The library takes no more tokens after a complete answer, its end included.
            if !(self.matcher.is_stopped() && self.ends.contains(token)) {
                self.matcher.consume_token(*token).map_err(broken)?;
            }
        }
        Ok(())
    }

    /// The tokens that come next in any case, often none. They need not be picked, but taken.
    pub fn forced(&mut self) -> Vec<u32> {
        self.matcher.compute_ff_tokens()
    }

    /// Whether the answer is complete and can't go on.
    pub fn is_finished(&self) -> bool {
        self.matcher.is_stopped()
    }
}

fn broken(error: impl std::fmt::Display) -> GuideError {
    GuideError::Broken(error.to_string())
}

/// The model's tokens for llguidance.
struct Environment {
    trie: TokTrie,
    tokenize: Tokenize,
    is_canonical: bool,
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let Ok(text) = std::str::from_utf8(bytes) else { return self.trie.greedy_tokenize(bytes) };
        let tokens = (self.tokenize)(text);
        // A tokenizer that normalizes texts gives tokens of another text.
        let is_same = tokens.iter().flat_map(|&token| self.trie.token(token)).eq(bytes);
        if is_same { tokens } else { self.trie.greedy_tokenize(bytes) }
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.is_canonical
    }
}

/// Runs a part of llguidance, which panics at some input. Nothing that it was building is used afterwards.
fn contained<T>(part: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let result = panic::catch_unwind(AssertUnwindSafe(part));
    result.unwrap_or_else(|_| Err("the grammar library can't cope with it".to_owned()))
}

#[cfg(test)]
mod tests;
