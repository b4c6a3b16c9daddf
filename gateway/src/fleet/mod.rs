//! From a request to jobs of the fleet and back: lists are split into jobs, their results joined in order, and jobs
//! that no caller waits for any more are cancelled.

mod abandon;
mod calls;
mod distinct;
mod shared;
mod split;

pub use abandon::Canceller;
pub use calls::{Call, Fleet, Ranking, Vectors};
