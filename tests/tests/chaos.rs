//! A fleet among failures of every kind, drawn from a seed: everything that was promised is kept.
//!
//! Here it is a short run; `make chaos` is a long one.

use forebay_tests::chaos::Plan;

#[tokio::test(flavor = "multi_thread")]
async fn a_disturbed_fleet_keeps_what_it_promised() {
    Plan { seed: 1, runs: 2, jobs: 300 }.overridden().run().await;
}
