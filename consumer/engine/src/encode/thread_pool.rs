//! The thread pool that computes a batch, and how a batch's sequences are shared out among its worker threads.
//!
//! A batch of enough tokens is partitioned into groups of whole sequences. Each worker thread takes one group after the
//! other through all layers by itself: no thread waits for another between two operations, and the output of one
//! operation is, for the most part, still in the core's L2 cache when the next one reads it. Where sequences are too
//! few or too unequal for that, all threads share each operation. The rows are the same bits either way.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device};
use forebay_kernels::{CuSeqlens, Finish, alone};
use rayon::ThreadPoolBuilder;

use crate::encode::batch::PackedBatch;
use crate::encode::layers::Sequences;
use crate::encode::workspace::Workspace;
use crate::error::EngineError;

/// Bytes of one hidden state of a group; the widest state is some four times that. From a quarter of it up to half more
/// the speed of all-MiniLM-L6-v2 was the same on a core with 2 MiB of L2 cache.
const GROUP_STATE_BYTES: usize = 384 * 1024;
/// Tokens below which a group does not pay for reading all weights once more.
const GROUP_TOKENS_MIN: usize = 48;
/// Tokens above which a larger group reads weights hardly less often.
const GROUP_TOKENS_MAX: usize = 256;
/// How much longer than the mean the longest group may take, in hundredths, before sharing operations costs less.
const UNEVENNESS_MAX: usize = 108;

/// A pool of worker threads, each with buffers of its own.
pub(crate) struct ThreadPool {
    /// None where there is one thread: then the caller's own computes. Handing a small batch to another thread and
    /// waiting for it takes longer than computing it.
    pool: Option<rayon::ThreadPool>,
    /// One for each thread.
    workers: Vec<Mutex<WorkerThread>>,
    /// Tokens that a group aims at.
    group_tokens: usize,
    hidden: usize,
}

/// The buffers that one worker thread keeps from batch to batch.
struct WorkerThread {
    space: Workspace,
    token_ids: Vec<u32>,
    type_ids: Vec<u32>,
    cu_seqlens: CuSeqlens,
    finishes: Vec<Finish>,
    queries: Vec<bool>,
}

impl ThreadPool {
    /// Starts the worker threads, for hidden states of `hidden` values in `dtype`.
    pub(crate) fn new(threads: usize, hidden: usize, dtype: DType) -> Result<Self, EngineError> {
        let build = || {
            ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|index| format!("compute-{index}"))
                .build()
                .map_err(|error| EngineError::Threads { threads, problem: error.to_string() })
        };
        let pool = (threads > 1).then(build).transpose()?;
        let group_tokens = (GROUP_STATE_BYTES / (hidden * dtype.size_in_bytes()))
            .clamp(GROUP_TOKENS_MIN, GROUP_TOKENS_MAX);
        let workers = (0..threads).map(|_| Mutex::new(WorkerThread::new(dtype))).collect();
        Ok(Self { pool, workers, group_tokens, hidden })
    }

    /// Computes the rows of all sequences, in their order, `width` values each. `work` computes those of some
    /// sequences.
    pub(crate) fn run(
        &self,
        batch: &PackedBatch,
        width: usize,
        work: impl Fn(Sequences<'_>, &[Finish], &mut Workspace) -> Result<Vec<f32>, EngineError> + Sync,
    ) -> Result<Vec<f32>, EngineError> {
        let mut groups = self.each_group(batch, work)?;
        if let [(group, _)] = groups.as_slice()
            && group.is_sorted()
        {
            return Ok(groups.remove(0).1);
        }
        let mut rows = vec![0.0; batch.sequences() * width];
        for (group, values) in groups {
            for (sequence, values) in group.iter().zip(values.chunks_exact(width)) {
                rows[sequence * width..][..width].copy_from_slice(values);
            }
        }
        Ok(rows)
    }

    /// Computes all sequences in groups. For each group the numbers of its sequences, and what `work` made of them.
    pub(crate) fn each_group<T: Send>(
        &self,
        batch: &PackedBatch,
        work: impl Fn(Sequences<'_>, &[Finish], &mut Workspace) -> Result<T, EngineError> + Sync,
    ) -> Result<Vec<(Vec<usize>, T)>, EngineError> {
        let lengths: Vec<usize> = batch.cu_seqlens().ranges().map(|range| range.len()).collect();
        let threads = self.workers.len();
        let Some(groups) = partition(&lengths, threads, self.group_tokens, self.hidden) else {
            let sequences = Sequences {
                token_ids: batch.token_ids(),
                type_ids: batch.type_ids(),
                cu_seqlens: batch.cu_seqlens(),
                queries: batch.queries(),
                seen: None,
            };
            let together = || work(sequences, batch.finishes(), &mut lock(&self.workers[0]).space);
            let made = match &self.pool {
                Some(pool) => pool.install(together),
                None => alone(together),
            }?;
            return Ok(vec![((0..lengths.len()).collect(), made)]);
        };
        let next = AtomicUsize::new(0);
        let parts = self.on_each(|thread| {
            let mut worker = lock(&self.workers[thread]);
            let mut done = Vec::new();
            alone(|| {
                while let Some(group) = groups.get(next.fetch_add(1, Relaxed)) {
                    match worker.compute(batch, group, &work) {
                        Ok(made) => done.push((group, made)),
                        Err(error) => {
                            // Ends the loops of the other threads too: the batch fails as a whole.
                            next.store(groups.len(), Relaxed);
                            return Err(error);
                        }
                    }
                }
                Ok(done)
            })
        });
        let mut all = Vec::with_capacity(groups.len());
        for part in parts {
            all.extend(
                part?.into_iter().map(|(group, made): (&Vec<usize>, T)| (group.clone(), made)),
            );
        }
        Ok(all)
    }

    /// Runs `work` on each thread, which is given by its number.
    fn on_each<T: Send>(&self, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        match &self.pool {
            Some(pool) => pool.broadcast(|thread| work(thread.index())),
            None => vec![work(0)],
        }
    }
}

/// Locks a worker's buffers, also after a panic: they are overwritten before they are read.
fn lock(worker: &Mutex<WorkerThread>) -> MutexGuard<'_, WorkerThread> {
    worker.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WorkerThread {
    fn new(dtype: DType) -> Self {
        Self {
            space: Workspace::new(dtype, Device::Cpu),
            token_ids: Vec::new(),
            type_ids: Vec::new(),
            cu_seqlens: CuSeqlens::new(),
            finishes: Vec::new(),
            queries: Vec::new(),
        }
    }

    /// Computes some sequences of a batch, given by their numbers.
    fn compute<T>(
        &mut self,
        batch: &PackedBatch,
        group: &[usize],
        work: impl Fn(Sequences<'_>, &[Finish], &mut Workspace) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        self.token_ids.clear();
        self.type_ids.clear();
        self.cu_seqlens.clear();
        self.finishes.clear();
        self.queries.clear();
        for &sequence in group {
            let range = batch.cu_seqlens().range(sequence);
            self.token_ids.extend_from_slice(&batch.token_ids()[range.clone()]);
            if let Some(type_ids) = batch.type_ids() {
                self.type_ids.extend_from_slice(&type_ids[range.clone()]);
            }
            self.cu_seqlens.push(range.len());
            self.finishes.push(batch.finishes()[sequence]);
            self.queries.push(batch.queries()[sequence]);
        }
        let sequences = Sequences {
            token_ids: &self.token_ids,
            type_ids: batch.type_ids().map(|_| self.type_ids.as_slice()),
            cu_seqlens: &self.cu_seqlens,
            queries: &self.queries,
            seen: None,
        };
        work(sequences, &self.finishes, &mut self.space)
    }
}

/// The cost of a sequence, in tokens of a short one: attention grows with the square of its length. Its GEMMs take
/// `length / (6 * hidden)` of the other layers' at the usual shapes, at less than half of their speed.
fn cost(tokens: usize, hidden: usize) -> usize {
    tokens + 2 * tokens * tokens / (5 * hidden)
}

/// Partitions sequences into groups of nearly equal cost, as many for each thread: the longest first, each into the
/// group that has least so far. `None` where that would leave a thread idle too long, or where there are too few
/// tokens.
fn partition(
    lengths: &[usize],
    threads: usize,
    group_tokens: usize,
    hidden: usize,
) -> Option<Vec<Vec<usize>>> {
    let costs: Vec<usize> = lengths.iter().map(|&tokens| cost(tokens, hidden)).collect();
    let total: usize = costs.iter().sum();
    let longest = costs.iter().copied().max().unwrap_or_default();
    // As many as make groups of the size aimed at, but none smaller than the longest sequence.
    let wanted = total.div_ceil(group_tokens).min(total / longest.max(1)).max(threads);
    let count = if total / wanted > group_tokens {
        wanted.next_multiple_of(threads)
    } else {
        wanted / threads * threads
    };
    if total < count * GROUP_TOKENS_MIN {
        return None;
    }
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_unstable_by_key(|&sequence| (std::cmp::Reverse(costs[sequence]), sequence));
    let mut groups = vec![(0, Vec::new()); count];
    for sequence in order {
        let (load, group) = groups.iter_mut().min_by_key(|(load, _)| *load)?;
        *load += costs[sequence];
        group.push(sequence);
    }
    let heaviest = groups.iter().map(|(load, _)| *load).max().unwrap_or_default();
    if threads > 1 && heaviest * count * 100 > total * UNEVENNESS_MAX {
        return None;
    }
    Some(groups.into_iter().map(|(_, group)| group).collect())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sequences_too_few_or_too_unequal_are_computed_together() {
        for lengths in [&[10][..], &[10, 12], &[256], &[256, 30], &[256, 256, 256], &[]] {
            assert_eq!(partition(lengths, 2, 256, 384), None, "{lengths:?}");
        }
    }

    #[test]
    fn one_thread_is_the_caller_s_and_several_are_the_pool_s() {
        let caller = std::thread::current().id();
        let on = |threads| {
            let pool = ThreadPool::new(threads, 384, DType::F32).unwrap();
            pool.on_each(|_| std::thread::current().id())
        };
        assert_eq!(on(1), [caller]);
        assert_eq!(on(2).iter().filter(|&&id| id != caller).count(), 2);
    }

    #[test]
    fn equal_sequences_are_partitioned_evenly() {
        assert_eq!(partition(&[100, 100], 2, 256, 384).unwrap(), [[0], [1]]);
        let groups = partition(&[16; 512], 2, 256, 384).unwrap();
        assert!(
            groups.len().is_multiple_of(2)
                && groups.iter().all(|group| (14..=17).contains(&group.len()))
        );
    }

    #[test]
    fn one_thread_takes_groups_too_so_that_states_stay_in_its_l2_cache() {
        let groups = partition(&[200, 150, 30, 90, 256], 1, 256, 384).unwrap();
        assert!(groups.len() > 1);
    }

    proptest! {
        #[test]
        fn every_sequence_is_in_one_group_and_no_thread_idles_long(
            lengths in vec(0_usize..600, 0..200),
            threads in 1_usize..9,
        ) {
            let Some(groups) = partition(&lengths, threads, 256, 384) else { return Ok(()) };
            let mut all: Vec<usize> = groups.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            prop_assert!(groups.len().is_multiple_of(threads));
            let load = |group: &Vec<usize>| group.iter().map(|&at| cost(lengths[at], 384)).sum::<usize>();
            let loads: Vec<usize> = groups.iter().map(load).collect();
            let most = loads.iter().max().unwrap();
            let total = loads.iter().sum::<usize>();
            prop_assert!(threads == 1 || most * loads.len() * 100 <= total * UNEVENNESS_MAX);
        }
    }
}
