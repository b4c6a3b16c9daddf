//! Values as the format's reference reads them, and files that aren't whole.

use proptest::prelude::*;

use super::data;
use super::write::Writer;
use crate::error::EngineError;
use crate::load::gguf::GgufModel;
use crate::load::gguf::kind::Kind;
use crate::load::tensors::Tensors;

fn open(writer: &Writer) -> Result<GgufModel, EngineError> {
    let folder = tempfile::tempdir().unwrap();
    GgufModel::open(&writer.write(folder.path()))
}

fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    GgufModel::open(&path).unwrap_err().to_string()
}

#[test]
fn blocks_of_every_kind_have_the_reference_s_values_by_bits() {
    let model = GgufModel::open(&data("blocks.gguf")).unwrap();
    let mut kinds = 0;
    for number in 0..64 {
        let Some(kind) = Kind::of_number(number) else { continue };
        let values = model.tensors[&format!("values.{kind}")].0.shape.clone();
        let bits = |name: &str| -> Vec<u32> {
            let tensor = model.f32(&format!("{name}.{kind}"), &values).unwrap();
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            values.into_iter().map(f32::to_bits).collect()
        };
        assert_eq!(bits("stored"), bits("values"), "{kind}");
        kinds += 1;
    }
    assert_eq!(kinds, 14);
}

#[test]
fn blocks_are_given_as_they_lie() {
    let block: Vec<u8> = (0..40).collect();
    let mut writer = Writer::of("llama");
    writer.tensor("blk.0.attn_v.weight", &[2, 32], 3, &block);
    writer.floats("blk.0.attn_norm.weight", &[2, 1], &[1.0, 2.0]);
    let model = open(&writer).unwrap();
    let blocks = model.blocks("model.layers.0.self_attn.v_proj.weight", [2, 32]).unwrap().unwrap();
    assert_eq!((blocks.kind, blocks.outputs, blocks.inputs), (Kind::Q4_1, 2, 32));
    assert_eq!(blocks.bytes, block);
    let plain = model.blocks("model.layers.0.input_layernorm.weight", [2, 1]).unwrap();
    assert_eq!(plain, None);
    assert_eq!(model.dtypes(), ["F32", "Q4_1"]);
}

#[test]
fn halves_of_heads_lie_apart_as_in_transformers() {
    let weight: Vec<f32> = (0_u8..64).map(f32::from).collect();
    let bias: Vec<f32> = (0_u8..16).map(f32::from).collect();
    let mut writer = Writer::of("llama");
    writer.floats("blk.1.attn_k.weight", &[16, 4], &weight);
    writer.floats("blk.1.attn_k.bias", &[16], &bias);
    writer.floats("blk.1.attn_q.bias", &[16], &bias);
    let model = open(&writer).unwrap();
    let values = |name: &str, shape: &[usize]| {
        model.f32(name, shape).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    // Two heads of keys: rows 0 2 4 6 are the first half of the first.
    let order =
        [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15].map(f32::from as fn(u8) -> f32);
    assert_eq!(values("model.layers.1.self_attn.k_proj.bias", &[16]), order);
    let rows = values("model.layers.1.self_attn.k_proj.weight", &[16, 4]);
    let firsts: Vec<f32> = rows.chunks(4).map(|row| row[0] / 4.0).collect();
    assert_eq!(firsts, order);
    let queries = values("model.layers.1.self_attn.q_proj.bias", &[16]);
    assert_eq!(queries[..4], [0.0, 2.0, 1.0, 3.0], "four heads of queries");

    let mut other = Writer::of("qwen2");
    other.floats("blk.1.attn_k.bias", &[16], &bias);
    let kept = open(&other).unwrap().f32("model.layers.1.self_attn.k_proj.bias", &[16]).unwrap();
    assert_eq!(kept.to_vec1::<f32>().unwrap(), bias, "no other family interleaves them");
}

#[test]
fn rows_that_are_no_heads_are_refused() {
    let mut writer = Writer::of("llama");
    writer.floats("blk.0.attn_k.bias", &[6], &[0.0; 6]);
    let error = open(&writer).unwrap().f32("model.layers.0.self_attn.k_proj.bias", &[6]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("2 even heads"), "{error}");
}

#[test]
fn gemma_s_norms_have_no_one_added() {
    let mut writer = Writer::of("gemma3");
    writer.floats("blk.0.ffn_norm.weight", &[2], &[1.5, 0.75]);
    writer.floats("output_norm.weight", &[2], &[1.0, 2.0]);
    let model = open(&writer).unwrap();
    let norm = |name: &str| model.f32(name, &[2]).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(norm("model.layers.0.pre_feedforward_layernorm.weight"), [0.5, -0.25]);
    assert_eq!(norm("model.norm.weight"), [0.0, 1.0]);
}

#[test]
fn a_tensor_that_is_missing_or_has_another_form_is_named() {
    let mut writer = Writer::of("llama");
    writer.floats("output_norm.weight", &[2], &[1.0, 2.0]);
    writer.tensor("output.weight", &[1, 256], 23, &[0; 136]);
    let model = open(&writer).unwrap();
    let error = |name: &str, shape: &[usize]| model.f32(name, shape).unwrap_err().to_string();
    assert!(error("model.embed_tokens.weight", &[1]).contains("model.embed_tokens.weight"));
    assert!(error("model.norm.weight", &[3]).contains("[2]"));
    let unread = error("lm_head.weight", &[1, 256]);
    assert!(unread.contains("type 23") && unread.contains("Q6_K"), "{unread}");
    assert!(model.f32("model.norm.weight", &[2]).is_ok(), "only that tensor is refused");
}

#[test]
fn what_is_no_whole_file_is_refused() {
    let whole = {
        let mut writer = Writer::of("llama");
        writer.floats("output_norm.weight", &[8], &[1.0; 8]).bytes()
    };
    assert!(refusal(b"").contains("left"));
    assert!(refusal(b"PK\x03\x04 and so on, long enough").contains("does not begin with GGUF"));
    let with = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        refusal(&bytes)
    };
    assert!(with(4, 1).contains("version 1"));
    let mut big = whole.clone();
    big[4..8].reverse();
    assert!(refusal(&big).contains("big-endian"));
    assert!(with(15, 1).contains("tensors"), "too many of them");
    let cut = refusal(&whole[..whole.len() - 1]);
    assert!(cut.contains("\"output_norm.weight\" ends at") && cut.contains("fetch"), "{cut}");
}

#[test]
fn a_file_that_is_cut_after_it_was_opened_gives_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::of("llama");
    let path = writer.floats("output_norm.weight", &[8], &[1.0; 8]).write(folder.path());
    let model = GgufModel::open(&path).unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(length - 8).unwrap();
    let error = model.f32("model.norm.weight", &[8]).unwrap_err();
    assert!(matches!(error, EngineError::File { .. }), "{error}");
}

#[test]
fn hostile_numbers_are_refused_by_name() {
    let mut twice = Writer::of("llama");
    twice.floats("a", &[1], &[0.0]).floats("a", &[1], &[0.0]);
    assert!(refusal(&twice.bytes()).contains("\"a\" twice"));
    let mut same = Writer::of("llama");
    same.floats("model.norm.weight", &[1], &[0.0]).floats("output_norm.weight", &[1], &[0.0]);
    assert!(refusal(&same.bytes()).contains("same name"));
    for (shape, problem) in [
        (&[0, 4][..], "a size of 0"),
        (&[1 << 33][..], "a size of 8589934592"),
        (&[u64::from(u32::MAX); 4][..], "of shape"),
        (&[1; 5][..], "5 dimensions"),
        (&[][..], "0 dimensions"),
    ] {
        let mut writer = Writer::of("llama");
        let error = refusal(&writer.tensor("t", shape, 0, &[]).bytes());
        assert!(error.contains(problem), "{shape:?}: {error}");
    }
    let mut uneven = Writer::of("llama");
    let error = refusal(&uneven.tensor("t", &[1, 576], 12, &[]).bytes());
    assert!(error.contains("rows of 576 values, Q4_K has 256"), "{error}");
    for alignment in [0, 3, 1 << 30] {
        let mut writer = Writer::of("llama");
        let error = refusal(&writer.size("general.alignment", alignment).bytes());
        assert!(error.contains("power of two"), "{error}");
    }
    for array in [(4_u32, u64::MAX), (4, 1 << 40), (8, 1 << 60), (9, 1)] {
        let value = [&array.0.to_le_bytes()[..], &array.1.to_le_bytes()].concat();
        let error = refusal(&Writer::of("llama").raw("x", 9, &value).bytes());
        assert!(error.contains("not a whole GGUF"), "{error}");
    }
    let error = refusal(&Writer::of("llama").raw("x", 13, &[]).bytes());
    assert!(error.contains("type 13"), "{error}");
}

proptest! {
    #[test]
    fn a_file_with_any_changed_bytes_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut writer = Writer::of("llama");
        writer.texts("tokenizer.ggml.tokens", &["a", "b", "ab"]);
        writer.tensor("blk.0.attn_q.weight", &[8, 32], 2, &[7; 8 * 18]);
        let mut bytes = writer.bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) * 2);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        if let Ok(model) = GgufModel::open(&path) {
            let _ = (model.config(), model.generation(), model.tokenizer());
            let _ = model.f32("model.layers.0.self_attn.q_proj.weight", &[8, 32]);
        }
    }
}
