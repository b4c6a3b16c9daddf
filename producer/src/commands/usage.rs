//! `forebay usage`: what was used, and what that costs.

use forebay_fabric::{
    access::AccessError,
    clock::now_ms,
    usage::{Asked, By, Hour, Report, Row, UsageError, parse_time},
};

use super::duration;
use crate::{
    context::{Context, unless_stopped},
    error::{CommandError, CommandResult},
    output::{grouped, plain},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only of this tenant; `-` for jobs that named none
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// By tenant, key, model, lane, price, day or hour
    #[arg(long, value_name = "PROPERTY", default_value = "tenant")]
    by: By,
    /// Since when: a time before now such as 7d, a date, or a time of UTC; this month unless given
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Until when, not included: as --since; now unless given
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Print CSV instead of a table
    #[arg(long)]
    csv: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> CommandResult {
    let asked = asked(&args, now_ms())?;
    let store = context.store()?;
    let mut report = Report::new(args.by);
    let read = async {
        let read = store.usage(&asked, |used| report.add(&used)).await;
        read.map_err(|error| match error {
            UsageError::TooMuch { .. } => CommandError::Usage(error.to_string()),
            UsageError::Store(error) => AccessError::from(error).into(),
        })
    };
    unless_stopped(&context.stop, read).await?;
    if args.csv {
        return Ok(context.output.line(report.csv().trim_end())?);
    }
    if context.output.json {
        for row in report.written() {
            context.output.json_line(&row)?;
        }
        return Ok(());
    }
    if report.rows.is_empty() {
        eprintln!("forebay: no job has ended from {} to {}", asked.from, asked.until);
    }
    let head = args.by.as_str().to_uppercase();
    let heads = [
        head.as_str(),
        "JOBS>",
        "FAILED>",
        "INPUT TOKENS>",
        "OUTPUT TOKENS>",
        "DEVICE TIME>",
        "COST>",
    ];
    let mut rows: Vec<_> = report.rows.iter().map(|(of, row)| cells(&plain(of), row)).collect();
    rows.push(cells("total", &report.total));
    Ok(context.output.table(heads, &rows)?)
}

/// The usage that is asked for.
fn asked(args: &Args, now_ms: u64) -> Result<Asked, CommandError> {
    let now = Hour::of_ms(now_ms);
    let time = |text: &Option<String>, default| match text {
        None => Ok(default),
        Some(text) => time(text, now_ms).map_err(CommandError::Usage),
    };
    let from = time(&args.since, Hour::on(now.day().first_of_month(), 0))?;
    let until = time(&args.until, now.next())?;
    if until <= from {
        return Err(CommandError::Usage(format!(
            "--until ({until}) is not later than --since ({from})"
        )));
    }
    Ok(Asked { from, until, tenant: args.tenant.clone() })
}

/// An hour: of so long ago, or of a time.
fn time(text: &str, now_ms: u64) -> Result<Hour, String> {
    let is_span = text.ends_with(['s', 'm', 'n', 'h', 'd']);
    if is_span {
        let ago = duration::parse(text)?.as_millis() as u64;
        return Ok(Hour::of_ms(now_ms.saturating_sub(ago)));
    }
    parse_time(text).map_err(|error| format!("{error}; or a time before now such as 7d"))
}

fn cells(of: &str, row: &Row) -> [String; 7] {
    let sums = &row.sums;
    let cost = match (row.cost(), row.unpriced_jobs) {
        (None, _) => "no price".to_owned(),
        (Some(cost), 0) => cost,
        (Some(cost), unpriced) => format!("{cost} and {} jobs without a price", grouped(unpriced)),
    };
    [
        of.to_owned(),
        grouped(sums.jobs),
        grouped(sums.failed_jobs),
        grouped(sums.input_tokens),
        grouped(sums.output_tokens),
        seconds(sums.device_us),
        cost,
    ]
}

/// Microseconds as seconds, exactly.
fn seconds(us: u64) -> String {
    format!("{}.{:06} s", grouped(us / 1_000_000), us % 1_000_000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use forebay_fabric::usage::Sums;

    use super::*;

    /// 2026-11-29T13:30:00Z
    const NOW_MS: u64 = 1_795_959_000_000;

    fn args(since: Option<&str>, until: Option<&str>) -> Args {
        Args {
            tenant: None,
            by: By::Tenant,
            since: since.map(Into::into),
            until: until.map(Into::into),
            csv: false,
        }
    }

    #[test]
    fn usage_is_of_this_month_unless_times_are_given() {
        let from_to = |since, until| {
            let Asked { from, until, .. } = asked(&args(since, until), NOW_MS).unwrap();
            (from.to_string(), until.to_string())
        };
        let text = |from: &str, until: &str| (from.to_owned(), until.to_owned());
        assert_eq!(from_to(None, None), text("2026-11-01T00:00:00Z", "2026-11-29T14:00:00Z"));
        assert_eq!(
            from_to(Some("7d"), Some("2026-11-29")),
            text("2026-11-22T13:00:00Z", "2026-11-29T00:00:00Z")
        );
        for (since, until) in [(Some("soon"), None), (None, Some("2026-10-01"))] {
            assert!(matches!(asked(&args(since, until), NOW_MS), Err(CommandError::Usage(_))));
        }
    }

    #[test]
    fn money_and_time_are_printed_to_their_last_digit() {
        let sums =
            Sums { jobs: 1_000, cost: 1_000_000_001, device_us: 61_000_002, ..Sums::default() };
        let row = Row { sums, unpriced_jobs: 0 };
        assert_eq!(cells("acme", &row)[5..], ["61.000002 s", "1.000000001"]);
        let none = Row { unpriced_jobs: 1_000, ..row };
        assert_eq!(cells("acme", &none)[6], "no price");
        let some = Row { unpriced_jobs: 3, ..row };
        assert_eq!(cells("acme", &some)[6], "1.000000001 and 3 jobs without a price");
    }
}
