//! The expectations of jobs of a small model, known and unknown.

use std::{path::Path, time::Duration};

use forebay_engine::LoadOptions;
use forebay_schemas::{GenerateParams, Job, JobId, Lane, Prompt};

use super::*;
use crate::{
    generate::prompting::{Prepared, Prompting},
    job::Admitted,
    testing,
};

fn sequence(params: GenerateParams) -> Sequence {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engine/tests/data/tiny/llama");
    let mut model = forebay_engine::load(&folder, &LoadOptions::default()).unwrap();
    let tokens_max = model.engine.generator().unwrap().room().tokens_max;
    let prompting = Prompting::new(&model, tokens_max).unwrap();
    let id: JobId = "job-1".parse().unwrap();
    let prompt = Prompt::Text("a forebay holds the water".into());
    let job = Job::new("m".parse().unwrap(), Work::Generate { prompt, params });
    let job = Job { id: id.clone(), ..job };
    let ticket = testing::ticket(id);
    let at = Instant::now();
    let admitted = Admitted { job, ticket, lane: Lane::Batch, queued_ms: 0, at };
    match prompting.prepare(admitted, "w/1".into(), Vec::new(), 0) {
        Prepared::Sequence(prepared) => prepared.0,
        _ => panic!("it can run"),
    }
}

fn free() -> GenerateParams {
    GenerateParams::default()
}

fn most(tokens: u32) -> GenerateParams {
    GenerateParams { max_tokens: Some(tokens), ..free() }
}

fn complete(measure: &mut Measure, jobs: &[Sequence]) -> GenerateRecord {
    measure.complete(GenerateRecord::default(), jobs.iter(), Instant::now())
}

#[test]
fn what_is_not_known_of_any_job_is_not_zero() {
    let mut measure = Measure::default();
    let idle = complete(&mut measure, &[]);
    assert_eq!((idle.running_tokens, idle.waiting_tokens), (Some(0), Some(0)));
    assert_eq!((idle.tokens_per_job, idle.prefix_hit_percent), (None, None));
    assert_eq!((idle.prompt_tokens_per_s, idle.output_tokens_per_s), (None, None));
    let record = complete(&mut measure, &[sequence(free())]);
    assert_eq!((record.waiting_tokens, record.tokens_per_job), (None, None));
}

#[test]
fn a_job_is_expected_to_need_its_prompt_and_what_is_known_of_its_output() {
    let mut measure = Measure::default();
    let mut long = sequence(most(40));
    let prompt = long.prompt_tokens as u64;
    let record = complete(&mut measure, &[sequence(most(40))]);
    assert_eq!(record.waiting_tokens, Some(prompt + 40), "its own limit, for want of more");
    long.tokens.extend([7; 10]);
    measure.ended(&long);
    let exactly = GenerateParams { ignore_eos: true, ..most(40) };
    let jobs = [sequence(free()), sequence(most(4)), sequence(exactly)];
    let record = complete(&mut measure, &jobs);
    assert_eq!(record.waiting_tokens, Some(3 * prompt + 10 + 4 + 40));
    assert_eq!(record.tokens_per_job, Some((4 * prompt + 10 + 10 + 4 + 40) / 4));
}

#[test]
fn what_is_remembered_of_a_prompt_is_not_needed() {
    let mut measure = Measure::default();
    let mut running = sequence(most(40));
    let prompt = running.prompt_tokens;
    running.figures.cached = Some(prompt - 1);
    measure.opened(prompt - 1, prompt);
    measure.opened(0, prompt);
    let record = complete(&mut measure, &[running]);
    assert_eq!(record.tokens_per_job, Some(1 + 40));
    assert_eq!(record.prefix_hit_percent, Some((100 * (prompt as u64 - 1)) / (2 * prompt as u64)));
}

#[test]
fn rates_are_of_the_last_seconds_and_end_with_the_work() {
    let mut measure = Measure::default();
    let began = Instant::now();
    let mut at = |s: u64, tokens: usize, picked: usize| {
        let now = began + Duration::from_secs(s);
        measure.computed(tokens, picked, now);
        let record = measure.complete(GenerateRecord::default(), std::iter::empty(), now);
        record.prompt_tokens_per_s.zip(record.output_tokens_per_s)
    };
    assert_eq!(at(0, 100, 4), None, "too soon to say");
    assert_eq!(at(1, 100, 4), Some((192, 8)));
    assert_eq!(at(100, 0, 0), Some((0, 0)));
    assert_eq!(at(101, 10, 10), Some((0, 1)), "what is not nothing is one at least");
}
