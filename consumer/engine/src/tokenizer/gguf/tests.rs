//! Ids of real texts and of hard ones, as the models' own tokenizers give them.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde::Deserialize;
use tokenizers::Tokenizer;

use crate::load::gguf::GgufModel;
use crate::load::gguf::tests::write::Writer;
use crate::load::gguf::tests::{data, smollm2};

#[derive(Deserialize)]
struct Row {
    text: String,
    token_ids: Vec<u32>,
}

fn of(path: &Path) -> Tokenizer {
    GgufModel::open(path).unwrap().tokenizer().unwrap()
}

fn assert_ids(tokenizer: &Tokenizer, rows: &str) {
    let text = std::fs::read_to_string(data(rows)).unwrap();
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in text.lines() {
        let row: Row = serde_json::from_str(line).unwrap();
        let ids = tokenizer.encode_fast(&*row.text, true).unwrap().get_ids().to_vec();
        if ids != row.token_ids {
            wrong.push(format!("{:?}: {ids:?}, expected {:?}", row.text, row.token_ids));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{rows}: {} of {count}\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 50);
}

#[test]
fn texts_are_split_as_the_name_says() {
    for pre in ["gpt-2", "llama-bpe", "qwen2", "gpt-4o", "tekken"] {
        assert_ids(&of(&data(&format!("{pre}.gguf"))), &format!("{pre}.jsonl"));
    }
}

#[test]
fn sentence_piece_s_words_are_merged_by_their_scores() {
    assert_ids(&of(&data("spm.gguf")), "spm.jsonl");
}

#[test]
fn gemma_s_words_are_merged_by_their_order_and_no_space_is_put_before() {
    assert_ids(&of(&data("spm-gemma.gguf")), "spm-gemma.jsonl");
}

#[test]
fn smollm2_reads_texts_as_its_own_tokenizer_does() {
    let tokenizer = of(&smollm2());
    assert_ids(&tokenizer, "smollm2.jsonl");
    let ids = |text: &str| tokenizer.encode_fast(text, true).unwrap().get_ids().to_vec();
    assert_eq!(ids("1234").len(), 4, "digits one by one");
    assert_eq!(ids("<|im_start|>user")[0], 1, "no first token is added");
}

#[test]
fn ids_become_the_text_again() {
    let texts = ["Hello, wörld 123\n  🙂 end", " a  b", "don't\r\n"];
    for file in ["gpt-2", "llama-bpe", "gpt-4o", "tekken", "spm", "spm-gemma"] {
        let tokenizer = of(&data(&format!("{file}.gguf")));
        for text in texts {
            let ids = tokenizer.encode_fast(text, true).unwrap().get_ids().to_vec();
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), text, "{file}");
        }
    }
}

#[test]
fn control_tokens_are_special_and_a_user_s_are_not() {
    let tokenizer = of(&data("qwen2.gguf"));
    let text = "<|im_start|>a<tool_call>b";
    let ids = tokenizer.encode_fast(text, true).unwrap().get_ids().to_vec();
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "a<tool_call>b");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
}

#[test]
fn gemma_s_runs_of_spaces_are_words_of_its_vocabulary() {
    let mut writer = Writer::of("gemma3");
    writer.texts("tokenizer.ggml.tokens", &["<unk>", "<bos>", "a", "\u{2581}", "  ", "   ", "<b>"]);
    writer.integers("tokenizer.ggml.token_type", &[2, 3, 1, 1, 4, 4, 4]);
    writer.text("tokenizer.ggml.model", "llama").size("tokenizer.ggml.unknown_token_id", 0);
    writer.size("tokenizer.ggml.bos_token_id", 1);
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = of(&writer.write(folder.path()));
    assert_eq!(tokenizer.get_vocab_size(true), 7, "none is added");
    let ids = |text: &str| tokenizer.encode_fast(text, true).unwrap().get_ids().to_vec();
    assert_eq!(ids("a  a   a a<b>"), [1, 2, 4, 2, 5, 2, 3, 2, 6]);
    assert_eq!(tokenizer.decode(&[2, 4, 2, 6], true).unwrap(), "a  a<b>");
}

fn refusal(writer: &Writer) -> String {
    let folder = tempfile::tempdir().unwrap();
    GgufModel::open(&writer.write(folder.path())).unwrap().tokenizer().unwrap_err().to_string()
}

#[test]
fn vocabularies_that_cannot_be_read_are_refused_by_name() {
    let mut writer = Writer::of("llama");
    assert!(refusal(&writer).contains("tokenizer.ggml.tokens is missing"));
    writer.texts("tokenizer.ggml.tokens", &["a", "b", "ab"]);
    assert!(refusal(&writer).contains("tokenizer.ggml.model is missing"));
    let error = refusal(writer.text("tokenizer.ggml.model", "bert"));
    assert!(error.contains("bert") && error.contains("gpt2, llama"), "{error}");
    writer.text("tokenizer.ggml.model", "gpt2");
    let error = refusal(writer.clone().text("tokenizer.ggml.pre", "odd"));
    assert!(error.contains("tokenizer.ggml.pre = odd") && error.contains("smollm"), "{error}");
    let error = refusal(writer.clone().texts("tokenizer.ggml.merges", &["a b", "ab"]));
    assert!(error.contains("\"ab\", expected two words"), "{error}");
    let error = refusal(writer.clone().texts("tokenizer.ggml.merges", &["a c"]));
    assert!(error.contains("model.gguf") && error.contains('c'), "{error}");
    let error = refusal(writer.clone().integers("tokenizer.ggml.token_type", &[1]));
    assert!(error.contains("3 words, tokenizer.ggml.token_type 1"), "{error}");
    writer.size("tokenizer.ggml.bos_token_id", 3).bool("tokenizer.ggml.add_bos_token", true);
    assert!(refusal(&writer).contains("bos_token_id = 3"));
}
