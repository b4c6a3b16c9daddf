//! `forebay dead list`

use forebay_fabric::clock::now_ms;
use forebay_producer::LetterInfo;

use super::{CommandResult, Context, Look, Selection, addressee, job};
use crate::output::{grouped, plain, span};

/// Letters that are listed unless the caller wants more: their lines are held until all are known.
const LIMIT: usize = 1_000;

pub(super) async fn run(selection: Selection, context: &mut Context) -> CommandResult {
    let mut look = Look::begin(selection, LIMIT, context).await?;
    let mut letters = Vec::new();
    while let Some(letter) = look.next(context).await? {
        if context.output.json {
            let output = &mut context.output;
            look.progress.aside(|| output.json_line(&letter.info))?;
        } else {
            letters.push(letter.info);
        }
    }
    look.progress.end();
    if !letters.is_empty() {
        letters.sort_by_key(|letter| letter.died_at_ms.unwrap_or(u64::MAX));
        let now_ms = now_ms();
        let rows: Vec<_> = letters.iter().map(|letter| row(letter, now_ms)).collect();
        let heads = ["LETTER", "AGE>", "REASON", "MODEL", "LANE", "JOB", "BYTES>"];
        context.output.table(heads, &rows)?;
    }
    look.end().await
}

fn row(info: &LetterInfo, now_ms: u64) -> [String; 7] {
    let age = info.died_at_ms.map_or("?".to_owned(), |at| span(now_ms.saturating_sub(at)));
    let [model, lane] = addressee(info);
    let reason = plain(info.reason.as_str());
    let bytes = grouped(info.bytes as u64);
    [info.letter.to_string(), age, reason, model, lane, job(info).to_owned(), bytes]
}
