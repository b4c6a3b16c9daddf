//! SmolLM2-135M-Instruct through its file, beside what transformers makes of it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{data, smollm2};
use crate::load::gguf::GgufModel;
use crate::load::tensors::Tensors;

/// The file as transformers has loaded it in f32.
#[derive(Deserialize)]
struct Expected {
    config: Map<String, Value>,
    /// Shapes and CRC-32 of the values' bytes.
    tensors: BTreeMap<String, (Vec<usize>, u32)>,
}

fn crc32(bytes: &[u8]) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|i| {
        (0..8).fold(i as u32, |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    });
    !bytes.iter().fold(!0, |crc, &byte| (crc >> 8) ^ table[usize::from(crc as u8 ^ byte)])
}

#[test]
fn smollm2_s_tensors_and_fields_are_those_that_transformers_loads() {
    let model = GgufModel::open(&smollm2()).unwrap();
    let text = std::fs::read(data("smollm2.json")).unwrap();
    let expected: Expected = serde_json::from_slice(&text).unwrap();
    let config = model.config().unwrap();
    for (field, value) in &expected.config {
        assert_eq!(config.get(field), Some(value), "{field}");
    }
    let mut seen = 0;
    for (name, (shape, sum)) in &expected.tensors {
        if name == "lm_head.weight" {
            assert!(!model.contains(name), "it is the table of embeddings");
            continue;
        }
        let values = model.f32(name, shape).unwrap().flatten_all().unwrap();
        let bytes: Vec<u8> =
            values.to_vec1::<f32>().unwrap().iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(crc32(&bytes), *sum, "{name}");
        seen += 1;
    }
    assert_eq!(seen, 272);
    assert_eq!(model.dtypes(), ["F32", "Q4_1", "Q8_0"]);
}

#[test]
fn smollm2_s_settings_of_generation() {
    let facts = GgufModel::open(&smollm2()).unwrap().generation().unwrap();
    assert_eq!((&facts.eos[..], facts.bos, facts.adds_bos), (&[2, 0][..], Some(1), false));
    assert_eq!(facts.pad, Some(2), "the same token as the end");
    assert!(facts.chat_template.unwrap().contains("<|im_start|>"));
}
