//! A job's rows as the output of its task.

use forebay_engine::Rows;
use forebay_schemas::{EmbedOutput, ErrorCode, JobError, LabelScore, Output, Work};

/// The output of a job whose inputs gave these rows, one a row. Of an embedding the first `kept` values are kept, all
/// where it is `None`; `labels` are the names of the values of a classifier's row. An error for a task that no encoder
/// does.
pub fn of(
    work: &Work,
    rows: Rows,
    kept: Option<usize>,
    labels: &[String],
) -> Result<Output, JobError> {
    Ok(match work {
        Work::Embed { .. } => Output::Embed(shorten(rows, kept)),
        Work::Classify { .. } => {
            Output::Classify { labels: rows.rows().map(|row| best_first(row, labels)).collect() }
        }
        Work::Rerank { params, .. } => rerank(rows.data, params.top_n),
        Work::Generate { .. } => {
            return Err(JobError::new(ErrorCode::TaskNotSupported, "an encoder does not generate"));
        }
    })
}

fn shorten(rows: Rows, kept: Option<usize>) -> EmbedOutput {
    match kept.filter(|&kept| kept < rows.width) {
        None => EmbedOutput { dim: rows.width, data: rows.data },
        Some(dim) => {
            EmbedOutput { dim, data: rows.rows().flat_map(|row| &row[..dim]).copied().collect() }
        }
    }
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
    use forebay_schemas::{EmbedParams, RerankParams};

    use super::*;

    fn rows(width: usize, data: &[f32]) -> Rows {
        Rows { width, data: data.to_vec() }
    }

    #[test]
    fn labels_come_best_first_for_each_input() {
        let labels = ["low".to_owned(), "high".to_owned()];
        let work = Work::Classify { input: Vec::new() };
        let Ok(Output::Classify { labels }) =
            of(&work, rows(2, &[0.2, 0.8, 0.5, 0.5]), None, &labels)
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
            match of(&work, rows(1, &[-1.0, 3.0, 0.5, 3.0]), None, &[]).unwrap() {
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
        assert_eq!(of(&work, rows(2, &whole.data), None, &[]), Ok(Output::Embed(whole.clone())));
        let first = EmbedOutput { dim: 1, data: vec![1.0, 3.0] };
        assert_eq!(of(&work, rows(2, &whole.data), Some(1), &[]), Ok(Output::Embed(first)));
    }
}
