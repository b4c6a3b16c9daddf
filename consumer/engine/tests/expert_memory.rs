//! Memory that a model with experts takes to be loaded, by the peak of a process that does only this.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use common::{copy_of, edit_json};
use forebay_engine::{DType, LoadOptions, load};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::json;

/// The variable that names the folder to the process that measures it.
const FOLDER: &str = "FOREBAY_EXPERT_MEMORY_FOLDER";

const HIDDEN: usize = 256;
const INNER: usize = 320;
const EXPERTS: usize = 48;
/// Of all experts in f32.
const EXPERT_BYTES: usize = EXPERTS * 3 * INNER * HIDDEN * 4;

/// The size of a line of `/proc/self/status`, in bytes.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kib: usize = line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap();
    1024 * kib
}

/// Writes a gpt-oss of one layer, whose experts are most of it, in blocks of MXFP4.
fn write(folder: &Path) {
    edit_json(&folder.join("config.json"), |config| {
        for (field, value) in [
            ("hidden_size", json!(HIDDEN)),
            ("intermediate_size", json!(INNER)),
            ("num_local_experts", json!(EXPERTS)),
            ("num_hidden_layers", json!(1)),
            ("layer_types", json!(["full_attention"])),
        ] {
            config.insert(field.to_owned(), value);
        }
    });
    let experts = "mlp.experts.";
    let of_layer = [
        ("input_layernorm.weight", vec![HIDDEN]),
        ("post_attention_layernorm.weight", vec![HIDDEN]),
        ("self_attn.q_proj.weight", vec![64, HIDDEN]),
        ("self_attn.q_proj.bias", vec![64]),
        ("self_attn.k_proj.weight", vec![32, HIDDEN]),
        ("self_attn.k_proj.bias", vec![32]),
        ("self_attn.v_proj.weight", vec![32, HIDDEN]),
        ("self_attn.v_proj.bias", vec![32]),
        ("self_attn.o_proj.weight", vec![HIDDEN, 64]),
        ("self_attn.o_proj.bias", vec![HIDDEN]),
        ("self_attn.sinks", vec![4]),
        ("mlp.router.weight", vec![EXPERTS, HIDDEN]),
        ("mlp.router.bias", vec![EXPERTS]),
        ("mlp.experts.gate_up_proj_blocks", vec![EXPERTS, 2 * INNER, HIDDEN / 32, 16]),
        ("mlp.experts.gate_up_proj_scales", vec![EXPERTS, 2 * INNER, HIDDEN / 32]),
        ("mlp.experts.gate_up_proj_bias", vec![EXPERTS, 2 * INNER]),
        ("mlp.experts.down_proj_blocks", vec![EXPERTS, HIDDEN, INNER / 32, 16]),
        ("mlp.experts.down_proj_scales", vec![EXPERTS, HIDDEN, INNER / 32]),
        ("mlp.experts.down_proj_bias", vec![EXPERTS, HIDDEN]),
    ];
    let mut shapes: Vec<(String, Vec<usize>)> = of_layer
        .into_iter()
        .map(|(name, shape)| (format!("model.layers.0.{name}"), shape))
        .collect();
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        shapes.push((name.to_owned(), vec![288, HIDDEN]));
    }
    shapes.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
    // Any bytes will do, exponents near 127 for scales.
    let bytes = vec![120; 4 * EXPERTS * INNER * HIDDEN];
    let views: HashMap<&String, TensorView<'_>> = shapes
        .iter()
        .map(|(name, shape)| {
            let is_bytes = name.contains(experts) && !name.ends_with("bias");
            let (dtype, size) = if is_bytes { (Dtype::U8, 1) } else { (Dtype::BF16, 2) };
            let count = size * shape.iter().product::<usize>();
            (name, TensorView::new(dtype, shape.clone(), &bytes[..count]).unwrap())
        })
        .collect();
    serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
}

#[test]
fn experts_are_read_one_by_one_and_never_all_a_second_time() {
    let folder = copy_of("gpt-oss-mxfp4");
    write(folder.path());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_case", "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{said}");
    println!("{}", said.lines().find(|line| line.contains(" MiB")).unwrap_or_default());
}

/// Run by the other test, in a process of its own.
#[test]
fn one_case() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let options = LoadOptions {
        dtype: Some(DType::F32),
        threads: Some(1),
        cache_bytes: Some(1 << 20),
        ..LoadOptions::default()
    };
    // 5 sets the peak back to what is used now, see proc(5).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    let model = load(Path::new(&folder), &options).unwrap();
    let taken = status("VmHWM").saturating_sub(before);
    println!("{:.1} MiB for {:.1}", mib(taken), mib(EXPERT_BYTES));
    assert!(taken > EXPERT_BYTES, "{taken}: the experts are there");
    // What else a model takes, and the memory of one expert that is given back and not used again; far from a second
    // copy of all, or of one layer's stack of gates.
    assert!(taken < EXPERT_BYTES + EXPERT_BYTES / 2 + (8 << 20), "{taken}");
    drop(model);
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
