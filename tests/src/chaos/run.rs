//! One run: publish, disturb, heal, check.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;

use super::messages::Messages;
use super::programs::Programs;
use super::publisher::{ChaosPublisher, locked};
use super::schedule::{Action, Schedule, span};
use super::texts::Texts;
use crate::broker::Node;
use crate::generator;
use crate::history::{self, Expected, History, SUCCEEDED, Violation};
use crate::job::{Codec, Job};
use crate::model::{DECODER, TINY};
use crate::patience::{self, PATIENT, SOON, holds_within};
use crate::record::result_key;
use crate::stack::Stack;

/// How often the run looks at everything.
const TICK: Duration = Duration::from_millis(50);
/// How often the records are read.
const READ_EVERY: Duration = Duration::from_millis(400);
/// Messages in here are kept for people, and answered from their copies.
const KEPT: &str = "forebay.dead";
/// How long reading the records may take before the store counts as away.
const READ_WITHIN: Duration = Duration::from_millis(800);

/// How a run went.
#[derive(Debug)]
pub struct Ended {
    sent: usize,
    confirmed: usize,
    answered: usize,
    disturbed: Duration,
    healed: Duration,
    texts: history::Texts,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, confirmed, answered, disturbed, healed, texts } = self;
        write!(f, "{sent} jobs, {confirmed} confirmed, {answered} answered, ")?;
        let disturbed = disturbed.as_secs_f64();
        let healed = healed.as_secs_f64();
        write!(f, "{disturbed:.1} s disturbed, {healed:.1} s to come to rest; ")?;
        let history::Texts { jobs, tokens, taken_up, kept } = texts;
        write!(f, "{jobs} texts of {tokens} tokens, {taken_up} times taken up after {kept} tokens")
    }
}

/// Runs one seed on a virtual host and a store of its own; panics with all there is to know when a promise
/// was broken.
pub async fn run(node: &mut Node, seed: u64, jobs: usize, texts: &Texts) -> Ended {
    let stack = Stack::on(node.vhost().await).await.with_decoder().relayed();
    let schedule = Schedule::draw(seed, span(jobs));
    let history = Arc::new(Mutex::new(History::default()));
    let programs = Programs::start(&stack).await;
    let texts = texts.clone();
    let mut run = Run {
        stack,
        node,
        programs,
        history,
        texts,
        store: None,
        frozen: false,
        broker_frozen: false,
    };
    let ended = run.go(seed, jobs, &schedule).await;
    let violations = locked(&run.history).violations();
    if !violations.is_empty() {
        let logs = keep_logs(&run.stack, seed);
        panic!("{}", report(seed, jobs, &schedule, &violations, &logs));
    }
    ended
}

struct Run<'a> {
    // First: programs end before the servers and folders that they use.
    programs: Programs,
    stack: Stack,
    node: &'a mut Node,
    history: Arc<Mutex<History>>,
    texts: Texts,
    /// A connection for reading records, while the store answers.
    store: Option<MultiplexedConnection>,
    frozen: bool,
    broker_frozen: bool,
}

impl Run<'_> {
    async fn go(&mut self, seed: u64, jobs: usize, schedule: &Schedule) -> Ended {
        let started = Instant::now();
        let give_up = started + span(jobs) * 2 + PATIENT;
        let publisher = ChaosPublisher::new(self.stack.amqp_url(), self.history.clone(), give_up);
        let messages = Messages::new(seed, self.texts.clone());
        let publishing = tokio::spawn(publisher.run(messages, jobs, span(jobs)));
        self.disturb(started, schedule).await;
        let disturbed = started.elapsed();
        self.heal().await;
        let published = holds_within(PATIENT, async || {
            self.look(Instant::now()).await;
            publishing.is_finished()
        });
        if !published.await {
            self.breaks(Violation::Wedged("publishing did not end".into()));
        }
        publishing.abort();
        self.comes_to_rest().await;
        let (sent, confirmed, answered) = locked(&self.history).counts();
        let healed = started.elapsed().saturating_sub(disturbed);
        let texts = locked(&self.history).texts();
        Ended { sent, confirmed, answered, disturbed, healed, texts }
    }

    async fn disturb(&mut self, started: Instant, schedule: &Schedule) {
        let mut due: VecDeque<_> = schedule.0.iter().copied().collect();
        let mut read_at = started;
        while let Some((at, action)) = due.front().copied() {
            if started.elapsed() >= at {
                due.pop_front();
                self.act(action).await;
                continue;
            }
            read_at = self.look(read_at).await;
            patience::at(Instant::now() + TICK).await;
        }
    }

    async fn act(&mut self, action: Action) {
        let relays = self.stack.relays();
        match action {
            Action::BrokerLink(mode) => relays.broker.set(mode),
            Action::StoreLink(mode) => relays.store.set(mode),
            // The management plug-in of a frozen broker would not answer.
            Action::CutConnections if self.broker_frozen => {}
            Action::CutConnections => _ = self.stack.vhost.cut_connections(),
            Action::RestartBroker => {
                self.node.kill();
                self.node.begin();
                self.broker_frozen = false;
            }
            Action::FreezeBroker => {
                self.node.freeze();
                self.broker_frozen = true;
            }
            Action::ThawBroker => {
                self.node.thaw();
                self.broker_frozen = false;
            }
            Action::FreezeStore => {
                self.stack.store.freeze();
                self.frozen = true;
            }
            Action::ThawStore => {
                self.stack.store.thaw();
                self.frozen = false;
            }
            Action::RestartStore => {
                self.stack.store.restart().await;
                self.frozen = false;
            }
            // A frozen store takes no settings; what it misses here comes when all heals.
            Action::FillStore if !self.frozen => self.stack.store.fill().await,
            Action::RelieveStore if !self.frozen => self.stack.store.relieve().await,
            Action::FillStore | Action::RelieveStore => {}
            Action::KillWorker(worker) => self.programs.kill_worker(worker),
            Action::StopWorker(worker) => self.programs.stop_worker(worker),
            Action::ArmWorker(worker, point, turn) => {
                self.programs.arm_worker(&self.stack, worker, point, turn);
            }
            Action::KillAutoscaler => self.programs.kill_autoscaler(),
            Action::StopAutoscaler => self.programs.stop_autoscaler(),
        }
    }

    async fn heal(&mut self) {
        self.stack.relays().broker.heal();
        self.stack.relays().store.heal();
        self.stack.store.thaw();
        self.frozen = false;
        self.stack.store.relieve().await;
        self.node.thaw();
        self.broker_frozen = false;
        self.node.answers().await;
    }

    /// Keeps the programs running and, when it is time, reads the records; answers when it is time again.
    async fn look(&mut self, read_at: Instant) -> Instant {
        for violation in self.programs.keep(&self.stack) {
            self.breaks(violation);
        }
        if Instant::now() < read_at || self.frozen {
            return read_at;
        }
        self.read().await;
        Instant::now() + READ_EVERY
    }

    /// Reads every record; a store that is away is asked again another time.
    async fn read(&mut self) {
        let ids = locked(&self.history).ids();
        let reading = async {
            let mut connection = if let Some(connection) = self.store.take() {
                connection
            } else {
                let client = redis::Client::open(self.stack.store.url())?;
                client.get_multiplexed_async_connection().await?
            };
            let records = history::read(&mut connection, &ids).await?;
            Ok::<_, redis::RedisError>((connection, records))
        };
        if let Ok(Ok((connection, records))) = tokio::time::timeout(READ_WITHIN, reading).await {
            locked(&self.history).observe(&ids, &records);
            self.store = Some(connection);
        }
    }

    /// Waits for what was promised, then looks for what was not.
    async fn comes_to_rest(&mut self) {
        let all_answered = holds_within(PATIENT, async || {
            self.look(Instant::now()).await;
            locked(&self.history).unanswered().is_empty()
        });
        all_answered.await; // what is missing speaks for itself
        self.probe().await;
        let mut left = Vec::new();
        let emptied = holds_within(SOON, async || {
            self.look(Instant::now()).await;
            let Some(depths) = self.stack.vhost.depths() else { return false };
            let waits = |(name, messages): &(String, u64)| *messages > 0 && name != KEPT;
            left = depths.into_iter().filter(waits).collect();
            left.is_empty()
        });
        if !emptied.await {
            for (queue, messages) in left {
                self.breaks(Violation::Left(queue, messages));
            }
        }
        self.read().await;
        let mut redis = self.stack.redis().await;
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(result_key("*")).query_async(&mut redis).await.unwrap();
        locked(&self.history).observe_keys(&keys);
        let streamed = locked(&self.history).streamed();
        for id in streamed {
            let entries = generator::entries(&mut redis, &id).await;
            let ttl_s = redis.ttl(format!("forebay:tokens:{id}")).await.unwrap();
            locked(&self.history).observe_stream(&id, &entries, ttl_s);
        }
    }

    /// A fleet that survived does new work.
    async fn probe(&mut self) {
        let publisher = self.stack.publisher().await;
        let question = "still there?";
        for lane in ["batch", "interactive"] {
            let embedded = Job::embed(question).of(TINY);
            let (generated, text) = self.texts.pick(1);
            for (model, job, expected) in [
                (TINY, embedded, Expected::Vector(question.to_owned())),
                (DECODER, generated, Expected::Text(text)),
            ] {
                locked(&self.history).sends(job.id(), SUCCEEDED, Some(&expected));
                publisher.submit(&format!("{model}.{lane}"), &job, Codec::Json).await;
                locked(&self.history).confirmed(job.id());
            }
        }
        let answered = holds_within(PATIENT, async || {
            self.look(Instant::now()).await;
            locked(&self.history).unanswered().is_empty()
        });
        if !answered.await {
            self.breaks(Violation::Wedged("a job at the end was not done".into()));
        }
    }

    fn breaks(&self, violation: Violation) {
        locked(&self.history).breaks(violation);
    }
}

/// Copies the logs of a run to where they outlive it.
fn keep_logs(stack: &Stack, seed: u64) -> String {
    let folder = std::env::temp_dir().join(format!("forebay-chaos-{seed}"));
    std::fs::create_dir_all(&folder).unwrap();
    let files = std::fs::read_dir(stack.store.folder()).unwrap().map(Result::unwrap);
    for file in files.filter(|file| file.path().extension().is_some_and(|end| end == "log")) {
        std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    folder.display().to_string()
}

fn report(
    seed: u64,
    jobs: usize,
    schedule: &Schedule,
    violations: &[Violation],
    logs: &str,
) -> String {
    let shown: Vec<String> = violations.iter().take(40).map(|v| format!("  {v:?}")).collect();
    format!(
        "seed {seed} broke {} promises:\n{}\nits schedule:\n{schedule}its logs: {logs}\n\
         once more: FOREBAY_CHAOS_SEED={seed} FOREBAY_CHAOS_RUNS=1 FOREBAY_CHAOS_JOBS={jobs} \
         cargo test -p forebay-tests --test chaos",
        violations.len(),
        shown.join("\n"),
    )
}
