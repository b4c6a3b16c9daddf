//! Prints outcomes.

use std::io;

use forebay_client::{Outcome, Output as JobOutput, State};
use forebay_schemas::SparseVector;

use crate::output::{Output, grouped};

/// Values of a vector that are printed, unless as JSON.
const VALUES_SHOWN: usize = 4;

/// Prints one outcome: as a block of lines, or the whole record as JSON.
pub(super) fn outcome(to: &mut Output, outcome: &Outcome) -> io::Result<()> {
    if to.json {
        return to.json_line(outcome);
    }
    to.line(format_args!("job       {}", outcome.id))?;
    to.line(format_args!("state     {}", outcome.state))?;
    if let (Some(model), Some(task)) = (&outcome.model, &outcome.task) {
        to.line(format_args!("model     {model} ({task})"))?;
    }
    if let Some(error) = &outcome.error {
        to.line(format_args!("error     {error}"))?;
    }
    for line in outcome.output.iter().flat_map(output_lines) {
        to.line(format_args!("output    {line}"))?;
    }
    if outcome.state == State::Succeeded {
        let usage = &outcome.usage;
        let timing = &outcome.timing;
        to.line(format_args!("tokens    {}", grouped(usage.input_tokens + usage.output_tokens)))?;
        to.line(format_args!(
            "time      {} ms queued, {} ms for its batch, {} ms computed",
            timing.queued_ms, timing.batch_wait_ms, timing.compute_ms
        ))?;
    }
    for (key, value) in &outcome.metadata {
        to.line(format_args!("metadata  {key} = {value}"))?;
    }
    to.line(format_args!("worker    {} at attempt {}", outcome.worker, outcome.attempts))?;
    to.line("")
}

fn output_lines(output: &JobOutput) -> Vec<String> {
    match output {
        JobOutput::Embed(vectors) => vectors.rows().map(vector).collect(),
        JobOutput::EmbedSparse(output) => output.vectors.iter().map(sparse).collect(),
        JobOutput::EmbedTokens(output) => {
            output.rows().map(|rows| tokens(&rows, output.dim)).collect()
        }
        JobOutput::Rerank { scores, order } => order
            .iter()
            .map(|&index| {
                let score = scores.get(index as usize).copied().unwrap_or(f32::NAN);
                format!("document {index}: {score:.4}")
            })
            .collect(),
        JobOutput::Classify { labels } => labels
            .iter()
            .map(|labels| {
                let shown =
                    labels.iter().map(|label| format!("{} {:.3}", label.label, label.score));
                shown.collect::<Vec<_>>().join(", ")
            })
            .collect(),
        JobOutput::Generate { text, finish_reason, .. } => {
            vec![format!("{text} ({finish_reason})")]
        }
    }
}

/// The largest values of a sparse vector with their dimensions: `57 values: 1032=1.8120 460=1.2044 ...`
fn sparse(vector: &SparseVector) -> String {
    let mut pairs: Vec<(&u32, &f32)> = vector.indices.iter().zip(&vector.values).collect();
    pairs.sort_by(|a, b| b.1.total_cmp(a.1));
    let shown = pairs.iter().take(VALUES_SHOWN).map(|(index, value)| format!("{index}={value:.4}"));
    let more = if pairs.len() > VALUES_SHOWN { " ..." } else { "" };
    format!("{} values: {}{more}", pairs.len(), shown.collect::<Vec<_>>().join(" "))
}

/// How many vectors a text's tokens have, and the beginning of the first.
fn tokens(rows: &[&[f32]], dim: usize) -> String {
    match rows.first() {
        Some(first) => format!("{} vectors, the first of {}", rows.len(), vector(first)),
        None => format!("0 vectors of {dim} values"),
    }
}

/// The beginning of a vector: `384 values: 0.0123 -0.0456 0.0789 0.0012 ...`
pub(super) fn vector(values: &[f32]) -> String {
    let shown: Vec<String> =
        values.iter().take(VALUES_SHOWN).map(|value| format!("{value:.4}")).collect();
    let more = if values.len() > VALUES_SHOWN { " ..." } else { "" };
    format!("{} values: {}{more}", values.len(), shown.join(" "))
}
