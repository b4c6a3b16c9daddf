//! Questions answered by nearest neighbours, which checks that the vectors carry meaning.

use std::time::{Duration, Instant};

use forebay_client::{Client, Job, Lane, ModelId};

use super::{
    print::print_line,
    vectors::{Embedded, checked, similarity},
};

/// Questions, each with words of which a good answer contains one.
const QUESTIONS: [(&str, &[&str]); 5] = [
    ("a tool to play music in the terminal", &["music", "audio", "player", "mp3"]),
    (
        "software for astronomers to look at the night sky",
        &["astronom", "star", "sky", "telescope"],
    ),
    ("how do I make a backup of my files?", &["backup", "archive", "restore"]),
    (
        "recognise handwriting or printed text in a scanned image",
        &["ocr", "scan", "recogni", "image"],
    ),
    ("a game where you shoot spaceships", &["game", "shoot", "space", "arcade"]),
];
/// Neighbours shown for each question.
const SHOWN: usize = 3;
/// Unrelated texts score about 0.1, related ones from about 0.4.
const SCORE_MIN: f32 = 0.3;
/// Rounding may lift a perfect score a little over 1.
const SCORE_MAX: f32 = 1.01;
/// Characters of an answer that are shown.
const CHARS_SHOWN: usize = 64;
/// The limit for one answer.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Asks each question on the interactive lane and prints its nearest texts.
pub(crate) async fn ask(
    client: &Client,
    model: &ModelId,
    texts: &[Embedded<'_>],
) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for (question, words) in QUESTIONS {
        let since = Instant::now();
        let job = Job::embed(model.clone(), vec![question.to_owned()]);
        let id = client.submit(job, Lane::Interactive).await?;
        let outcome = client.wait(&id, WAIT_MAX).await?;
        let latency_ms = since.elapsed().as_secs_f64() * 1e3;
        match checked(&outcome, 1) {
            Ok(vectors) => {
                print_line(format_args!("\n{question}   ({latency_ms:.0} ms)"));
                let nearest = nearest(&vectors.concat(), texts);
                for (score, text) in &nearest {
                    show(*score, text);
                }
                problems.extend(implausible(question, words, &nearest));
            }
            Err(problem) => problems.push(problem),
        }
    }
    Ok(problems)
}

fn nearest<'t, 'a>(vector: &[f32], texts: &'t [Embedded<'a>]) -> Vec<(f32, &'t Embedded<'a>)> {
    let mut scored: Vec<(f32, &Embedded<'_>)> =
        texts.iter().map(|text| (similarity(vector, &text.values), text)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.truncate(SHOWN);
    scored
}

fn show(score: f32, text: &Embedded<'_>) {
    let words: String = text.text.chars().take(CHARS_SHOWN).collect();
    print_line(format_args!("  {score:.3}  {:<28}  {words}", text.id));
}

fn implausible(question: &str, words: &[&str], nearest: &[(f32, &Embedded<'_>)]) -> Option<String> {
    let best = nearest.first()?.0;
    if !(SCORE_MIN..=SCORE_MAX).contains(&best) {
        return Some(format!("`{question}`: the best score is {best:.3}, which is implausible"));
    }
    let fits = |text: &str| {
        let text = text.to_lowercase();
        words.iter().any(|word| text.contains(word))
    };
    let any = nearest.iter().any(|(_, found)| fits(found.text) || fits(found.id));
    (!any).then(|| format!("`{question}`: none of the best answers is related to it"))
}
