//! The stages of encoders: models whose sequences each end in one step, a packed batch.
//!
//! [`batch`] packs tokenized jobs with [`packer`]; [`compute`] gives the batches to the engine; [`assemble`] puts the
//! rows back into their jobs and makes their [`output`], and [`batch_trace`] the batch's span. [`budget`] is how many
//! tokens a batch may have, [`calibrate`] finds its best value by measuring, [`device_time`] shares a batch's time out
//! to its jobs, [`faults`] are those that tests ask for, and [`command`] runs the engine alone.

pub mod assemble;
pub mod batch;
pub mod batch_trace;
pub mod budget;
pub mod calibrate;
pub mod command;
pub mod compute;
pub mod device_time;
pub mod faults;
pub mod output;
pub mod packer;
