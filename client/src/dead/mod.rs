//! Dead letters: browsing them, replaying their jobs, discarding them.

mod browse;
mod filter;
mod info;
mod replay;

pub use browse::{DeadLetter, DeadLetters};
pub use filter::DeadLetterFilter;
pub use info::DeadLetterInfo;
pub use replay::{Kept, ReplayError};
