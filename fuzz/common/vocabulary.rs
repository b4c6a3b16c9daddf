//! Small vocabularies: a token for each byte, and one that ends an answer.

// Not every target uses all of it.
#![allow(dead_code)]

use forebay_engine::Vocabulary;

/// Tokens of either vocabulary.
pub const COUNT: u32 = 257;
/// The token that ends an answer.
pub const END: u32 = 256;

/// Characters stand for bytes, as in GPT-2: printable ones for themselves, the others for those from U+0100 on.
pub fn byte_level() -> Vocabulary {
    let mut others = 0x100..;
    let tokens = (0..=u8::MAX).map(|byte| {
        let is_printable = matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        let code =
            if is_printable { u32::from(byte) } else { others.next().expect("there are enough") };
        char::from_u32(code).expect("a character").to_string()
    });
    let decoder = r#"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#;
    vocabulary(tokens, decoder)
}

/// Tokens such as `<0x0A>`.
pub fn byte_tokens() -> Vocabulary {
    let decoder =
        r#"{"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}"#;
    vocabulary((0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")), decoder)
}

fn vocabulary(tokens: impl Iterator<Item = String>, decoder: &str) -> Vocabulary {
    let ids: serde_json::Map<String, serde_json::Value> =
        tokens.enumerate().map(|(id, token)| (token, id.into())).collect();
    let vocabulary = serde_json::Value::Object(ids);
    let json = format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": {decoder},
        "added_tokens": [{{"id": {END}, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true}}],
        "model": {{"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": {vocabulary}, "merges": []}}}}"#
    );
    Vocabulary::from_tokenizer_json(json.as_bytes()).expect("a small vocabulary")
}
