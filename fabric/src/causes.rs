//! An error with its causes as one line, for the person who started a program.

use std::error::Error;

/// The error's message and those of its causes, each once: many messages have that of their cause in them already.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let message = next.to_string();
        if !line.contains(&message) {
            line = format!("{line}: {message}");
        }
        cause = next.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error("can't read the file: {source}")]
        Named { source: io::Error },
        #[error("can't start")]
        Bare { source: Box<Failed> },
    }

    #[test]
    fn each_cause_is_named_once() {
        let named = Failed::Named { source: io::Error::other("it is gone") };
        assert_eq!(with_causes(&named), "can't read the file: it is gone");
        let bare = Failed::Bare { source: Box::new(named) };
        assert_eq!(with_causes(&bare), "can't start: can't read the file: it is gone");
    }
}
