//! Decoders against the tokens that transformers generates with the same small random weights, however a prompt is cut
//! into chunks, whatever is computed beside it, and with its prefix from the cache.
#![allow(clippy::unwrap_used)]

mod common;

use common::{copy_of, data, edit_json, f32_options};
use forebay_engine::{
    Chunk, DType, Engine, EngineError, Generator, Keep, LoadOptions, ModelTask, Pick, Picked,
    Sampling, SequenceId, Step, load,
};
use safetensors::SafeTensors;
use safetensors::tensor::serialize_to_file;
use serde_json::{Value, json};

const FAMILIES: [&str; 14] = [
    "llama",
    "smollm2",
    "smollm3",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen3-moe",
    "gemma3",
    "phi3",
    "phi3-long",
    "gpt-oss",
    "deepseek3",
    "deepseek2",
    "glm4-lite",
];

/// A line of `expected.jsonl`.
struct Expected {
    prompt: Vec<u32>,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
}

fn expected(family: &str) -> Vec<Expected> {
    let path = data().join("tiny").join(family).join("expected.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        Expected {
            prompt: serde_json::from_value(value["prompt"].take()).unwrap(),
            tokens: serde_json::from_value(value["tokens"].take()).unwrap(),
            logprobs: serde_json::from_value(value["logprobs"].take()).unwrap(),
        }
    };
    text.lines().map(line).collect()
}

fn generator(family: &str, options: &LoadOptions) -> Box<dyn Generator> {
    // Beyond the length that a model is meant for, only who asks for it gets more.
    let context_max = (family == "phi3-long").then_some(4096);
    let options = LoadOptions { context_max, ..options.clone() };
    let model = load(&data().join("tiny").join(family), &options).unwrap();
    assert_eq!(model.info.task, ModelTask::Generate);
    model.engine.into_generator().unwrap()
}

fn likeliest() -> Sampling {
    Sampling { logprobs: Some(2), ..Sampling::default() }
}

/// A sequence that is being generated.
struct Run {
    id: SequenceId,
    tokens: Vec<u32>,
    prompt: usize,
    done: usize,
    picked: Vec<Picked>,
}

impl Run {
    fn open(generator: &mut dyn Generator, prompt: &[u32]) -> Self {
        let opened = generator.open(prompt, 0).unwrap();
        Self {
            id: opened.id,
            tokens: prompt.to_vec(),
            prompt: prompt.len(),
            done: opened.cached,
            picked: Vec::new(),
        }
    }

    /// The next tokens, at most so many.
    fn chunk<'a>(&'a self, sampling: &'a Sampling, most: usize) -> Chunk<'a> {
        let end = self.tokens.len().min(self.done.saturating_add(most));
        let pick = Pick { sampling, prompt_tokens: self.prompt, mask: None };
        Chunk {
            id: self.id,
            tokens: &self.tokens[self.done..end],
            pick: (end == self.tokens.len()).then_some(pick),
        }
    }
}

/// A step of all runs, in chunks of up to `most` tokens.
fn step(generator: &mut dyn Generator, runs: &mut [&mut Run], sampling: &Sampling, most: usize) {
    let rows = runs.iter().map(|run| run.chunk(sampling, most)).collect();
    let picks = generator.begin(&Step { rows }).unwrap().wait().unwrap();
    assert_eq!(picks.failed, []);
    for run in runs.iter_mut() {
        run.done = run.tokens.len().min(run.done.saturating_add(most));
    }
    for (id, picked) in picks.picked {
        let run = runs.iter_mut().find(|run| run.id == id).unwrap();
        run.tokens.push(picked.token);
        run.picked.push(picked);
    }
}

/// Continues a prompt by so many tokens.
fn continued(
    generator: &mut dyn Generator,
    prompt: &[u32],
    tokens: usize,
    most: usize,
) -> Vec<Picked> {
    let mut run = Run::open(generator, prompt);
    while run.picked.len() < tokens {
        step(generator, &mut [&mut run], &likeliest(), most);
    }
    generator.close(run.id, Keep::Prefix);
    run.picked
}

fn assert_as_transformers(picked: &[Picked], expected: &Expected, what: &str) {
    let tokens: Vec<u32> = picked.iter().map(|picked| picked.token).collect();
    assert_eq!(tokens, expected.tokens, "{what}");
    for (picked, expected) in picked.iter().zip(&expected.logprobs) {
        assert!(
            (picked.logprob - expected).abs() < 2e-3,
            "{what}: {}, not {expected}",
            picked.logprob
        );
    }
}

#[test]
fn every_family_continues_as_transformers_does() {
    for family in FAMILIES {
        let mut generator = generator(family, &f32_options());
        for expected in expected(family) {
            let picked =
                continued(&mut *generator, &expected.prompt, expected.tokens.len(), usize::MAX);
            assert_as_transformers(&picked, &expected, family);
        }
    }
}

#[test]
fn chunks_batch_mates_threads_and_cached_prefixes_change_no_bit() {
    for family in FAMILIES {
        for dtype in [DType::F32, DType::Bf16, DType::Int8] {
            let options = |threads| LoadOptions {
                dtype: Some(dtype),
                threads: Some(threads),
                ..LoadOptions::default()
            };
            let expected = expected(family);
            let alone: Vec<Vec<Picked>> = expected
                .iter()
                .map(|line| {
                    continued(&mut *generator(family, &options(1)), &line.prompt, 40, usize::MAX)
                })
                .collect();
            for most in [1, 7, 32] {
                let mut generator = generator(family, &options(1));
                for (line, alone) in expected.iter().zip(&alone) {
                    let picked = continued(&mut *generator, &line.prompt, 40, most);
                    assert_eq!(picked, *alone, "{family} {dtype} in chunks of {most}");
                }
            }
            // Several threads are a matter of operations, not of number types, and slow where others use the cores.
            let threads = if dtype == DType::F32 { 2 } else { 1 };
            let mut generator = generator(family, &options(threads));
            let mut runs: Vec<Run> = Vec::new();
            // Each joins while those before it are under way, and two are twins.
            for line in expected.iter().chain(&expected[1..]) {
                runs.push(Run::open(&mut *generator, &line.prompt));
                for _ in 0..3 {
                    step(
                        &mut *generator,
                        &mut runs.iter_mut().collect::<Vec<_>>(),
                        &likeliest(),
                        25,
                    );
                }
            }
            while runs.iter().any(|run| run.picked.len() < 40) {
                step(&mut *generator, &mut runs.iter_mut().collect::<Vec<_>>(), &likeliest(), 25);
            }
            for (run, alone) in runs.iter().zip(alone.iter().chain(&alone[1..])) {
                assert_eq!(run.picked[..40], alone[..40], "{family} {dtype} beside others");
                generator.close(run.id, Keep::Prefix);
            }
            // All pages of the longest prompt are in the cache now, and those of its continuation.
            let line = expected.last().unwrap();
            let run = Run::open(&mut *generator, &line.prompt);
            assert_eq!(run.done, (line.prompt.len() - 1) / 32 * 32, "{family}");
            generator.close(run.id, Keep::Prefix);
            let picked = continued(&mut *generator, &line.prompt, 40, 7);
            assert_eq!(picked, *alone.last().unwrap(), "{family} {dtype} with a cached prefix");
        }
    }
}

/// A family and the same weights in files of other formats.
const FORMATS: [(&str, &[&str]); 2] =
    [("qwen3-moe", &["qwen3-moe-gguf"]), ("gpt-oss", &["gpt-oss-mxfp4", "gpt-oss-gguf"])];

#[test]
fn the_same_weights_give_the_same_bits_in_files_of_any_format() {
    for (family, others) in FORMATS {
        for dtype in [DType::F32, DType::Bf16, DType::Int8] {
            let options = LoadOptions { dtype: Some(dtype), ..f32_options() };
            let of = |name: &str| -> Vec<Vec<Picked>> {
                let mut generator = generator(name, &options);
                let lines = expected(family);
                lines.iter().map(|line| continued(&mut *generator, &line.prompt, 24, 32)).collect()
            };
            let first = of(family);
            for other in others {
                assert_eq!(of(other), first, "{other} {dtype}");
            }
        }
    }
}

#[test]
fn experts_in_blocks_are_multiplied_as_they_lie_and_the_same_bits_however_they_are_reached() {
    let options = LoadOptions { dtype: Some(DType::Q4), ..f32_options() };
    let lines = expected("gpt-oss");
    let of = |name: &str, most: usize| -> Vec<Vec<Picked>> {
        let mut generator = generator(name, &options);
        lines.iter().map(|line| continued(&mut *generator, &line.prompt, 24, most)).collect()
    };
    let folder = of("gpt-oss-mxfp4", usize::MAX);
    for most in [1, 7, 32] {
        assert_eq!(of("gpt-oss-gguf", most), folder, "in chunks of {most}");
    }
    // Inputs are quantized, so a token may be another one in time; most begin as in f32.
    let begins = |(picked, line): (&Vec<Picked>, &Expected)| {
        picked[..4].iter().map(|picked| picked.token).eq(line.tokens[..4].iter().copied())
    };
    assert!(folder.iter().zip(&lines).filter(|pair| begins(*pair)).count() >= 2);
}

#[test]
fn a_sequence_goes_on_after_preemption_as_if_nothing_had_happened() {
    let expected = &expected("llama")[1];
    for keep in [Keep::Prefix, Keep::Nothing] {
        let mut generator = generator("llama", &f32_options());
        let sampling = Sampling { temperature: 0.8, seed: 7, ..likeliest() };
        let mut whole = Run::open(&mut *generator, &expected.prompt);
        while whole.picked.len() < 40 {
            step(&mut *generator, &mut [&mut whole], &sampling, 32);
        }
        generator.close(whole.id, Keep::Nothing);
        let mut first = Run::open(&mut *generator, &expected.prompt);
        while first.picked.len() < 25 {
            step(&mut *generator, &mut [&mut first], &sampling, 32);
        }
        generator.close(first.id, keep);
        let opened = generator.open(&first.tokens, 0).unwrap();
        assert_eq!(opened.cached, if keep == Keep::Prefix { 64 } else { 0 });
        first = Run { id: opened.id, done: opened.cached, ..first };
        while first.picked.len() < 40 {
            step(&mut *generator, &mut [&mut first], &sampling, 32);
        }
        assert_eq!(first.picked, whole.picked);
    }
}

#[test]
fn a_step_that_cannot_be_computed_is_refused_and_changes_nothing() {
    // Four pages.
    let options = LoadOptions { cache_bytes: Some(0), ..f32_options() };
    let bytes = generator("llama", &options).room().bytes_per_token as u64;
    let options = LoadOptions { cache_bytes: Some(4 * 32 * bytes), ..f32_options() };
    let mut generator = generator("llama", &options);
    assert_eq!((generator.room().pages(), generator.room().tokens_max), (4, 128));
    let first = generator.open(&[1; 60], 0).unwrap().id;
    let second = generator.open(&[2; 90], 0).unwrap().id;
    let chunk = |id, tokens| Chunk { id, tokens, pick: None };
    let long = [3; 90];
    let refused = |generator: &mut dyn Generator, rows: Vec<Chunk<'_>>| {
        generator.begin(&Step { rows }).err().unwrap()
    };
    let error = refused(&mut *generator, vec![chunk(first, &[1; 60]), chunk(second, &long)]);
    assert!(matches!(error, EngineError::NoPages { needed: 5, left: 4 }), "{error}");
    for (index, rows, words) in [
        (1, vec![chunk(first, &[1]), chunk(second, &[400])], "vocabulary"),
        (0, vec![chunk(first, &[])], "no tokens"),
        (1, vec![chunk(first, &[1]), chunk(first, &[1])], "another chunk"),
        (0, vec![chunk(first, &[1; 129])], "at most 128"),
    ] {
        let error = refused(&mut *generator, rows);
        assert!(error.to_string().contains(words), "{error}");
        assert!(matches!(error, EngineError::Item { index: at, .. } if at == index), "{error}");
    }
    assert_eq!(generator.room().pages_free, 4);
    generator.begin(&Step { rows: vec![chunk(second, &long)] }).unwrap().wait().unwrap();
    assert_eq!((generator.room().pages_free, generator.room().pages_held), (1, 3));
    generator.close(second, Keep::Prefix);
    assert_eq!((generator.room().pages_free, generator.room().pages_cached), (2, 2));
    let error = refused(&mut *generator, vec![chunk(second, &[1])]);
    assert!(error.to_string().contains("not open"), "{error}");
}

#[test]
fn a_model_of_the_other_kind_is_refused_with_what_it_does() {
    let mut model = load(&data().join("tiny/llama"), &f32_options()).unwrap();
    assert_eq!(model.info.generation.as_ref().unwrap().end_token_ids, [257]);
    let error = model.engine.encoder().err().unwrap().to_string();
    assert!(error.contains("generates text"), "{error}");
    let encoder = load(&common::tiny_folder(), &f32_options()).unwrap();
    assert!(matches!(encoder.engine, Engine::Encoder(_)));
    assert!(encoder.engine.into_generator().is_err());
}

#[test]
fn what_has_no_blocks_is_not_multiplied_by_them() {
    let options = LoadOptions { dtype: Some(DType::Q4), ..LoadOptions::default() };
    let error = load(&data().join("tiny/llama"), &options).err().unwrap();
    let message = error.to_string();
    assert!(matches!(error, EngineError::DTypeNotSupported { .. }), "{error}");
    assert!(message.contains("q4") && message.contains("not in quantised blocks"), "{message}");
    let error = load(&common::tiny_folder(), &options).err().unwrap();
    assert!(matches!(error, EngineError::DTypeNotSupported { .. }), "{error}");
}

#[test]
fn a_tensor_of_experts_that_is_not_there_is_named() {
    for (family, name) in [
        ("qwen3-moe", "model.layers.2.mlp.experts.7.up_proj.weight"),
        ("qwen3-moe", "model.layers.0.mlp.gate.weight"),
        ("gpt-oss", "model.layers.1.mlp.experts.down_proj"),
        ("gpt-oss", "model.layers.1.mlp.experts.gate_up_proj_bias"),
        ("gpt-oss", "model.layers.3.mlp.router.bias"),
        ("gpt-oss", "model.layers.3.self_attn.sinks"),
        ("gpt-oss-mxfp4", "model.layers.0.mlp.experts.down_proj_scales"),
    ] {
        let folder = copy_of(family);
        let path = folder.path().join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert!(tensors.names().contains(&name), "{name}");
        let others = tensors.iter().filter(|(other, _)| *other != name);
        serialize_to_file(others, None, &path).unwrap();
        let error = load(folder.path(), &f32_options()).err().unwrap();
        let is_it = matches!(&error, EngineError::TensorMissing { name: said, .. } if said == name);
        assert!(is_it, "{error}");
    }
}

#[test]
fn folders_that_ask_for_something_else_are_refused_by_name() {
    let rope = json!({"rope_type": "dynamic", "factor": 2.0});
    let of_eight_bits = json!({"quant_method": "fp8"});
    for (family, field, value, named) in [
        ("llama", "rope_parameters", rope, "rope_parameters"),
        ("llama", "num_hidden_layers", json!(5), "layers.4."),
        ("llama", "hidden_act", json!("mish"), "hidden_act"),
        ("qwen2", "hidden_size", json!(64), "embed_tokens"),
        ("gemma3", "use_bidirectional_attention", json!(true), "use_bidirectional_attention"),
        ("llama", "architectures", json!(["LlamaForSequenceClassification"]), "score.weight"),
        ("qwen3-moe", "num_local_experts", json!(9), "layers.0.mlp.gate.weight"),
        ("qwen3-moe", "num_experts_per_tok", json!(9), "num_experts_per_tok"),
        ("qwen3-moe", "moe_intermediate_size", json!(48), "experts.0.gate_proj"),
        ("qwen3-moe", "decoder_sparse_step", json!(0), "decoder_sparse_step"),
        ("qwen3-moe", "mlp_only_layers", json!([0]), "layers.0.mlp.gate_proj"),
        ("qwen3-moe", "quantization_config", json!({"quant_method": "mxfp4"}), "quantization"),
        ("gpt-oss", "num_local_experts", json!(7), "layers.0.mlp.router.weight"),
        ("gpt-oss", "intermediate_size", json!(64), "experts.gate_up_proj"),
        ("gpt-oss", "swiglu_limit", json!(0), "swiglu_limit"),
        ("gpt-oss", "quantization_config", of_eight_bits, "quantization_config"),
        ("gpt-oss-mxfp4", "intermediate_size", json!(64), "experts.gate_up_proj_blocks"),
    ] {
        let folder = copy_of(family);
        edit_json(&folder.path().join("config.json"), |config| {
            config.insert(field.to_owned(), value);
        });
        let error = load(folder.path(), &f32_options()).err().unwrap();
        assert!(error.to_string().contains(named), "{family} {field}: {error}");
    }
}
