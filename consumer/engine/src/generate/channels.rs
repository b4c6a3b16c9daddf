//! The channels of an answer: gpt-oss writes its reasoning, its calls of tools and its answer one after the other, each
//! as a message with a head that names its channel (`harmony`). What a reader gets is the channel `final`.

use crate::tokenizer::channel_marks::ChannelMarks;
use crate::tokenizer::vocabulary::Vocabulary;

/// The channel of the answer.
const FINAL: &[u8] = b"final";
/// The longest head that is kept, in bytes; what is behind a channel's name doesn't matter.
const HEAD_BYTES_MAX: usize = 64;

/// Which tokens of an answer are its text.
#[derive(Clone, Debug)]
pub(super) struct Channels {
    marks: ChannelMarks,
    at: At,
}

#[derive(Clone, Debug)]
enum At {
    /// In the text of a message, or before any.
    Text { is_shown: bool },
    /// In a head; what follows the channel's mark, if that has come.
    Head(Option<Vec<u8>>),
}

impl Channels {
    /// At the beginning of an answer, whose text is shown until a head comes.
    pub(super) fn new(marks: ChannelMarks) -> Self {
        Self { marks, at: At::Text { is_shown: true } }
    }

    /// Whether the next token is text for the reader.
    pub(super) fn shows(&mut self, token: u32, vocabulary: &Vocabulary) -> bool {
        let ChannelMarks { start, channel, message, end } = self.marks;
        if token == start {
            self.at = At::Head(None);
        } else if token == channel {
            self.at = At::Head(Some(Vec::new()));
        } else if token == message {
            let is_shown = match &self.at {
                At::Head(Some(head)) => is_final(head),
                At::Head(None) | At::Text { .. } => true, // without a channel there is one
            };
            self.at = At::Text { is_shown };
        } else if token == end {
            self.at = At::Text { is_shown: false };
        } else {
            return match &mut self.at {
                At::Text { is_shown } => *is_shown,
                At::Head(head) => {
                    if let Some(head) = head.as_mut().filter(|head| head.len() < HEAD_BYTES_MAX) {
                        head.extend_from_slice(vocabulary.bytes(token));
                    }
                    false
                }
            };
        }
        false
    }
}

/// Whether a head, from its channel's name on, names the answer's.
fn is_final(head: &[u8]) -> bool {
    let mut words = head.split(|byte| byte.is_ascii_whitespace() || *byte == b'<');
    words.find(|word| !word.is_empty()) == Some(FINAL)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::generate::detokenize::Detokenizer;
    use crate::tokenizer::vocabulary::tests::{BYTE_LEVEL, byte_characters, library_of};

    const SPECIAL: [&str; 6] =
        ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|constrain|>"];

    /// The text that a reader gets of an answer, in which marks are written out, when it comes token by token.
    fn shown(answer: &str, special: &[&str], is_chat: bool) -> String {
        let tokens: Vec<String> = byte_characters().iter().map(ToString::to_string).collect();
        let library = library_of(&tokens, special, BYTE_LEVEL);
        let vocabulary = Arc::new(Vocabulary::of(&library).unwrap());
        let mut detokenizer =
            if is_chat { Detokenizer::new(vocabulary) } else { Detokenizer::following(vocabulary) };
        let mut text = String::new();
        let mut rest = answer;
        while let Some(first) = rest.bytes().next() {
            let mark = special.iter().find(|mark| rest.starts_with(**mark));
            let id = mark.map_or(u32::from(first), |mark| library.token_to_id(mark).unwrap());
            detokenizer.push(id, &mut text);
            rest = &rest[mark.map_or(1, |mark| mark.len())..];
        }
        detokenizer.finish(&mut text);
        text
    }

    #[test]
    fn the_final_channel_is_the_answer() {
        for (answer, expected) in [
            (
                "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
                "Yes.",
            ),
            ("<|channel|>final <|constrain|>json<|message|>{}<|return|>", "{}"),
            ("<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}", ""),
            ("<|channel|>finally<|message|>no", ""),
            ("<|start|>assistant<|message|>plain", "plain"),
            ("plain, as a guide makes it", "plain, as a guide makes it"),
            (
                "<|channel|>final<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b",
                "ab",
            ),
            ("<|channel|>final", ""),
        ] {
            assert_eq!(shown(answer, &SPECIAL, true), expected, "{answer}");
        }
        let long = format!("<|channel|>{}<|message|>no<|end|>", "final".repeat(100));
        assert_eq!(shown(&long, &SPECIAL, true), "");
    }

    #[test]
    fn what_is_no_chat_or_has_no_channels_is_shown_whole() {
        let answer = "<|channel|>analysis<|message|>Hm.<|end|>";
        assert_eq!(shown(answer, &SPECIAL, false), "analysisHm.");
        assert_eq!(shown("a<|end|>b<|start|>c", &["<|start|>", "<|end|>"], true), "abc");
    }
}
