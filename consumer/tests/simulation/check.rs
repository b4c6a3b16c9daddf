//! Whether a record says the right thing about its job: its end, its rows, the input that an error is of, its attempts.

use forebay_fabric::config::WorkerConfig;
use forebay_schemas::{ErrorCode, Job, Outcome, Output, State, Work};

use super::model::{Behavior, tokens};

/// An error says what is wrong with the record of a job of this behavior, whose message was sent so many times more.
pub fn record(
    job: &Job,
    behavior: Behavior,
    duplicates: usize,
    outcome: &Outcome,
) -> Result<(), String> {
    // The last attempt may be made at each of its messages at once.
    let attempts_max = WorkerConfig::default().attempts_max + duplicates as u32;
    let Work::Embed { input, .. } = &job.work else { return Err("no embed job".into()) };
    if outcome.id != job.id {
        return Err(format!("it is the record of {}", outcome.id));
    }
    if !is_expected(behavior, outcome) {
        return Err("it is not the end of such a job".into());
    }
    if !(1..=attempts_max).contains(&outcome.attempts) {
        return Err(format!("1 to {attempts_max} attempts were possible"));
    }
    match &outcome.output {
        Some(Output::Embed(vectors)) => rows(input, behavior, vectors.dim, &vectors.data)?,
        Some(other) => return Err(format!("an output of another task: {other:?}")),
        None => {}
    }
    let total: usize = input.iter().map(|text| tokens(text)).sum();
    if outcome.state == State::Succeeded && outcome.usage.input_tokens != total as u64 {
        return Err(format!("{total} tokens were read"));
    }
    let index = outcome.error.as_ref().and_then(|error| error.index);
    let wrong = input.iter().position(|text| Behavior::Nan.is_of(tokens(text)));
    if behavior == Behavior::Nan && index != wrong {
        return Err(format!("its error is of input {wrong:?}"));
    }
    Ok(())
}

/// Each input has the row that the model gives it, in the inputs' order.
fn rows(input: &[String], behavior: Behavior, dim: usize, data: &[f32]) -> Result<(), String> {
    if dim != behavior as usize || data.len() != input.len() * dim {
        return Err(format!("{} rows of {} were asked for", input.len(), behavior as usize));
    }
    for (n, (text, row)) in input.iter().zip(data.chunks_exact(dim)).enumerate() {
        if row.iter().any(|value| *value as usize != tokens(text)) {
            return Err(format!("input {n} has {} tokens and the row {row:?}", tokens(text)));
        }
    }
    Ok(())
}

fn is_expected(behavior: Behavior, outcome: &Outcome) -> bool {
    let code = outcome.error.as_ref().map(|error| error.code);
    match behavior {
        Behavior::Good | Behavior::Large => outcome.state == State::Succeeded,
        Behavior::Nan => code == Some(ErrorCode::NumericalError),
        Behavior::Kills | Behavior::Fails | Behavior::Panics => {
            code == Some(ErrorCode::AttemptsExhausted)
        }
        // Its failures and the deaths of its workers may add up.
        Behavior::FailsAtFirst => code.is_none() || code == Some(ErrorCode::AttemptsExhausted),
    }
}
