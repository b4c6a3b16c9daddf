//! A job's rows as the output of its task.

use forebay_schemas::{
    EmbedOutput, ErrorCode, JobError, LabelScore, Output, SparseOutput, SparseVector, TokensOutput,
    Work, limits::SPARSE_VALUES_MAX,
};

// The engine keeps as many values as the contract lets a vector have.
const _: () = assert!(SPARSE_VALUES_MAX as usize == forebay_engine::SPARSE_VALUES_MAX);

/// The shape by which rows are to be read.
pub struct Shape<'a> {
    /// Values of the model's vectors.
    pub dim: usize,
    /// How many of the first values of an embedding are kept; all where it is `None`.
    pub kept: Option<usize>,
    /// The names of the values of a classifier's row.
    pub labels: &'a [String],
}

/// The output of a job whose inputs gave these rows, one a row. An error for a task that no encoder does.
pub fn of(work: &Work, rows: Vec<Vec<f32>>, shape: &Shape<'_>) -> Result<Output, JobError> {
    let Shape { dim, kept, labels } = *shape;
    Ok(match work {
        Work::Embed { .. } | Work::EmbedIds { .. } => Output::Embed(shorten(&rows, dim, kept)),
        Work::EmbedSparse { params, .. } => {
            let kept = params.top_k.unwrap_or(SPARSE_VALUES_MAX) as usize;
            let vectors = rows.iter().map(|row| sparse(row, kept)).collect();
            Output::EmbedSparse(SparseOutput { dim, vectors })
        }
        Work::EmbedTokens { .. } => Output::EmbedTokens(TokensOutput { dim, inputs: rows }),
        Work::Classify { .. } => {
            Output::Classify { labels: rows.iter().map(|row| best_first(row, labels)).collect() }
        }
        Work::Rerank { params, .. } => rerank(rows.concat(), params.top_n),
        Work::Generate { .. } => {
            return Err(JobError::new(ErrorCode::TaskNotSupported, "an encoder does not generate"));
        }
    })
}

fn shorten(rows: &[Vec<f32>], dim: usize, kept: Option<usize>) -> EmbedOutput {
    let dim = kept.unwrap_or(dim).min(dim);
    let mut data = Vec::with_capacity(rows.len() * dim);
    for row in rows {
        data.extend_from_slice(&row[..dim]);
    }
    EmbedOutput { dim, data }
}

/// A row of pairs of a dimension and its value; the `kept` largest of these.
fn sparse(row: &[f32], kept: usize) -> SparseVector {
    let mut pairs: Vec<(u32, f32)> =
        row.chunks_exact(2).map(|pair| (pair[0] as u32, pair[1])).collect();
    if kept < pairs.len() {
        // Of equal values the first dimensions stay.
        pairs.sort_by(|a, b| b.1.total_cmp(&a.1));
        pairs.truncate(kept);
        pairs.sort_unstable_by_key(|&(index, _)| index);
    }
    let (indices, values) = pairs.into_iter().unzip();
    SparseVector { indices, values }
}

fn best_first(row: &[f32], labels: &[String]) -> Vec<LabelScore> {
    let pairs = labels.iter().zip(row);
    let mut scores: Vec<LabelScore> =
        pairs.map(|(label, &score)| LabelScore { label: label.clone(), score }).collect();
    // Equal scores stay in the model's order.
    scores.sort_by(|a, b| b.score.total_cmp(&a.score));
    scores
}

fn rerank(scores: Vec<f32>, top_n: Option<u32>) -> Output {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    // Equal scores stay in the documents' order.
    order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
    order.truncate(top_n.map_or(usize::MAX, |top_n| top_n as usize));
    Output::Rerank { scores, order }
}

#[cfg(test)]
mod tests {
    use forebay_schemas::{EmbedParams, RerankParams, SparseParams};

    use super::*;

    fn rows(width: usize, data: &[f32]) -> Vec<Vec<f32>> {
        data.chunks_exact(width).map(<[f32]>::to_vec).collect()
    }

    fn shape(dim: usize) -> Shape<'static> {
        Shape { dim, kept: None, labels: &[] }
    }

    #[test]
    fn labels_come_best_first_for_each_input() {
        let labels = ["low".to_owned(), "high".to_owned()];
        let work = Work::Classify { input: Vec::new() };
        let Ok(Output::Classify { labels }) =
            of(&work, rows(2, &[0.2, 0.8, 0.5, 0.5]), &Shape { labels: &labels, ..shape(2) })
        else {
            panic!("another task's output")
        };
        let names = |row: &Vec<LabelScore>| row.iter().map(|l| l.label.clone()).collect::<Vec<_>>();
        assert_eq!(
            labels.iter().map(names).collect::<Vec<_>>(),
            [["high", "low"], ["low", "high"]]
        );
        assert!((labels[0][0].score - 0.8).abs() < f32::EPSILON);
    }

    #[test]
    fn documents_are_ordered_by_score_and_only_the_best_are_named_where_that_is_asked_for() {
        let order = |top_n| {
            let work = Work::Rerank {
                query: String::new(),
                documents: Vec::new(),
                params: RerankParams { top_n },
            };
            match of(&work, rows(1, &[-1.0, 3.0, 0.5, 3.0]), &shape(1)).unwrap() {
                Output::Rerank { scores, order } => {
                    assert_eq!(scores, [-1.0, 3.0, 0.5, 3.0], "every document has its score");
                    order
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(order(None), [1, 3, 2, 0]);
        assert_eq!(order(Some(2)), [1, 3]);
        assert_eq!(order(Some(9)), [1, 3, 2, 0]);
    }

    #[test]
    fn fewer_dimensions_keep_the_first_of_each_row() {
        let work = Work::Embed { input: Vec::new(), params: EmbedParams::default() };
        let whole = EmbedOutput { dim: 2, data: vec![1.0, 0.0, 3.0, 0.0] };
        assert_eq!(of(&work, rows(2, &whole.data), &shape(2)), Ok(Output::Embed(whole.clone())));
        let first = EmbedOutput { dim: 1, data: vec![1.0, 3.0] };
        let shape = Shape { kept: Some(1), ..shape(2) };
        assert_eq!(of(&work, rows(2, &whole.data), &shape), Ok(Output::Embed(first)));
    }

    #[test]
    fn of_a_sparse_vector_the_largest_values_are_kept_in_the_order_of_their_dimensions() {
        let row = vec![vec![3.0, 0.5, 7.0, 2.0, 8.0, 0.5, 9.0, 1.0], Vec::new()];
        let kept = |top_k| {
            let params = SparseParams { top_k, ..SparseParams::default() };
            let work = Work::EmbedSparse { input: Vec::new(), params };
            match of(&work, row.clone(), &shape(10)) {
                Ok(Output::EmbedSparse(SparseOutput { dim: 10, vectors })) => {
                    assert_eq!(vectors[1], SparseVector::default());
                    (vectors[0].indices.clone(), vectors[0].values.clone())
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(kept(None), (vec![3, 7, 8, 9], vec![0.5, 2.0, 0.5, 1.0]));
        assert_eq!(kept(Some(3)), (vec![3, 7, 9], vec![0.5, 2.0, 1.0]));
        assert_eq!(kept(Some(1)), (vec![7], vec![2.0]));
    }
}
