//! Acting: carries out what was decided, by the launchers, and says what it could not do.
//!
//! [`launcher`] is what every launcher can do, [`process`], [`docker`] and [`kubernetes`] are the three there are, and
//! [`launchers`] holds those that a configuration asks for. [`carry_out`] is the one way on which workers are ended,
//! drained and launched. Nothing is chosen here: sizes, workers that leave and devices come from [`crate::decide`].

pub mod ask;
pub mod carry_out;
pub mod docker;
mod environment;
pub mod kubernetes;
pub mod launcher;
pub mod launchers;
pub mod process;

pub use launcher::{Instance, InstanceState, LaunchError, Launcher, Order, REMOTE_DEVICE};
