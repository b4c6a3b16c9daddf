//! The engine's rows for the texts, in the shape that the libraries give theirs.

use forebay_engine::{EngineError, Finish, InputType, Model, ModelTask, PackedBatch, Tokens};

/// The names of what is compared, one for each row: the texts, of token vectors first as documents and then as queries.
pub(super) fn names(task: ModelTask, texts: &[String]) -> Vec<String> {
    if task != ModelTask::EmbedTokens {
        return texts.to_vec();
    }
    let as_kind = |kind: &'static str| texts.iter().map(move |text| format!("{kind}: {text}"));
    as_kind("document").chain(as_kind("query")).collect()
}

/// The rows of the texts, or of the pairs where there are any. A sparse vector is written out, zeros and all.
pub(super) fn rows(
    model: &mut Model,
    texts: &[String],
    pairs: &[[String; 2]],
) -> Result<Vec<Vec<f32>>, EngineError> {
    let mut rows = Vec::new();
    let task = model.info.task;
    let dim = model.info.dim;
    let mut compute = |input_type, tokens: Tokens| {
        let mut batch = PackedBatch::new();
        if task == ModelTask::EmbedTokens {
            batch.push_as(input_type, &tokens.ids, tokens.first_len, Finish::default());
        } else {
            batch.push_pair(&tokens.ids, tokens.first_len, Finish::default());
        }
        let row = model.engine.encoder()?.compute(&batch)?.data;
        rows.push(if task == ModelTask::EmbedSparse { written_out(&row, dim) } else { row });
        Ok::<_, EngineError>(())
    };
    let tokenizer = &model.tokenizer;
    let kinds: &[InputType] = match task {
        ModelTask::EmbedTokens => &[InputType::Document, InputType::Query],
        _ => &[InputType::Document],
    };
    if pairs.is_empty() {
        for kind in kinds {
            let tokenizer = tokenizer.of(*kind);
            texts.iter().try_for_each(|text| compute(*kind, tokenizer.encode(text)?))?;
        }
    } else {
        pairs.iter().try_for_each(|[query, document]| {
            let first = tokenizer.first_of_pairs(query)?;
            compute(InputType::Document, tokenizer.encode_pair(&first, document)?)
        })?;
    }
    Ok(rows)
}

/// The tokens of the pairs.
pub(super) fn ids(model: &Model, pairs: &[[String; 2]]) -> Result<Vec<Vec<u32>>, EngineError> {
    let tokens = |[query, document]: &[String; 2]| {
        let first = model.tokenizer.first_of_pairs(query)?;
        Ok(model.tokenizer.encode_pair(&first, document)?.ids)
    };
    pairs.iter().map(tokens).collect()
}

/// All `dim` values of a sparse vector, of which the row has pairs of a dimension and its value.
fn written_out(row: &[f32], dim: usize) -> Vec<f32> {
    let mut values = vec![0.0; dim];
    for pair in row.chunks_exact(2) {
        values[pair[0] as usize] = pair[1];
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_vectors_are_written_out_and_texts_of_both_kinds_are_named() {
        assert_eq!(written_out(&[1.0, 0.5, 3.0, 0.25], 5), [0.0, 0.5, 0.0, 0.25, 0.0]);
        let texts = ["a".to_owned()];
        assert_eq!(names(ModelTask::EmbedSparse, &texts), ["a"]);
        assert_eq!(names(ModelTask::EmbedTokens, &texts), ["document: a", "query: a"]);
    }
}
