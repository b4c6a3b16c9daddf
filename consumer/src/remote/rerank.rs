//! Cohere's and Jina's `/rerank`: the body of a request, and its answer. Pure.

use forebay_fabric::config::RemoteScores;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Unusable, ordered};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    query: &'a str,
    documents: &'a [String],
    top_n: usize,
    return_documents: bool,
}

/// The body that asks for the scores of these documents, all of them.
pub fn body(model: &str, query: &str, documents: &[String]) -> serde_json::Result<Vec<u8>> {
    let top_n = documents.len();
    serde_json::to_vec(&Body { model, query, documents, top_n, return_documents: false })
}

#[derive(Deserialize)]
struct Read {
    results: Vec<Scored>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Scored {
    index: usize,
    relevance_score: f32,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    total_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    tokens: Option<MetaTokens>,
}

#[derive(Deserialize)]
struct MetaTokens {
    #[serde(default)]
    input_tokens: Option<f64>,
}

/// Reads the answer for so many documents: a row of one score for each.
pub fn read(body: &[u8], documents: usize, scale: RemoteScores) -> Result<Answer, Unusable> {
    let read: Read =
        serde_json::from_slice(body).map_err(|error| Unusable::Unreadable(error.to_string()))?;
    let mut rows = Vec::with_capacity(read.results.len());
    for Scored { index, relevance_score } in read.results {
        let score = match scale {
            RemoteScores::Raw => relevance_score,
            RemoteScores::Relevance => logit(relevance_score)?,
        };
        rows.push((Some(index), vec![score]));
    }
    let of_usage = read.usage.and_then(|usage| usage.total_tokens);
    let of_meta = || read.meta?.tokens?.input_tokens.map(|tokens| tokens as u64);
    Ok(Answer::new(ordered(rows, documents)?, of_usage.or_else(of_meta)))
}

/// The score without bounds whose logistic function is this one: scores of this fleet are a model's own, and the
/// gateway makes numbers from 0 to 1 of them.
fn logit(relevance: f32) -> Result<f32, Unusable> {
    if !(0.0..=1.0).contains(&relevance) {
        return Err(Unusable::Scale(relevance.to_string()));
    }
    // At 0 and 1 it would be infinite; nearer to them than this no two floats below 1 are apart.
    let bounded = f64::from(relevance)
        .clamp(f64::from(f32::EPSILON) / 4.0, 1.0 - f64::from(f32::EPSILON) / 4.0);
    Ok((bounded / (1.0 - bounded)).ln() as f32)
}

/// The documents' indices, the best first; of equal scores the earlier document.
pub fn order(scores: &[f32], top_n: Option<u32>) -> Vec<u32> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
    order.truncate(top_n.map_or(usize::MAX, |top_n| top_n as usize));
    order
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read_json(body: &Value, scale: RemoteScores) -> Result<Answer, Unusable> {
        read(body.to_string().as_bytes(), 2, scale)
    }

    #[test]
    fn a_request_asks_for_the_scores_of_all_documents() {
        let bytes = body("m", "q", &["a".into(), "b".into()]).unwrap();
        let written: Value = serde_json::from_slice(&bytes).unwrap();
        let expected = json!({"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 2,
                              "return_documents": false});
        assert_eq!(written, expected);
    }

    #[test]
    fn scores_come_back_in_the_documents_order_and_on_this_fleet_s_scale() {
        let results =
            json!([{"index": 1, "relevance_score": 0.75}, {"index": 0, "relevance_score": 0.5}]);
        let jina = json!({"results": results, "usage": {"total_tokens": 9}});
        let answer = read_json(&jina, RemoteScores::Relevance).unwrap();
        let relevance: Vec<f32> =
            answer.rows.iter().map(|row| 1.0 / (1.0 + (-row[0]).exp())).collect();
        assert!(
            (relevance[0] - 0.5).abs() < 1e-6 && (relevance[1] - 0.75).abs() < 1e-6,
            "{answer:?}"
        );
        assert_eq!(answer.tokens, Some(9));
        let cohere = json!({"results": results, "meta": {"tokens": {"input_tokens": 12.0}}});
        assert_eq!(read_json(&cohere, RemoteScores::Raw).unwrap().tokens, Some(12));
        assert_eq!(read_json(&cohere, RemoteScores::Raw).unwrap().rows, [[0.5], [0.75]]);
    }

    #[test]
    fn a_score_off_the_scale_is_refused_and_its_ends_stay_finite() {
        let results = |score: f64| {
            json!({"results": [{"index": 0, "relevance_score": score},
                                                      {"index": 1, "relevance_score": 0.0}]})
        };
        let error = read_json(&results(3.5), RemoteScores::Relevance).unwrap_err().to_string();
        assert!(error.contains("scores = \"raw\""), "{error}");
        let ends = read_json(&results(1.0), RemoteScores::Relevance).unwrap().rows;
        assert!(
            ends[0][0].is_finite() && ends[1][0].is_finite() && ends[0][0] > ends[1][0],
            "{ends:?}"
        );
    }

    #[test]
    fn documents_are_ordered_by_score_and_only_the_best_are_named_where_that_is_asked_for() {
        let scores = [-1.0, 3.0, 0.5, 3.0];
        assert_eq!(order(&scores, None), [1, 3, 2, 0]);
        assert_eq!(order(&scores, Some(2)), [1, 3]);
    }
}
