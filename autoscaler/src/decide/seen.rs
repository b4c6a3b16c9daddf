//! The input of a decision: what was seen of one model's queues and workers at one moment.

use serde::Serialize;

/// The queues of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Jobs that wait in a queue.
    pub ready: u64,
    /// Jobs that a worker holds and has not settled, prefetched ones included.
    pub unacknowledged: u64,
    /// Jobs that ever arrived; only its growth counts.
    pub arrived_total: u64,
}

/// The stages of a worker's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Launched, and not yet taking jobs.
    #[default]
    Starting,
    /// Taking jobs.
    Ready,
    /// Finishing the jobs that it holds; no longer capacity.
    Draining,
}

/// The answer of a worker that was asked itself, because its silence or its standstill had become too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// It was not asked.
    #[default]
    NotAsked,
    /// There is no way to ask it.
    Unreachable,
    /// It took the question and gave no answer.
    Silent,
    /// It answered that it is ready.
    Ready,
    /// It answered that it waits for a server, or for memory.
    Waits,
}

/// One worker. Its counters may be some seconds old.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerSeen {
    /// Its name.
    pub id: String,
    /// The stage of its life.
    pub phase: Phase,
    /// Time since its launch.
    pub age_ms: u64,
    /// Jobs that it holds and has not settled.
    pub in_flight: u64,
    /// Jobs that it has settled since its launch.
    pub jobs_done: u64,
    /// Time since its launch for which it had work.
    pub busy_ms: u64,
    /// Time from its launch until it was ready, once that is known.
    pub cold_start_ms: Option<u64>,
    /// Time since it was asked to drain; `None` if it was not.
    pub draining_ms: Option<u64>,
    /// Time for which it has held jobs without progress; `None` while it holds none or its record is missing.
    pub stalled_ms: Option<u64>,
    /// Time since its last heartbeat; `None` before the first one.
    pub silent_ms: Option<u64>,
    /// Its answer when it was asked whether it is there.
    pub answer: Answer,
    /// Its work in tokens, if its model generates text and it reports all of that.
    pub generates: Option<Generating>,
}

/// The work of a worker whose model generates text, in tokens of prompts and outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generating {
    /// The jobs that the following counts are of; what it holds beside them has not been looked at yet.
    pub jobs: u64,
    /// Tokens that its running sequences are expected to need yet. They stay where they are.
    pub running_tokens: u64,
    /// Tokens that the jobs which wait in it are expected to need.
    pub waiting_tokens: u64,
    /// The mean of what its jobs need; `None` before its first.
    pub tokens_per_job: Option<u64>,
    /// Tokens that it has computed since its launch.
    pub tokens_done: u64,
    /// Whether it can't run more sequences than it does: only then its speed shows what it is capable of.
    pub is_full: bool,
    /// Pages of its running sequences. A drain is a checkpoint: another worker has to compute as much once more.
    pub pages_held: u64,
}

/// One model's queues and workers at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolSeen {
    /// The time of the observation, on a clock that never goes back.
    pub now_ms: u64,
    /// `None` if the queues could not be observed: then the size is held.
    pub backlog: Option<Backlog>,
    /// Whether some source of the backlog was missing: then the size may grow and does not shrink.
    pub partial: bool,
    /// Whether the launcher is still at what was decided before: then nothing new is asked of it.
    pub acting: bool,
    /// All workers of the model that have not ended.
    pub workers: Vec<WorkerSeen>,
}

/// The workers that start or are ready: those that count towards the size of a pool.
pub fn active(workers: &[WorkerSeen]) -> u32 {
    workers.iter().filter(|worker| worker.phase != Phase::Draining).count() as u32
}

/// The workers in one stage of their life.
pub fn count(workers: &[WorkerSeen], phase: Phase) -> u32 {
    workers.iter().filter(|worker| worker.phase == phase).count() as u32
}

/// The workers of one pool by what they can do now.
pub(super) struct Capacity<'a> {
    /// Those that will take jobs.
    pub starting: Vec<&'a WorkerSeen>,
    /// Those that take jobs.
    pub ready: Vec<&'a WorkerSeen>,
    /// Jobs that draining workers still hold: no other worker has to do them.
    pub draining_in_flight: u64,
}

impl<'a> Capacity<'a> {
    pub fn of(seen: &'a PoolSeen) -> Self {
        let of_phase = |phase| seen.workers.iter().filter(move |worker| worker.phase == phase);
        Self {
            starting: of_phase(Phase::Starting).collect(),
            ready: of_phase(Phase::Ready).collect(),
            draining_in_flight: of_phase(Phase::Draining).map(|worker| worker.in_flight).sum(),
        }
    }

    /// The size of the pool: starting and ready workers.
    pub fn active(&self) -> u32 {
        (self.starting.len() + self.ready.len()) as u32
    }
}
