//! Stop strings: texts that end an answer and are no part of it.

/// Looks for stop strings in a growing text and holds back what may be the beginning of one.
///
/// How the text comes in parts makes no difference: what counts is the stop string that is whole first, and of those
/// that are whole at once the one that began first.
#[derive(Clone, Debug)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Text that may belong to a stop string: shorter than the longest of them.
    held: String,
}

impl StopStrings {
    /// Looks for these; empty ones are ignored.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        Self {
            stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(),
            held: String::new(),
        }
    }

    /// Takes more text and appends to `text` what is certainly part of the answer. Returns the stop string that was
    /// found, after which there is no more text.
    pub fn push(&mut self, more: &str, text: &mut String) -> Option<&str> {
        if self.stops.is_empty() {
            text.push_str(more);
            return None;
        }
        self.held.push_str(more);
        // The smallest end, and of those the smallest start.
        let found = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, stop))
        });
        if let Some((_, start, stop)) = found.min_by_key(|&(end, start, _)| (end, start)) {
            text.push_str(&self.held[..start]);
            self.held.clear();
            return Some(stop);
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        text.extend(self.held.drain(..self.held.len() - keep));
        None
    }

    /// Takes more text in which no stop string counts, as before `min_tokens`. Nothing of it can begin one.
    pub fn pass(&mut self, more: &str, text: &mut String) {
        self.finish(text);
        text.push_str(more);
    }

    /// Appends what was held back, at the end of an answer that no stop string ended.
    pub fn finish(&mut self, text: &mut String) {
        text.push_str(&self.held);
        self.held.clear();
    }
}

/// The length of the longest end of `text` that `stop` begins with, `stop` itself excepted.
pub(super) fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest)
        .rev()
        .find(|&length| {
            text.is_char_boundary(text.len() - length)
                && stop.starts_with(&text[text.len() - length..])
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The specification: after each character, whether a stop string is whole.
    fn cut(text: &str, stops: &[String]) -> (String, bool) {
        for (at, character) in text.char_indices() {
            let so_far = &text[..at + character.len_utf8()];
            let ended =
                stops.iter().filter(|stop| !stop.is_empty() && so_far.ends_with(stop.as_str()));
            if let Some(longest) = ended.map(String::len).max() {
                return (so_far[..so_far.len() - longest].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    proptest! {
        #[test]
        fn parts_make_no_difference(
            parts in proptest::collection::vec("[abé]{0,5}", 0..12),
            stops in proptest::collection::vec("[abé]{0,4}", 0..4),
        ) {
            let whole = parts.concat();
            let (right, is_stopped) = cut(&whole, &stops);
            let mut strings = StopStrings::new(stops.clone());
            let mut text = String::new();
            let mut found = false;
            for part in &parts {
                found = strings.push(part, &mut text).is_some();
                prop_assert!(right.starts_with(&text));
                if found {
                    break;
                }
            }
            if !found {
                strings.finish(&mut text);
            }
            prop_assert_eq!(found, is_stopped);
            prop_assert_eq!(text, right);
        }
    }

    #[test]
    fn text_waits_only_while_it_may_be_a_stop_string() {
        let mut strings = StopStrings::new(["\n\nUser:".to_owned(), "END".to_owned()]);
        let mut text = String::new();
        assert_eq!(strings.push("water\n\nUs", &mut text), None);
        assert_eq!(text, "water");
        assert_eq!(strings.push("age E", &mut text), None);
        assert_eq!(text, "water\n\nUsage ");
        assert_eq!(strings.push("ND more", &mut text), Some("END"));
        assert_eq!(text, "water\n\nUsage ");
    }

    #[test]
    fn text_before_the_least_tokens_is_not_looked_at() {
        let mut strings = StopStrings::new(["END".to_owned()]);
        let mut text = String::new();
        strings.pass("the END of E", &mut text);
        assert_eq!(strings.push("ND", &mut text), None);
        strings.finish(&mut text);
        assert_eq!(text, "the END of END");
    }
}
