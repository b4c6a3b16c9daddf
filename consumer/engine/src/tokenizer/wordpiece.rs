//! BERT's tokenisation of ASCII words, several times as fast as the `tokenizers` library and equal to it.
//!
//! Most texts are mostly ASCII, and on that BERT's pipeline is simple: words end at spaces, punctuation stands alone,
//! characters are lower-cased, and each word is cut greedily into the longest pieces that the vocabulary has.
//! Everything else in a text (other characters, control characters, what may be a special token) goes through the
//! library, from one space to the next: no rule of the pipeline reaches over a space, which [`WordPiece::of`] checks.

use tokenizers::{ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

/// Bytes of the longest piece that an entry holds; a vocabulary with a longer one in ASCII is left to the library.
const PIECE_BYTES_MAX: usize = 23;
/// Bytes of a text after which the library is asked no more words at once.
const LIBRARY_BYTES: usize = 16 * 1024;
/// FNV-1a's multiplier and start for 64 bits, <http://www.isthe.com/chongo/tech/comp/fnv>.
const HASH_FACTOR: u64 = 0x0000_0100_0000_01b3;
const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;
/// Marks the length of a piece within a word: it differs from a piece of the same bytes at a word's beginning.
const WITHIN: u8 = 0x80;

/// The class that the pipeline puts a byte into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByteClass {
    Word,
    Punctuation,
    Space,
    /// Left to the library.
    Other,
}

/// A vocabulary's ASCII pieces in a table of their own.
pub(crate) struct WordPiece {
    classes: [ByteClass; 256],
    /// Each byte as the normaliser leaves it.
    folded: [u8; 256],
    /// Each piece is at its hash or after it. A power of two, at least half of it free.
    table: Vec<Entry>,
    pieces: usize,
    piece_bytes_max: usize,
    word_bytes_max: usize,
    unknown: u32,
}

/// An entry of the hash table, in half a cache line.
#[derive(Clone, Copy, Default)]
#[repr(align(32))]
struct Entry {
    hash: u32,
    id: u32,
    /// The number of bytes, with the bit [`WITHIN`] for a piece that continues a word; 0 in a free slot.
    len: u8,
    bytes: [u8; PIECE_BYTES_MAX],
}

impl WordPiece {
    /// The table for a tokenizer, if it is one of BERT's pipeline that never reaches over a space.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let Some(NormalizerWrapper::BertNormalizer(normalizer)) = tokenizer.get_normalizer() else {
            return None;
        };
        let Some(PreTokenizerWrapper::BertPreTokenizer(_)) = tokenizer.get_pre_tokenizer() else {
            return None;
        };
        let ModelWrapper::WordPiece(model) = tokenizer.get_model() else { return None };
        let mut classes = classes();
        for token in tokenizer.get_added_tokens_decoder().values() {
            let first = *token.content.as_bytes().first()?;
            let reaches = token.lstrip || token.rstrip || token.single_word;
            if reaches || !token.content.bytes().all(|byte| byte.is_ascii_graphic()) {
                return None;
            }
            // A special token that begins with a word character would send most words to the library.
            if !first.is_ascii_punctuation() {
                return None;
            }
            classes[usize::from(first)] = ByteClass::Other;
        }
        let vocabulary = tokenizer.get_vocab(false);
        let mut table = Self {
            classes,
            folded: std::array::from_fn(|byte| {
                let byte = byte as u8; // below 256
                if normalizer.lowercase { byte.to_ascii_lowercase() } else { byte }
            }),
            table: vec![Entry::default(); (2 * vocabulary.len()).next_power_of_two().max(2)],
            pieces: 0,
            piece_bytes_max: 0,
            word_bytes_max: model.max_input_chars_per_word,
            unknown: *vocabulary.get(&model.unk_token)?,
        };
        for (piece, &id) in &vocabulary {
            table.insert(piece, &model.continuing_subword_prefix, id)?;
        }
        Some(table)
    }

    /// Enters a piece as one that begins a word and, where it has the prefix, also as one that continues a word.
    fn insert(&mut self, piece: &str, prefix: &str, id: u32) -> Option<()> {
        if !piece.is_ascii() || piece.is_empty() {
            return Some(()); // no ASCII word has it
        }
        self.enter(piece.as_bytes(), 0, id)?;
        match piece.strip_prefix(prefix) {
            Some(rest) if !rest.is_empty() => self.enter(rest.as_bytes(), WITHIN, id),
            _ => Some(()),
        }
    }

    fn enter(&mut self, piece: &[u8], within: u8, id: u32) -> Option<()> {
        let mut bytes = [0; PIECE_BYTES_MAX];
        bytes.get_mut(..piece.len())?.copy_from_slice(piece);
        if 2 * (self.pieces + 1) > self.table.len() {
            let larger = vec![Entry::default(); 2 * self.table.len()];
            let entries = std::mem::replace(&mut self.table, larger);
            entries.into_iter().filter(|entry| entry.len > 0).for_each(|entry| self.put(entry));
        }
        let hash = piece.iter().fold(start(within), |hash, &byte| step(hash, byte));
        let hash = spread(hash);
        let len = piece.len() as u8 | within; // PIECE_BYTES_MAX at most
        self.put(Entry { hash, id, len, bytes });
        self.pieces += 1;
        self.piece_bytes_max = self.piece_bytes_max.max(piece.len());
        Some(())
    }

    fn put(&mut self, entry: Entry) {
        let mask = self.table.len() - 1;
        let mut at = entry.hash as usize & mask;
        while self.table[at].len > 0 {
            at = (at + 1) & mask;
        }
        self.table[at] = entry;
    }

    /// Appends the tokens of a text, without special ones, and may stop after the first `enough`. `library` tokenizes a
    /// part that is not ours.
    pub(crate) fn tokenize<E>(
        &self,
        text: &str,
        enough: usize,
        ids: &mut Vec<u32>,
        mut library: impl FnMut(&str) -> Result<Vec<u32>, E>,
    ) -> Result<(), E> {
        let bytes = text.as_bytes();
        let mut at = 0;
        while ids.len() < enough {
            let Some(spaces) =
                bytes[at..].iter().position(|&byte| !self.is(byte, ByteClass::Space))
            else {
                break;
            };
            let start = at + spaces;
            at = self.chunk_end(bytes, start);
            if self.is_ours(&bytes[start..at]) {
                self.chunk(&bytes[start..at], ids);
                continue;
            }
            // As much at once as is not ours: a call of the library costs more than a word. But not without end, or
            // a long text of another script would be tokenized whole.
            while at - start < LIBRARY_BYTES {
                let next = bytes[at..].iter().position(|&byte| !self.is(byte, ByteClass::Space));
                let Some(next) = next.map(|spaces| at + spaces) else { break };
                let end = self.chunk_end(bytes, next);
                if self.is_ours(&bytes[next..end]) {
                    break;
                }
                at = end;
            }
            ids.extend(library(&text[start..at])?);
        }
        Ok(())
    }

    fn is(&self, byte: u8, class: ByteClass) -> bool {
        self.classes[usize::from(byte)] == class
    }

    fn is_ours(&self, chunk: &[u8]) -> bool {
        !chunk.iter().any(|&byte| self.is(byte, ByteClass::Other))
    }

    /// The position of the first space after `start`, or the end.
    fn chunk_end(&self, bytes: &[u8], start: usize) -> usize {
        let len = bytes[start..].iter().position(|&byte| self.is(byte, ByteClass::Space));
        len.map_or(bytes.len(), |len| start + len)
    }

    /// Appends the tokens of the bytes between two spaces: words, and punctuation one by one.
    fn chunk(&self, chunk: &[u8], ids: &mut Vec<u32>) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let word_bytes = rest.iter().position(|&byte| self.is(byte, ByteClass::Punctuation));
            let (word, after) = rest.split_at(match word_bytes {
                Some(0) => 1,
                Some(word_bytes) => word_bytes,
                None => rest.len(),
            });
            self.word(word, ids);
            rest = after;
        }
    }

    /// Cuts a word into its longest pieces from the left; one that can't be cut is the unknown token.
    fn word(&self, word: &[u8], ids: &mut Vec<u32>) {
        let before = ids.len();
        let mut rest = word;
        let mut within = 0;
        if word.len() > self.word_bytes_max {
            ids.push(self.unknown);
            return;
        }
        while !rest.is_empty() {
            let Some((id, len)) = self.longest(rest, within) else {
                ids.truncate(before);
                ids.push(self.unknown);
                return;
            };
            ids.push(id);
            rest = &rest[len..];
            within = WITHIN;
        }
    }

    /// The longest piece that `word` begins with, and its length.
    fn longest(&self, word: &[u8], within: u8) -> Option<(u32, usize)> {
        let most = word.len().min(self.piece_bytes_max);
        let mut folded = [0; PIECE_BYTES_MAX];
        let mut hashes = [0; PIECE_BYTES_MAX];
        let mut hash = start(within);
        for (at, &byte) in word[..most].iter().enumerate() {
            folded[at] = self.folded[usize::from(byte)];
            hash = step(hash, folded[at]);
            hashes[at] = spread(hash);
        }
        (1..=most).rev().find_map(|len| {
            let id = self.find(&folded[..len], within, hashes[len - 1])?;
            Some((id, len))
        })
    }

    /// The id of the piece of these bytes.
    fn find(&self, piece: &[u8], within: u8, hash: u32) -> Option<u32> {
        let mask = self.table.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let entry = &self.table[at];
            if entry.len == 0 {
                return None;
            }
            let is_it = entry.hash == hash && entry.len == piece.len() as u8 | within;
            if is_it && entry.bytes[..piece.len()] == *piece {
                return Some(entry.id);
            }
            at = (at + 1) & mask;
        }
    }
}

fn classes() -> [ByteClass; 256] {
    std::array::from_fn(|byte| match byte as u8 {
        b' ' | b'\t' | b'\n' | b'\r' => ByteClass::Space,
        byte if byte.is_ascii_punctuation() => ByteClass::Punctuation,
        byte if byte.is_ascii_alphanumeric() => ByteClass::Word,
        _ => ByteClass::Other,
    })
}

/// The hash of an empty piece.
fn start(within: u8) -> u64 {
    step(HASH_START, within)
}

fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(HASH_FACTOR)
}

/// The upper half of such a hash is the better mixed one.
fn spread(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}
