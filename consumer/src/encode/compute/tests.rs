//! Batches that fail in part, memory that is short, and a device that takes several batches or is lost.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use forebay_engine::Finish;
use forebay_schemas::Lane;
use tokio::sync::watch;

use super::*;
use crate::{journal::Journal, lanes};

/// Embeds a sequence as its first token id, and whole batches only if `willing`.
struct Picky(fn(&[u32]) -> Result<(), EngineError>);

impl Encoder for Picky {
    fn begin(&mut self, batch: &PackedBatch) -> Result<Pending, EngineError> {
        let ids = batch.token_ids();
        (self.0)(ids)?;
        let firsts = batch.cu_seqlens().ranges().map(|range| ids[range.start] as f32);
        Ok(Pending::done(Rows { width: 1, data: firsts.collect(), ends: None }))
    }
}

/// A stage, and the budget that it publishes.
fn stage(encoder: Box<dyn Encoder>) -> (Compute, watch::Receiver<usize>) {
    let (budget, published) = Budget::new(1_000);
    let memory = MemoryLimit::new(u64::MAX, 1);
    (Compute::new(encoder, budget, memory, Arc::default(), Arc::default()), published)
}

/// Sequences of one token each.
fn batch(ids: &[u32]) -> Journaled<Batch> {
    let mut packed = PackedBatch::new();
    for &id in ids {
        packed.push(&[id], Finish::default());
    }
    let step = Batch { alone: false, pieces: Vec::new(), packed };
    Journaled { step, sequences: Journal::default().enter(std::iter::empty()) }
}

fn computed(willing: fn(&[u32]) -> Result<(), EngineError>, ids: &[u32]) -> (Computed, usize) {
    let (mut compute, budget) = stage(Box::new(Picky(willing)));
    let begun = compute.begin(batch(ids));
    let computed = compute.finish(begun);
    (computed, *budget.borrow())
}

/// The first value of each row; 0 where there is none.
fn firsts(computed: &Computed) -> Vec<f32> {
    computed.rows.iter().map(|row| row.first().copied().unwrap_or_default()).collect()
}

#[test]
fn only_the_failing_input_of_a_batch_fails() {
    let (computed, budget) = computed(
        |ids| {
            if ids.contains(&13) {
                return Err(EngineError::Tokenizer { problem: "thirteen".into() });
            }
            Ok(())
        },
        &[1, 2, 13, 4, 5],
    );
    assert_eq!(firsts(&computed), [1.0, 2.0, 0.0, 4.0, 5.0]);
    assert_eq!(computed.failures.keys().copied().collect::<Vec<_>>(), [2]);
    let error = &computed.failures[&2];
    assert!(error.message.contains("thirteen") && error.retryable, "{error}");
    assert_eq!(budget, 1_000, "memory was not short");
}

#[test]
fn a_panic_of_the_engine_fails_only_the_input_that_caused_it() {
    let (computed, _) = computed(
        |ids| {
            assert!(!ids.contains(&13), "a panic on purpose");
            Ok(())
        },
        &[13, 2, 3],
    );
    assert_eq!(firsts(&computed), [0.0, 2.0, 3.0]);
    assert_eq!(computed.failures[&0].code, ErrorCode::Internal);
}

#[test]
fn short_memory_makes_batches_smaller_and_fails_no_input_that_fits() {
    let (computed, budget) = computed(
        |ids| match ids.len() {
            0..=2 => Ok(()),
            tokens => Err(EngineError::OutOfMemory { tokens, needed: 2, left: 1 }),
        },
        &[1, 2, 3, 4, 5, 6, 7, 8],
    );
    assert_eq!(firsts(&computed), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    assert!(computed.failures.is_empty());
    assert_eq!(budget, 2);
}

#[test]
fn an_input_that_never_fits_fails_for_want_of_memory() {
    let (computed, _) = computed(
        |ids| {
            if ids.contains(&13) {
                return Err(EngineError::OutOfMemory { tokens: 1, needed: 2, left: 1 });
            }
            Ok(())
        },
        &[1, 13],
    );
    assert_eq!(computed.failures[&1].code, ErrorCode::OutOfMemory);
    assert_eq!(firsts(&computed), [1.0, 0.0]);
}

/// A device that takes three batches, and counts how many it has.
#[derive(Default)]
struct Device {
    has: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    lost_at: Option<u32>,
}

impl Encoder for Device {
    fn begin(&mut self, batch: &PackedBatch) -> Result<Pending, EngineError> {
        let id = batch.token_ids()[0];
        let has = self.has.clone();
        self.most.fetch_max(has.fetch_add(1, Relaxed) + 1, Relaxed);
        let lost = self.lost_at == Some(id);
        Ok(Pending::new(move || {
            has.fetch_sub(1, Relaxed);
            if lost {
                return Err(EngineError::DeviceLost {
                    device: "cuda:0".to_owned(),
                    problem: "it fell off the bus".to_owned(),
                });
            }
            Ok(Rows { width: 1, data: vec![id as f32], ends: None })
        }))
    }

    fn ahead(&self) -> usize {
        3
    }
}

/// Runs eight batches of one sequence each through the stage. Returns the computed ones, and how many left the journal.
fn through(device: Device) -> (Vec<Computed>, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _context = runtime.enter();
    let (to, batches) = lanes::channel(8);
    let (done, mut left) = mpsc::channel(8);
    let (computed, mut from) = mpsc::channel(8);
    for id in 0..8 {
        runtime.block_on(to.send(Lane::Batch, batch(&[id]))).unwrap();
    }
    drop(to);
    stage(Box::new(device)).0.run(Ports { batches, done, computed });
    let left = std::iter::from_fn(|| left.try_recv().ok()).count();
    (std::iter::from_fn(|| from.try_recv().ok()).collect(), left)
}

#[test]
fn a_device_has_the_next_batches_before_the_first_is_done_and_no_more_than_it_takes() {
    let device = Device::default();
    let most = device.most.clone();
    let (computed, left) = through(device);
    let values: Vec<f32> = computed.iter().map(|batch| batch.rows[0][0]).collect();
    assert_eq!(values, [0., 1., 2., 3., 4., 5., 6., 7.], "in their order");
    assert_eq!(most.load(Relaxed), 3);
    assert_eq!(left, 8);
}

#[test]
fn a_lost_device_ends_the_stage_and_fails_no_job() {
    let (computed, left) = through(Device { lost_at: Some(2), ..Device::default() });
    assert_eq!(computed.len(), 2, "those before it are passed on");
    assert_eq!(left, 2, "the others stay in the journal");
    assert!(computed.iter().all(|batch| batch.failures.is_empty()));
}
