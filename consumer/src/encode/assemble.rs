//! From batches back to jobs: each job gets its rows, and a job that is whole gets its outcome.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use forebay_fabric::ticket::Ticket;
use forebay_schemas::{ErrorCode, JobError, Outcome};

use crate::{
    encode::{
        batch_trace::BatchTrace,
        compute::Computed,
        output::{self, Shape},
    },
    in_flight::InFlight,
};

/// Gives each job its rows. Returns the jobs that this batch made whole, with their outcomes. `dim` and `labels` are
/// the model's.
pub fn assemble(batch: Computed, dim: usize, labels: &[String]) -> Vec<(Ticket, Outcome)> {
    let trace = BatchTrace::of(&batch);
    let Computed {
        pieces, rows: mut all, failures, started_at, ended_at, tokens, device_us, ..
    } = batch;
    let size: usize = pieces.iter().map(|piece| piece.count).sum();
    let mut row = 0;
    let mut whole = Vec::new();
    for (piece, device_us) in pieces.into_iter().zip(device_us) {
        let rows = row..row + piece.count;
        row = rows.end;
        let mut progress = piece.job.progress();
        let values = &mut all[rows.clone()];
        if let Some(error) = first_error(&failures, rows, piece.first, values) {
            progress.fail(error);
        }
        progress.rows.resize(piece.job.inputs, Vec::new());
        progress.rows[piece.first..][..values.len()].swap_with_slice(values);
        progress.done += piece.count;
        progress.usage.device_us += device_us;
        let first_start = progress.computed.map_or(started_at, |(first, _)| first);
        progress.computed = Some((first_start, ended_at));
        progress.batch_size = size as u64;
        progress.batch_tokens = tokens as u64;
        trace.join(&piece.job, &mut progress);
        drop(progress);
        // The last piece of a job that comes back is its last reference.
        whole.extend(Arc::into_inner(piece.job).map(|job| finish(job, dim, labels)));
    }
    whole
}

fn first_error(
    failures: &BTreeMap<usize, JobError>,
    rows: Range<usize>,
    first_input: usize,
    values: &[Vec<f32>],
) -> Option<JobError> {
    if let Some((row, error)) = failures.range(rows.clone()).next() {
        return Some(error.clone().at(first_input + row - rows.start));
    }
    let wrong = values.iter().position(|row| row.iter().any(|value| !value.is_finite()))?;
    let index = first_input + wrong;
    let message = format!("the model's output for input {index} is not finite");
    Some(JobError::new(ErrorCode::NumericalError, message).at(index))
}

fn finish(job: InFlight, dim: usize, labels: &[String]) -> (Ticket, Outcome) {
    let kept = job.finish.dimensions;
    let missing = job.inputs - job.progress().done;
    job.end(|job, rows| {
        // Parts that are let go have an error, or go before the first is packed. An answer must not rest on that.
        if missing > 0 {
            let message = format!("{missing} inputs were not computed");
            return Err(JobError::new(ErrorCode::Internal, message));
        }
        output::of(&job.work, rows, &Shape { dim, kept, labels })
    })
}

#[cfg(test)]
mod tests {
    use forebay_schemas::{EmbedParams, Job, Lane, Output, State, Work};
    use tokio::time::Instant;

    use super::*;
    use crate::{encode::packer::Piece, job::Admitted, journal::Journal, testing};

    fn job(inputs: usize, dimensions: Option<u32>) -> Arc<InFlight> {
        let params = EmbedParams { dimensions, ..EmbedParams::default() };
        let job = Job::new("m".parse().unwrap(), Work::Embed { input: vec![], params });
        let admitted = Admitted {
            ticket: testing::ticket(job.id.clone()),
            job,
            lane: Lane::Batch,
            queued_ms: 0,
            at: Instant::now(),
        };
        Arc::new(InFlight::new(admitted, inputs))
    }

    fn computed(pieces: Vec<Piece>, vectors: &[f32]) -> Computed {
        Computed {
            device_us: vec![5; pieces.len()],
            sequences: Journal::default().enter(std::iter::empty()),
            pieces,
            rows: vectors.chunks_exact(2).map(<[f32]>::to_vec).collect(),
            failures: BTreeMap::new(),
            started_at: Instant::now(),
            ended_at: Instant::now(),
            tokens: 10,
        }
    }

    fn data(outcome: &Outcome) -> Vec<f32> {
        match &outcome.output {
            Some(Output::Embed(vectors)) => vectors.data.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_split_job_is_whole_with_its_last_batch_and_in_order() {
        let split = job(3, None);
        let small = job(1, None);
        let first = Piece { job: split.clone(), first: 0, count: 2 };
        let rest = Piece { job: split, first: 2, count: 1 };
        assert!(assemble(computed(vec![first], &[1., 2., 3., 4.]), 2, &[]).is_empty());
        let other = Piece { job: small, first: 0, count: 1 };
        let whole = assemble(computed(vec![other, rest], &[9., 9., 5., 6.]), 2, &[]);
        assert_eq!(whole.len(), 2);
        assert_eq!(data(&whole[0].1), [9., 9.]);
        assert_eq!(data(&whole[1].1), [1., 2., 3., 4., 5., 6.]);
        assert_eq!(whole[1].1.timing.batch_size, 2);
        let device_us = [&whole[0].1, &whole[1].1].map(|outcome| outcome.usage.device_us);
        assert_eq!(device_us, [5, 10], "time of both batches");
    }

    #[test]
    fn an_output_that_is_not_finite_fails_its_job_alone_and_names_the_input() {
        let pieces = vec![
            Piece { job: job(1, None), first: 0, count: 1 },
            Piece { job: job(2, None), first: 0, count: 2 },
        ];
        let whole = assemble(computed(pieces, &[1., 2., 3., 4., f32::NAN, 6.]), 2, &[]);
        assert_eq!(whole[0].1.state, State::Succeeded);
        let error = whole[1].1.error.as_ref().unwrap();
        assert_eq!((error.code, error.index), (ErrorCode::NumericalError, Some(1)));
    }

    #[test]
    fn an_input_that_failed_fails_its_job_alone_and_is_named() {
        let pieces = vec![
            Piece { job: job(2, None), first: 0, count: 2 },
            Piece { job: job(1, None), first: 0, count: 1 },
        ];
        let mut batch = computed(pieces, &[0.; 6]);
        batch.failures.insert(1, JobError::new(ErrorCode::Internal, "broke"));
        let whole = assemble(batch, 2, &[]);
        assert_eq!(whole[0].1.error.as_ref().unwrap().index, Some(1));
        assert_eq!(whole[1].1.state, State::Succeeded);
    }

    #[test]
    fn an_error_in_a_later_piece_names_the_input_by_its_index_in_the_job() {
        let split = job(7, None);
        let piece = |first, count| Piece { job: split.clone(), first, count };
        let mut late = computed(vec![piece(4, 3)], &[0.; 6]);
        late.failures.insert(1, JobError::new(ErrorCode::Internal, "broke"));
        let early =
            computed(vec![piece(0, 2), piece(2, 2)], &[0., 0., 0., 0., 0., 0., 0., f32::NAN]);
        drop(split);
        assert!(assemble(late, 2, &[]).is_empty());
        // The answer names the first input that failed, whichever came back first.
        let whole = assemble(early, 2, &[]);
        let error = whole[0].1.error.as_ref().unwrap();
        assert_eq!((error.code, error.index), (ErrorCode::NumericalError, Some(3)));
    }

    #[test]
    fn an_error_of_a_later_piece_alone_is_the_job_s() {
        let split = job(7, None);
        let first = Piece { job: split.clone(), first: 0, count: 4 };
        let late = Piece { job: split, first: 4, count: 3 };
        let other = Piece { job: job(1, None), first: 0, count: 1 };
        assert!(assemble(computed(vec![first], &[0.; 8]), 2, &[]).is_empty());
        let mut batch = computed(vec![other, late], &[0.; 8]);
        batch.failures.insert(3, JobError::new(ErrorCode::Internal, "broke"));
        let whole = assemble(batch, 2, &[]);
        assert_eq!(whole[1].1.error.as_ref().unwrap().index, Some(6));
    }

    #[test]
    fn a_job_whose_other_parts_were_let_go_is_not_taken_for_a_whole_one() {
        let piece = Piece { job: job(3, None), first: 0, count: 2 };
        let whole = assemble(computed(vec![piece], &[1., 2., 3., 4.]), 2, &[]);
        let error = whole[0].1.error.as_ref().unwrap();
        assert_eq!(error.code, ErrorCode::Internal);
        assert!(error.message.contains("1 inputs"), "{error}");
    }

    #[test]
    fn fewer_dimensions_keep_the_first_of_each_row() {
        let piece = Piece { job: job(2, Some(1)), first: 0, count: 2 };
        let whole = assemble(computed(vec![piece], &[1., 0., 3., 0.]), 2, &[]);
        assert_eq!(data(&whole[0].1), [1., 3.]);
    }
}
