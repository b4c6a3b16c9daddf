//! Rankings in the shapes of Cohere, Jina, Voyage and TEI: requests and answers.
//!
//! Cohere and Jina read the same answer; Voyage's client and TEI's each have a shape of their own, known by fields that
//! only they send.

mod answer;
mod body;
mod request;

pub use answer::{Answer, Ranking, TeiRanked, VoyageRanking, answer, ranked};
pub use body::{BareRerankBody, RerankBody, TeiRerankBody};
pub use request::{NAMES, Path, RerankRequest, Shape, only_true};
