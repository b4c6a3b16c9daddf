//! How the texts of each task are read.

use std::{
    sync::{Arc, OnceLock},
    vec,
};

use forebay_engine::{EngineError, FirstOfPairs, Tokenizer, Tokens};
use forebay_schemas::{
    ErrorCode, JobError, SparseParams, TokensParams, Work, limits::TOKEN_VECTORS_BYTES_MAX,
};

use crate::in_flight::InFlight;

/// Takes the texts out of a job, and says how they are read.
pub(super) fn texts_of(work: &mut Work, dim: usize) -> Result<(Reading, Vec<String>), JobError> {
    match work {
        Work::Embed { input, params } => {
            if let Some(dimensions) = params.dimensions.filter(|&wanted| wanted as usize > dim) {
                let message = format!("`dimensions` is {dimensions}, the model has {dim}");
                return Err(JobError::invalid(message));
            }
            let reading = if params.truncate { Reading::Cut } else { Reading::Whole };
            Ok((reading, std::mem::take(input)))
        }
        Work::EmbedSparse { input, params: SparseParams { truncate, .. } }
        | Work::EmbedTokens { input, params: TokensParams { truncate, .. } } => {
            let reading = if *truncate { Reading::Cut } else { Reading::Whole };
            Ok((reading, std::mem::take(input)))
        }
        Work::Classify { input } => Ok((Reading::Cut, std::mem::take(input))),
        Work::Rerank { query, documents, .. } => {
            let query = Query { text: std::mem::take(query), tokens: OnceLock::new() };
            Ok((Reading::Pairs(Arc::new(query)), std::mem::take(documents)))
        }
        // Admission lets only the model's task through, and no encoder generates.
        Work::Generate { .. } => {
            Err(JobError::new(ErrorCode::TaskNotSupported, "this model does not generate"))
        }
    }
}

/// How a job's texts are read.
#[derive(Clone)]
pub(super) enum Reading {
    /// Each as far as the model reads.
    Cut,
    /// Each whole, or not at all.
    Whole,
    /// Each as the second of a pair.
    Pairs(Arc<Query>),
}

/// The first text of a job's pairs. It is tokenized once, with the job's first handful.
pub(super) struct Query {
    pub(super) text: String,
    tokens: OnceLock<Result<FirstOfPairs, JobError>>,
}

/// Refuses a job of more token vectors than a result may have.
pub(super) fn check_vectors(job: &InFlight, tokens: u64, dim: usize) -> Result<(), JobError> {
    let bytes = tokens.saturating_mul(dim as u64).saturating_mul(4);
    if !matches!(job.job.work, Work::EmbedTokens { .. }) || bytes <= TOKEN_VECTORS_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "the job's texts have {tokens} tokens or more, whose vectors of {dim} values take {bytes} bytes; a job may \
         have {TOKEN_VECTORS_BYTES_MAX}: split it into several"
    );
    Err(JobError::new(ErrorCode::PayloadTooLarge, message))
}

/// Tokenizes texts of which the first is the job's input `first`; an error names its index.
pub(super) fn encode(
    tokenizer: &Tokenizer,
    reading: &Reading,
    first: usize,
    texts: vec::IntoIter<String>,
) -> Result<Vec<Tokens>, JobError> {
    let query = match reading {
        Reading::Pairs(query) => {
            let tokens = query.tokens.get_or_init(|| {
                tokenizer.first_of_pairs(&query.text).map_err(|error| not_tokenized(&error))
            });
            Some(tokens.as_ref().map_err(JobError::clone)?)
        }
        Reading::Cut | Reading::Whole => None,
    };
    let encoded = texts.enumerate().map(|(index, text)| {
        let tokens = match (query, reading) {
            (Some(query), _) => tokenizer.encode_pair(query, &text),
            (None, Reading::Whole) => tokenizer.encode_untruncated(&text),
            (None, _) => tokenizer.encode(&text),
        };
        tokens.map_err(|error| not_tokenized(&error).at(first + index))
    });
    encoded.collect()
}

fn not_tokenized(error: &EngineError) -> JobError {
    let code = match error {
        EngineError::InputTooLong { .. } | EngineError::TextTooLarge { .. } => {
            ErrorCode::InputTooLong
        }
        _ => ErrorCode::Internal,
    };
    JobError::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use forebay_schemas::{Job, Lane};
    use tokio::time::Instant;

    use super::*;
    use crate::{job::Admitted, testing};

    #[test]
    fn a_job_of_more_token_vectors_than_a_result_holds_is_refused_and_none_of_another_task() {
        let check = |work, tokens| {
            let job = Job::new("m".parse().unwrap(), work);
            let admitted = Admitted {
                ticket: testing::ticket(job.id.clone()),
                job,
                lane: Lane::Batch,
                queued_ms: 0,
                at: Instant::now(),
            };
            check_vectors(&InFlight::new(admitted, 1), tokens, 128).map_err(|error| error.code)
        };
        let tokens_max = TOKEN_VECTORS_BYTES_MAX / 4 / 128;
        let tokens = || Work::EmbedTokens { input: Vec::new(), params: TokensParams::default() };
        assert_eq!(check(tokens(), tokens_max), Ok(()));
        assert_eq!(check(tokens(), tokens_max + 1), Err(ErrorCode::PayloadTooLarge));
        assert_eq!(check(tokens(), u64::MAX), Err(ErrorCode::PayloadTooLarge));
        assert_eq!(check(Work::Classify { input: Vec::new() }, u64::MAX), Ok(()));
    }
}
