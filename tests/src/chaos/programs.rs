//! The programs of a run: kept running, whatever becomes of them.

use super::schedule::{DECODERS, WORKERS};
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

/// How a program may end here: in order, by SIGKILL, by an abort that a job asked for or the watchdog after a job that
/// hangs, or by a SIGTERM that comes before it has begun to listen for signals.
const ENDINGS: [i32; 4] = [0, 128 + 9, 128 + 6, 128 + 15];

/// A program, and whether it was asked to stop.
struct Program {
    service: Service,
    stopping: bool,
}

impl Program {
    fn new(service: Service) -> Self {
        Self { service, stopping: false }
    }

    fn kill(&self) {
        self.service.signal("KILL");
    }

    /// Asks it to stop, once: a second time means at once, unfinished, with an error.
    fn stop(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            self.service.signal("TERM");
        }
    }
}

/// Workers and an autoscaler.
pub struct Programs {
    workers: Vec<Program>,
    autoscaler: Program,
}

impl Programs {
    /// Starts them, and waits until they are ready.
    pub async fn start(stack: &Stack) -> Self {
        let mut workers = Vec::new();
        let autoscaler = stack.starting_autoscaler(HURRIED);
        for worker in 0..WORKERS {
            workers.push(starting(stack, worker, HURRIED));
        }
        let mut ready = Vec::new();
        for worker in workers {
            ready.push(Program::new(worker.ready().await));
        }
        Self { workers: ready, autoscaler: Program::new(autoscaler.ready().await) }
    }

    /// Starts those that have ended again; answers endings that none may have.
    pub fn keep(&mut self, stack: &Stack) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (number, worker) in self.workers.iter_mut().enumerate() {
            if let Some(code) = worker.service.ended() {
                violations.extend(judged("worker", code, &worker.service));
                *worker = Program::new(starting(stack, number, HURRIED));
            }
        }
        if let Some(code) = self.autoscaler.service.ended() {
            violations.extend(judged("autoscaler", code, &self.autoscaler.service));
            self.autoscaler = Program::new(stack.starting_autoscaler(HURRIED));
        }
        violations
    }

    /// Kills a worker.
    pub fn kill_worker(&self, worker: usize) {
        self.workers[worker].kill();
    }

    /// Asks a worker to stop.
    pub fn stop_worker(&mut self, worker: usize) {
        self.workers[worker].stop();
    }

    /// Kills the autoscaler.
    pub fn kill_autoscaler(&self) {
        self.autoscaler.kill();
    }

    /// Asks the autoscaler to stop.
    pub fn stop_autoscaler(&mut self) {
        self.autoscaler.stop();
    }

    /// Replaces a worker, which is killed, by one that dies at a fail point.
    pub fn arm_worker(&mut self, stack: &Stack, worker: usize, point: &str, turn: u64) {
        let armed = format!("{point}=kill:{turn}");
        let overrides = [HURRIED, &[("FOREBAY_FAIL_POINTS", armed.as_str())]].concat();
        self.workers[worker] = Program::new(starting(stack, worker, &overrides));
    }
}

/// Starts the worker of this number: the last ones generate text.
fn starting(stack: &Stack, worker: usize, overrides: &[(&str, &str)]) -> Service {
    if worker < WORKERS - DECODERS {
        stack.starting_worker(overrides)
    } else {
        stack.starting_decoder(overrides)
    }
}

fn judged(name: &str, code: i32, service: &Service) -> Option<Violation> {
    if ENDINGS.contains(&code) {
        return None;
    }
    service.show_log();
    Some(Violation::Ended(name.into(), code))
}
