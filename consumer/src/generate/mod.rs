//! The stages of generators: models whose sequences live for many steps.

pub mod command;
pub mod prompts;
