//! A set of tokens that may be picked.

/// The tokens that a guide allows at one position, a bit each.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenMask {
    /// Token `t` is allowed if bit `t % 32` of word `t / 32` is set.
    words: Vec<u32>,
}

impl TokenMask {
    /// From words of 32 tokens each, lowest bit first. Tokens past the last word are not allowed.
    pub fn from_words(words: Vec<u32>) -> Self {
        Self { words }
    }

    /// Allows these tokens alone.
    pub fn of(tokens: impl IntoIterator<Item = u32>) -> Self {
        let mut words = Vec::new();
        for token in tokens {
            let at = token as usize / 32;
            if words.len() <= at {
                words.resize(at + 1, 0);
            }
            words[at] |= 1 << (token % 32);
        }
        Self { words }
    }

    /// Whether `token` may be picked.
    pub fn allows(&self, token: u32) -> bool {
        self.words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// The words, as [`TokenMask::from_words`] takes them.
    pub fn words(&self) -> &[u32] {
        &self.words
    }
}
