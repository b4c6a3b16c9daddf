//! The jobs of a run that generate text: a few dozen different ones, each with the output of an undisturbed worker.

use std::sync::Arc;

use serde_json::json;

use crate::broker::Node;
use crate::generator::Generated;
use crate::job::{Codec, Job};
use crate::model::DECODER;
use crate::patience::PATIENT;
use crate::record::result_within;
use crate::stack::Stack;

/// How many different ones there are.
const KINDS: u64 = 48;

/// The outputs of all kinds, by an undisturbed worker that has one job at a time.
#[derive(Debug, Clone)]
pub struct Texts(Arc<Vec<Arc<Generated>>>);

impl Texts {
    /// Asks one worker for all of them, one after the other, before anything is disturbed.
    pub async fn of(node: &mut Node) -> Self {
        let stack = Stack::on(node.vhost().await).await.with_decoder();
        let _worker = stack.starting_decoder(&[]).ready().await;
        let publisher = stack.publisher().await;
        let mut redis = stack.redis().await;
        let mut texts = Vec::new();
        for kind in 0..KINDS {
            let job = job(kind);
            publisher.submit(DECODER, &job, Codec::Json).await;
            let record = result_within(&mut redis, job.id(), PATIENT).await;
            let text = Generated::of(&record.fields["output"]);
            let text = text.unwrap_or_else(|| panic!("kind {kind}: {}", record.fields));
            texts.push(Arc::new(text));
        }
        Self(Arc::new(texts))
    }

    /// A job, and its output. Each number has its own kind, and `KINDS` further on comes the first again.
    pub fn pick(&self, number: u64) -> (Job, Arc<Generated>) {
        let kind = number % KINDS;
        (job(kind), self.0[kind as usize].clone())
    }
}

/// A job of a kind: the likeliest tokens or sampled ones, followed or not, with and without log-probabilities, a
/// penalty, a pattern, a prefix that others have too.
fn job(kind: u64) -> Job {
    let mut params = json!({
        "max_tokens": 24 + kind * 37 % 340,
        "temperature": if kind.is_multiple_of(3) { 0.0 } else { 0.9 },
        "seed": kind,
        "return_token_ids": true,
        "stream": kind % 4 == 1,
    });
    if kind.is_multiple_of(2) {
        params["logprobs"] = (kind % 5).into();
    }
    match kind % 8 {
        5 => params["repetition_penalty"] = 1.2.into(),
        6 => params["presence_penalty"] = 0.5.into(),
        7 => params["response_format"] = json!({"regex": "([a-z]{1,9} ){20,60}"}),
        _ => {}
    }
    // A pattern is what ends a text that keeps to it.
    params["ignore_eos"] = (kind % 8 != 7).into();
    let prefix = "A forebay holds the water and smooths the surges of the river. ";
    let prompt = format!("{}{kind}", &prefix[..(kind % 4) as usize * 20]);
    Job::embed("")
        .of(DECODER)
        .with("task", "generate")
        .with("input", json!({"prompt": prompt}))
        .with("params", params)
}
