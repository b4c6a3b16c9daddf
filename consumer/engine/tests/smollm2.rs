//! SmolLM2-135M-Instruct from its GGUF against transformers with the same weights, on real prompts and chats.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;

use common::{data, models_dir};
use forebay_engine::{
    ChatInput, ChatTemplate, Chunk, DType, Detokenizer, Generator, Keep, LoadOptions, Model, Pick,
    Sampling, SequenceId, Step, load,
};
use serde_json::{Map, Value};

/// By how much the likeliest token has to be ahead of the next one, in log-probability, to be expected here too: sums
/// are added in another order.
const GAP_MIN: f64 = 1e-3;

fn folder() -> PathBuf {
    let folder = models_dir().join("smollm2-135m-instruct");
    assert!(folder.is_dir(), "no model in {}; run: make model", folder.display());
    folder
}

struct Line {
    value: Value,
    ids: Vec<u32>,
    tokens: Vec<u32>,
}

fn lines() -> Vec<Line> {
    let text = std::fs::read_to_string(data().join("smollm2_135m.jsonl")).unwrap();
    let line = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        Line {
            ids: serde_json::from_value(value["token_ids"].take()).unwrap(),
            tokens: serde_json::from_value(value["tokens"].take()).unwrap(),
            value,
        }
    };
    text.lines().map(line).collect()
}

fn open(dtype: DType) -> Model {
    load(&folder(), &LoadOptions { dtype: Some(dtype), ..LoadOptions::default() }).unwrap()
}

/// Continues all prompts at once, each by as many tokens as the library has; their tokens and log-probabilities.
fn continued(generator: &mut dyn Generator, lines: &[Line]) -> Vec<Vec<(u32, f32)>> {
    let sampling = Sampling { logprobs: Some(0), ..Sampling::default() };
    let mut made: Vec<Vec<(u32, f32)>> = vec![Vec::new(); lines.len()];
    let mut running: Vec<(usize, SequenceId, Vec<u32>)> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let opened = generator.open(&line.ids, 0).unwrap();
        running.push((index, opened.id, line.ids[opened.cached..].to_vec()));
    }
    while !running.is_empty() {
        let row = |(index, id, tokens): &'_ (usize, SequenceId, Vec<u32>)| {
            let prompt_tokens = lines[*index].ids.len();
            (*id, tokens.clone(), Pick { sampling: &sampling, prompt_tokens, mask: None })
        };
        let rows: Vec<_> = running.iter().map(row).collect();
        let rows =
            rows.iter().map(|(id, tokens, pick)| Chunk { id: *id, tokens, pick: Some(*pick) });
        let picks = generator.begin(&Step { rows: rows.collect() }).unwrap().wait().unwrap();
        for (id, picked) in picks.picked {
            let (index, _, tokens) = running.iter_mut().find(|(_, of, _)| *of == id).unwrap();
            made[*index].push((picked.token, picked.logprob));
            *tokens = vec![picked.token];
        }
        running.retain(|(index, id, _)| {
            let ends = made[*index].len() == lines[*index].tokens.len();
            if ends {
                generator.close(*id, Keep::Nothing);
            }
            !ends
        });
    }
    made
}

#[test]
fn answers_are_those_of_transformers_token_for_token() {
    let lines = lines();
    let mut model = open(DType::F32);
    let made = continued(model.engine.generator().unwrap(), &lines);
    let mut compared = 0;
    for (line, made) in lines.iter().zip(&made) {
        let tokens: Vec<u32> = made.iter().map(|(token, _)| *token).collect();
        if line.value["gap"].as_f64().unwrap() < GAP_MIN {
            continue;
        }
        compared += 1;
        assert_eq!(tokens, line.tokens, "{}", line.value);
        for ((_, logprob), expected) in made.iter().zip(line.value["logprobs"].as_array().unwrap())
        {
            let expected = expected.as_f64().unwrap();
            assert!((f64::from(*logprob) - expected).abs() < 1e-3, "{logprob}, not {expected}");
        }
    }
    assert!(compared > lines.len() * 3 / 4, "{compared} of {}", lines.len());
}

#[test]
fn prompts_chats_and_answers_are_read_as_transformers_reads_them() {
    let model = open(DType::F32);
    let generation = model.info.generation.unwrap();
    let template = ChatTemplate::new(
        generation.chat_template.as_deref().unwrap(),
        generation.special_tokens.clone(),
    )
    .unwrap();
    let vocabulary = std::sync::Arc::new(model.tokenizer.vocabulary().unwrap());
    for line in lines() {
        let ids = if let Some(prompt) = line.value["prompt"].as_str() {
            model.tokenizer.encode_prompt(prompt, true).unwrap()
        } else {
            let input = ChatInput {
                messages: &line.value["messages"],
                tools: &Value::Null,
                add_generation_prompt: true,
                arguments: &Map::new(),
                now_ms: 0,
            };
            model.tokenizer.encode_prompt(&template.render(&input).unwrap(), false).unwrap()
        };
        assert_eq!(ids, line.ids, "{}", line.value);
        let mut text = String::new();
        let mut detokenizer = Detokenizer::new(vocabulary.clone());
        for &token in &line.tokens {
            detokenizer.push(token, &mut text);
        }
        detokenizer.finish(&mut text);
        assert_eq!(text, line.value["text"], "{}", line.value);
    }
    let end = lines().iter().filter_map(|line| line.tokens.last().copied()).min().unwrap();
    assert!(generation.end_token_ids.contains(&end), "{end} of {:?}", generation.end_token_ids);
}

#[test]
fn in_fewer_bits_answers_begin_as_in_f32_and_batch_mates_change_no_bit() {
    let lines: Vec<Line> = lines().into_iter().take(12).collect();
    for dtype in [DType::Bf16, DType::Int8, DType::Q4] {
        let mut model = open(dtype);
        let generator = model.engine.generator().unwrap();
        let together = continued(generator, &lines);
        let mut equal = 0;
        for (line, together) in lines.iter().zip(&together) {
            let alone = continued(generator, std::slice::from_ref(line)).remove(0);
            assert_eq!(alone, *together, "{dtype}");
            equal += usize::from(together[0].0 == line.tokens[0]);
        }
        assert!(equal * 4 >= lines.len() * 3, "{dtype}: {equal} of {} first tokens", lines.len());
    }
}
