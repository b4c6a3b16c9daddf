//! Text generation: everything between the logits of a step and the text of an answer, and what keeps sequences.

pub(crate) mod cpu;
pub(crate) mod generator;
pub(crate) mod pages;

mod channels;
pub(crate) mod detokenize;
pub(crate) mod guide;
pub(crate) mod sample;
pub(crate) mod stop;
pub(crate) mod template;
pub(crate) mod tool_calls;
