//! Times the scripts of limits beside one read of a key, in turn, on the Redis of the configuration.
//!
//! `FOREBAY_REDIS_URL=redis://127.0.0.1:6379/0 cargo run --release -p forebay-fabric --example limits`
#![allow(clippy::print_stdout)]

use std::{
    error::Error,
    time::{Duration, Instant},
};

use forebay_fabric::{
    Config, Store,
    access::{Request, RequestLease, TenantLimits, Verdict, WINDOW_MS},
};
use forebay_schemas::JobId;

const ROUNDS: usize = 5_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    forebay_fabric::install_crypto();
    let store = Store::new(&Config::load(None)?.config)?;
    let limits = TenantLimits {
        requests_per_minute: Some(1_000_000),
        tokens_per_minute: Some(1_000_000_000),
        in_flight: Some(100),
        budget: None,
    };
    let full = TenantLimits { requests_per_minute: Some(1), ..limits };
    let [mut reads, mut reserves, mut settles, mut refusals] = [(); 4].map(|()| Vec::new());
    for n in 0..ROUNDS {
        let began = Instant::now();
        store.read_results(&[JobId::random()]).await?;
        reads.push(began.elapsed());
        let lease = RequestLease {
            tenant: "example-of-limits".parse()?,
            id: n.to_string(),
            lease_ms: 30_000,
            window_ms: WINDOW_MS,
        };
        let request = Request {
            lease: &lease,
            limits,
            tokens: 100,
            money: None,
            waiting_max: 0,
            patience_ms: 0,
        };
        let began = Instant::now();
        let answer = store.reserve(&request).await?;
        reserves.push(began.elapsed());
        assert_eq!(answer.verdict, Verdict::Granted);
        let began = Instant::now();
        store.settle(&lease, answer.slice, -20).await?;
        settles.push(began.elapsed());
        let began = Instant::now();
        store.reserve(&Request { limits: full, ..request }).await?;
        refusals.push(began.elapsed());
    }
    for (name, times) in
        [("read", reads), ("reserve", reserves), ("settle", settles), ("refused", refusals)]
    {
        show(name, times);
    }
    Ok(())
}

fn show(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    println!("{name:<8} p50 {:>5} us  p99 {:>5} us", at(0.5), at(0.99));
}
