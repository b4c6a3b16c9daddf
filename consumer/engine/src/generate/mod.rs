//! Text generation: everything between the logits of a step and the text of an answer, and what keeps sequences.

pub(crate) mod generator;

pub(crate) mod sample;
