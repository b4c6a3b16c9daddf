//! How the texts of each task are read.

use std::{
    sync::{Arc, OnceLock},
    vec,
};

use forebay_engine::{EngineError, FirstOfPairs, Tokenizer, Tokens};
use forebay_schemas::{
    EmbedParams, ErrorCode, JobError, SparseParams, TokensParams, Work,
    limits::TOKEN_VECTORS_BYTES_MAX,
};

use crate::in_flight::InFlight;

/// One input of a job before it is computed.
pub(super) enum Input {
    Text(String),
    /// The model's own token ids.
    Ids(Vec<u32>),
}

impl Input {
    /// Its share of a handful, in bytes of text; an empty one is work too. Ids are as good as tokenized.
    pub(super) fn weight(&self) -> usize {
        self.text_bytes().max(1)
    }

    /// Bytes that have to be tokenized.
    pub(super) fn text_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Ids(_) => 0,
        }
    }
}

/// Takes the inputs out of a job for a model of so many dimensions and token ids, and says how they are read.
pub(super) fn inputs_of(
    work: &mut Work,
    dim: usize,
    vocabulary: usize,
) -> Result<(Reading, Vec<Input>), JobError> {
    if let Work::EmbedIds { input_ids, params } = work {
        check_dimensions(params, dim)?;
        check_ids(input_ids, vocabulary)?;
        let inputs = std::mem::take(input_ids).into_iter().map(Input::Ids).collect();
        return Ok((if params.truncate { Reading::Cut } else { Reading::Whole }, inputs));
    }
    let (reading, texts) = texts_of(work, dim)?;
    Ok((reading, texts.into_iter().map(Input::Text).collect()))
}

fn check_dimensions(params: &EmbedParams, dim: usize) -> Result<(), JobError> {
    match params.dimensions.filter(|&wanted| wanted as usize > dim) {
        Some(wanted) => {
            Err(JobError::invalid(format!("`dimensions` is {wanted}, the model has {dim}")))
        }
        None => Ok(()),
    }
}

/// Refuses ids that the model can't have: they are those of another tokenizer.
fn check_ids(input_ids: &[Vec<u32>], vocabulary: usize) -> Result<(), JobError> {
    for (index, ids) in input_ids.iter().enumerate() {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            let message = format!(
                "the token id {id} is none of this model, whose ids are those below {vocabulary}: send the ids of the \
                 model's own tokenizer, or texts"
            );
            return Err(JobError::invalid(message).at(index));
        }
    }
    Ok(())
}

/// Takes the texts out of a job, and says how they are read.
fn texts_of(work: &mut Work, dim: usize) -> Result<(Reading, Vec<String>), JobError> {
    match work {
        Work::Embed { input, params } => {
            check_dimensions(params, dim)?;
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
        // Admission lets only the model's task through, and no encoder generates; ids are no texts.
        Work::EmbedIds { .. } | Work::Generate { .. } => {
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

/// Tokenizes inputs of which the first is the job's input `first`; an error names its index.
pub(super) fn encode(
    tokenizer: &Tokenizer,
    reading: &Reading,
    first: usize,
    inputs: vec::IntoIter<Input>,
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
    let encoded = inputs.enumerate().map(|(index, input)| {
        let tokens = match (input, query, reading) {
            (Input::Text(text), Some(query), _) => tokenizer.encode_pair(query, &text),
            (Input::Text(text), None, Reading::Whole) => tokenizer.encode_untruncated(&text),
            (Input::Text(text), None, _) => tokenizer.encode(&text),
            (Input::Ids(ids), _, Reading::Whole) => tokenizer.whole_ids(ids),
            (Input::Ids(ids), _, _) => tokenizer.cut_ids(ids),
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

    fn ids(input_ids: Vec<Vec<u32>>, dimensions: Option<u32>) -> Work {
        Work::EmbedIds { input_ids, params: EmbedParams { dimensions, ..EmbedParams::default() } }
    }

    #[test]
    fn ids_that_the_model_does_not_have_are_refused_by_their_sequence() {
        assert!(inputs_of(&mut ids(vec![vec![0, 99]], Some(8)), 8, 100).is_ok());
        let foreign = inputs_of(&mut ids(vec![vec![1], vec![2, 100]], None), 8, 100).err().unwrap();
        assert_eq!((foreign.code, foreign.index), (ErrorCode::InvalidRequest, Some(1)));
        assert!(
            foreign.message.starts_with("the token id 100 is none of this model"),
            "{foreign:?}"
        );
        let wide = inputs_of(&mut ids(vec![vec![1]], Some(9)), 8, 100).err().unwrap();
        assert_eq!(wide.message, "`dimensions` is 9, the model has 8");
    }

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
