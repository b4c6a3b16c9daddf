//! The part of a decoder's head that scores of answers need: a row for each answer, of thousands that the head has.

use std::path::Path;

use candle_core::{DType as TensorType, Tensor};
use forebay_kernels::{Activation, Linear, Pooling};

use crate::encode::head::{ScoreFunction, Scores};
use crate::error::EngineError;
use crate::families::decoder_config::DecoderConfig;
use crate::families::decoder_tensors::Named;
use crate::load::logit_score::LogitScore;
use crate::load::options::DType;
use crate::load::tensors::Tensors;

/// Loads the head. `path` is the model's configuration.
pub(crate) fn load(
    path: &Path,
    config: &DecoderConfig,
    tensors: &dyn Tensors,
    answers: LogitScore,
) -> Result<Scores, EngineError> {
    let DecoderConfig { vocabulary, hidden, .. } = *config;
    if let Some(cap) = config.logit_cap {
        return Err(EngineError::NotSupported {
            path: path.to_owned(),
            field: "final_logit_softcapping",
            value: cap.to_string(),
            supported: "none, where scores are made of logits".to_owned(),
        });
    }
    let named = Named::new(tensors, DType::F32, config.adds_one, config.eps);
    let rows = named.table(&named.head(config.is_tied), [vocabulary, hidden])?;
    let row = |id: u32| {
        if id as usize >= vocabulary {
            let problem = format!("the answer {id} of LogitScore is none of {vocabulary} tokens");
            return Err(EngineError::Config { path: path.to_owned(), problem });
        }
        // A copy, so that the others' memory is free.
        Ok(rows.narrow(0, id as usize, 1)?.copy()?)
    };
    // The difference of two dot products with a state is its dot product with the rows' difference.
    let weight: Tensor = match answers.no {
        Some(no) => (row(answers.yes)? - row(no)?)?,
        None => row(answers.yes)?,
    };
    Ok(Scores {
        pooling: Pooling::Last,
        pad: None,
        dense: None,
        out: Linear::new(&weight, None, Activation::None, TensorType::F32)?,
        function: ScoreFunction::Raw,
    })
}
