//! Jobs that are refused, parked, suspected and answered already.

use std::collections::BTreeSet;

use super::*;
use crate::{
    lanes,
    testing::{self, FakeStore},
};
use forebay_schemas::{Lane, State};

fn code(change: impl FnOnce(&mut Job), cancelled: bool) -> Option<ErrorCode> {
    let model: ModelId = "m".parse().unwrap();
    let mut job = Job::embed(model.clone(), vec!["x".into()]);
    job.submitted_at_ms = Some(1_000);
    job.expires_in_ms = Some(500);
    change(&mut job);
    check(&job, &model, Task::Embed, cancelled, 1_500).err().map(|error| error.code)
}

#[test]
fn a_job_is_admitted_up_to_its_last_millisecond() {
    assert_eq!(code(|_| {}, false), None);
    assert_eq!(code(|job| job.expires_in_ms = Some(499), false), Some(ErrorCode::DeadlineExceeded));
    assert_eq!(code(|job| job.expires_in_ms = None, false), None);
}

#[test]
fn a_job_from_more_than_a_day_ahead_is_refused() {
    let ahead = |ms: u64| code(|job| job.submitted_at_ms = Some(1_500 + ms), false);
    assert_eq!(ahead(86_400_000), None);
    assert_eq!(ahead(86_400_001), Some(ErrorCode::InvalidRequest));
}

#[test]
fn a_job_that_killed_as_many_workers_as_it_may_is_not_tried_again() {
    let code = |failures, deaths| {
        let ticket = Ticket { failures, deaths, ..testing::ticket(JobId::random()) };
        check_attempts(&ticket, 5).err().map(|error| error.code)
    };
    assert_eq!(code(0, 4), None);
    assert_eq!(code(0, 5), Some(ErrorCode::AttemptsExhausted));
    assert_eq!(code(2, 3), Some(ErrorCode::AttemptsExhausted));
    assert_eq!(code(9, 0), None, "failures alone are counted where jobs are settled");
}

#[test]
fn a_job_of_another_model_or_task_or_a_cancelled_one_is_refused() {
    let other = |job: &mut Job| job.model = "other".parse().unwrap();
    assert_eq!(code(other, false), Some(ErrorCode::InvalidRequest));
    let classify = |job: &mut Job| {
        job.work = forebay_schemas::Work::Classify { input: vec!["x".into()] };
    };
    assert_eq!(code(classify, false), Some(ErrorCode::TaskNotSupported));
    assert_eq!(code(|_| {}, true), Some(ErrorCode::Cancelled));
}

/// Longer than any job is parked or looked up.
const LONG: Duration = Duration::from_secs(60);

/// The stage at work.
struct Stage {
    store: FakeStore,
    decoded: LaneSender<Decoded>,
    jobs: LaneReceiver<Admitted>,
    not_computed: mpsc::Receiver<Disposition>,
}

impl Stage {
    fn start(attempts_max: u32) -> Self {
        let store = FakeStore::default();
        let (decoded, from_decode) = lanes::channel(64);
        let (to_tokenize, jobs) = lanes::channel(64);
        let (to_settle, not_computed) = mpsc::channel(64);
        let admit = Admit {
            model: "m".parse().unwrap(),
            task: Task::Embed,
            worker: "w".into(),
            attempts_max,
            store: Arc::new(store.clone()),
            clock: Clock::default(),
            jobs: to_tokenize,
            not_computed: to_settle,
        };
        tokio::spawn(admit.run(from_decode));
        Self { store, decoded, jobs, not_computed }
    }

    /// Sends a job, whose ticket is changed.
    async fn send(&self, id: &str, change: impl FnOnce(&mut Ticket)) {
        let mut job = Job::embed("m".parse().unwrap(), vec!["x".into()]);
        job.id = id.parse().unwrap();
        let mut ticket = testing::ticket(job.id.clone());
        change(&mut ticket);
        let decoded = Decoded { job, ticket, lane: Lane::Batch, received_at_ms: 0 };
        self.decoded.send(Lane::Batch, decoded).await.unwrap();
    }

    fn stands(&self, id: &str, standing: Standing) {
        self.store.kept().standings.insert(id.parse().unwrap(), standing);
    }

    /// The next job that is admitted: its id and its attempt.
    async fn admitted(&mut self) -> (String, u32) {
        let admitted = tokio::time::timeout(LONG, self.jobs.recv()).await;
        let admitted = admitted.expect("admitted in time").unwrap();
        (admitted.job.id.to_string(), admitted.ticket.attempts())
    }

    /// The disposition of the next job that is not admitted.
    async fn settled(&mut self) -> Disposition {
        let settled = tokio::time::timeout(LONG, self.not_computed.recv()).await;
        settled.expect("settled in time").unwrap()
    }

    fn is_silent(&mut self) -> bool {
        self.not_computed.try_recv().is_err()
    }
}

fn returned(ticket: &mut Ticket) {
    ticket.returned = true;
}

#[tokio::test(start_paused = true)]
async fn jobs_that_were_delivered_or_tried_before_are_looked_up_and_no_others() {
    let mut stage = Stage::start(5);
    for id in ["new", "returned", "tried"] {
        stage.stands(id, Standing::Free { deaths: 2 });
    }
    stage.send("new", |_| {}).await;
    stage.send("returned", returned).await;
    stage.send("tried", |ticket| ticket.failures = 1).await;
    assert_eq!(stage.admitted().await, ("new".into(), 1));
    assert_eq!(stage.admitted().await, ("returned".into(), 3));
    assert_eq!(stage.admitted().await, ("tried".into(), 4));
    let asked: BTreeSet<JobId> = stage.store.kept().asked.drain(..).collect();
    assert_eq!(asked, ["returned", "tried"].map(|id| id.parse().unwrap()).into());
}

#[tokio::test(start_paused = true)]
async fn an_answered_job_is_acknowledged_whichever_way_it_comes_back() {
    let mut stage = Stage::start(5);
    for (id, change) in
        [("returned", returned as fn(&mut Ticket)), ("tried", |ticket| ticket.failures = 1)]
    {
        stage.stands(id, Standing::Answered);
        stage.send(id, change).await;
        let disposition = stage.settled().await;
        assert!(matches!(disposition, Disposition::Acknowledge(_)), "{id}: {disposition:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_death_ends_the_last_attempt_and_is_none_itself() {
    let mut stage = Stage::start(3);
    stage.stands("killer", Standing::Free { deaths: 2 });
    stage.send("killer", |ticket| ticket.failures = 1).await;
    let Disposition::Answer(answer) = stage.settled().await else { panic!("not answered") };
    let (ticket, outcome) = *answer;
    assert_eq!((outcome.state, ticket.attempts()), (State::Failed, 3));
    let error = outcome.error.unwrap();
    assert_eq!(error.code, ErrorCode::AttemptsExhausted);
    assert!(error.message.contains("2 of 3 attempts"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_held_job_is_parked_and_holds_up_no_other() {
    let mut stage = Stage::start(2);
    stage.stands("held", Standing::Held);
    stage.store.kept().cancelled.insert("held".parse().unwrap());
    stage
        .send("held", |ticket| {
            ticket.returned = true;
            ticket.failures = 9;
        })
        .await;
    stage.send("other", |_| {}).await;
    assert_eq!(stage.admitted().await.0, "other");
    tokio::time::sleep(PARKED * 10).await;
    assert!(stage.is_silent(), "no failure is written while a worker has it");
    let looks = stage.store.kept().asked.len();
    assert!((9..=11).contains(&looks), "{looks} looks in ten times that time");

    stage.store.kept().cancelled.clear();
    stage.stands("held", Standing::Free { deaths: 0 });
    assert_eq!(stage.admitted().await, ("held".into(), 10));
}

#[tokio::test(start_paused = true)]
async fn a_parked_job_whose_worker_answers_is_acknowledged() {
    let mut stage = Stage::start(2);
    stage.stands("held", Standing::Held);
    stage.send("held", returned).await;
    tokio::time::sleep(PARKED * 2).await;
    stage.stands("held", Standing::Answered);
    let disposition = stage.settled().await;
    assert!(matches!(disposition, Disposition::Acknowledge(_)), "{disposition:?}");
}

#[tokio::test(start_paused = true)]
async fn parked_jobs_keep_no_worker_from_draining() {
    let stage = Stage::start(2);
    stage.stands("held", Standing::Held);
    stage.send("held", returned).await;
    tokio::time::sleep(PARKED * 2).await;
    let Stage { decoded, mut jobs, mut not_computed, .. } = stage;
    drop(decoded);
    assert!(jobs.recv().await.is_none());
    let given_back = not_computed.recv().await;
    assert!(matches!(given_back, Some(Disposition::GiveBack(_))), "{given_back:?}");
    assert!(not_computed.recv().await.is_none());
}

/// A delivery whose channel was lost.
struct Lost;

impl forebay_fabric::broker::Settlement for Lost {
    fn is_held(&self) -> bool {
        false
    }

    fn ack(self: Box<Self>) -> bool {
        false
    }

    fn requeue(self: Box<Self>) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_job_whose_delivery_is_lost_leaves_its_room_to_the_next_delivery() {
    let mut stage = Stage::start(2);
    stage.stands("held", Standing::Held);
    stage
        .send("held", |ticket| {
            ticket.returned = true;
            ticket.acker = forebay_fabric::broker::Acker::new(Lost);
        })
        .await;
    let disposition = stage.settled().await;
    assert!(matches!(disposition, Disposition::GiveBack(_)), "{disposition:?}");
}
