//! From a request to jobs of the fleet and back: lists are split into jobs, their results joined in order, and jobs
//! that no caller waits for any more are cancelled.

mod abandon;
mod cache;
mod calls;
mod distinct;
mod generation;
mod revisions;
mod shared;
mod split;
mod vectors;

pub use abandon::Canceller;
pub use cache::Cache;
pub use calls::{Call, Fleet, Ranking};
pub use generation::{Generation, Next};
pub use vectors::Vectors;
