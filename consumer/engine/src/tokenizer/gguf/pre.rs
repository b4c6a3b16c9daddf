//! How texts are split into words before merges, by the name that a GGUF has for it. The expressions are those of the
//! models' own `tokenizer.json`.

use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split;
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer};

use crate::error::EngineError;
use crate::load::gguf::metadata::Metadata;

/// The names that are known.
const NAMES: &str = "gpt-2, smollm, llama-bpe, llama3, llama-v3, smaug-bpe, dbrx, qwen2, deepseek-r1-qwen, gpt-4o, \
                     tekken";

/// Numbers in groups of three digits.
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Numbers digit by digit.
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Words end where lower case is followed by upper case.
const GPT_4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Words as those of GPT-4o, without English endings, and numbers digit by digit.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// How texts are split.
pub(super) struct Split {
    /// `None` for the byte level's own expression, which is GPT-2's.
    expression: Option<&'static str>,
    /// Whether each digit is a word first.
    digits: bool,
    /// Whether texts are normalized to composed characters.
    composed: bool,
    /// Whether a word that the vocabulary has as a whole is taken without merges.
    pub(super) whole_words: bool,
}

impl Split {
    /// The one that a file names; GPT-2's where it names none.
    pub(super) fn of(metadata: &Metadata) -> Result<Self, EngineError> {
        let gpt2 = Self { expression: None, digits: false, composed: false, whole_words: false };
        let by = |expression| Self { expression: Some(expression), ..gpt2 };
        Ok(match metadata.text("tokenizer.ggml.pre")?.unwrap_or("gpt-2") {
            "gpt-2" => gpt2,
            "smollm" => Self { digits: true, ..gpt2 },
            "llama-bpe" | "llama3" | "llama-v3" => Self { whole_words: true, ..by(LLAMA3) },
            "smaug-bpe" | "dbrx" => by(LLAMA3),
            "qwen2" | "deepseek-r1-qwen" => Self { composed: true, ..by(QWEN2) },
            "gpt-4o" => by(GPT_4O),
            "tekken" => Self { whole_words: true, ..by(TEKKEN) },
            other => {
                return Err(metadata.problem(format!(
                    "tokenizer.ggml.pre = {other} is not supported; supported: {NAMES}"
                )));
            }
        })
    }

    /// Makes a tokenizer split so, and join bytes to text again.
    pub(super) fn put_into(&self, tokenizer: &mut Tokenizer) -> tokenizers::Result<()> {
        let mut parts: Vec<PreTokenizerWrapper> = Vec::new();
        if self.digits {
            parts.push(Digits::new(true).into());
        }
        if let Some(expression) = self.expression {
            let pattern = split::SplitPattern::Regex(expression.to_owned());
            let split = split::Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?;
            parts.push(split.into());
        }
        parts.push(ByteLevel::new(false, true, self.expression.is_none()).into());
        tokenizer.with_pre_tokenizer(Some(Sequence::new(parts)));
        if self.composed {
            tokenizer.with_normalizer(Some(NFC))?;
        }
        tokenizer.with_decoder(Some(ByteLevel::default()));
        Ok(())
    }
}
