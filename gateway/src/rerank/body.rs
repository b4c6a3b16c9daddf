//! The bodies of requests for a ranking, as the document has them.

use schemars::JsonSchema;

use crate::inputs::RankedDocument;

/// The body of a request with `documents`, as the document has it.
#[derive(JsonSchema)]
pub struct RerankBody {
    /// The model; may be left out where `gateway.rerank_model` names one, or the fleet has only one.
    pub model: Option<String>,
    /// The query.
    pub query: String,
    /// The documents, to be ranked by how well they fit the query.
    #[schemars(length(min = 1))]
    pub documents: Vec<RankedDocument>,
    /// Answer with only this many, the best first.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub top_n: Option<u32>,
    /// Voyage's `top_n`; the answer has Voyage's shape then.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub top_k: Option<u32>,
    /// Answer with the documents' texts too.
    pub return_documents: Option<bool>,
    /// Answer with the model's own scores instead of numbers from 0 to 1.
    pub raw_scores: Option<bool>,
    /// Texts that are longer than the model reads are always cut.
    #[schemars(extend("enum" = [true, null]))]
    pub truncate: Option<bool>,
    /// Voyage's `truncate`; the answer has Voyage's shape then.
    #[schemars(extend("enum" = [true, null]))]
    pub truncation: Option<bool>,
    /// The most tokens of a document. One that may have more is refused: documents are cut to what the model reads.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub max_tokens_per_doc: Option<u32>,
    /// Not supported.
    #[schemars(extend("type" = "null"))]
    pub rank_fields: Option<bool>,
    /// TEI's `documents`, at `/rerank` alone, and not beside these.
    #[schemars(extend("type" = "null"))]
    pub texts: Option<bool>,
}

/// The body of a request with `texts`, as TEI's clients send it.
#[derive(JsonSchema)]
pub struct TeiRerankBody {
    /// The model; may be left out where `gateway.rerank_model` names one, or the fleet has only one.
    pub model: Option<String>,
    /// The query.
    pub query: String,
    /// The texts, to be ranked by how well they fit the query.
    #[schemars(length(min = 1))]
    pub texts: Vec<String>,
    /// Answer with only this many, the best first.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub top_n: Option<u32>,
    /// Answer with the texts too.
    pub return_text: Option<bool>,
    /// Answer with the model's own scores instead of numbers from 0 to 1.
    pub raw_scores: Option<bool>,
    /// Texts that are longer than the model reads are always cut.
    #[schemars(extend("enum" = [true, null]))]
    pub truncate: Option<bool>,
    /// Means `truncate`.
    #[schemars(extend("enum" = [true, null]))]
    pub truncation: Option<bool>,
    /// The most tokens of a document. One that may have more is refused: documents are cut to what the model reads.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub max_tokens_per_doc: Option<u32>,
    /// Not supported.
    #[schemars(extend("type" = "null"))]
    pub rank_fields: Option<bool>,
}

/// The body of a request to `/rerank`.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum BareRerankBody {
    /// As everywhere.
    Documents(RerankBody),
    /// As TEI's clients send it.
    Texts(TeiRerankBody),
}
