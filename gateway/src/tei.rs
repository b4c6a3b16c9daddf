//! Requests and answers of text-embeddings-inference, which Hugging Face's clients speak: `/embed`, `/embed_sparse`,
//! `/predict`, `/` with `inputs`, and `/info`.

use forebay_schemas::{EmbedParams, LabelScore, SparseParams, SparseVector};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    error::ApiError,
    fields::{Fields, Kind, each, kind, text, texts, unexpected},
    inputs::{self, Texts},
    rerank::only_true,
};

/// The body of a request for vectors, as the document has it.
#[derive(JsonSchema)]
pub struct EmbedBody {
    /// The model; may be left out where `gateway.embed_model` names one, or the fleet has only one.
    pub model: Option<String>,
    /// The texts.
    pub inputs: Texts,
    /// Scale each vector to length 1: true unless set.
    pub normalize: Option<bool>,
    /// Cut texts that are longer than the model reads: true unless set. Otherwise they are refused.
    pub truncate: Option<bool>,
    /// Keep only this many of the first dimensions.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub dimensions: Option<u32>,
    /// Texts are cut at their end only.
    #[schemars(regex(pattern = "^[Rr][Ii][Gg][Hh][Tt]$"))]
    pub truncation_direction: Option<String>,
    /// Not supported.
    #[schemars(extend("type" = "null"))]
    pub prompt_name: Option<bool>,
}

/// The body of a request for sparse vectors, as the document has it.
#[derive(JsonSchema)]
pub struct SparseBody {
    /// The model; may be left out where `gateway.sparse_model` names one, or the fleet has only one.
    pub model: Option<String>,
    /// The texts.
    pub inputs: Texts,
    /// Cut texts that are longer than the model reads: true unless set. Otherwise they are refused.
    pub truncate: Option<bool>,
    /// Texts are cut at their end only.
    #[schemars(regex(pattern = "^[Rr][Ii][Gg][Hh][Tt]$"))]
    pub truncation_direction: Option<String>,
    /// Not supported.
    #[schemars(extend("type" = "null"))]
    pub prompt_name: Option<bool>,
}

/// The body of a request for labels, as the document has it.
#[derive(JsonSchema)]
pub struct PredictBody {
    /// The model; may be left out where `gateway.classify_model` names one, or the fleet has only one.
    pub model: Option<String>,
    /// The texts.
    pub inputs: TextsToClassify,
    /// Texts that are longer than the model reads are always cut.
    #[schemars(extend("enum" = [true, null]))]
    pub truncate: Option<bool>,
    /// Scores are probabilities.
    #[schemars(extend("enum" = [false, null]))]
    pub raw_scores: Option<bool>,
    /// Texts are cut at their end only.
    #[schemars(regex(pattern = "^[Rr][Ii][Gg][Hh][Tt]$"))]
    pub truncation_direction: Option<String>,
    /// Not supported.
    #[schemars(extend("type" = "null"))]
    pub prompt_name: Option<bool>,
}

/// One text, which may stand in a list, or a batch: a list of lists of one text. Two texts in one list would be a pair,
/// which is not supported.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum TextsToClassify {
    /// One text.
    One(String),
    /// One text in a list.
    OneInList([String; 1]),
    /// A batch.
    Batch(#[schemars(length(min = 1))] Vec<[String; 1]>),
}

/// A request for vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedRequest {
    /// The model, which TEI's own clients don't name.
    pub model: Option<String>,
    /// The texts.
    pub inputs: Vec<String>,
    /// How vectors are made of them.
    pub params: EmbedParams,
}

/// A request for sparse vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseRequest {
    /// The model, which TEI's own clients don't name.
    pub model: Option<String>,
    /// The texts.
    pub inputs: Vec<String>,
    /// How vectors are made of them.
    pub params: SparseParams,
}

/// A request for labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredictRequest {
    /// The model, which TEI's own clients don't name.
    pub model: Option<String>,
    /// The texts.
    pub inputs: Vec<String>,
    /// Whether it was one text that was sent, and not a batch: the answer is flat then.
    pub is_single: bool,
}

/// The fields that the parsers read.
pub const NAMES: [&str; 8] = [
    "model",
    "inputs",
    "normalize",
    "truncate",
    "dimensions",
    "prompt_name",
    "truncation_direction",
    "raw_scores",
];

impl EmbedRequest {
    /// Reads a body with at most `inputs_max` texts.
    pub fn parse(body: &[u8], inputs_max: usize) -> Result<Self, ApiError> {
        let fields = Fields::scan(body, &NAMES)?;
        refuse_unsupported(&fields)?;
        let params = EmbedParams {
            normalize: fields.flag("normalize")?.unwrap_or(true),
            truncate: fields.flag("truncate")?.unwrap_or(true),
            dimensions: fields.count("dimensions")?,
        };
        let inputs = inputs::required(&fields, "inputs", inputs_max)?;
        Ok(Self { model: fields.text("model")?, inputs, params })
    }
}

impl SparseRequest {
    /// Reads a body with at most `inputs_max` texts.
    pub fn parse(body: &[u8], inputs_max: usize) -> Result<Self, ApiError> {
        let fields = Fields::scan(body, &NAMES)?;
        refuse_unsupported(&fields)?;
        let truncate = fields.flag("truncate")?.unwrap_or(true);
        let params = SparseParams { truncate, ..SparseParams::default() };
        let inputs = inputs::required(&fields, "inputs", inputs_max)?;
        Ok(Self { model: fields.text("model")?, inputs, params })
    }
}

impl PredictRequest {
    /// Reads a body with at most `inputs_max` texts: `"text"`, `["text"]`, or a batch `[["text"], ["text"]]`.
    pub fn parse(body: &[u8], inputs_max: usize) -> Result<Self, ApiError> {
        let fields = Fields::scan(body, &NAMES)?;
        refuse_unsupported(&fields)?;
        only_true(&fields, "truncate")?;
        if fields.flag("raw_scores")? == Some(true) {
            let message = "`raw_scores` is true, and labels have probabilities here: leave it out";
            return Err(ApiError::invalid("raw_scores", message));
        }
        let missing = || ApiError::invalid("inputs", "`inputs` is missing: send a string");
        let raw = fields.raw("inputs").ok_or_else(missing)?;
        let (inputs, is_single) = match kind(raw) {
            Kind::Text => (vec![text("inputs", raw)?], true),
            Kind::List => sequences(raw, inputs_max)?,
            _ => return Err(unexpected("inputs", raw, "a string or a list")),
        };
        Ok(Self { model: fields.text("model")?, inputs, is_single })
    }
}

/// The texts of a list, and whether it stands for one text.
fn sequences(list: &RawValue, inputs_max: usize) -> Result<(Vec<String>, bool), ApiError> {
    let mut inputs = Vec::new();
    let mut singles = 0_usize;
    each("inputs", list, inputs_max, |index, element| {
        let name = format!("inputs[{index}]");
        if kind(element) == Kind::Text {
            singles += 1;
            inputs.push(text(&name, element)?);
            return Ok(());
        }
        let mut sequence = texts(&name, element, 2)?;
        if sequence.len() > 1 {
            return Err(pair(&name));
        }
        inputs.append(&mut sequence);
        Ok(())
    })?;
    match (singles, inputs.len()) {
        (0, _) => Ok((inputs, false)),
        (1, 1) => Ok((inputs, true)),
        // In TEI two strings are one pair of texts, and not two texts.
        _ => Err(pair("inputs")),
    }
}

fn pair(name: &str) -> ApiError {
    let message = format!(
        "`{name}` is a pair of texts, which is not supported: send a batch as [[\"text\"], [\"text\"]], or to rank \
         texts use /rerank"
    );
    ApiError::invalid("inputs", message)
}

/// Refuses fields that would change the answer and are not supported.
fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), ApiError> {
    if fields.raw("prompt_name").is_some() {
        let message = "`prompt_name` is not supported: put the prompt in front of the text";
        return Err(ApiError::invalid("prompt_name", message));
    }
    let direction = fields.text("truncation_direction")?;
    if direction.is_some_and(|direction| !direction.eq_ignore_ascii_case("right")) {
        let message = "`truncation_direction` is not `right`: texts are cut at their end only";
        return Err(ApiError::invalid("truncation_direction", message));
    }
    Ok(())
}

/// The answer to a request for vectors: a bare list of them.
pub fn vectors(rows: &[&[f32]]) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(rows)
}

/// One value of a sparse vector.
#[derive(Serialize, JsonSchema)]
pub struct SparseValue {
    /// The token that it is for.
    index: u32,
    value: f32,
}

/// The answer to a request for sparse vectors: a list of their values for each.
pub fn sparse_vectors(vectors: &[SparseVector]) -> serde_json::Result<Vec<u8>> {
    let values = |vector: &SparseVector| -> Vec<SparseValue> {
        let pairs = vector.indices.iter().zip(&vector.values);
        pairs.map(|(index, value)| SparseValue { index: *index, value: *value }).collect()
    };
    serde_json::to_vec(&vectors.iter().map(values).collect::<Vec<_>>())
}

/// The answer to a request for labels: all labels of each text, best first; a flat list if it was one text.
pub fn labels(labels: &[Vec<LabelScore>], is_single: bool) -> serde_json::Result<Vec<u8>> {
    match labels {
        [only] if is_single => serde_json::to_vec(only),
        all => serde_json::to_vec(all),
    }
}

/// All labels of each text, best first: a flat list for one text, a list of lists for a batch.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Labels {
    /// Of one text.
    Flat(Vec<LabelScore>),
    /// Of a batch.
    Batch(Vec<Vec<LabelScore>>),
}

/// The answer of `GET /info`: the fields of TEI's that are known here.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Info<'a> {
    /// The model of requests for vectors that name none.
    model_id: &'a str,
    /// The gateway's version.
    version: &'static str,
    /// The most texts in one request.
    max_client_batch_size: usize,
    /// Texts that are too long are cut unless a request says otherwise.
    auto_truncate: bool,
}

/// `GET /info` of `model`.
pub fn info(model: &str, inputs_max: usize) -> Info<'_> {
    let version = env!("CARGO_PKG_VERSION");
    Info { model_id: model, version, max_client_batch_size: inputs_max, auto_truncate: true }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn predict(inputs: &Value) -> Result<PredictRequest, ApiError> {
        let body = json!({"inputs": inputs}).to_string();
        PredictRequest::parse(body.as_bytes(), 3)
    }

    #[test]
    fn vectors_are_cut_and_scaled_unless_the_client_says_otherwise() {
        let parsed = |body: Value| EmbedRequest::parse(body.to_string().as_bytes(), 9);
        let plain = parsed(json!({"inputs": "x", "parameters": {"y": 1}})).unwrap();
        assert_eq!((plain.inputs, plain.params), (vec!["x".to_owned()], EmbedParams::default()));
        let asked = json!({"inputs": ["x"], "normalize": false, "truncate": false,
                           "dimensions": 8, "truncation_direction": "Right"});
        let expected = EmbedParams { normalize: false, truncate: false, dimensions: Some(8) };
        assert_eq!(parsed(asked).unwrap().params, expected);
        for (field, value) in [("prompt_name", "query"), ("truncation_direction", "left")] {
            let error = parsed(json!({"inputs": "x", field: value})).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(field));
        }
    }

    #[test]
    fn texts_to_classify_are_one_or_a_batch_and_a_pair_is_refused() {
        let read = |inputs: Value| predict(&inputs).map(|read| (read.inputs, read.is_single));
        assert_eq!(read(json!("a")).unwrap(), (vec!["a".to_owned()], true));
        assert_eq!(read(json!(["a"])).unwrap(), (vec!["a".to_owned()], true));
        let batch = (vec!["a".to_owned(), "b".to_owned()], false);
        assert_eq!(read(json!([["a"], ["b"]])).unwrap(), batch);
        assert_eq!(read(json!([["a"]])).unwrap(), (vec!["a".to_owned()], false));
        for wrong in
            [json!(["a", "b"]), json!([["a", "b"]]), json!([["a"], "b"]), json!([]), json!(1)]
        {
            let error = predict(&wrong).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("inputs"), "{wrong}: {error}");
        }
    }

    #[test]
    fn answers_have_teis_shapes() {
        let read = |bytes: serde_json::Result<Vec<u8>>| -> Value {
            serde_json::from_slice(&bytes.unwrap()).unwrap()
        };
        assert_eq!(read(vectors(&[&[1.0, 2.0], &[3.0, 4.0]])), json!([[1.0, 2.0], [3.0, 4.0]]));
        let sparse = [SparseVector { indices: vec![7, 9], values: vec![0.5, 0.25] }];
        let expected = json!([[{"index": 7, "value": 0.5}, {"index": 9, "value": 0.25}]]);
        assert_eq!(read(sparse_vectors(&sparse)), expected);
        let scored = [vec![LabelScore { label: "l".into(), score: 0.5 }]];
        assert_eq!(read(labels(&scored, true)), json!([{"label": "l", "score": 0.5}]));
        assert_eq!(read(labels(&scored, false)), json!([[{"label": "l", "score": 0.5}]]));
    }
}
