//! Guides over a small vocabulary: single bytes and some longer tokens.

use proptest::prelude::*;

use super::*;
use crate::generate::sample::{History, Sampling, pick};
use crate::tokenizer::vocabulary::tests::{BYTE_LEVEL, byte_characters, library_of};

const LONGER: [&str; 9] = ["{\"", "\":", "name", "true", "null", "water", "\", \"", "12", "}}"];

struct Model {
    vocabulary: Vocabulary,
    guides: Guides,
    end: u32,
}

/// Tokens of the longest texts first, as a tokenizer of this vocabulary might.
fn greedy(vocabulary: &Vocabulary, text: &str) -> Vec<u32> {
    let mut rest = text.as_bytes();
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let fits = |token: &u32| {
            let bytes = vocabulary.bytes(*token);
            !vocabulary.is_special(*token) && !bytes.is_empty() && rest.starts_with(bytes)
        };
        let longest = (0..vocabulary.len() as u32)
            .filter(fits)
            .max_by_key(|&token| vocabulary.bytes(token).len());
        tokens.push(longest.unwrap());
        rest = &rest[vocabulary.bytes(longest.unwrap()).len()..];
    }
    tokens
}

fn model() -> Model {
    let characters = byte_characters();
    let mut tokens: Vec<String> = characters.iter().map(ToString::to_string).collect();
    tokens.extend(
        LONGER.iter().map(|token| token.bytes().map(|byte| characters[byte as usize]).collect()),
    );
    let library = library_of(&tokens, &["<|end|>", "true"], BYTE_LEVEL);
    let vocabulary = Vocabulary::of(&library).unwrap();
    let end = library.token_to_id("<|end|>").unwrap();
    let copy = vocabulary.clone();
    let guides =
        Guides::new(&vocabulary, &[end], Box::new(move |text| greedy(&copy, text))).unwrap();
    Model { vocabulary, guides, end }
}

impl Model {
    fn text(&self, tokens: &[u32]) -> String {
        let bytes = tokens.iter().filter(|&&token| token != self.end);
        String::from_utf8(bytes.flat_map(|&token| self.vocabulary.bytes(token)).copied().collect())
            .unwrap()
    }

    /// An answer of random tokens that the guide allows, up to its end; `None` if it has more than a thousand.
    fn answer(&self, guided: &Guided, seed: u64, forces: bool) -> Option<(String, Vec<u32>)> {
        let mut guide = self.guides.guide(guided).unwrap();
        // Closing is likelier than going on, or random answers would hardly end.
        let mut logits = vec![0.0f32; self.vocabulary.len()];
        if matches!(guided, Guided::JsonSchema(_)) {
            for closing in ["}", "]", "\"", "}}"] {
                logits[greedy(&self.vocabulary, closing)[0] as usize] = 4.0;
            }
            logits[self.end as usize] = 6.0;
        }
        let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
        let mut output = Vec::new();
        while output.len() < 1_000 {
            let forced = if forces { guide.forced() } else { Vec::new() };
            if forced.is_empty() {
                let mask = guide.mask().unwrap();
                let history = History { prompt: &[], output: &output };
                let token =
                    pick(&mut logits.clone(), &sampling, history, Some(&mask)).unwrap().token;
                output.push(token);
                if token == self.end {
                    return Some((self.text(&output), output));
                }
                guide.take(&[token]).unwrap();
            } else {
                guide.take(&forced).unwrap();
                output.extend(forced);
            }
        }
        None
    }
}

fn schema() -> Guided {
    Guided::JsonSchema(json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "count": {"type": "integer", "minimum": 0, "maximum": 120},
            "tags": {"type": "array", "items": {"enum": ["water", "gate"]}, "maxItems": 3},
        },
        "required": ["name", "count"],
        "additionalProperties": false,
    }))
}

#[test]
fn random_answers_fit_the_schema() {
    let model = model();
    for seed in 0..40 {
        let Some((text, _)) = model.answer(&schema(), seed, seed % 2 == 0) else { continue };
        let answer: Json =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert!(answer["name"].as_str().unwrap().chars().count() <= 8, "{text}");
        assert!(answer["count"].as_u64().unwrap() <= 120, "{text}");
        let tags = answer.get("tags").map_or(&[][..], |tags| tags.as_array().unwrap());
        assert!(
            tags.len() <= 3 && tags.iter().all(|tag| tag == "water" || tag == "gate"),
            "{text}"
        );
    }
}

#[test]
fn random_answers_fit_expressions_and_choices() {
    let model = model();
    for expression in [r"[0-9]{3}-[a-c]+", r"^[0-9]{3}-[a-c]+$"] {
        let guided = Guided::Regex(expression.to_owned());
        for seed in 0..10 {
            let (text, _) = model.answer(&guided, seed, true).unwrap();
            let (digits, suffix) = text.split_once('-').unwrap();
            assert!(
                digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit()),
                "{text}"
            );
            assert!(
                !suffix.is_empty() && suffix.bytes().all(|byte| (b'a'..=b'c').contains(&byte)),
                "{text}"
            );
        }
    }
    let choices =
        ["yes", "no", "y", "n/a (.*)", "né\n水", "^a$", "<|end|>"].map(str::to_owned).to_vec();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..80 {
        let (text, _) =
            model.answer(&Guided::Choice(choices.clone()), seed, seed % 2 == 0).unwrap();
        assert!(choices.contains(&text), "{text:?}");
        seen.insert(text);
    }
    assert_eq!(seen.len(), choices.len());
}

#[test]
fn a_resumed_guide_allows_what_the_first_one_did() {
    let model = model();
    for seed in 0..10 {
        let Some((_, tokens)) = model.answer(&schema(), seed, false) else { continue };
        let mut first = model.guides.guide(&schema()).unwrap();
        for at in 0..tokens.len() {
            let mut resumed = model.guides.guide(&schema()).unwrap();
            resumed.take(&tokens[..at]).unwrap();
            assert_eq!(first.mask().unwrap(), resumed.mask().unwrap());
            assert_eq!(first.is_finished(), resumed.is_finished());
            first.take(&tokens[at..=at]).unwrap();
        }
    }
}

#[test]
fn forced_tokens_are_those_that_would_be_picked() {
    let model = model();
    let guided = Guided::Choice(vec!["water gate".to_owned()]);
    let mut guide = model.guides.guide(&guided).unwrap();
    let forced = guide.forced();
    assert!(!forced.is_empty());
    let (_, forces) = model.answer(&guided, 1, true).unwrap();
    let (_, picks) = model.answer(&guided, 1, false).unwrap();
    assert_eq!(forces, picks);
}

#[test]
fn a_complete_answer_allows_its_end_alone() {
    let model = model();
    let mut guide = model.guides.guide(&Guided::Choice(vec!["no".to_owned()])).unwrap();
    guide.take(&greedy(&model.vocabulary, "no")).unwrap();
    assert!(guide.is_finished());
    assert_eq!(guide.mask().unwrap().words(), {
        let mut words = TokenMask::of([model.end]).words().to_vec();
        words.resize(model.vocabulary.len().div_ceil(32), 0);
        words
    });
}

#[test]
fn what_cannot_be_followed_is_an_error() {
    let model = model();
    for guided in [
        Guided::Choice(Vec::new()),
        Guided::Choice(vec!["a".repeat(SOURCE_BYTES_MAX)]),
        Guided::Regex("(".to_owned()),
        Guided::Regex("a".repeat(SOURCE_BYTES_MAX + 1)),
        Guided::JsonSchema(json!("text")),
        Guided::JsonSchema(json!(false)),
        Guided::JsonSchema(json!({"type": "water"})),
        Guided::JsonSchema(json!({"$ref": "#/nowhere"})),
        Guided::JsonSchema(json!({"type": "string", "minLength": 3, "maxLength": 1})),
    ] {
        let result = model.guides.guide(&guided).err();
        assert!(matches!(result, Some(GuideError::Unreadable(_))), "{guided:?}: {result:?}");
    }
    let mut guide = model.guides.guide(&Guided::Choice(vec!["no".to_owned()])).unwrap();
    assert!(matches!(guide.take(&greedy(&model.vocabulary, "x")), Err(GuideError::Broken(_))));
    assert!(Guides::new(&model.vocabulary, &[100_000], Box::new(|_| Vec::new())).is_err());
}

#[test]
fn guides_may_move_between_threads() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<Guide>();
    is_send::<Guides>();
    is_sync::<Guides>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_choice_is_followed_by_its_own_tokens(choice in "[ -~é水\\n]{1,20}") {
        let model = model();
        let mut guide = model.guides.guide(&Guided::Choice(vec![choice.clone()])).unwrap();
        for byte in choice.bytes() {
            let token = (0..256).find(|&token| model.vocabulary.bytes(token) == [byte]).unwrap();
            guide.take(&[token]).unwrap();
        }
        prop_assert!(guide.is_finished());
    }
}
