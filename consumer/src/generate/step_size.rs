//! The size of a step: the most tokens that it has, measured once for a model on a machine and kept beside the models.
//!
//! The next token of each sequence waits for the step, and the first one of an interactive job for two; but each step
//! has a token of every sequence that runs, and only what is left of it is for prompts. So a step is the largest that
//! takes no longer than [`STEP_TIME`].

use std::{
    path::Path,
    time::{Duration, Instant},
};

use forebay_engine::{Chunk, EngineError, Keep, Model, Step};
use forebay_schemas::ModelId;

use crate::encode::calibrate;

/// The first size that is tried, and the least: a token of as many sequences as run, and as many tokens of prompts.
const TOKENS_MIN: usize = 128;
/// More brings nothing: weights are read for many rows by then.
const TOKENS_MAX: usize = 1_024;
/// The time that a step takes at most, where it can be so short: ten tokens a second for each who reads.
const STEP_TIME: Duration = Duration::from_millis(100);
/// The better of so many runs counts; the first one also brings in memory.
const RUNS: usize = 2;
/// No larger size is begun after this: jobs may be waiting for the worker.
const MEASURE_TIME_MAX: Duration = Duration::from_millis(700);

/// The tokens of a step for this model: as measured before on a machine like this, or as measured now.
pub fn step_tokens(
    model: &mut Model,
    models_dir: &Path,
    name: &ModelId,
) -> Result<usize, EngineError> {
    calibrate::kept(model, models_dir, name, measure)
}

fn measure(model: &mut Model) -> Result<usize, EngineError> {
    let room = model.engine.generator()?.room();
    let most = TOKENS_MAX.min(room.tokens_max).min(room.pages_left() * room.page_tokens);
    let began = Instant::now();
    let mut best = TOKENS_MIN;
    let mut tokens = TOKENS_MIN;
    while tokens <= most && began.elapsed() < MEASURE_TIME_MAX && time(model, tokens)? <= STEP_TIME
    {
        best = tokens;
        tokens *= 2;
    }
    Ok(best)
}

/// The shortest time of a step that computes so many tokens of a prompt.
fn time(model: &mut Model, tokens: usize) -> Result<Duration, EngineError> {
    let mut ids = model.tokenizer.encode_prompt(&"water ".repeat(tokens), false)?;
    ids.truncate(tokens);
    let generator = model.engine.generator()?;
    let mut best = Duration::MAX;
    for _ in 0..RUNS {
        let opened = generator.open(&ids, 0)?;
        let chunk = Chunk { id: opened.id, tokens: &ids[opened.cached..], pick: None };
        let began = Instant::now();
        let picks = generator.begin(&Step { rows: vec![chunk] })?.wait();
        best = best.min(began.elapsed());
        generator.close(opened.id, Keep::Nothing);
        picks?;
        if best > STEP_TIME {
            break;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_measured_within_its_room() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engine/tests/data/tiny/llama");
        let mut model =
            forebay_engine::load(&folder, &forebay_engine::LoadOptions::default()).unwrap();
        let tokens = measure(&mut model).unwrap();
        assert!((TOKENS_MIN..=512).contains(&tokens), "{tokens}");
        assert_eq!(model.engine.generator().unwrap().room().pages_held, 0);
    }
}
