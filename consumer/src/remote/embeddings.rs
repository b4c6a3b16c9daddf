//! OpenAI's `/embeddings`: the body of a request, and its answer. Pure.

use std::fmt;

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use forebay_fabric::config::RemoteEncoding;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, SeqAccess},
};

use super::answer::{Answer, Unusable, ordered};

/// Padded or not: both are in use.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: &'a [String],
    encoding_format: RemoteEncoding,
}

/// The body that asks for the vectors of these texts.
pub fn body(
    model: &str,
    input: &[String],
    encoding_format: RemoteEncoding,
) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Body { model, input, encoding_format })
}

#[derive(Deserialize)]
struct Read {
    data: Vec<Element>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Element {
    #[serde(default)]
    index: Option<usize>,
    embedding: Vector,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    total_tokens: Option<u64>,
}

/// A vector as a list of numbers or as the base64 of little-endian floats.
struct Vector(Vec<f32>);

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Numbers).map(Self)
    }
}

struct Numbers;

impl<'de> de::Visitor<'de> for Numbers {
    type Value = Vec<f32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of numbers, or the base64 of floats")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<f32>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(values)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<f32>, E> {
        let bytes = BASE64.decode(text).map_err(E::custom)?;
        let (words, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(E::custom(format!("base64 of {} bytes, which are no floats", bytes.len())));
        }
        Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }
}

/// Reads the answer for `inputs` texts.
pub fn read(body: &[u8], inputs: usize) -> Result<Answer, Unusable> {
    let read: Read =
        serde_json::from_slice(body).map_err(|error| Unusable::Unreadable(error.to_string()))?;
    let rows = read.data.into_iter().map(|Element { index, embedding }| (index, embedding.0));
    let rows = ordered(rows.collect(), inputs)?;
    let dim = rows.first().map_or(0, Vec::len);
    if let Some(other) = rows.iter().map(Vec::len).find(|len| *len != dim || *len == 0) {
        return Err(Unusable::Lengths(dim, other));
    }
    let tokens = read.usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens));
    Ok(Answer::new(rows, tokens))
}

/// Cuts a vector to its first dimensions and scales it to length 1, as far as a job asks for it.
pub fn finish(row: &mut Vec<f32>, dimensions: Option<usize>, normalize: bool) {
    row.truncate(dimensions.unwrap_or(usize::MAX));
    if !normalize {
        return;
    }
    let square: f64 = row.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    let length = square.sqrt();
    if length > 0.0 {
        for value in row {
            *value = (f64::from(*value) / length) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read_json(body: &Value, inputs: usize) -> Result<Answer, Unusable> {
        read(body.to_string().as_bytes(), inputs)
    }

    #[test]
    fn a_request_is_one_of_the_official_package() {
        let bytes = body("m", &["a".into(), String::new()], RemoteEncoding::Base64).unwrap();
        let written: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(written, json!({"model": "m", "input": ["a", ""], "encoding_format": "base64"}));
    }

    #[test]
    fn vectors_are_read_in_both_encodings_and_in_the_inputs_order() {
        // Of 1.0 and -2.5, little-endian.
        let packed = "AACAPwAAIMA=";
        for second in [json!(packed), json!(packed.trim_end_matches('=')), json!([1, -2.5])] {
            let answer = json!({
                "object": "list", "model": "x",
                "data": [{"index": 1, "embedding": second}, {"index": 0, "embedding": [0.5, 0.25]}],
                "usage": {"prompt_tokens": 7, "total_tokens": 9},
            });
            let expected = Answer { rows: vec![vec![0.5, 0.25], vec![1.0, -2.5]], tokens: Some(7) };
            assert_eq!(read_json(&answer, 2).unwrap(), expected);
        }
    }

    #[test]
    fn an_answer_that_does_not_fit_is_refused() {
        let data = |rows: Value| json!({"data": rows});
        let row = |row: Value| json!({"embedding": row});
        assert!(matches!(read(b"<html>", 1), Err(Unusable::Unreadable(_))));
        assert!(matches!(read_json(&json!({}), 1), Err(Unusable::Unreadable(_))));
        for odd in [json!("AAA"), json!("***"), json!(7), json!({})] {
            assert!(matches!(read_json(&data(json!([row(odd)])), 1), Err(Unusable::Unreadable(_))));
        }
        let short = data(json!([row(json!([1.0]))]));
        assert_eq!(read_json(&short, 2).unwrap_err(), Unusable::Rows { found: 1, expected: 2 });
        let ragged = data(json!([row(json!([1.0])), row(json!([1.0, 2.0]))]));
        assert_eq!(read_json(&ragged, 2).unwrap_err(), Unusable::Lengths(1, 2));
        let empty = data(json!([row(json!([]))]));
        assert_eq!(read_json(&empty, 1).unwrap_err(), Unusable::Lengths(0, 0));
        assert_eq!(read_json(&data(json!([row(json!([1.0]))])), 1).unwrap().tokens, None);
    }

    #[test]
    fn a_vector_is_cut_before_it_is_scaled() {
        let mut row = vec![3.0, 4.0, 12.0];
        finish(&mut row, Some(2), true);
        assert_eq!(row, [0.6, 0.8]);
        let mut zero = vec![0.0, 0.0];
        finish(&mut zero, None, true);
        assert_eq!(zero, [0.0, 0.0]);
        let mut own = vec![3.0, 4.0];
        finish(&mut own, None, false);
        assert_eq!(own, [3.0, 4.0]);
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), inputs in 0..4_usize) {
            let _ = read(&bytes, inputs);
        }
    }
}
