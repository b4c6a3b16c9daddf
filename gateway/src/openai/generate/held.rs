//! [`Held`]: text that streams to a client, as long as it can be no tool call.
//!
//! The worker finds the calls of a whole text; until then their markup comes as text. From the first that may be markup
//! on nothing is handed on, and the record says which of it was text.

/// Markers that a call begins with: Hermes', Qwen's and `SmolLM`'s, Mistral's, and Llama's.
const MARKERS: [&str; 3] = ["<tool_call>", "[TOOL_CALLS]", "<|python_tag|>"];
/// The beginnings of objects that are a call if they are the whole text, without white space.
const BARE: [&str; 4] = ["{\"name\"", "{\"type\"", "{\"function\"", "[{\"name\""];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everything is handed on.
    Open,
    /// Nothing but white space has come, or what may become an object that is a call.
    Begins,
    /// Text, in which a marker may begin.
    Text,
    /// Nothing more is handed on.
    Closed,
}

/// Holds text back from where it may be a call.
#[derive(Debug)]
pub struct Held {
    state: State,
    /// Text that came and was not handed on.
    text: String,
    /// Bytes that were handed on.
    passed: usize,
}

impl Held {
    /// For an answer in which there may be calls.
    pub fn new(has_tools: bool) -> Self {
        let state = if has_tools { State::Begins } else { State::Open };
        Self { state, text: String::new(), passed: 0 }
    }

    /// For an answer that is a call as a whole: all of it waits for the record.
    pub fn closed() -> Self {
        Self { state: State::Closed, ..Self::new(true) }
    }

    /// Takes a piece, and returns the text that is certain by now.
    pub fn push(&mut self, piece: &str) -> String {
        self.text.push_str(piece);
        if self.state == State::Begins && !may_be_bare(&self.text) {
            self.state = State::Text;
        }
        let sure = match self.state {
            State::Open => self.text.len(),
            State::Begins | State::Closed => 0,
            State::Text => match MARKERS.iter().filter_map(|m| self.text.find(m)).min() {
                Some(at) => {
                    self.state = State::Closed;
                    // White space before a call belongs to it.
                    self.text[..at].trim_end().len()
                }
                None => self.text.len() - may_begin(&self.text),
            },
        };
        let text: String = self.text.drain(..sure).collect();
        self.passed += text.len();
        text
    }

    /// The part of the whole text that was not handed on.
    pub fn rest<'a>(&self, whole: &'a str) -> &'a str {
        whole.get(self.passed..).unwrap_or_default()
    }
}

/// How many bytes at the end of a text may be the beginning of a marker, with the white space before it.
fn may_begin(text: &str) -> usize {
    let longest = |marker: &&str| {
        // Markers are ASCII: each length is a boundary.
        (1..marker.len()).rev().find(|length| text.ends_with(&marker[..*length])).unwrap_or(0)
    };
    let marker = MARKERS.iter().map(longest).max().unwrap_or(0);
    text.len() - text[..text.len() - marker].trim_end().len()
}

/// Whether a text may become an object that is a call.
fn may_be_bare(text: &str) -> bool {
    let longest = BARE.iter().map(|begin| begin.len()).max().unwrap_or(0);
    let begun: String = text.chars().filter(|c| !c.is_whitespace()).take(longest).collect();
    BARE.iter().any(|begin| begin.starts_with(&begun) || begun.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_tools_everything_comes_at_once() {
        let mut held = Held::new(false);
        assert_eq!(held.push("a <tool_call>"), "a <tool_call>");
        assert_eq!(held.rest("a <tool_call>b"), "b");
    }

    #[test]
    fn text_comes_as_soon_as_it_can_be_no_call() {
        let mut held = Held::new(true);
        assert_eq!(held.push("\nHello"), "\nHello");
        assert_eq!(held.push(" <"), "");
        assert_eq!(held.push("b>"), " <b>");
        assert_eq!(held.push("\n<tool_ca"), "");
        assert_eq!(held.push("ll>{} </tool_call> x"), "");
        assert_eq!(held.rest("\nHello <b> x"), " x");
    }

    #[test]
    fn an_object_as_a_whole_waits_until_it_can_be_no_call() {
        let mut held = Held::new(true);
        assert_eq!(held.push(" { \"na"), "");
        assert_eq!(held.push("me\": \"a\"}"), "");
        let mut other = Held::new(true);
        assert_eq!(other.push("{\""), "");
        assert_eq!(other.push("city\""), "{\"city\"");
        assert_eq!(Held::closed().push("{}"), "");
    }

    proptest! {
        #[test]
        fn the_parts_of_a_text_without_calls_are_the_text(
            pieces in proptest::collection::vec(
                prop_oneof!["[<\\[a-z {\"é\\n|]{0,6}", Just("<tool_cal".to_owned())],
                0..8,
            ),
            has_tools in any::<bool>(),
        ) {
            let whole = pieces.concat();
            prop_assume!(!MARKERS.iter().any(|marker| whole.contains(marker)));
            let mut held = Held::new(has_tools);
            let came: String = pieces.iter().map(|piece| held.push(piece)).collect();
            prop_assert_eq!(format!("{came}{}", held.rest(&whole)), whole);
        }

        #[test]
        fn no_markup_comes(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec!["<tool_call>", "<tool", "_call>", "x ", "\n"]),
                0..8,
            ),
        ) {
            let mut held = Held::new(true);
            let came: String = pieces.iter().map(|piece| held.push(piece)).collect();
            prop_assert!(!came.contains("<tool_call>"), "{}", came);
        }
    }
}
