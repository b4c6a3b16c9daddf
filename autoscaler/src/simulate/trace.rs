//! Reads traces: real arrivals from a file, one job a line, with a header that names the columns.
//!
//! Two layouts are known. `TIMESTAMP,ContextTokens,GeneratedTokens` is that of the Azure traces; a generated token
//! counts ten times a context token, since it takes a pass of its own. `at_s,work` is the plain one: seconds since
//! the beginning, and any unit of work.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

/// A job of a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Seconds since the first line.
    pub at_s: f64,
    /// Units of work; what a unit is, the service rate says.
    pub work: f64,
    /// Where the trace has them.
    pub tokens: Option<JobTokens>,
}

/// The tokens of a job that generates text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobTokens {
    /// Of its prompt.
    pub prompt: u32,
    /// Of its output.
    pub output: u32,
    /// The most that its output may have, where the job says so.
    pub output_max: Option<u32>,
}

impl JobTokens {
    /// The work of so many tokens, in that of a token of a prompt.
    pub fn work(prompt: u64, output: u64) -> f64 {
        prompt as f64 + GENERATED_TOKEN_WORK * output as f64
    }
}

/// Why a trace can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file can't be opened or read.
    #[error("{file}: {source}; give a CSV file, or one of square, sparse, diurnal and flash")]
    Read {
        /// The file as it was given.
        file: String,
        /// The system's error.
        source: io::Error,
    },
    /// A line that is no job.
    #[error("{file}:{line}: {wrong}")]
    Line {
        /// The file as it was given.
        file: String,
        /// Counted from 1; the header is line 1.
        line: usize,
        /// The problem and what was expected.
        wrong: String,
    },
}

/// A job a line: more are a mistake, and would fill the memory.
pub const JOBS_MAX: usize = 5_000_000;
/// Far longer than any line of a trace.
const LINE_BYTES_MAX: u64 = 1_024;
/// Generated tokens are computed one pass each, context tokens many a pass.
const GENERATED_TOKEN_WORK: f64 = 10.0;
/// A year: longer is a mistake, and would be simulated second by second.
const LENGTH_S_MAX: f64 = 366.0 * 86_400.0;

#[derive(Clone, Copy)]
enum Layout {
    Azure,
    Plain,
}

/// Reads the trace in `path`.
pub fn read(path: &Path) -> Result<Vec<Arrival>, TraceError> {
    let file = path.display().to_string();
    let opened = File::open(path);
    let opened = opened.map_err(|source| TraceError::Read { file: file.clone(), source })?;
    parse(&file, BufReader::new(opened))
}

/// Reads a trace from `source`; `file` is its name in errors.
pub fn parse(file: &str, mut source: impl BufRead) -> Result<Vec<Arrival>, TraceError> {
    let wrong = |line, wrong: String| TraceError::Line { file: file.into(), line, wrong };
    let mut arrivals: Vec<Arrival> = Vec::new();
    let mut layout = None;
    let mut first_s = None;
    for number in 1.. {
        let mut bytes = Vec::new();
        let read = source.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut bytes);
        let read = read.map_err(|source| TraceError::Read { file: file.into(), source })?;
        if read == 0 {
            break;
        }
        if read as u64 > LINE_BYTES_MAX {
            return Err(wrong(number, format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|_| wrong(number, "is not UTF-8".into()))?;
        let text = text.trim();
        let Some(layout) = layout else {
            layout = Some(header(text).map_err(|reason| wrong(number, reason))?);
            continue;
        };
        if text.is_empty() {
            continue;
        }
        let Arrival { at_s, work, tokens } =
            job(layout, text).map_err(|reason| wrong(number, reason))?;
        let at_s = at_s
            - *first_s.get_or_insert(match layout {
                Layout::Azure => at_s,
                Layout::Plain => 0.0,
            });
        if arrivals.last().is_some_and(|last| at_s < last.at_s) {
            return Err(wrong(
                number,
                "earlier than the line before; sort the trace by time".into(),
            ));
        }
        if at_s > LENGTH_S_MAX {
            return Err(wrong(number, "more than a year after the beginning".into()));
        }
        if arrivals.len() == JOBS_MAX {
            return Err(wrong(number, format!("more than {JOBS_MAX} jobs; cut the trace")));
        }
        arrivals.push(Arrival { at_s, work, tokens });
    }
    if arrivals.is_empty() {
        return Err(wrong(1, "no jobs: a header and at least one line are needed".into()));
    }
    Ok(arrivals)
}

fn header(text: &str) -> Result<Layout, String> {
    match text.trim_start_matches('\u{feff}') {
        "TIMESTAMP,ContextTokens,GeneratedTokens" => Ok(Layout::Azure),
        "at_s,work" => Ok(Layout::Plain),
        other => Err(format!(
            "the header is {other:?}; it must be TIMESTAMP,ContextTokens,GeneratedTokens or at_s,work"
        )),
    }
}

/// The job of one line, its time in seconds of whichever epoch.
fn job(layout: Layout, text: &str) -> Result<Arrival, String> {
    let fields: Vec<&str> = text.split(',').map(str::trim).collect();
    match (layout, fields.as_slice()) {
        (Layout::Azure, [at, context, generated]) => {
            let at_s = timestamp_s(at).ok_or_else(|| {
                format!("the time is {at:?}; it must look like 2023-11-16 18:17:03.97")
            })?;
            let prompt = tokens(context)?;
            let output = tokens(generated)?;
            let work = JobTokens::work(prompt.into(), output.into());
            Ok(Arrival { at_s, work, tokens: Some(JobTokens { prompt, output, output_max: None }) })
        }
        (Layout::Plain, [at, work]) => {
            let at_s = amount("at_s", at)?;
            Ok(Arrival { at_s, work: amount("work", work)?, tokens: None })
        }
        (Layout::Azure, _) => Err(format!("{} fields, not 3", fields.len())),
        (Layout::Plain, _) => Err(format!("{} fields, not 2", fields.len())),
    }
}

fn tokens(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is no count of tokens"))
}

fn amount(name: &str, text: &str) -> Result<f64, String> {
    let parsed = text.parse::<f64>().ok().filter(|amount| (0.0..=1e12).contains(amount));
    parsed.ok_or_else(|| format!("{name} is {text:?}; it must be a number from 0 to 1e12"))
}

/// `2023-11-16 18:17:03.9799600` as seconds since 1970, the fraction optional.
fn timestamp_s(text: &str) -> Option<f64> {
    let (date, time) = text.split_once([' ', 'T'])?;
    let [year, month, day] = parts(date, '-')?;
    let (clock, fraction) = time.trim_end_matches('Z').split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = parts(clock.trim_end_matches('Z'), ':')?;
    let good = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61
        && (1..=9).contains(&fraction.len())
        && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !good {
        return None;
    }
    // Days since 1970 in the proleptic Gregorian calendar, with years that begin in March (Howard Hinnant,
    // "chrono-compatible low-level date algorithms").
    let year = year - i64::from(month <= 2);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year.div_euclid(400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year
        - 719_468;
    let fraction_s: f64 = format!("0.{fraction}").parse().ok()?;
    Some((days * 86_400 + hour * 3_600 + minute * 60 + second) as f64 + fraction_s)
}

/// Three whole numbers between two separators.
fn parts(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut found = text.split(separator).map(|part| {
        let plain = part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit());
        if plain { part.parse::<i64>().ok() } else { None }
    });
    let all = [found.next()??, found.next()??, found.next()??];
    found.next().is_none().then_some(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A line of an Azure trace, with numbers that may be out of range.
    const NEARLY_RIGHT: &str = "[0-9]{4}-[0-9]{2}-[0-9]{1,2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,10})?,\
        [0-9]{1,11},[-0-9.e]{1,4}";

    fn read_text(text: &str) -> Result<Vec<Arrival>, String> {
        parse("t.csv", text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn azure_lines_become_seconds_and_work() {
        let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                    2023-12-31 23:59:59.5000000,4808,10\n2024-01-01 00:00:01,100,0\n";
        let read = read_text(text).unwrap();
        let tokens = |prompt, output| Some(JobTokens { prompt, output, output_max: None });
        assert_eq!(read[0], Arrival { at_s: 0.0, work: 4908.0, tokens: tokens(4808, 10) });
        assert_eq!(read[1], Arrival { at_s: 1.5, work: 100.0, tokens: tokens(100, 0) });
    }

    #[test]
    fn dates_are_days_since_1970() {
        assert_eq!(timestamp_s("1970-01-01 00:00:00"), Some(0.0));
        assert_eq!(timestamp_s("2000-03-01T00:00:00Z"), Some(951_868_800.0));
        assert_eq!(timestamp_s("2023-11-16 18:17:03"), Some(1_700_158_623.0));
    }

    #[test]
    fn a_bad_line_is_named() {
        let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
        let cases = [
            ("", "t.csv:1: no jobs"),
            ("at_s,work\n", "t.csv:1: no jobs"),
            ("a,b\n", "t.csv:1: the header is \"a,b\""),
            ("at_s,work\n1,2\n3\n", "t.csv:3: 1 fields, not 2"),
            ("at_s,work\n1,-2\n", "t.csv:2: work is \"-2\""),
            ("at_s,work\nNaN,2\n", "t.csv:2: at_s is \"NaN\""),
            ("at_s,work\n5,1\n4,1\n", "t.csv:3: earlier than the line before"),
            ("at_s,work\n99999999,1\n", "t.csv:2: more than a year"),
            (&format!("{azure}2023-13-01 00:00:00,1,1\n"), "t.csv:2: the time is"),
            (&format!("{azure}2023-12-01 00:00:00,x,1\n"), "t.csv:2: \"x\" is no count"),
            (&format!("at_s,work\n{}\n", "1".repeat(2_000)), "t.csv:2: longer than 1024 bytes"),
        ];
        for (text, expected) in cases {
            let error = read_text(text).unwrap_err();
            assert!(error.starts_with(expected), "{error:?} is not {expected:?}");
        }
    }

    #[test]
    fn a_missing_file_says_what_to_give() {
        let error = read(Path::new("no-such.csv")).unwrap_err().to_string();
        assert!(error.contains("no-such.csv") && error.contains("square"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_trace_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            headed in any::<bool>(),
        ) {
            let mut text = if headed { b"at_s,work\n".to_vec() } else { Vec::new() };
            text.extend(bytes);
            check_sane(parse("t.csv", text.as_slice()));
        }

        #[test]
        fn lines_that_are_nearly_right_are_a_trace_or_an_error(
            lines in prop::collection::vec(NEARLY_RIGHT, 0..6),
        ) {
            let text = format!("TIMESTAMP,ContextTokens,GeneratedTokens\n{}", lines.join("\n"));
            check_sane(parse("t.csv", text.as_bytes()));
        }
    }

    fn check_sane(read: Result<Vec<Arrival>, TraceError>) {
        match read {
            Ok(read) => {
                assert!(!read.is_empty() && read.is_sorted_by(|a, b| a.at_s <= b.at_s));
                assert!(read.iter().all(|job| job.at_s >= 0.0 && job.work >= 0.0));
            }
            Err(error) => assert!(error.to_string().starts_with("t.csv"), "{error}"),
        }
    }
}
