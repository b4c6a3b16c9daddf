//! Job ids from the command line or, one a line, from standard input.

use std::io::{self, BufRead, IsTerminal};

use forebay_schemas::JobId;

use crate::error::CommandError;

/// The most ids that one command takes.
const IDS_MAX: usize = 1_000_000;

/// The ids that are given, or those on standard input when none is.
pub(super) fn or_stdin(given: Vec<JobId>) -> Result<Vec<JobId>, CommandError> {
    if !given.is_empty() {
        return Ok(given);
    }
    if io::stdin().is_terminal() {
        return Err(CommandError::Usage(
            "which jobs? Give their ids, or one a line on standard input".into(),
        ));
    }
    read(io::stdin().lock())
}

/// The ids in these lines.
pub(super) fn read(lines: impl BufRead) -> Result<Vec<JobId>, CommandError> {
    let usage = |number: usize, what: String| {
        CommandError::Usage(format!("standard input, line {number}: {what}"))
    };
    let mut ids = Vec::new();
    for (number, line) in (1..).zip(lines.lines()) {
        let line = line.map_err(|error| usage(number, error.to_string()))?;
        if line.trim().is_empty() {
            continue;
        }
        if ids.len() == IDS_MAX {
            return Err(usage(number, format!("more than {IDS_MAX} ids: split them")));
        }
        ids.push(line.trim().parse().map_err(|error| usage(number, format!("{error}")))?);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_are_read_one_a_line() {
        let ids = read(&b"a\n\n b \n"[..]).unwrap();
        assert_eq!(ids, ["a".parse().unwrap(), "b".parse().unwrap()]);
    }

    #[test]
    fn a_wrong_id_is_named_with_its_line() {
        let error = read(&b"a\nb c\n"[..]).unwrap_err();
        assert!(error.to_string().contains("line 2: `b c`"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
