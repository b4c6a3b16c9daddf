//! The messages that a run publishes, drawn from the seed: mostly good jobs, some bad in every way.

use super::random::Random;
use super::texts::Texts;
use crate::history::{Expected, Outcome, SUCCEEDED};
use crate::job::{Codec, Job, now_ms, properties};
use crate::model::{DECODER, TINY};
use lapin::BasicProperties;
use serde_json::json;

/// Of a thousand messages so many are to generate text.
const GENERATED: u64 = 250;

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Message {
    /// The job's id.
    pub id: String,
    /// The routing key.
    pub key: String,
    /// The body.
    pub body: Vec<u8>,
    /// The properties.
    pub properties: BasicProperties,
    /// The outcome that it has to reach.
    pub outcome: Outcome,
    /// The output of a good job.
    pub expected: Option<Expected>,
    /// Published again later, as by a publisher that lost a confirmation.
    pub twice: bool,
    /// Sent again until it is confirmed; else one attempt has to do, and its end may stay unknown.
    pub insisted: bool,
}

/// A stream of messages.
#[derive(Debug)]
pub struct Messages {
    random: Random,
    texts: Texts,
    /// In every other run, one job ends the worker that computes it, each time.
    aborts_left: u32,
}

impl Messages {
    /// The stream of a seed; its generations are among `texts`.
    pub fn new(seed: u64, texts: Texts) -> Self {
        let mut random = Random::new(seed, 2);
        let aborts_left = u32::from(random.permille(500));
        Self { random, texts, aborts_left }
    }

    /// The next message.
    pub fn next(&mut self) -> Message {
        let codec = self.random.one_of(&Codec::BOTH);
        if self.random.permille(GENERATED) {
            return self.generation(codec);
        }
        let text = if self.random.permille(8) { self.large_text() } else { self.text() };
        let job = Job::embed(text.as_str()).of(TINY);
        let mut message = self.message(TINY, &job, codec, Expected::Vector(text));
        if self.random.permille(60) {
            self.spoil(&mut message, job, codec);
        }
        message
    }

    /// A good message of a job.
    fn message(&mut self, model: &str, job: &Job, codec: Codec, expected: Expected) -> Message {
        let lane = self.random.one_of(&["", ".batch", ".interactive"]);
        Message {
            id: job.id().to_owned(),
            key: format!("{model}{lane}"),
            body: job.body(codec),
            properties: properties(job.id(), codec),
            outcome: SUCCEEDED,
            expected: Some(expected),
            twice: self.random.permille(30),
            insisted: !self.random.permille(100),
        }
    }

    /// A job that generates text; one in twenty asks for what can't be.
    fn generation(&mut self, codec: Codec) -> Message {
        let (job, text) = self.texts.pick(self.random.below(1_000));
        let mut message = self.message(DECODER, &job, codec, Expected::Text(text));
        if self.random.permille(50) {
            let (outcome, job) = match self.random.below(3) {
                0 => {
                    let job = job.with("task", "embed").with("input", "text");
                    (("failed", "task_not_supported"), job.with("params", json!({})))
                }
                1 => {
                    let prompt = json!({"prompt": "river ".repeat(500)});
                    (("failed", "input_too_long"), job.with("input", prompt))
                }
                _ => {
                    let params = json!({"response_format": {"regex": "(["}});
                    (("failed", "invalid_request"), job.with("params", params))
                }
            };
            message.outcome = outcome;
            message.expected = None;
            message.body = job.body(codec);
        }
        message
    }

    /// One of a few hundred, so that texts come again and their vectors can be compared.
    fn text(&mut self) -> String {
        let number = self.random.below(300);
        let words = "river water gate ".repeat(1 + number as usize % 7);
        format!("{words} {number}")
    }

    /// Two to six megabytes, of which the model reads the first few words.
    fn large_text(&mut self) -> String {
        let number = self.random.below(10);
        let megabytes = 2 + number as usize % 5;
        format!("{number} {}", "river water gate ".repeat((megabytes << 20) / 17))
    }

    /// Makes it a message that can't succeed.
    fn spoil(&mut self, message: &mut Message, job: Job, codec: Codec) {
        message.expected = None;
        let faulty = |fault: &str| job.clone().faulty(fault);
        let (outcome, body) = match self.random.below(8) {
            0 => (("failed", "invalid_request"), b"\xc1 no body at all".to_vec()),
            1 => (("failed", "invalid_request"), job.with("input", 7).body(codec)),
            2 => {
                message.key = "no-such-model".into();
                let job = job.of("no-such-model");
                (("failed", "model_not_found"), job.body(codec))
            }
            3 => (("failed", "task_not_supported"), job.with("task", "classify").body(codec)),
            4 if self.aborts_left > 0 && self.random.permille(200) => {
                self.aborts_left -= 1;
                let fault = self.random.one_of(&["abort", "abort", "hang"]);
                (("failed", "attempts_exhausted"), faulty(fault).body(codec))
            }
            5 => (("failed", "numerical_error"), faulty("nan").body(codec)),
            6 => (SUCCEEDED, faulty("error:1").body(codec)),
            _ => {
                let job = job.with("submitted_at_ms", now_ms() - 60_000);
                (("expired", "deadline_exceeded"), job.with("expires_in_ms", 1_000).body(codec))
            }
        };
        message.outcome = outcome;
        message.body = body;
    }
}
