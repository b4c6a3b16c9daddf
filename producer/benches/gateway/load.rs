//! Loads: two ways of asking in turns, and many connections at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::{
    http::{Connection, Target},
    program::{Program, own},
};

/// Milliseconds of many requests.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Times {
    fn of(mut ms: Vec<f64>) -> Self {
        ms.sort_by(f64::total_cmp);
        let at =
            |percent: usize| ms.get((ms.len() * percent / 100).min(ms.len().saturating_sub(1)));
        let at = |percent| at(percent).copied().unwrap_or(f64::NAN);
        Self { p50: at(50), p99: at(99) }
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "p50_ms": self.p50, "p99_ms": self.p99 })
    }
}

/// How long each of two ways to the same takes, asked in turns since machines drift.
pub(crate) async fn in_turns(
    rounds: usize,
    mut one: impl AsyncFnMut() -> Result<()>,
    mut other: impl AsyncFnMut() -> Result<()>,
) -> Result<[Times; 2]> {
    let mut took = [Vec::with_capacity(rounds), Vec::with_capacity(rounds)];
    // A tenth more, before those that count.
    for round in 0..rounds + rounds / 10 {
        let began = Instant::now();
        one().await?;
        let between = Instant::now();
        other().await?;
        if round >= rounds / 10 {
            took[0].push((between - began).as_secs_f64() * 1e3);
            took[1].push(between.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(took.map(Times::of))
}

/// The figures of a load of many connections.
pub(crate) struct Rate {
    pub(crate) connections: usize,
    pub(crate) per_s: f64,
    pub(crate) times: Times,
    /// Microseconds of processor time of the program for each request, and of this process.
    pub(crate) program_us: f64,
    pub(crate) load_us: f64,
    pub(crate) memory_mb: f64,
}

impl Rate {
    pub(crate) fn json(&self) -> Value {
        json!({
            "connections": self.connections, "per_s": self.per_s, "p50_ms": self.times.p50,
            "p99_ms": self.times.p99, "program_us": self.program_us, "load_us": self.load_us,
            "memory_mb": self.memory_mb,
        })
    }
}

/// Asks on so many connections, each of which sends its next request when it has its answer. Without a program, what
/// answers is in this process.
pub(crate) async fn rate(
    target: &Target,
    connections: usize,
    time: Duration,
    program: Option<&Program>,
) -> Result<Rate> {
    let used = || program.map_or_else(|| Ok(crate::program::Used::default()), Program::used);
    run(target, connections, time / 5).await?;
    let before = (used()?, own()?, Instant::now());
    let ms = run(target, connections, time).await?;
    let took = before.2.elapsed();
    let after = (used()?, own()?);
    let count = ms.len() as f64;
    let us_each = |later: Duration, sooner: Duration| {
        later.saturating_sub(sooner).as_secs_f64() * 1e6 / count
    };
    Ok(Rate {
        connections,
        per_s: count / took.as_secs_f64(),
        times: Times::of(ms),
        program_us: us_each(after.0.processor, before.0.processor),
        load_us: us_each(after.1.processor, before.1.processor),
        memory_mb: after.0.memory_mb,
    })
}

async fn run(target: &Target, connections: usize, time: Duration) -> Result<Vec<f64>> {
    let until = Instant::now() + time;
    let tasks = (0..connections).map(|_| {
        let target = target.clone();
        let task = tokio::spawn(async move {
            let mut connection = Connection::open(&target).await?;
            let mut ms = Vec::new();
            while Instant::now() < until {
                let began = Instant::now();
                let answer = connection.ask(&target).await?;
                ensure!(answer.status == 200, "{}: {}", answer.status, connection.last());
                ms.push(began.elapsed().as_secs_f64() * 1e3);
            }
            Ok(ms)
        });
        async { task.await? }
    });
    Ok(try_join_all(tasks).await?.concat())
}
