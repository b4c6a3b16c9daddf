//! The stages of generators: models whose sequences live for many steps.

pub mod answer;
pub mod backlog;
pub mod checkpoint;
pub mod command;
pub mod device;
pub mod expect;
pub mod holding;
pub mod measure;
pub mod prefix;
pub mod prepare;
pub mod prompting;
pub mod prompts;
pub mod schedule;
pub mod sequence;
mod slots;
pub mod stage;
pub mod step_size;
mod steps;
