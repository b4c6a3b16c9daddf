//! Our tokens against those of the library on the whole text.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

use super::*;

/// The tokenizer of a small model of this repository.
fn tiny(model: &str) -> Tokenizer {
    tiny_of(model, 128)
}

fn tiny_of(model: &str, tokens_max: usize) -> Tokenizer {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny");
    let folder = ModelFolder::open(&std::path::Path::new(folder).join(model)).unwrap();
    Tokenizer::load(&folder, tokens_max, true).unwrap()
}

/// A tokenizer with the fast path, and an equal one without.
fn with_and_without_fast(mut change: impl FnMut(&mut tokenizers::Tokenizer)) -> [Tokenizer; 2] {
    let mut both = [tiny("bert"), tiny("bert")];
    for tokenizer in &mut both {
        change(&mut tokenizer.inner);
        tokenizer.fast = Fast::of(&tokenizer.inner).unwrap();
        assert!(tokenizer.fast.is_some());
    }
    both[1].fast = None;
    both
}

/// Tokenizers as they are; with case kept; and with text that is not cleaned, and accents that stay.
static PAIRS: LazyLock<[[Tokenizer; 2]; 3]> = LazyLock::new(|| {
    let normalized = |clean, accents, lower| {
        with_and_without_fast(|inner| {
            let normalizer = BertNormalizer::new(clean, true, accents, lower);
            inner.with_normalizer(Some(normalizer)).unwrap();
        })
    };
    [
        with_and_without_fast(|_| {}),
        normalized(true, None, false),
        normalized(false, Some(false), true),
    ]
});

/// Words, punctuation, what is or looks like a special token, and characters of all kinds.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z0-9]{1,12}",
        2 => "[ -~]{1,6}",
        1 => prop::sample::select(vec![
            "[SEP]", "[sep]", "[UNK]x", "##ing", "\u{301}", "na\u{ef}ve", "e\u{301}", "\u{130}I\u{3a3}\u{3c2}",
            "\u{65e5}\u{672c}", "\u{200b}", "\0", "\u{7f}", "\u{b}", "\u{a0}", "\u{2028}", "\u{1f600}", "\u{fffd}",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => "[a-z]{90,130}",
    ];
    let gap = prop::sample::select(vec!["", " ", "  ", "\n", "\t", "\r\n", "\u{3000}"]);
    prop::collection::vec((piece, gap), 0..60).prop_map(|parts| {
        parts.into_iter().flat_map(|(piece, gap)| [piece, gap.to_owned()]).collect()
    })
}

#[test]
fn ids_of_a_model_that_keeps_the_end_lose_their_beginning_and_keep_what_opens_them() {
    let mut tokenizer = tiny_of("bert", 6);
    tokenizer.cut_off = TruncationDirection::Left;
    let whole = tiny_of("bert", 4_096).encode("water runs down the long hill and rests").unwrap();
    let cut = tokenizer.cut_ids(whole.ids.clone()).unwrap();
    let end = &whole.ids[whole.ids.len() - 5..];
    assert_eq!(cut.ids, [&whole.ids[..1], end].concat());
    assert_eq!((cut.first_len, cut.truncated), (6, true));
    // Ids that have no special tokens are cut all the same, and none are added.
    let bare = tiny_of("bert", 6).cut_ids((5..20).collect()).unwrap();
    assert_eq!(bare.ids, [5, 6, 7, 8, 9, 10]);
}

proptest! {
    // Each case reads three tokenizers.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn ids_of_a_text_are_read_as_the_text_is(text in texts(), tokens_max in 4..40_usize) {
        let whole = tiny_of("bert", 4_096).encode(&text).unwrap().ids;
        let cut = tiny_of("bert", tokens_max);
        for fast in [true, false] {
            let mut cut = tiny_of("bert", tokens_max);
            cut.fast = cut.fast.take().filter(|_| fast);
            prop_assert_eq!(cut.cut_ids(whole.clone()).unwrap(), cut.encode(&text).unwrap());
        }
        let fits = whole.len() <= tokens_max;
        prop_assert_eq!(cut.whole_ids(whole).is_ok(), fits);
    }
}

proptest! {
    #[test]
    fn the_fast_path_gives_the_library_s_tokens(text in texts()) {
        for [ours, theirs] in PAIRS.iter() {
            prop_assert_eq!(ours.encode(&text).unwrap(), theirs.encode(&text).unwrap());
            let all = |tokenizer: &Tokenizer| {
                tokenizer.encode_untruncated(&text).map_err(|error| error.to_string())
            };
            prop_assert_eq!(all(ours), all(theirs));
        }
    }
}

#[test]
fn tokenizers_of_other_kinds_have_no_fast_path() {
    for model in ["roberta-classify", "xlm-roberta-rerank"] {
        assert!(tiny(model).fast.is_none(), "{model}");
    }
    let mut reaching = tiny("bert").inner;
    let token = tokenizers::AddedToken::from("[MASK]", true).lstrip(true);
    reaching.add_special_tokens([token]).unwrap();
    assert!(Fast::of(&reaching).unwrap().is_none(), "it takes the space before it");
}

/// Tokens that the models of [`KINDS`] read: few, so that the texts of the tests are far longer.
const FEW: usize = 8;

/// A small model's tokenizer with parts replaced, as other models have them.
fn kind(
    model: &str,
    normalizer: Option<Value>,
    words: Option<Value>,
    added: &[AddedToken],
) -> Tokenizer {
    let mut tokenizer = tiny_of(model, FEW);
    let inner = &mut tokenizer.inner;
    if let Some(normalizer) = normalizer {
        let normalizer: NormalizerWrapper = serde_json::from_value(normalizer).unwrap();
        inner.with_normalizer(Some(normalizer)).unwrap();
    }
    if let Some(words) = words {
        let words: Option<PreTokenizerWrapper> = serde_json::from_value(words).unwrap();
        inner.with_pre_tokenizer(words);
    }
    inner.add_tokens(added.iter().cloned()).unwrap();
    tokenizer.beginnings = Beginnings::of(inner);
    assert!(tokenizer.beginnings.is_some());
    tokenizer.fast = Fast::of(inner).unwrap();
    tokenizer
}

/// Every kind of pipeline that the supported families have, and the same model with the words split otherwise.
static KINDS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let token = |content: &str| AddedToken::from(content, false);
    let mask = AddedToken::from("<mask>", true).lstrip(true);
    let roberta = "roberta-classify";
    let unigram = "xlm-roberta-rerank";
    let metaspace =
        |split: bool| json!({"type": "Metaspace", "replacement": "\u{2581}", "split": split});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false});
    let sequence = json!({"type": "Sequence", "normalizers": [
        {"type": "Strip", "strip_left": false, "strip_right": true}, {"type": "NFKD"}, {"type": "StripAccents"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}, {"type": "Lowercase"},
    ]});
    let words = json!({"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always"},
    ]});
    let whole = token("water").single_word(true);
    vec![
        kind("bert", None, None, &[]),
        kind("bert", None, None, std::slice::from_ref(&mask)),
        kind("bert", None, None, &[token("ababa").normalized(true), whole.clone()]),
        kind(roberta, None, None, &[]),
        kind(
            roberta,
            Some(json!({"type": "NFC"})),
            None,
            &[mask, token("  ").rstrip(true), whole.clone()],
        ),
        kind(roberta, None, Some(bytes), &[]),
        kind(unigram, None, None, &[token("\u{65e5}\u{672c}").normalized(false)]),
        kind(unigram, Some(sequence), Some(words), &[whole]),
        kind(unigram, None, Some(metaspace(false)), &[]),
        kind(unigram, None, Some(Value::Null), &[]),
    ]
});

/// Texts with few spaces or none: long words of one script, of a few characters again and again, and what lies between.
fn dense() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => "[ab]{1,40}",
        2 => "[a-zA-Z0-9]{1,30}",
        2 => "[\u{4e00}-\u{4e20}\u{65e5}\u{672c}]{1,30}",
        1 => "[\u{3041}-\u{3060}]{1,20}",
        1 => "[\u{ac00}-\u{ac20}]{1,20}",
        1 => "[\u{430}-\u{440}\u{3a3}\u{3b1}]{1,20}",
        1 => prop::sample::select(vec![
            "[SEP]", "<mask>", "</s>", " <mask>", "ababa", "water", "'ll", "'s", "\u{301}", "\u{3099}", "\u{338e}",
            "\u{ff21}", "\u{3002}", ",", "--", "\u{2581}", " ", "  ", "\u{11a8}", "\u{d4e}", "\u{e9}", "\u{df}",
        ]).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_text_read_in_part_gives_the_tokens_of_the_library_on_all_of_it(text in prop_oneof![texts(), dense()]) {
        for (index, tokenizer) in KINDS.iter().enumerate() {
            let cased = &*text;
            let whole = tokenizer.inner.encode_fast(cased, true).unwrap().len();
            let mut library = tokenizer.inner.clone();
            let cut = TruncationParams { max_length: FEW, ..TruncationParams::default() };
            library.with_truncation(Some(cut)).unwrap();
            let expected = library.encode_fast(cased, true).unwrap().get_ids().to_vec();
            let tokens = tokenizer.encode(&text).unwrap();
            prop_assert_eq!((index, tokens.ids, tokens.truncated), (index, expected, whole > FEW));
            prop_assert_eq!(tokenizer.encode_untruncated(&text).is_err(), whole > FEW);
        }
    }

    #[test]
    fn pairs_read_in_part_are_the_library_s_pairs(first in dense(), second in dense()) {
        for tokenizer in KINDS.iter() {
            let cased = [&first, &second];
            let lengths = cased.each_ref().map(|text| tokenizer.inner.encode_fast(text.as_str(), false).unwrap().len());
            if lengths.iter().all(|&length| length >= FEW) {
                continue; // which of the two keeps the token left over is our own rule
            }
            let mut library = tokenizer.inner.clone();
            let cut = TruncationParams { max_length: FEW, ..TruncationParams::default() };
            library.with_truncation(Some(cut)).unwrap();
            let expected = library.encode_fast((first.as_str(), second.as_str()), true).unwrap();
            let pair = tokenizer.encode_pair(&tokenizer.first_of_pairs(&first).unwrap(), &second).unwrap();
            prop_assert_eq!(&pair.ids[..], expected.get_ids());
        }
    }
}

#[test]
fn long_texts_are_not_read_to_their_end() {
    for (index, tokenizer) in KINDS.iter().enumerate() {
        for beginning in
            ["water and wine, ", "ab", "\u{65e5}\u{672c}\u{4e00}", "{\"key\":[1,2,3]},"]
        {
            let text = beginning.repeat(4_000_000 / beginning.len());
            match tokenizer.encode(&text) {
                Ok(tokens) => assert!(tokens.ids.len() <= FEW),
                // A word that is too long for WordPiece is one token, and unigrams join what they don't know.
                Err(error) => {
                    assert!(matches!(error, EngineError::TextTooLarge { .. }), "{error}");
                    let some = tokenizer.inner.encode_fast(beginning.repeat(200), true).unwrap();
                    // Nor is a text cut that consists of an added token's characters alone.
                    let is_added = (index, beginning) == (2, "ab");
                    assert!(some.len() <= FEW || is_added, "{index}, {beginning}: {error}");
                }
            }
        }
    }
}

#[test]
fn a_long_text_that_the_first_part_does_not_settle_is_refused() {
    let tokenizer = &KINDS[1]; // without the fast path
    let error = tokenizer.encode(&"\u{e9}".repeat(1_000_000)).unwrap_err();
    let is_so =
        matches!(error, EngineError::TextTooLarge { bytes: 2_000_000, bytes_max: PART_BYTES_MAX });
    assert!(is_so, "{error}");
}

#[test]
fn a_pipeline_with_an_unknown_part_is_never_cut() {
    let mut inner = tiny("roberta-classify").inner;
    let words = json!({"type": "Split", "pattern": {"Regex": "a+(?=.*b)"}, "behavior": "Isolated", "invert": false});
    let words: PreTokenizerWrapper = serde_json::from_value(words).unwrap();
    inner.with_pre_tokenizer(Some(words));
    assert!(Beginnings::of(&inner).is_none());
}
