//! `forebay dead list`.

use forebay_client::DeadLetterInfo;
use forebay_fabric::clock::now_ms;

use super::{
    browse::Browser,
    selection::{Selection, addressee, job},
};
use crate::{
    context::Context,
    error::CommandResult,
    output::{grouped, plain, span},
};

/// Dead letters listed without --limit: their lines are kept in memory until all are known.
const LIMIT: usize = 1_000;

pub(super) async fn run(selection: Selection, context: &mut Context) -> CommandResult {
    let mut browser = Browser::begin(selection, LIMIT, context).await?;
    let mut infos = Vec::new();
    while let Some(dead) = browser.next(context).await? {
        if context.output.json {
            let output = &mut context.output;
            browser.progress.aside(|| output.json_line(&dead.info))?;
        } else {
            infos.push(dead.info);
        }
    }
    browser.progress.end();
    if !infos.is_empty() {
        infos.sort_by_key(|info| info.died_at_ms.unwrap_or(u64::MAX));
        let now_ms = now_ms();
        let rows: Vec<_> = infos.iter().map(|info| row(info, now_ms)).collect();
        let heads = ["NAME", "AGE>", "REASON", "MODEL", "LANE", "JOB", "BYTES>"];
        context.output.table(heads, &rows)?;
    }
    browser.end().await
}

fn row(info: &DeadLetterInfo, now_ms: u64) -> [String; 7] {
    let age = info.died_at_ms.map_or("?".to_owned(), |at| span(now_ms.saturating_sub(at)));
    let [model, lane] = addressee(info);
    let reason = plain(info.reason.as_str());
    let bytes = grouped(info.bytes as u64);
    [info.name.to_string(), age, reason, model, lane, job(info).to_owned(), bytes]
}
