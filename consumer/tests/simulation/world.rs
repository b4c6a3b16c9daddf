//! One run: jobs of all behaviors, workers that come and go, and faults, all drawn from a seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use forebay_consumer::{
    in_hand::InHand,
    memory::MemoryLimit,
    peers::Peers,
    pipeline::{Parts, Pipeline, Source as LaneSource},
    stats::Stats,
    watchdog::EngineCalls,
};
use forebay_fabric::{
    broker::{Properties, Window},
    clock::Clock,
    config::WorkerConfig,
    rng,
    telemetry::Health,
};
use forebay_schemas::{
    ContentType, EmbedParams, Job, JobId, Lane, Limits, MESSAGE_TYPE, Outcome, State, Work,
};
use tokio::{
    sync::{
        mpsc::{self, UnboundedReceiver, UnboundedSender},
        watch,
    },
    task::AbortHandle,
    time::Instant,
};

use super::{
    broker::{Broker, REPLIES, Sender, Source},
    check,
    draw::{below, within},
    executor::InPlace,
    life::Life,
    model::{Behavior, NAN_WORDS, model},
    store::{Connection, Store},
};

const UNIX_MS: u64 = 1_700_000_000_000;
/// Jobs come, and faults happen, in this time.
const STORMY: Duration = Duration::from_secs(20);
/// All must have ended by then: the back-off steps add up to three minutes, and a killer takes them
/// all before its worker comes back each time.
const PATIENCE: Duration = Duration::from_secs(3_600);
const MACHINE: InPlace = InPlace {
    batch: Duration::from_micros(500),
    token: Duration::from_micros(200),
    text_byte: Duration::ZERO,
};
/// Fewer than attempts, so that no job is refused for deaths that the world caused.
const CRASHES_MAX: usize = 3;
const GRACE: Duration = Duration::from_secs(10);
/// Few, so that windows grow and shrink.
const PREFETCH_FIRST: u16 = 4;
/// Room for some large jobs or a dozen of the others, so that bytes are the limit now and then.
const HELD_BYTES_MAX: u64 = 64 * 1024;

/// An event of the schedule.
#[derive(Debug, Clone, Copy)]
enum Event {
    Submit(usize),
    Duplicate(usize),
    Cancel(usize),
    Start,
    Crash,
    Drain,
    LoseLink,
    StoreAway(Duration),
    StoreTrouble(f64),
    BrokerTrouble(f64),
}

struct Sent {
    job: Job,
    behavior: Behavior,
    lane: Lane,
    body: Vec<u8>,
    may_be_cancelled: bool,
    duplicates: usize,
}

struct Running {
    life: Life,
    work: Doing,
}

/// A worker at work, or one that finishes what it has.
enum Doing {
    Working(Box<Pipeline>),
    Draining(AbortHandle),
}

/// Counts of a run: whether it tested anything.
#[derive(Debug, Default, Clone, Copy)]
pub struct Report {
    pub jobs: usize,
    pub workers: usize,
    pub killed_by_jobs: usize,
    pub faults: usize,
}

pub struct World {
    broker: Broker,
    store: Store,
    sent: Vec<Sent>,
    running: Vec<Running>,
    deaths: (UnboundedSender<String>, UnboundedReceiver<String>),
    schedule: BTreeMap<(Instant, usize), Event>,
    began: Instant,
    report: Report,
    /// Those of every worker that there was.
    windows: Vec<Arc<Window>>,
}

impl World {
    /// The whole run of one seed; an error says what is wrong with it.
    pub async fn run(seed: u64) -> Result<Report, String> {
        rng::seed(seed);
        let mut world = Self {
            broker: Broker::default(),
            store: Store::default(),
            sent: Vec::new(),
            running: Vec::new(),
            deaths: mpsc::unbounded_channel(),
            schedule: BTreeMap::new(),
            began: Instant::now(),
            report: Report::default(),
            windows: Vec::new(),
        };
        tokio::spawn(world.broker.clone().tick());
        world.draw_jobs(seed);
        world.draw_faults();
        world.storm().await;
        world.calm().await?;
        world.check()?;
        world.report.jobs = world.sent.len();
        Ok(world.report)
    }

    fn at(&mut self, when: Duration, event: Event) {
        let number = self.schedule.len();
        self.schedule.insert((self.began + when, number), event);
    }

    fn draw_jobs(&mut self, seed: u64) {
        let jobs = 10 + below(60);
        for n in 0..jobs {
            let behavior = match below(40) {
                0 => Behavior::Kills,
                1 => Behavior::Fails,
                2 | 3 => Behavior::FailsAtFirst,
                4 => Behavior::Nan,
                5 | 6 => Behavior::Large,
                7 => Behavior::Panics,
                _ => Behavior::Good,
            };
            self.sent.push(draw_job(&format!("job-{seed}-{n}"), behavior));
            let when = within(Duration::ZERO, STORMY);
            self.at(when, Event::Submit(n));
            if below(20) == 0 {
                self.sent[n].duplicates += 1;
                self.at(within(when, STORMY), Event::Duplicate(n));
            }
            if below(25) == 0 {
                self.sent[n].may_be_cancelled = true;
                self.at(within(Duration::ZERO, STORMY), Event::Cancel(n));
            }
        }
    }

    fn draw_faults(&mut self) {
        for _ in 0..=below(3) {
            self.at(within(Duration::ZERO, Duration::from_secs(1)), Event::Start);
        }
        let crashes = below(CRASHES_MAX + 1);
        let mut faults: Vec<Event> = vec![Event::Crash; crashes];
        for _ in 0..below(10) {
            faults.push(match below(5) {
                0 => Event::Drain,
                1 => Event::LoseLink,
                2 => Event::StoreAway(within(Duration::ZERO, Duration::from_secs(5))),
                3 => Event::StoreTrouble(rng::uniform(0.0..=0.3)),
                _ => Event::BrokerTrouble(rng::uniform(0.0..=0.5)),
            });
        }
        self.report.faults = faults.len();
        for event in faults {
            self.at(within(Duration::ZERO, STORMY), event);
        }
    }

    /// Everything that is scheduled, and the deaths that follow from it.
    async fn storm(&mut self) {
        while let Some(((at, _), event)) = self.schedule.pop_first() {
            loop {
                tokio::select! {
                    biased;
                    Some(name) = self.deaths.1.recv() => self.killed(&name),
                    () = tokio::time::sleep_until(at) => break,
                }
            }
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Submit(n) | Event::Duplicate(n) => self.submit(n),
            Event::Cancel(n) => {
                let id = self.sent[n].job.id.clone();
                self.store.kept().cancelled.insert(id);
            }
            Event::Start => self.start_worker(),
            Event::Crash => {
                if let Some(name) = self.any_worker() {
                    self.died(&name);
                }
            }
            Event::Drain => self.drain(),
            Event::LoseLink => {
                if let Some(name) = self.any_worker() {
                    self.broker.lose(&name);
                }
            }
            Event::StoreAway(time) => self.store.away_for(time),
            Event::StoreTrouble(trouble) => self.store.set_trouble(trouble),
            Event::BrokerTrouble(trouble) => self.broker.set_trouble(trouble),
        }
    }

    fn submit(&self, n: usize) {
        let Sent { job, lane, body, .. } = &self.sent[n];
        let properties = Properties::default()
            .with_content_type(ContentType::Msgpack.as_str().into())
            .with_message_id(job.id.as_str().into())
            .with_type(MESSAGE_TYPE.into())
            .with_reply_to(REPLIES.into());
        self.broker.publish(*lane, body.clone(), properties);
    }

    fn any_worker(&mut self) -> Option<String> {
        let has_ended =
            |one: &Running| matches!(&one.work, Doing::Draining(task) if task.is_finished());
        self.running.retain(|one| !has_ended(one));
        let one = self.running.get(below(self.running.len().max(1)))?;
        Some(one.life.name.clone())
    }

    fn start_worker(&mut self) {
        self.report.workers += 1;
        let name = format!("worker-{}", self.report.workers);
        let life = Life::new(name.clone(), self.deaths.0.clone());
        let sources = Lane::ALL.map(|lane| -> LaneSource {
            let broker = self.broker.clone();
            let life = life.clone();
            let window = Window::new(PREFETCH_FIRST, HELD_BYTES_MAX);
            self.windows.push(window.clone());
            (lane, Box::new(Source { broker, life, lane, window, cancelled: false }))
        });
        let clock = Clock::of_runtime(UNIX_MS);
        let parts = Parts {
            config: WorkerConfig {
                batch_tokens_max: 96,
                batch_items_max: 8,
                ..WorkerConfig::default()
            },
            limits: Limits::default(),
            name: "m".parse().unwrap(),
            worker: name,
            memory: MemoryLimit::new(u64::MAX, 1),
            publisher: Arc::new(Sender { broker: self.broker.clone(), life: life.clone() }),
            store: Arc::new(Connection { store: self.store.clone(), life: life.clone() }),
            health: Health::default(),
            stats: Arc::new(Stats::new(clock)),
            in_hand: Arc::new(InHand::new(clock)),
            calls: Arc::new(EngineCalls::default()),
            peers: watch::channel(Peers::Unknown).1,
            clock,
        };
        let model = model(life.clone(), self.began);
        let pipeline = Pipeline::start(&parts, model, sources, &MACHINE).unwrap();
        self.running.push(Running { life, work: Doing::Working(Box::new(pipeline)) });
    }

    /// A job took its worker with it.
    fn killed(&mut self, name: &str) {
        self.report.killed_by_jobs += 1;
        self.died(name);
    }

    /// A worker is gone with everything it had in its hands; another one comes.
    fn died(&mut self, name: &str) {
        let Some(at) = self.running.iter().position(|one| one.life.name == name) else { return };
        let Running { life, work } = self.running.remove(at);
        life.end();
        self.broker.lose(name);
        // Its record expires, or its launcher reports its end.
        self.store.ended(name, within(Duration::ZERO, Duration::from_secs(10)));
        match work {
            Doing::Working(pipeline) => drop(pipeline),
            Doing::Draining(task) => task.abort(),
        }
        let back_in = within(Duration::from_millis(50), Duration::from_secs(2));
        let when = self.began.elapsed() + back_in;
        self.at(when, Event::Start);
    }

    /// A worker takes no more and finishes what it has within its grace; another one comes.
    fn drain(&mut self) {
        let working = |one: &Running| matches!(one.work, Doing::Working(_));
        let Some(at) = self.running.iter().position(working) else { return };
        let Running { life, work } = self.running.remove(at);
        let Doing::Working(mut pipeline) = work else { return };
        let broker = self.broker.clone();
        let store = self.store.clone();
        let ending = life.clone();
        let task = tokio::spawn(async move {
            let _ = tokio::time::timeout(GRACE, pipeline.drain()).await;
            let _ = tokio::time::timeout(GRACE, pipeline.leave_journal()).await;
            ending.end();
            broker.lose(&ending.name);
            store.ended(&ending.name, Duration::ZERO);
        });
        self.running.push(Running { life, work: Doing::Draining(task.abort_handle()) });
        let when = self.began.elapsed() + Duration::from_secs(1);
        self.at(when, Event::Start);
    }

    /// No new faults: everything has to come to its end.
    async fn calm(&mut self) -> Result<(), String> {
        self.store.heal();
        self.broker.set_trouble(0.0);
        self.start_worker();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let due = self.schedule.first_key_value().map(|((at, _), _)| *at);
            let nap = (Instant::now() + Duration::from_millis(500)).min(due.unwrap_or(deadline));
            tokio::select! {
                biased;
                Some(name) = self.deaths.1.recv() => self.killed(&name),
                () = tokio::time::sleep_until(nap) => {}
            }
            while let Some(entry) =
                self.schedule.first_entry().filter(|e| e.key().0 <= Instant::now())
            {
                let event = entry.remove();
                self.happen(event);
            }
            if self.missing().is_empty() && self.broker.left() == 0 {
                return Ok(());
            }
        }
        let missing = self.missing();
        let left = self.broker.left();
        Err(format!("stuck: {left} messages left, without a record: {missing:?}"))
    }

    fn missing(&self) -> Vec<String> {
        let kept = self.store.kept();
        let without = self.sent.iter().filter(|sent| !kept.records.contains_key(&sent.job.id));
        without.map(|sent| format!("{} ({:?})", sent.job.id, sent.behavior)).collect()
    }

    fn check(&self) -> Result<(), String> {
        if let Some(load) =
            self.windows.iter().map(|window| window.look()).find(|load| load.bytes > 0)
        {
            return Err(format!("all is settled, and a window still holds {load:?}"));
        }
        let kept = self.store.kept();
        let sent: BTreeSet<&JobId> = self.sent.iter().map(|sent| &sent.job.id).collect();
        if let Some(stranger) = kept.records.keys().find(|id| !sent.contains(id)) {
            return Err(format!("a record of {stranger}, which was never sent"));
        }
        if self.broker.dead_letters() > 0 {
            return Err(format!("{} dead letters", self.broker.dead_letters()));
        }
        for sent in &self.sent {
            let outcome =
                Outcome::decode(&kept.records[&sent.job.id]).map_err(|e| e.to_string())?;
            let cancelled = sent.may_be_cancelled && outcome.state == State::Cancelled;
            let Sent { job, behavior, duplicates, .. } = sent;
            if !cancelled && let Err(why) = check::record(job, *behavior, *duplicates, &outcome) {
                return Err(format!("{} ({behavior:?}): {why}: {outcome:?}", sent.job.id));
            }
            if sent.duplicates == 0 && self.broker.is_unanswered(&sent.job.id, &outcome.worker) {
                return Err(format!("{} was acknowledged before its reply", sent.job.id));
            }
        }
        let killers = self.sent.iter().filter(|sent| sent.behavior == Behavior::Kills);
        // A message that comes for the first time is not suspected, also when it is a duplicate.
        let kills: usize = killers.map(|sent| 1 + sent.duplicates).sum();
        let most = kills * WorkerConfig::default().attempts_max as usize;
        if self.report.killed_by_jobs > most {
            let deaths = self.report.killed_by_jobs;
            return Err(format!("{kills} killers took {deaths} workers with them"));
        }
        Ok(())
    }
}

fn draw_job(id: &str, behavior: Behavior) -> Sent {
    let inputs = if below(8) == 0 { 1 + below(30) } else { 1 + below(3) };
    let shift = below(12);
    let mut input: Vec<String> =
        (0..inputs).map(|n| "a ".repeat(1 + (n * 7 + shift) % 12)).collect();
    if behavior == Behavior::Nan {
        input[below(inputs)] = "a ".repeat(NAN_WORDS);
    }
    let params = EmbedParams { dimensions: Some(behavior as u32), ..EmbedParams::default() };
    let mut job = Job::new("m".parse().unwrap(), Work::Embed { input, params });
    job.id = id.parse().unwrap();
    let lane = if below(4) == 0 { Lane::Interactive } else { Lane::Batch };
    let body = job.encode(ContentType::Msgpack).unwrap();
    Sent { job, behavior, lane, body, may_be_cancelled: false, duplicates: 0 }
}
