//! The programs of a run: kept running, whatever becomes of them.

use super::schedule::WORKERS;
use crate::history::Violation;
use crate::service::Service;
use crate::stack::Stack;

/// Time-outs and pauses much shorter than in a real fleet, so that a run of seconds has many of each.
const HURRIED: &[(&str, &str)] = &[
    ("FOREBAY_BROKER__BACKOFF_MS_MAX", "500"),
    ("FOREBAY_BROKER__CONNECT_TIMEOUT_MS", "2000"),
    ("FOREBAY_BROKER__HEARTBEAT_S", "2"),
    ("FOREBAY_BROKER__PUBLISH_TIMEOUT_MS", "5000"),
    ("FOREBAY_STORE__TIMEOUT_MS", "1000"),
    ("FOREBAY_WORKER__GRACE_S", "5"),
    ("FOREBAY_WORKER__BATCH_DEADLINE_S", "1"),
];

/// How a program may end here: in order, by SIGKILL, or by an abort that a job asked for or the watchdog
/// after a job that hangs.
const ENDINGS: [i32; 3] = [0, 128 + 9, 128 + 6];

/// A program, and whether it was told to stop.
struct Member {
    service: Service,
    told: bool,
}

impl Member {
    fn new(service: Service) -> Self {
        Self { service, told: false }
    }

    fn kill(&self) {
        self.service.signal("KILL");
    }

    /// Tells it to stop, once: a second time means at once, unfinished, with an error.
    fn stop(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            self.service.signal("TERM");
        }
    }
}

/// Workers and an autoscaler.
pub struct Crew {
    workers: Vec<Member>,
    autoscaler: Member,
}

impl Crew {
    /// Starts them, and waits until they are ready.
    pub async fn start(stack: &Stack) -> Self {
        let mut workers = Vec::new();
        let autoscaler = stack.starting_autoscaler(HURRIED);
        for _ in 0..WORKERS {
            workers.push(stack.starting_worker(HURRIED));
        }
        let mut ready = Vec::new();
        for worker in workers {
            ready.push(Member::new(worker.ready().await));
        }
        Self { workers: ready, autoscaler: Member::new(autoscaler.ready().await) }
    }

    /// Starts those that have ended again; answers endings that none may have.
    pub fn keep(&mut self, stack: &Stack) -> Vec<Violation> {
        let mut violations = Vec::new();
        for worker in &mut self.workers {
            if let Some(code) = worker.service.ended() {
                violations.extend(judged("worker", code, &worker.service));
                *worker = Member::new(stack.starting_worker(HURRIED));
            }
        }
        if let Some(code) = self.autoscaler.service.ended() {
            violations.extend(judged("autoscaler", code, &self.autoscaler.service));
            self.autoscaler = Member::new(stack.starting_autoscaler(HURRIED));
        }
        violations
    }

    /// Kills a worker.
    pub fn kill_worker(&self, worker: usize) {
        self.workers[worker].kill();
    }

    /// Tells a worker to stop.
    pub fn stop_worker(&mut self, worker: usize) {
        self.workers[worker].stop();
    }

    /// Kills the autoscaler.
    pub fn kill_autoscaler(&self) {
        self.autoscaler.kill();
    }

    /// Tells the autoscaler to stop.
    pub fn stop_autoscaler(&mut self) {
        self.autoscaler.stop();
    }

    /// Replaces a worker, which is killed, by one that dies at a fail point.
    pub fn arm_worker(&mut self, stack: &Stack, worker: usize, point: &str, turn: u64) {
        let armed = format!("{point}=kill:{turn}");
        let overrides = [HURRIED, &[("FOREBAY_FAIL_POINTS", armed.as_str())]].concat();
        self.workers[worker] = Member::new(stack.starting_worker(&overrides));
    }
}

fn judged(name: &str, code: i32, service: &Service) -> Option<Violation> {
    if ENDINGS.contains(&code) {
        return None;
    }
    service.show_log();
    Some(Violation::Ended(name.into(), code))
}
