//! A hostile client at the gateway: broken requests, slow ones, very many, other tenants' ids, generated nonsense.
//! Afterwards the gateway is as it was: no fault of its own, no descriptor, slot or job left behind, its memory flat.
//!
//! `FOREBAY_ADVERSARIAL_POLLS` says how many long polls there are at once (300; `make adversarial`: 10,000), and
//! `FOREBAY_SCHEMATHESIS` names the program that generates requests from the document; without it that part is left
//! out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // it prints its table
#![allow(clippy::format_collect, clippy::format_push_string)]

mod adversarial {
    mod bodies;
    mod foreign;
    mod generated;
    mod ground;
    mod polls;
    mod raw;
    mod slow;
    mod tricks;

    use ground::Ground;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hostile_client_leaves_no_trace() {
        let mut ground = Ground::start().await;
        ground.usual_work();
        tricks::run(&mut ground).await;
        bodies::run(&mut ground).await;
        foreign::run(&mut ground).await;
        slow::run(&mut ground).await;
        generated::run(&mut ground).await;
        polls::run(&mut ground).await;
        ground.at_the_end().await;
    }
}
