//! Tokens of any kind of vocabulary become text that never takes anything back, and whose stop strings and tool calls
//! don't depend on how it comes in parts.
//!
//! The first byte says which vocabulary and which format of calls; each further one is a token.
#![no_main]

#[path = "../common/vocabulary.rs"]
mod vocabulary;

use std::sync::{Arc, OnceLock};

use forebay_engine::{AnswerPart, Detokenizer, StopStrings, ToolCalls, ToolFormat, Vocabulary};
use libfuzzer_sys::fuzz_target;

fn vocabularies() -> &'static [Arc<Vocabulary>; 2] {
    static ALL: OnceLock<[Arc<Vocabulary>; 2]> = OnceLock::new();
    ALL.get_or_init(|| [Arc::new(vocabulary::byte_level()), Arc::new(vocabulary::byte_tokens())])
}

fn merged(parts: Vec<AnswerPart>) -> Vec<AnswerPart> {
    let mut all: Vec<AnswerPart> = Vec::new();
    for part in parts {
        match (all.last_mut(), part) {
            (Some(AnswerPart::Text(before)), AnswerPart::Text(text)) => before.push_str(&text),
            (_, part) => all.push(part),
        }
    }
    all
}

fuzz_target!(|bytes: &[u8]| {
    let [kind, tokens @ ..] = bytes else { return };
    let vocabulary = &vocabularies()[usize::from(kind % 2)];
    let mut detokenizer = Detokenizer::new(Arc::clone(vocabulary)).keeping_special();
    let mut parts = Vec::new();
    for &token in tokens {
        let mut part = String::new();
        detokenizer.push(u32::from(token), &mut part);
        parts.push(part);
    }
    let mut last = String::new();
    detokenizer.finish(&mut last);
    parts.push(last);
    let whole = parts.concat();
    let byte_for_byte: Vec<u8> =
        tokens.iter().flat_map(|&token| vocabulary.bytes(u32::from(token))).copied().collect();
    if let Ok(text) = String::from_utf8(byte_for_byte) {
        assert_eq!(whole, text);
    }

    let stops = || StopStrings::new(["ab".to_owned(), "b\n".to_owned(), "é".to_owned()]);
    let stopped = |parts: &[String]| {
        let mut strings = stops();
        let mut text = String::new();
        for part in parts {
            if let Some(stop) = strings.push(part, &mut text) {
                let stop = stop.to_owned();
                return (text, Some(stop));
            }
        }
        strings.finish(&mut text);
        (text, None)
    };
    assert_eq!(stopped(&parts), stopped(std::slice::from_ref(&whole)));

    let format =
        [ToolFormat::Hermes, ToolFormat::Llama, ToolFormat::Mistral][usize::from(kind / 2 % 3)];
    let mut calls = ToolCalls::new(format);
    let mut found: Vec<AnswerPart> = parts.iter().flat_map(|part| calls.push(part)).collect();
    found.extend(calls.finish());
    assert_eq!(merged(found), ToolCalls::parse(format, &whole));
});
