//! The stage with a small model of random weights and a store in memory: what runs beside a job, what makes it give
//! way, and where it goes on changes none of its tokens.

mod device;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use device::TestDevice;
use forebay_engine::{DType, LoadOptions, Model};
use forebay_fabric::{clock::Clock, disposition::Disposition, ticket::Ticket};
use forebay_schemas::{
    GenerateParams, Job, JobId, Lane, Outcome, Output, Prompt, TokenChunk, Work,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    fair::Weights,
    generate::{
        checkpoint::{Entry, Writing},
        device::{HELD_MAX, HeldMax},
        holding::Holding,
        prompting::{Prepared, Prompting},
        schedule::{Bounds, Schedule},
    },
    job::Admitted,
    journal::SharedJournal,
    peers::Peers,
    stats::Stats,
    testing::{self, FakeStore},
    watchdog::EngineCalls,
};

/// Bytes of a page of the model: keys and values of 4 layers, 2 heads of 16 values, 32 tokens.
const PAGE_BYTES: u64 = 2 * 4 * 2 * 16 * 32 * 4;

fn model(pages: u64) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engine/tests/data/tiny/llama");
    let options = LoadOptions {
        dtype: Some(DType::F32),
        threads: Some(1),
        cache_bytes: Some(pages * PAGE_BYTES),
        ..LoadOptions::default()
    };
    forebay_engine::load(&folder, &options).unwrap()
}

fn job(n: u64, tokens: u32) -> Job {
    let params = GenerateParams {
        max_tokens: Some(tokens),
        ignore_eos: true,
        temperature: Some(0.9),
        seed: Some(n),
        logprobs: Some(1),
        return_token_ids: true,
        ..GenerateParams::default()
    };
    let text = format!("{n}: a forebay holds the water, and smooths the surges. ");
    let prompt = Prompt::Text(text.repeat(1 + n as usize % 2));
    let id: JobId = format!("job-{n}").parse().unwrap();
    Job { id, ..Job::new("m".parse().unwrap(), Work::Generate { prompt, params }) }
}

fn admitted(n: u64, tokens: u32) -> Admitted {
    let job = job(n, tokens);
    let lane = if n.is_multiple_of(3) { Lane::Interactive } else { Lane::Batch };
    let ticket = testing::ticket(job.id.clone());
    Admitted { job, ticket, lane, queued_ms: 0, at: Instant::now() }
}

/// A stage, and how it is run.
struct Test {
    pages: u64,
    sequences_max: usize,
    step_tokens: usize,
    store: FakeStore,
    drain: CancellationToken,
    device: TestDevice,
    held_max: HeldMax,
    peers: Peers,
}

impl Test {
    fn with_pages(pages: u64) -> Self {
        Self {
            pages,
            sequences_max: 8,
            step_tokens: 32,
            store: FakeStore::default(),
            drain: CancellationToken::new(),
            device: TestDevice::default(),
            held_max: HELD_MAX,
            peers: Peers::Unknown,
        }
    }

    /// Runs jobs, each from what an earlier attempt has written, and returns how they end.
    async fn run(&self, jobs: Vec<(Admitted, Vec<TokenChunk>)>) -> Vec<Disposition> {
        let mut model = model(self.pages);
        let room = model.engine.generator().unwrap().room();
        let prompting = Prompting::new(&model, room.tokens_max).unwrap();
        let store = Arc::new(self.store.clone());
        let journal = SharedJournal::start("w".into(), store.clone());
        let (to_stage, sequences) = mpsc::channel(100);
        let (orders, from_stage) = mpsc::channel(100);
        let (entering, to_journal) = mpsc::channel(100);
        let (reply, replies) = mpsc::channel(1_000);
        let (settle, mut settled) = mpsc::channel(1_000);
        let entry =
            Entry { store: store.clone(), journal: journal.clone(), replies: reply.clone() };
        tokio::spawn(entry.run(to_journal));
        let writing = Writing { store, replies: reply, settle: settle.clone() };
        tokio::spawn(writing.run(from_stage));
        for (admitted, written) in jobs {
            let owner = "w/1".to_owned();
            match prompting.prepare(admitted, owner, written, 0) {
                Prepared::Sequence(prepared) => match *prepared {
                    (sequence, None) => to_stage.send(Box::new(sequence)).await.unwrap(),
                    (sequence, Some(reason)) => {
                        let answer = Disposition::Answer(Box::new(sequence.succeed(reason)));
                        settle.send(answer).await.unwrap();
                    }
                },
                Prepared::Failed(failed) => panic!("{}", failed.1),
                Prepared::Broken(broken) => panic!("{}", broken.1),
            }
        }
        drop((to_stage, settle));
        let stage = Generate {
            words: prompting.words(),
            schedule: Schedule::new(
                Bounds::of(room, self.step_tokens, self.sequences_max),
                &Weights::default(),
            ),
            generator: self.device.around(model.engine.into_generator().unwrap()),
            journal: journal.clone(),
            attempts_max: 5,
            clock: Clock::default(),
            stats: Arc::new(Stats::default()),
            calls: Arc::new(EngineCalls::default()),
            holding: Holding::new(self.sequences_max, watch::channel(self.peers).1).0,
            held_max: self.held_max,
        };
        let drain = self.drain.clone();
        let ports = Ports { sequences, replies, orders, entering, drain };
        tokio::task::spawn_blocking(move || stage.run(ports)).await.unwrap();
        let mut ended = Vec::new();
        while let Some(disposition) = settled.recv().await {
            ended.push(disposition);
        }
        journal.close().await;
        ended
    }

    async fn outcomes(
        &self,
        jobs: Vec<(Admitted, Vec<TokenChunk>)>,
    ) -> BTreeMap<JobId, (Ticket, Outcome)> {
        let answer = |disposition| match disposition {
            Disposition::Answer(answer) => (answer.0.id.clone(), *answer),
            other => panic!("{other:?}"),
        };
        self.run(jobs).await.into_iter().map(answer).collect()
    }
}

fn fresh(jobs: impl Iterator<Item = Admitted>) -> Vec<(Admitted, Vec<TokenChunk>)> {
    jobs.map(|admitted| (admitted, Vec::new())).collect()
}

/// The outputs of jobs that each ran alone, with room for all.
async fn alone(tokens: u32, count: u64) -> BTreeMap<JobId, Output> {
    let mut outputs = BTreeMap::new();
    for n in 0..count {
        let ended = Test::with_pages(100).outcomes(fresh([admitted(n, tokens)].into_iter())).await;
        outputs.extend(ended.into_iter().map(|(id, (_, outcome))| (id, outcome.output.unwrap())));
    }
    outputs
}

fn outputs(ended: BTreeMap<JobId, (Ticket, Outcome)>) -> BTreeMap<JobId, Output> {
    let output = |(id, (_, outcome)): (JobId, (Ticket, Outcome))| {
        let error = outcome.error;
        (id, outcome.output.unwrap_or_else(|| panic!("{error:?}")))
    };
    ended.into_iter().map(output).collect()
}

fn ids(output: &Output) -> &[u32] {
    match output {
        Output::Generate { token_ids: Some(ids), .. } => ids,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_their_probabilities_are_the_same_beside_any_others_and_with_few_pages() {
    let expected = alone(70, 8).await;
    for pages in [100, 14, 10] {
        let test = Test::with_pages(pages);
        let ended = test.outcomes(fresh((0..8).map(|n| admitted(n, 70)))).await;
        assert!(outputs(ended) == expected, "with {pages} pages");
        assert!(test.store.kept().journal.is_empty(), "the device has none of them");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_from_any_token_that_an_earlier_attempt_has_written() {
    let expected = alone(70, 1).await;
    let test = Test::with_pages(100);
    let whole = test.outcomes(fresh([admitted(0, 70)].into_iter())).await;
    assert!(outputs(whole) == expected);
    let written: Vec<TokenChunk> =
        test.store.kept().appends.iter().map(|append| append.chunk.clone()).collect();
    assert!(written.len() >= 4, "{} entries for 70 tokens", written.len());
    let all: Vec<u32> = written.iter().flat_map(|chunk| chunk.ids.clone()).collect();
    assert_eq!(all, ids(&expected[&"job-0".parse().unwrap()]));
    for entries in 0..=written.len() {
        let again = Test::with_pages(100);
        let from = written[..entries].to_vec();
        let ended = again.outcomes(vec![(admitted(0, 70), from.clone())]).await;
        assert!(outputs(ended) == expected, "from {entries} entries");
        let kept = again.store.kept();
        let more: Vec<u32> =
            kept.appends.iter().flat_map(|append| append.chunk.ids.clone()).collect();
        let start = from.last().map_or(0, TokenChunk::next) as usize;
        assert_eq!(more, all[start..], "and writes what is missing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_stage_writes_what_there_is_and_gives_all_jobs_back() {
    let test = Test::with_pages(100);
    test.drain.cancel();
    let ended = test.run(fresh((0..6).map(|n| admitted(n, 300)))).await;
    assert_eq!(ended.len(), 6);
    for disposition in ended {
        assert!(matches!(disposition, Disposition::GiveBack(_)), "{disposition:?}");
    }
    assert!(test.store.kept().journal.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_does_not_run_and_others_do() {
    let test = Test::with_pages(100);
    test.store.kept().cancelled.insert("job-1".parse().unwrap());
    let ended = test.outcomes(fresh((0..3).map(|n| admitted(n, 10)))).await;
    for (id, (_, outcome)) in ended {
        let is_cancelled = id.as_str() == "job-1";
        assert_eq!(outcome.state == forebay_schemas::State::Cancelled, is_cancelled, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_runs_alone_until_it_is_past_where_a_worker_died_and_its_tokens_are_the_same() {
    let expected = alone(70, 5).await;
    let test = Test::with_pages(100);
    let suspects = (0..5).map(|n| {
        let mut admitted = admitted(n, 70);
        admitted.ticket.deaths = u32::from(n % 2 == 0);
        admitted
    });
    let ended = test.outcomes(fresh(suspects)).await;
    let sizes: Vec<u64> = ended.values().map(|(_, outcome)| outcome.timing.batch_size).collect();
    assert!(sizes.iter().any(|size| *size > 1), "cleared, they run beside others: {sizes:?}");
    assert!(outputs(ended) == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prompt_that_jobs_share_is_computed_once() {
    let test = Test { sequences_max: 1, ..Test::with_pages(100) };
    let jobs = (0..3).map(|n| {
        let Admitted { job, .. } = admitted(1, 4);
        let id: JobId = format!("same-{n}").parse().unwrap();
        let job = Job { id: id.clone(), ..job };
        Admitted { job, ticket: testing::ticket(id), ..admitted(1, 4) }
    });
    let ended = test.outcomes(fresh(jobs)).await;
    let cached: Vec<u64> = ended.values().map(|(_, outcome)| outcome.usage.cached_tokens).collect();
    assert_eq!(cached[0], 0);
    assert!(cached[1] >= 32 && cached[2] == cached[1], "{cached:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_amid_64_sequences_ends_with_the_step_that_runs_and_what_it_picked_is_written() {
    let test = Test { sequences_max: 64, step_tokens: 1_024, ..Test::with_pages(1_500) };
    // Asked to drain while a step of all of them is computed.
    let device = TestDevice { drains: Some((64, test.drain.clone())), ..TestDevice::default() };
    let test = Test { device: device.clone(), ..test };
    let ended = test.run(fresh((0..64).map(|n| admitted(n, 300)))).await;
    let ended_at = Instant::now();
    let given_back = ended.iter().filter(|it| matches!(it, Disposition::GiveBack(_))).count();
    assert_eq!((given_back, ended.len()), (64, 64));
    assert_eq!(device.counts.steps_after.load(Relaxed), 0, "steps that were begun after that");
    let written: u64 =
        test.store.kept().appends.iter().map(|append| append.chunk.ids.len() as u64).sum();
    assert_eq!(written, device.counts.picks.load(Relaxed), "every token that was picked");
    let drained_at = device.counts.drained_at.lock().unwrap().unwrap();
    eprintln!("all 64 given back {:?} after the worker was asked to", ended_at - drained_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_go_back_before_the_broker_takes_them_and_running_ones_with_their_tokens() {
    let held_max = HeldMax { waiting: Duration::from_secs(60), running: Duration::ZERO };
    let device = TestDevice { step_takes: Duration::from_millis(10), ..TestDevice::default() };
    let test = Test { device, held_max, ..Test::with_pages(100) };
    let ended = test.run(fresh((0..2).map(|n| admitted(n, 200)))).await;
    for disposition in ended {
        assert!(matches!(disposition, Disposition::GiveBack(_)), "{disposition:?}");
    }
    let written: BTreeMap<JobId, Vec<TokenChunk>> = {
        let kept = test.store.kept();
        kept.appends.iter().fold(BTreeMap::new(), |mut written, append| {
            let chunks: &mut Vec<TokenChunk> = written.entry(append.id.clone()).or_default();
            chunks.push(append.chunk.clone());
            written
        })
    };
    assert_eq!(written.len(), 2);
    let expected = alone(200, 2).await;
    let jobs = (0..2).map(|n| admitted(n, 200));
    let jobs = jobs.map(|admitted| (written[&admitted.job.id].clone(), admitted));
    let jobs = jobs.map(|(written, admitted)| (admitted, written)).collect();
    assert!(outputs(Test::with_pages(100).outcomes(jobs).await) == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_too_long_go_back_and_those_that_run_end() {
    let held_max = HeldMax { waiting: Duration::ZERO, running: Duration::from_secs(60) };
    let device = TestDevice { step_takes: Duration::from_millis(10), ..TestDevice::default() };
    let test = Test { held_max, device, sequences_max: 1, ..Test::with_pages(100) };
    let ended = test.run(fresh((0..3).map(|n| admitted(n, 100)))).await;
    let answers = ended.iter().filter(|it| matches!(it, Disposition::Answer(_))).count();
    assert_eq!((answers, ended.len()), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_worker_has_nothing_of_goes_back_but_not_what_runs() {
    let device = TestDevice { step_takes: Duration::from_millis(20), ..TestDevice::default() };
    let peers = Peers::Lack { share: 2 };
    let test = Test { device, peers, sequences_max: 1, ..Test::with_pages(100) };
    let batch = [1, 2, 4, 5, 7, 8].map(|n| admitted(n, 100));
    let ended = test.run(fresh(batch.into_iter())).await;
    let answers = ended.iter().filter(|it| matches!(it, Disposition::Answer(_))).count();
    assert_eq!((answers, ended.len()), (2, 6));
}

#[tokio::test]
async fn a_limit_that_the_prompt_leaves_no_room_for_is_refused_by_name() {
    let mut model = model(100);
    let room = model.engine.generator().unwrap().room();
    let prompting = Prompting::new(&model, room.tokens_max).unwrap();
    let prepared = |tokens| prompting.prepare(admitted(0, tokens), "w/1".into(), Vec::new(), 0);
    let Prepared::Sequence(fits) = prepared(100) else { panic!("it fits") };
    let left = room.tokens_max - fits.0.prompt_tokens;
    assert!(matches!(prepared(left as u32), Prepared::Sequence(_)));
    let Prepared::Failed(failed) = prepared(left as u32 + 1) else { panic!("it does not fit") };
    assert_eq!(failed.1.code, ErrorCode::InputTooLong);
    let says = format!("`max_tokens` is {}", left + 1);
    assert!(failed.1.message.contains(&says), "{}", failed.1.message);
    assert!(failed.1.message.contains(&format!("ask for {left} or fewer")), "{}", failed.1.message);
}
