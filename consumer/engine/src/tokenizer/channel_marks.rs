//! The tokens by which an answer in channels is taken apart.

/// The special tokens around messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ChannelMarks {
    /// `<|start|>`: of a message's head, which begins with a role.
    pub(crate) start: u32,
    /// `<|channel|>`: its name follows, within the head.
    pub(crate) channel: u32,
    /// `<|message|>`: the text follows.
    pub(crate) message: u32,
    /// `<|end|>`: of a message that isn't the last.
    pub(crate) end: u32,
}

impl ChannelMarks {
    /// Of a vocabulary that has all of them: `id` gives a special token's.
    pub(crate) fn of(id: impl Fn(&str) -> Option<u32>) -> Option<Self> {
        Some(Self {
            start: id("<|start|>")?,
            channel: id("<|channel|>")?,
            message: id("<|message|>")?,
            end: id("<|end|>")?,
        })
    }
}
