//! FP8 weights: numbers of eight bits (e4m3fn) in blocks of 128 by 128, each with a factor, as `DeepSeek` V3 has them.
//! They are read as the numbers that they stand for.

use serde::Deserialize;
use serde_json::Value;

use crate::error::EngineError;
use crate::load::fields::Fields;

/// Rows of a block, and its columns.
pub(crate) const BLOCK: usize = 128;

/// The name of the factors of a weight's blocks, behind the weight's.
pub(crate) const SCALES: &str = "_scale_inv";

/// A configuration's settings of such weights. How activations are quantized elsewhere makes no difference here.
#[derive(Deserialize)]
struct Quantization {
    quant_method: String,
    fmt: Option<String>,
    weight_block_size: Option<Vec<usize>>,
}

/// Takes `quantization_config` where it says that weights are such.
pub(crate) fn take_config(fields: &mut Fields) -> Result<(), EngineError> {
    let Some(value) = fields.get::<Value>("quantization_config")? else { return Ok(()) };
    let these = Quantization::deserialize(&value).ok().filter(|these| {
        these.quant_method == "fp8"
            && these.fmt.as_deref().is_none_or(|format| format == "e4m3")
            && these.weight_block_size.as_deref() == Some(&[BLOCK, BLOCK])
    });
    if these.is_some() || value.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(());
    }
    let supported = "none, or fp8 (e4m3) with a weight_block_size of 128 by 128";
    Err(fields.not_supported("quantization_config", &value, &supported))
}

/// How many factors a matrix of so many rows and columns has.
pub(crate) fn scales_shape([rows, columns]: [usize; 2]) -> [usize; 2] {
    [rows.div_ceil(BLOCK), columns.div_ceil(BLOCK)]
}

/// The numbers of a matrix that has so many columns.
pub(crate) fn decode(bytes: &[u8], scales: &[f32], columns: usize) -> Vec<f32> {
    let table: [f32; 256] = std::array::from_fn(|bits| number(bits as u8));
    let across = columns.div_ceil(BLOCK);
    let mut numbers = Vec::with_capacity(bytes.len());
    for (row, bytes) in bytes.chunks_exact(columns.max(1)).enumerate() {
        let scales = &scales[row / BLOCK * across..][..across];
        for (bytes, scale) in bytes.chunks(BLOCK).zip(scales) {
            numbers.extend(bytes.iter().map(|&bits| table[bits as usize] * scale));
        }
    }
    numbers
}

/// A number of four bits of exponent and three of fraction, without infinities.
fn number(bits: u8) -> f32 {
    let size = bits & 0x7F;
    let fraction = f32::from(size & 7) / 8.0;
    let value = match size >> 3 {
        _ if size == 0x7F => f32::NAN,
        0 => fraction * 2_f32.powi(-6),
        exponent => (1.0 + fraction) * 2_f32.powi(i32::from(exponent) - 7),
    };
    if bits & 0x80 == 0 { value } else { -value }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_cmp)]
    use super::*;

    #[test]
    fn numbers_are_those_of_the_format() {
        // From its definition: Micikevicius et al. 2022, table 1.
        for (bits, value) in [
            (0x00, 0.0),
            (0x01, 2_f32.powi(-9)),
            (0x07, 0.875 * 2_f32.powi(-6)),
            (0x08, 2_f32.powi(-6)),
            (0x38, 1.0),
            (0x3C, 1.5),
            (0x7E, 448.0),
            (0xB8, -1.0),
            (0xFE, -448.0),
        ] {
            assert_eq!(number(bits), value, "{bits:#x}");
        }
        assert!(number(0x7F).is_nan() && number(0xFF).is_nan());
    }

    #[test]
    fn each_block_has_its_factor() {
        let [rows, columns] = [129, 130];
        assert_eq!(scales_shape([rows, columns]), [2, 2]);
        let numbers = decode(&vec![0x38; rows * columns], &[2.0, 3.0, 5.0, 7.0], columns);
        let at = |row: usize, column: usize| numbers[row * columns + column];
        assert_eq!([at(0, 0), at(127, 128), at(128, 127), at(128, 129)], [2.0, 3.0, 5.0, 7.0]);
    }

    #[test]
    fn other_quantizations_are_refused_by_name() {
        let take =
            |json: &str| take_config(&mut Fields::parse("c".as_ref(), json.as_bytes()).unwrap());
        take(
            r#"{"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                "weight_block_size": [128, 128]}}"#,
        )
        .unwrap();
        take(r#"{"quantization_config": {}}"#).unwrap();
        for other in [
            r#"{"quant_method": "gptq", "bits": 4}"#,
            r#"{"quant_method": "fp8", "weight_block_size": [64, 64]}"#,
            r#"{"quant_method": "fp8"}"#,
            r#"{"bits": 4}"#,
        ] {
            let error = take(&format!("{{\"quantization_config\": {other}}}")).unwrap_err();
            assert!(matches!(
                error,
                EngineError::NotSupported { field: "quantization_config", .. }
            ));
        }
    }
}
