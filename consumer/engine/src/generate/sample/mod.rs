//! From a row of logits to a token: a pure function of the logits, the parameters and the tokens so far.
//!
//! Equal arguments give equal tokens on every processor: `math` has its own exponential, sums have a fixed order, and
//! random numbers are a function of seed and position (`philox`), so a resumed sequence goes on as if it had never
//! stopped.

mod adjust;
mod candidates;
mod mask;
mod math;
mod philox;
mod pick;
mod sampling;

pub use mask::TokenMask;
pub use pick::{PickError, Picked, pick};
pub use sampling::{History, Sampling};

#[cfg(test)]
mod tests;
