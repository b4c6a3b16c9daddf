//! Batches that fail in part, memory that is short, and a device that takes several batches or is lost.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use forebay_engine::Finish;

use super::*;

/// Embeds a sequence as its first token id, and whole batches only if `willing`.
struct Picky(fn(&[u32]) -> Result<(), EngineError>);

impl Encoder for Picky {
    fn begin(&mut self, batch: &PackedBatch) -> Result<Pending, EngineError> {
        let ids = batch.token_ids();
        (self.0)(ids)?;
        let firsts = batch.cu_seqlens().ranges().map(|range| ids[range.start] as f32);
        Ok(Pending::done(Rows { width: 1, data: firsts.collect() }))
    }
}

fn stage(encoder: Box<dyn Encoder>, computed: mpsc::Sender<Computed>) -> Compute {
    let (budget, memory) = (Arc::new(Budget::new(1_000)), Memory::new(u64::MAX, 1));
    Compute::new((encoder, 1), budget, memory, Arc::default(), computed)
}

fn computed(willing: fn(&[u32]) -> Result<(), EngineError>, ids: &[u32]) -> (Computed, usize) {
    let mut packed = PackedBatch::new();
    for &id in ids {
        packed.push(&[id], Finish::default());
    }
    let mut compute = stage(Box::new(Picky(willing)), mpsc::channel(1).0);
    let begun = compute.begin(Batch { number: 1, alone: false, pieces: Vec::new(), packed });
    let computed = compute.finish(begun);
    (computed, compute.budget.tokens())
}

#[test]
fn only_the_guilty_input_of_a_batch_fails() {
    let (computed, budget) = computed(
        |ids| {
            if ids.contains(&13) {
                return Err(EngineError::Tokenizer { problem: "thirteen".into() });
            }
            Ok(())
        },
        &[1, 2, 13, 4, 5],
    );
    assert_eq!(computed.vectors, [1.0, 2.0, 0.0, 4.0, 5.0]);
    assert_eq!(computed.failures.keys().copied().collect::<Vec<_>>(), [2]);
    let error = &computed.failures[&2];
    assert!(error.message.contains("thirteen") && error.retryable, "{error}");
    assert_eq!(budget, 1_000, "memory was not the matter");
}

#[test]
fn a_panic_of_the_engine_is_the_guilty_input_s_alone() {
    let (computed, _) = computed(
        |ids| {
            assert!(!ids.contains(&13), "a panic on purpose");
            Ok(())
        },
        &[13, 2, 3],
    );
    assert_eq!(computed.vectors, [0.0, 2.0, 3.0]);
    assert_eq!(computed.failures[&0].code, ErrorCode::Internal);
}

#[test]
fn short_memory_makes_batches_smaller_and_fails_nobody_who_fits() {
    let (computed, budget) = computed(
        |ids| match ids.len() {
            0..=2 => Ok(()),
            tokens => Err(EngineError::OutOfMemory { tokens, needed: 2, left: 1 }),
        },
        &[1, 2, 3, 4, 5, 6, 7, 8],
    );
    assert_eq!(computed.vectors, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    assert!(computed.failures.is_empty());
    assert_eq!(budget, 2);
}

#[test]
fn an_input_that_fits_nowhere_fails_for_want_of_memory() {
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
    assert_eq!(computed.vectors, [1.0, 0.0]);
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
                let (device, problem) = ("cuda:0".to_owned(), "it fell off the bus".to_owned());
                return Err(EngineError::DeviceLost { device, problem });
            }
            Ok(Rows { width: 1, data: vec![id as f32] })
        }))
    }

    fn ahead(&self) -> usize {
        3
    }
}

/// What comes of eight batches of one sequence each.
fn through(device: Device) -> Vec<Computed> {
    let ((to, batches), (computed, mut from)) = (mpsc::channel(8), mpsc::channel(8));
    for id in 0..8 {
        let mut packed = PackedBatch::new();
        packed.push(&[id], Finish::default());
        let batch = Batch { number: u64::from(id), alone: false, pieces: Vec::new(), packed };
        to.try_send(batch).unwrap();
    }
    drop(to);
    stage(Box::new(device), computed).run(batches);
    std::iter::from_fn(|| from.try_recv().ok()).collect()
}

#[test]
fn a_device_has_the_next_batches_before_the_first_is_done_and_no_more_than_it_takes() {
    let device = Device::default();
    let most = device.most.clone();
    let computed = through(device);
    let values: Vec<f32> = computed.iter().map(|batch| batch.vectors[0]).collect();
    assert_eq!(values, [0., 1., 2., 3., 4., 5., 6., 7.], "in their order");
    assert_eq!(most.load(Relaxed), 3);
}

#[test]
fn a_lost_device_ends_the_stage_and_fails_no_job() {
    let computed = through(Device { lost_at: Some(2), ..Device::default() });
    assert_eq!(computed.len(), 2, "those before it are told of");
    assert!(computed.iter().all(|batch| batch.failures.is_empty()));
}
