//! Answers to requests for a ranking, in the shape of each client.

use forebay_schemas::JobId;
use schemars::JsonSchema;
use serde::Serialize;

use super::request::{RerankRequest, Shape};
use crate::openai::embeddings::Usage;

/// The documents' indices with their scores, the best first.
pub fn ranked(scores: &[f32], top_n: Option<u32>) -> Vec<(usize, f32)> {
    let mut ranked: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    // Stable: of equal scores the earlier document is first.
    ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    ranked.truncate(top_n.map_or(usize::MAX, |n| n as usize));
    ranked
}

/// The logistic function: rerankers score without bounds, and clients expect numbers from 0 to 1.
fn relevance(score: f32) -> f32 {
    (1.0 / (1.0 + f64::from(-score).exp())) as f32
}

/// A ranking as Cohere's and Jina's clients read it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ranking<'a> {
    id: JobId,
    #[schemars(extend("const" = "list"))]
    object: &'static str,
    /// The model that scored.
    model: &'a str,
    /// The best first.
    results: Vec<Ranked<'a>>,
    meta: Meta,
    usage: Usage,
}

/// A ranking as Voyage's client reads it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VoyageRanking<'a> {
    #[schemars(extend("const" = "list"))]
    object: &'static str,
    /// The best first.
    data: Vec<VoyageRanked<'a>>,
    /// The model that scored.
    model: &'a str,
    usage: VoyageUsage,
}

/// One document of a ranking.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ranked<'a> {
    /// The document's position in the request.
    index: usize,
    /// From 0 to 1, or the model's own with `raw_scores`.
    relevance_score: f32,
    /// The document, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Returned<'a>>,
}

/// One document of a ranking, as Voyage has it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VoyageRanked<'a> {
    /// The document's position in the request.
    index: usize,
    /// From 0 to 1, or the model's own with `raw_scores`.
    relevance_score: f32,
    /// The document, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<&'a str>,
}

/// The text of a document.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Returned<'a> {
    text: &'a str,
}

/// One text of a ranking, as TEI has it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TeiRanked<'a> {
    /// The text's position in the request.
    index: usize,
    /// From 0 to 1, or the model's own with `raw_scores`.
    score: f32,
    /// The text, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

/// The version of Cohere's API whose shape this is.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "RankingMeta")]
struct Meta {
    api_version: ApiVersion,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ApiVersion {
    version: String,
}

/// Tokens as Voyage counts them.
#[derive(Debug, Serialize, JsonSchema)]
struct VoyageUsage {
    total_tokens: u64,
}

/// The body of an answer, in the shape that was asked for.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "RankingAnswer")]
pub enum Answer<'a> {
    /// Cohere's, which Jina's clients read too.
    Cohere(Ranking<'a>),
    /// Voyage's.
    Voyage(VoyageRanking<'a>),
    /// That of text-embeddings-inference.
    Tei(Vec<TeiRanked<'a>>),
}

/// The body of the answer. `documents` are the texts, if they are wanted.
pub fn answer<'a>(
    request: &RerankRequest,
    model: &'a str,
    scores: &[f32],
    documents: Option<&'a [String]>,
    tokens: u64,
) -> Answer<'a> {
    let ranked = ranked(scores, request.top_n).into_iter();
    let score = |score| if request.raw_scores { score } else { relevance(score) };
    let text = |index: usize| documents.and_then(|all| all.get(index)).map(String::as_str);
    match request.shape {
        Shape::Cohere(version) => Answer::Cohere(Ranking {
            id: JobId::random(),
            object: "list",
            model,
            results: ranked
                .map(|(index, raw)| {
                    let document = text(index).map(|text| Returned { text });
                    Ranked { index, relevance_score: score(raw), document }
                })
                .collect(),
            meta: Meta { api_version: ApiVersion { version: version.to_string() } },
            usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
        }),
        Shape::Voyage => Answer::Voyage(VoyageRanking {
            object: "list",
            data: ranked
                .map(|(index, raw)| VoyageRanked {
                    index,
                    relevance_score: score(raw),
                    document: text(index),
                })
                .collect(),
            model,
            usage: VoyageUsage { total_tokens: tokens },
        }),
        Shape::Tei => Answer::Tei(
            ranked
                .map(|(index, raw)| TeiRanked { index, score: score(raw), text: text(index) })
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{error::ApiError, rerank::Path};

    fn parsed(body: &Value, path: Path) -> Result<RerankRequest, ApiError> {
        RerankRequest::parse(body.to_string().as_bytes(), path, 10)
    }

    fn asked(extra: &Value) -> Value {
        let mut body = json!({"model": "m", "query": "q", "documents": ["a", {"text": "b"}, "c"]});
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    }

    const SCORES: [f32; 3] = [-1.0, 4.0, 0.0];

    fn answered(body: &Value, path: Path) -> Value {
        let request = parsed(body, path).unwrap();
        let documents = request.with_documents.then_some(request.documents.as_slice());
        serde_json::to_value(answer(&request, "m", &SCORES, documents, 9)).unwrap()
    }

    #[test]
    fn cohere_and_jina_read_one_answer_sorted_and_cut() {
        let body =
            asked(&json!({"top_n": 2, "return_documents": true, "max_tokens_per_doc": null}));
        let answer = answered(&body, Path::V2);
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), 2);
        assert_eq!(results[0]["index"], 1);
        assert_eq!(results[0]["document"], json!({"text": "b"}));
        assert_eq!(results[1]["relevance_score"], 0.5);
        assert_eq!(answer["meta"]["api_version"]["version"], "2");
        assert_eq!(answer["usage"]["total_tokens"], 9);
        let without = answered(&asked(&json!({})), Path::V1);
        assert!(without["results"][0].get("document").is_none());
        assert_eq!(without["results"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn voyage_reads_data_and_total_tokens() {
        let body = asked(&json!({"top_k": 1, "truncation": true, "return_documents": true}));
        let answer = answered(&body, Path::V1);
        assert_eq!(answer["data"].as_array().unwrap().len(), 1);
        assert_eq!(answer["data"][0]["document"], "b");
        assert_eq!(answer["usage"], json!({"total_tokens": 9}));
    }

    #[test]
    fn tei_reads_a_bare_list_with_scores_of_its_choice() {
        let body = |raw| json!({"query": "q", "texts": ["a", "b", "c"], "raw_scores": raw, "return_text": true});
        let raw = answered(&body(true), Path::Bare);
        assert_eq!(raw[0], json!({"index": 1, "score": 4.0, "text": "b"}));
        let normal = answered(&body(false), Path::Bare);
        assert_eq!(normal[1]["score"], 0.5);
    }

    #[test]
    fn equal_scores_keep_the_documents_order() {
        assert_eq!(ranked(&[1.0, 2.0, 1.0], None), [(1, 2.0), (0, 1.0), (2, 1.0)]);
    }
}
