//! The stages of a model that generates text.

use std::sync::Arc;

use forebay_engine::{EngineError, Model};
use forebay_fabric::{disposition::Disposition, ticket::Ticket};
use forebay_schemas::{Lane, Outcome, Task};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{JOBS_BETWEEN_STAGES, Parts, Pipeline, Source, named, on_thread};
use crate::{
    decode::Decode,
    generate::{
        checkpoint::{Entry, Writing},
        device::{Generate, HELD_MAX, Ports},
        holding::Holding,
        prepare::Prepare,
        prompting::Prompting,
        schedule::{Bounds, Schedule},
        sequence::Sequence,
    },
    journal::SharedJournal,
    lanes,
    pace::Hold,
};

/// The most sequences that a generator has at once, if the configuration allows more.
const SEQUENCES_MAX: usize = 64;
/// Orders to the store that a generator's stage has no answer to, at most.
const ORDERS: usize = 1_024;

impl Pipeline {
    /// Starts the stages of a model that generates text.
    pub(super) fn start_generator(
        parts: &Parts,
        mut model: Model,
        sources: [Source; 2],
    ) -> Result<Self, EngineError> {
        let take_no_more = CancellationToken::new();
        let room = model.engine.generator()?.room();
        let prompting = Prompting::new(&model, room.tokens_max)?;
        let words = prompting.words();
        let sequences_max = parts.config.batch_items_max.clamp(1, SEQUENCES_MAX);
        let bounds = Bounds::of(room, parts.config.batch_tokens_max, sequences_max);
        let (to_admit, from_decode) = lanes::channel(JOBS_BETWEEN_STAGES);
        let (to_prepare, from_admit) = lanes::channel(JOBS_BETWEEN_STAGES);
        let (to_generate, sequences) = mpsc::channel(JOBS_BETWEEN_STAGES);
        let (orders, from_device) = mpsc::channel(ORDERS);
        let (entering, to_journal) = mpsc::channel(sequences_max);
        // Each sequence that runs is asked about at most four times at once: whether it entered, where its stream ends,
        // who writes it, and whether it is cancelled. So no answer waits for room, which would wait for an order's.
        let (reply, replies) = mpsc::channel(4 * sequences_max + ORDERS);
        let (ended, from_all) = mpsc::channel(JOBS_BETWEEN_STAGES);
        let journal = SharedJournal::start(parts.worker.clone(), parts.store.clone());
        let (holding, hold) = Holding::new(sequences_max, parts.peers.clone());
        let mut stages = JoinSet::new();
        for (lane, source) in sources {
            let decode = parts.decode(lane, 0, to_admit.clone(), ended.clone());
            let hold = match lane {
                // They go first: what waits behind those that run is better with another worker.
                Lane::Interactive => watch::channel(Hold::at_least(sequences_max)).1,
                Lane::Batch => hold.clone(),
            };
            let decode = Decode { hold, ..decode };
            stages.spawn(named("decode", decode.run(source, take_no_more.clone())));
        }
        drop(to_admit);
        let admit = parts.admit(Task::Generate, to_prepare, ended.clone());
        stages.spawn(named("admit", admit.run(from_decode)));
        let prepare = parts.prepare(prompting, journal.clone(), to_generate, ended.clone());
        stages.spawn(named("prepare", prepare.run(from_admit)));
        let store = parts.store.clone();
        let entry =
            Entry { store: store.clone(), journal: journal.clone(), replies: reply.clone() };
        stages.spawn(named("journal", entry.run(to_journal)));
        let writing = Writing { store, replies: reply, settle: ended };
        stages.spawn(named("checkpoint", writing.run(from_device)));
        let generate = Generate {
            generator: model.engine.into_generator()?,
            schedule: Schedule::new(bounds, &parts.config.tenant_weights),
            holding,
            held_max: HELD_MAX,
            words,
            journal: journal.clone(),
            attempts_max: parts.config.attempts_max,
            clock: parts.clock,
            stats: parts.stats.clone(),
            calls: parts.calls.clone(),
        };
        let drain = take_no_more.clone();
        let ports = Ports { sequences, replies, orders, entering, drain };
        stages.spawn(named("generate", on_thread(move || generate.run(ports))));
        // Each job ends with its disposition.
        let (_, no_device) = mpsc::channel::<Vec<(Ticket, Outcome)>>(1);
        stages.spawn(named("settle", parts.settle().run(no_device, from_all, |whole| whole)));
        Ok(Self { stages, journal, take_no_more })
    }
}

impl Parts {
    fn prepare(
        &self,
        prompting: Prompting,
        journal: SharedJournal,
        sequences: mpsc::Sender<Box<Sequence>>,
        not_computed: mpsc::Sender<Disposition>,
    ) -> Prepare {
        Prepare {
            prompting: Arc::new(prompting),
            threads: self.config.tokenize_threads,
            worker: self.worker.clone(),
            attempts_max: self.config.attempts_max,
            memory: self.memory,
            clock: self.clock,
            journal,
            store: self.store.clone(),
            sequences,
            not_computed,
        }
    }
}
