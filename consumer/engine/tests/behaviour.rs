//! Behaviour that callers rely on beside the numbers: cutting, finishing, empty batches, and texts of any length.
#![allow(clippy::unwrap_used)]

mod common;

use common::{assert_close, embed, load_f32, tiny_copy, tiny_folder};
use forebay_engine::{DType, EngineError, Finish, LoadOptions, PackedBatch, Pooling, load};
use proptest::prelude::*;

#[test]
fn a_long_text_is_cut_and_keeps_its_closing_token() {
    let model = load_f32(&tiny_folder());
    let cut = model.tokenizer.encode(&"water ".repeat(1000)).unwrap();
    assert!(cut.truncated);
    assert_eq!((cut.ids.len(), cut.ids[0], cut.ids[127]), (128, 2, 3));
    let short = model.tokenizer.encode("water").unwrap();
    assert!(!short.truncated);
    assert_eq!(short.ids[1], cut.ids[1]);
}

#[test]
fn a_text_cut_early_gives_the_tokens_that_all_of_it_gives() {
    let model = load_f32(&tiny_folder());
    // Words of every length with marks, a special token and spaces of other kinds, far longer than one try.
    let pieces = [
        "a",
        "naïve",
        "e\u{301}",
        "[SEP]",
        "\u{3000}x\u{a0}y",
        "日本",
        "supercalifragilistic",
        "😀!?",
        "\n\n",
    ];
    let text =
        (0..40_000).map(|index| pieces[(index * 7 + index / 9) % 9]).collect::<Vec<_>>().join(" ");
    let error = model.tokenizer.encode_untruncated(&text).unwrap_err();
    assert!(matches!(error, EngineError::InputTooLong { tokens_max: 128 }), "{error}");
    // Short enough to be tokenized in one try, yet longer than the model reads.
    let head: String = text.chars().take(1500).collect();
    assert_eq!(model.tokenizer.encode(&text).unwrap(), model.tokenizer.encode(&head).unwrap());
}

#[test]
fn spaces_that_fill_the_first_try_do_not_hide_the_words_after_them() {
    let model = load_f32(&tiny_folder());
    let padded = format!("{}water", " ".repeat(100_000));
    assert_eq!(model.tokenizer.encode(&padded).unwrap(), model.tokenizer.encode("water").unwrap());
}

#[test]
fn a_text_that_may_not_be_cut_is_refused_with_the_most_that_the_model_reads() {
    let model = load_f32(&tiny_folder());
    let error = model.tokenizer.encode_untruncated(&"1 ".repeat(200)).unwrap_err();
    assert!(matches!(error, EngineError::InputTooLong { tokens_max: 128 }), "{error}");
    let fitting = model.tokenizer.encode_untruncated(&"1 ".repeat(126)).unwrap();
    assert_eq!((fitting.ids.len(), fitting.truncated), (128, false));
}

#[test]
fn a_tokenizer_file_that_asks_for_padding_and_cutting_is_overruled() {
    let folder = tiny_copy();
    let path = folder.path().join("tokenizer.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).unwrap();
    tokenizer["padding"] = serde_json::json!({
        "strategy": {"Fixed": 32}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    });
    tokenizer["truncation"] = serde_json::json!({
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0,
    });
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let plain = load_f32(&tiny_folder());
    let overruled = load_f32(folder.path());
    let text = "a pool in front of a turbine";
    assert_eq!(overruled.tokenizer.encode(text).unwrap(), plain.tokenizer.encode(text).unwrap());
}

#[test]
fn each_item_of_a_batch_is_finished_as_it_asks() {
    let mut model = load_f32(&tiny_folder());
    let ids = model.tokenizer.encode("a pool in front of a turbine").unwrap().ids;
    let mut batch = PackedBatch::new();
    let raw = Finish { normalize: false, dimensions: None };
    for finish in [raw, Finish::default(), Finish { normalize: true, dimensions: Some(10) }] {
        batch.push(&ids, finish);
    }
    let embeddings = model.engine.encoder().unwrap().compute(&batch).unwrap();
    let scaled = |row: &[f32]| {
        let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        row.iter().map(|value| value / norm).collect::<Vec<_>>()
    };
    assert_close(embeddings.row(1), &scaled(embeddings.row(0)), "normalized");
    assert_close(
        &embeddings.row(2)[..10],
        &scaled(&embeddings.row(0)[..10]),
        "cut, then normalized",
    );
    assert_eq!(embeddings.row(2)[10..], [0.0; 54]);
}

#[test]
fn empty_sequences_and_empty_batches_give_zeros_and_nothing() {
    let mut model = load_f32(&tiny_folder());
    let mut batch = PackedBatch::new();
    assert_eq!(model.engine.encoder().unwrap().compute(&batch).unwrap().rows().len(), 0);
    batch.push(&[], Finish::default());
    assert_eq!(model.engine.encoder().unwrap().compute(&batch).unwrap().row(0), [0.0; 64]);
    batch.push(&[2, 61, 3], Finish::default());
    batch.push(&[], Finish::default());
    let embeddings = model.engine.encoder().unwrap().compute(&batch).unwrap();
    assert_eq!(embeddings.row(0), [0.0; 64]);
    assert_eq!(embeddings.row(2), [0.0; 64]);
    assert!(embeddings.row(1).iter().any(|value| *value != 0.0));
}

#[test]
fn a_cleared_batch_is_empty_and_can_be_filled_again() {
    let mut batch = PackedBatch::new();
    batch.push(&[2, 61, 3], Finish::default());
    batch.clear();
    assert_eq!((batch.tokens(), batch.sequences(), batch.is_empty()), (0, 0, true));
    batch.push(&[2, 3], Finish::default());
    assert_eq!((batch.tokens(), batch.sequences(), batch.is_empty()), (2, 1, false));
}

#[test]
fn a_bare_transformer_is_mean_pooled_over_all_its_positions() {
    let folder = tiny_copy();
    for file in ["modules.json", "sentence_bert_config.json", "1_Pooling/config.json"] {
        std::fs::remove_file(folder.path().join(file)).unwrap();
    }
    let model = load_f32(folder.path());
    assert_eq!((&model.info.pooling[..], model.info.tokens_max), (&[Pooling::Mean][..], 130));
    std::fs::write(folder.path().join("tokenizer_config.json"), "{\"model_max_length\": 100}")
        .unwrap();
    assert_eq!(load_f32(folder.path()).info.tokens_max, 100);
    std::fs::write(folder.path().join("tokenizer_config.json"), "{\"model_max_length\": 1e30}")
        .unwrap();
    assert_eq!(load_f32(folder.path()).info.tokens_max, 130);
}

#[test]
fn weights_under_the_prefix_of_a_task_model_are_found() {
    let folder = tiny_copy();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let renamed = tensors.iter().map(|(name, tensor)| (format!("bert.{name}"), tensor));
    std::fs::write(&path, safetensors::serialize(renamed, None).unwrap()).unwrap();
    let mut batch = PackedBatch::new();
    batch.push(&[2, 61, 3], Finish::default());
    let plain = load_f32(&tiny_folder()).engine.encoder().unwrap().compute(&batch).unwrap();
    assert_eq!(load_f32(folder.path()).engine.encoder().unwrap().compute(&batch).unwrap(), plain);
}

#[test]
fn a_default_prompt_goes_before_every_text() {
    let folder = tiny_copy();
    let config = folder.path().join("config_sentence_transformers.json");
    let prompts =
        r#"{"prompts": {"query": "search: ", "none": ""}, "default_prompt_name": "query"}"#;
    std::fs::write(&config, prompts).unwrap();
    let plain = load_f32(&tiny_folder());
    let prompting = load_f32(folder.path());
    for text in ["", "water in a pool"] {
        let expected = plain.tokenizer.encode(&format!("search: {text}")).unwrap();
        assert_eq!(prompting.tokenizer.encode(text).unwrap(), expected);
        assert_eq!(prompting.tokenizer.encode_untruncated(text).unwrap(), expected);
    }
    std::fs::write(&config, prompts.replace("\"query\"}", "\"none\"}")).unwrap();
    let empty = load_f32(folder.path()).tokenizer.encode("water").unwrap();
    assert_eq!(empty, plain.tokenizer.encode("water").unwrap());
    std::fs::write(&config, prompts.replace("\"query\"}", "\"other\"}")).unwrap();
    let error = load(folder.path(), &LoadOptions::default()).err().unwrap();
    assert!(error.to_string().contains("\"other\" is none of its prompts"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_item_gives_the_same_bits_alone_or_batched_on_any_number_of_threads(
        lengths in prop::collection::vec(1..128_usize, 1..40),
        picked in any::<prop::sample::Index>(),
        shuffled in any::<u64>(),
        dtype in prop::sample::select(vec![DType::F32, DType::Bf16, DType::Int8]),
    ) {
        let dtype = Some(dtype);
        let models = [1, 2, 3].map(|threads| {
            let options = LoadOptions { dtype, threads: Some(threads), ..LoadOptions::default() };
            load(&tiny_folder(), &options).unwrap()
        });
        let ids = |length: usize, salt: usize| -> Vec<u32> {
            (0..length).map(|at| 5 + ((at * 31 + salt * 97) % 1_900) as u32).collect()
        };
        let sequences: Vec<Vec<u32>> =
            lengths.iter().enumerate().map(|(salt, &length)| ids(length, salt)).collect();
        let picked = picked.index(sequences.len());
        // Another order: the position of each sequence by a multiplier that is prime to their number.
        let count = sequences.len();
        let step = 1 + shuffled as usize % count;
        // The next prime to their number is at most as far as their number and one.
        let step = (step..=step + count).find(|step| coprime(*step, count)).unwrap();
        let mut expected: Option<Vec<f32>> = None;
        for mut model in models {
            let alone = embed(&mut model, [sequences[picked].as_slice()]).remove(0);
            let order: Vec<usize> = (0..count).map(|position| position * step % count).collect();
            let all = embed(&mut model, order.iter().map(|&at| sequences[at].as_slice()));
            let position = order.iter().position(|&at| at == picked).unwrap();
            prop_assert_eq!(&all[position], &alone);
            prop_assert_eq!(expected.get_or_insert_with(|| alone.clone()), &alone);
        }
    }
}

fn coprime(a: usize, b: usize) -> bool {
    if b == 0 { a == 1 } else { coprime(b, a % b) }
}
