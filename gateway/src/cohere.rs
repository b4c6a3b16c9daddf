//! Cohere's `/v1/embed` and `/v2/embed`: requests for vectors and their answers. Its rankings are in [`crate::rerank`].

use forebay_schemas::{EmbedParams, JobId};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    error::ApiError,
    fields::{Fields, each, text, texts},
};

/// The body of a request, as the document has it.
#[derive(JsonSchema)]
#[schemars(rename = "CohereEmbedBody")]
pub struct CohereBody {
    /// The model; may be left out where `gateway.embed_model` names one, or the fleet has only one.
    pub model: Option<String>,
    /// The texts.
    #[schemars(length(min = 1))]
    pub texts: Vec<String>,
    /// The types of the vectors: `float` alone. In the first version an answer names the type only if this is there.
    #[schemars(length(min = 1, max = TYPES_MAX))]
    pub embedding_types: Option<Vec<VectorType>>,
    /// Cut texts that are longer than the model reads at their end, which is what happens unless set, or refuse them.
    pub truncate: Option<Cut>,
    /// Keep only this many of the first dimensions.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub output_dimension: Option<u32>,
    /// Not supported.
    #[schemars(extend("type" = "null"))]
    pub images: Option<bool>,
    /// Not supported.
    #[schemars(extend("type" = "null"))]
    pub inputs: Option<bool>,
    /// Not supported.
    #[schemars(extend("type" = "null"))]
    pub max_tokens: Option<bool>,
}

/// A type of vectors.
#[derive(JsonSchema)]
#[schemars(rename = "CohereVectorType", rename_all = "lowercase")]
pub enum VectorType {
    /// Lists of numbers.
    Float,
}

/// The fate of a text that is too long.
#[derive(JsonSchema)]
#[schemars(rename = "CohereTruncate", rename_all = "UPPERCASE")]
pub enum Cut {
    /// It is cut at its end.
    End,
    /// It is refused.
    None,
}

/// A request for vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedRequest {
    /// The model as the client named it.
    pub model: Option<String>,
    /// The texts.
    pub texts: Vec<String>,
    /// How vectors are made of them.
    pub params: EmbedParams,
    /// The version of the interface.
    version: Version,
    /// Whether the answer names the type of the vectors: always in the second version, in the first if it is asked for.
    is_by_type: bool,
}

/// The version of Cohere's interface that a request came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `/v1/embed`
    V1,
    /// `/v2/embed`
    V2,
}

/// The fields that `parse` reads.
pub const NAMES: [&str; 8] = [
    "model",
    "texts",
    "embedding_types",
    "truncate",
    "output_dimension",
    "images",
    "inputs",
    "max_tokens",
];
/// `float`, and those that are refused.
const TYPES_MAX: usize = 8;

impl EmbedRequest {
    /// Reads a body with at most `texts_max` texts.
    pub fn parse(body: &[u8], version: Version, texts_max: usize) -> Result<Self, ApiError> {
        let fields = Fields::scan(body, &NAMES)?;
        for name in ["images", "inputs", "max_tokens"] {
            if fields.raw(name).is_some() {
                let message = format!("`{name}` is not supported: send `texts`, a list of strings");
                return Err(ApiError::invalid(name, message));
            }
        }
        let types = fields.raw("embedding_types");
        if let Some(types) = types {
            only_float(types)?;
        }
        let missing = || ApiError::invalid("texts", "`texts` is missing: send a list of strings");
        let params = EmbedParams {
            truncate: cuts(&fields)?,
            dimensions: fields.count("output_dimension")?,
            ..EmbedParams::default()
        };
        Ok(Self {
            model: fields.text("model")?,
            texts: texts("texts", fields.raw("texts").ok_or_else(missing)?, texts_max)?,
            params,
            version,
            is_by_type: version == Version::V2 || types.is_some(),
        })
    }
}

/// Refuses every type of vector but `float`: the others would have to be quantized.
fn only_float(types: &RawValue) -> Result<(), ApiError> {
    each("embedding_types", types, TYPES_MAX, |index, element| {
        let came = text(&format!("embedding_types[{index}]"), element)?;
        if came == "float" {
            return Ok(());
        }
        let came: String = came.chars().take(40).collect();
        let message = format!("`embedding_types[{index}]` is `{came}`: send `float`");
        Err(ApiError::invalid("embedding_types", message))
    })
}

/// Whether a text that is too long is cut at its end, or else refused.
fn cuts(fields: &Fields<'_>) -> Result<bool, ApiError> {
    match fields.text("truncate")?.as_deref() {
        None | Some("END") => Ok(true),
        Some("NONE") => Ok(false),
        Some(other) => {
            let came: String = other.chars().take(40).collect();
            let message = format!("`truncate` is `{came}`: send `END` or `NONE`");
            Err(ApiError::invalid("truncate", message))
        }
    }
}

/// The form of the answer that a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    version: Version,
    is_by_type: bool,
}

impl From<&EmbedRequest> for Shape {
    fn from(request: &EmbedRequest) -> Self {
        Self { version: request.version, is_by_type: request.is_by_type }
    }
}

/// One vector for each text, in their order.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CohereEmbeddings")]
pub struct Answer<'a> {
    /// The answer's id.
    id: JobId,
    /// The shape of `embeddings`.
    #[schemars(extend("enum" = ["embeddings_floats", "embeddings_by_type"]))]
    response_type: &'static str,
    embeddings: Embeddings<'a>,
    /// The texts that were sent.
    texts: &'a [String],
    meta: Meta,
}

/// The vectors.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "CohereVectors")]
enum Embeddings<'a> {
    /// Without their type, in the first version.
    Floats(Vec<&'a [f32]>),
    /// By their type.
    ByType {
        /// Lists of numbers.
        float: Vec<&'a [f32]>,
    },
}

/// About the answer.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CohereEmbedMeta")]
struct Meta {
    api_version: ApiVersion,
    billed_units: BilledUnits,
}

/// The version of the interface.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CohereEmbedVersion")]
struct ApiVersion {
    #[schemars(extend("enum" = ["1", "2"]))]
    version: &'static str,
}

/// The size of a request.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CohereEmbedUnits")]
struct BilledUnits {
    /// The tokens that the model read.
    input_tokens: u64,
}

/// The body of the answer: one vector for each of `texts`, in their order.
pub fn answer(
    shape: Shape,
    texts: &[String],
    float: Vec<&[f32]>,
    tokens: u64,
) -> serde_json::Result<Vec<u8>> {
    let (response_type, embeddings) = if shape.is_by_type {
        ("embeddings_by_type", Embeddings::ByType { float })
    } else {
        ("embeddings_floats", Embeddings::Floats(float))
    };
    let version = if shape.version == Version::V1 { "1" } else { "2" };
    let meta = Meta {
        api_version: ApiVersion { version },
        billed_units: BilledUnits { input_tokens: tokens },
    };
    serde_json::to_vec(&Answer { id: JobId::random(), response_type, embeddings, texts, meta })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(body: &Value, version: Version) -> Result<EmbedRequest, ApiError> {
        EmbedRequest::parse(body.to_string().as_bytes(), version, 3)
    }

    #[test]
    fn a_request_of_cohere_s_client_is_read() {
        let body = json!({"model": "m", "texts": ["a", ""], "input_type": "search_document",
                          "embedding_types": ["float"], "truncate": "NONE", "output_dimension": 8});
        let request = parsed(&body, Version::V2).unwrap();
        let params = EmbedParams { truncate: false, dimensions: Some(8), ..EmbedParams::default() };
        assert_eq!((request.texts.len(), &request.params), (2, &params));
        let plain = parsed(&json!({"model": "m", "texts": ["a"]}), Version::V1).unwrap();
        assert_eq!((plain.params, plain.is_by_type), (EmbedParams::default(), false));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_its_field() {
        for (extra, field) in [
            (json!({"embedding_types": ["float", "int8"]}), "embedding_types"),
            (json!({"embedding_types": "float"}), "embedding_types"),
            (json!({"truncate": "START"}), "truncate"),
            (json!({"images": []}), "images"),
            (json!({"inputs": []}), "inputs"),
            (json!({"texts": "a"}), "texts"),
            (json!({"texts": ["a", "b", "c", "d"]}), "texts"),
            (json!({"texts": null}), "texts"),
        ] {
            let mut body = json!({"model": "m", "texts": ["a"]});
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let error = parsed(&body, Version::V2).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(field), "{body}");
        }
    }

    #[test]
    fn the_answer_names_the_type_where_it_was_asked_for() {
        let texts = ["a".to_owned(), "b".to_owned()];
        let rows: [&[f32]; 2] = [&[0.1, -1.0], &[0.25, 3.0]];
        let written = |version, is_by_type| -> Value {
            let bytes = answer(Shape { version, is_by_type }, &texts, rows.to_vec(), 7).unwrap();
            serde_json::from_slice(&bytes).unwrap()
        };
        let vectors = json!([[0.1, -1.0], [0.25, 3.0]]);
        let plain = written(Version::V1, false);
        assert_eq!((&plain["embeddings"], &plain["texts"]), (&vectors, &json!(texts)));
        assert_eq!(plain["response_type"], "embeddings_floats");
        let by_type = written(Version::V2, true);
        assert_eq!(by_type["embeddings"], json!({"float": vectors}));
        assert_eq!(by_type["response_type"], "embeddings_by_type");
        assert_eq!(by_type["meta"]["billed_units"]["input_tokens"], 7);
    }
}
