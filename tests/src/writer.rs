//! A stand-in for a worker that generates text: it takes jobs as a worker does, and writes their tokens and records as
//! a test says, or by a script.

use std::future::Future;
use std::time::Duration;

use lapin::options::BasicGetOptions;
use lapin::{Channel, Connection, ConnectionProperties};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use crate::job::{Codec, now_ms};
use crate::patience::{SOON, until};
use crate::record::{result_key, to_json};
use crate::stack::Stack;

/// Longer than any test: the clients of a script come when they do.
const LONG: Duration = Duration::from_secs(3_600);

/// Tokens that the stand-in says that a prompt has.
pub const PROMPT_TOKENS: u64 = 11;

/// Takes the jobs of one model's interactive lane.
#[derive(Debug)]
pub struct Writer {
    channel: Channel,
    redis: MultiplexedConnection,
    model: String,
    _connection: Connection,
}

/// A job that was taken.
#[derive(Debug)]
pub struct Taken {
    /// The job's fields.
    pub job: Value,
    redis: MultiplexedConnection,
    at: u64,
}

impl Writer {
    /// For the jobs of `model`, whose queues have to be there.
    pub async fn of(stack: &Stack, model: &str) -> Self {
        let properties = ConnectionProperties::default();
        let connection = Connection::connect(&stack.vhost.amqp_url(), properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let redis = stack.redis().await;
        Self { channel, redis, model: model.to_owned(), _connection: connection }
    }

    /// The next job.
    pub async fn take(&mut self) -> Taken {
        self.take_within(SOON).await
    }

    /// The next job, which comes within `limit`.
    async fn take_within(&mut self, limit: Duration) -> Taken {
        let queue = format!("forebay.jobs.{}.interactive", self.model);
        let channel = &self.channel;
        let delivery = until("a job comes", limit, async || {
            let options = BasicGetOptions { no_ack: true };
            channel.basic_get(queue.as_str().into(), options).await.unwrap()
        });
        let body = delivery.await.delivery.data;
        let job = match body.first() {
            Some(b'{') => serde_json::from_slice(&body).unwrap(),
            _ => to_json(&rmpv::decode::read_value(&mut body.as_slice()).unwrap()),
        };
        Taken { job, redis: self.redis.clone(), at: 0 }
    }

    /// Answers jobs with [`scripted`] for ever.
    pub async fn by_script(mut self) {
        loop {
            scripted(self.take_within(LONG).await).await;
        }
    }
}

impl Taken {
    /// The job's id.
    pub fn id(&self) -> &str {
        self.job["id"].as_str().unwrap()
    }

    async fn publish(&mut self, suffix: &str) {
        let Some(channel) = self.job["notify"].as_str() else { return };
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(format!("{channel}{suffix}")).arg(self.id());
        publish.exec_async(&mut self.redis).await.unwrap();
    }

    /// Writes one entry of the token stream.
    pub async fn tokens(&mut self, ids: &[u32], text: &str) {
        let chunk = json!({"at": self.at, "ids": ids, "text": text});
        self.at += ids.len() as u64;
        let mut add = redis::cmd("XADD");
        add.arg(format!("forebay:tokens:{}", self.id())).arg(format!("{}-0", self.at));
        add.arg("w").arg("writer").arg("c").arg(Codec::Msgpack.encode(&chunk));
        add.exec_async(&mut self.redis).await.unwrap();
        self.publish(":tokens").await;
    }

    /// Ends with a text.
    pub async fn end(self, text: &str, output_tokens: u64) {
        self.end_with(json!({"text": text, "finish_reason": "stop"}), output_tokens).await;
    }

    /// Ends with an output.
    pub async fn end_with(self, output: Value, output_tokens: u64) {
        let usage = json!({"input_tokens": PROMPT_TOKENS, "output_tokens": output_tokens, "cached_tokens": 4,
                           "truncated": 0});
        self.record(json!({"state": "succeeded", "output": output, "usage": usage})).await;
    }

    /// Ends with an error.
    pub async fn fail(self, code: &str, message: &str) {
        let error = json!({"code": code, "message": message, "retryable": false});
        self.record(json!({"state": "failed", "error": error})).await;
    }

    async fn record(mut self, mut fields: Value) {
        let common = json!({"v": 1, "id": self.id(), "model": self.job["model"], "task": "generate",
                            "worker": "writer", "attempts": 1, "finished_at_ms": now_ms()});
        for (name, value) in common.as_object().unwrap() {
            fields[name] = value.clone();
        }
        let mut set = redis::cmd("SET");
        set.arg(result_key(self.id())).arg(fields.to_string());
        set.exec_async(&mut self.redis).await.unwrap();
        self.publish("").await;
    }
}

/// The answer of the script to a message.
pub fn reply_to(message: &str) -> String {
    format!("You said: {message} 💧")
}

/// A job's answer by the script: calls of its first tool, an object where it has to keep to a schema, else what was
/// said, in pieces.
pub async fn scripted(mut taken: Taken) {
    let params = taken.job["params"].clone();
    if params["response_format"].is_object() {
        let text = "{\"city\": \"Oslo\"}";
        taken.tokens(&[1, 2], "{\"city\"").await;
        return taken.end(text, 4).await;
    }
    if let Some(name) = params["tools"][0]["function"]["name"].as_str() {
        let call = json!({"id": "call_1", "name": name, "arguments": "{\"city\": \"Oslo\"}"});
        taken.tokens(&[1, 2], "<tool_call>{").await;
        let output = json!({"text": "", "finish_reason": "tool_calls", "tool_calls": [call]});
        return taken.end_with(output, 4).await;
    }
    let input = &taken.job["input"];
    let last = input["messages"].as_array().and_then(|messages| messages.last());
    let said = last.map_or(&input["prompt"], |message| &message["content"]);
    let text = reply_to(said.as_str().unwrap());
    let cut = |at: usize| (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap();
    let first = cut(text.len() / 3);
    let second = cut(text.len() / 2);
    taken.tokens(&[1, 2], &text[..first]).await;
    taken.tokens(&[3], &text[first..second]).await;
    taken.end(&text, 5).await;
}

/// Runs `asked` while jobs are answered by the script.
pub async fn beside_script<T>(writer: Writer, asked: impl Future<Output = T>) -> T {
    tokio::select! {
        done = asked => done,
        () = writer.by_script() => unreachable!("it goes on for ever"),
    }
}
