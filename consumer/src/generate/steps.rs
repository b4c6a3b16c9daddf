//! One step: masks, the engine's call, and what comes of each row.

use std::time::Duration;

use forebay_engine::{EngineError, Keep, PickError, Picks, Step};
use forebay_fabric::fail;
use forebay_schemas::{ErrorCode, JobError, tokens::TOKENS_TTL_S};
use metrics::{counter, histogram};
use tokio::time::Instant;

use crate::{
    encode::device_time,
    generate::{
        device::{Failure, Run, called},
        schedule::{Key, Next},
        sequence::STREAM_TOKENS,
    },
};

/// The time after which one is due: what a worker that dies loses.
const STREAM_PAUSE: Duration = Duration::from_millis(250);
/// That time for a job that somebody follows.
const FOLLOWED_PAUSE: Duration = Duration::from_millis(50);

impl Run {
    /// Computes a step. `false` if there was nothing to compute.
    pub(super) fn step(&mut self) -> bool {
        let rows = loop {
            if self.is_lost {
                return false;
            }
            match self.stage.schedule.next(self.stage.generator.room().pages_left()) {
                Next::Step(rows) => break rows,
                Next::Open(key) => self.open(key),
                Next::GiveWay(key) => {
                    self.stage.schedule.give_way(key);
                    self.gave_way(key);
                }
            }
        };
        let rows = self.with_masks(rows);
        if rows.is_empty() {
            return false;
        }
        self.rows(&rows);
        true
    }

    /// Makes the masks of the rows that pick a token by a guide. Rows without their mask are left out: their jobs have
    /// failed.
    fn with_masks(&mut self, rows: Vec<(Key, usize)>) -> Vec<(Key, usize)> {
        let mut good = Vec::with_capacity(rows.len());
        for (key, tokens) in rows {
            let Some(sequence) = self.jobs.get_mut(&key) else { continue };
            match sequence.make_mask(tokens) {
                Ok(()) => good.push((key, tokens)),
                Err(error) => self.fail(key, error, Keep::Prefix),
            }
        }
        good
    }

    /// Computes rows; if that fails, in halves, until the failing sequence is alone.
    fn rows(&mut self, rows: &[(Key, usize)]) {
        let began = Instant::now();
        let result = {
            let Self { stage, jobs, .. } = self;
            let chunks = rows.iter().filter_map(|(key, tokens)| jobs.get(key)?.row(*tokens));
            let step = Step { rows: chunks.collect() };
            called(&stage.calls, || stage.generator.begin(&step)?.wait())
        };
        match result {
            Ok(picks) => self.computed(rows, picks, began),
            Err(Failure::Engine(EngineError::NoPages { .. })) if rows.len() > 1 => {
                // Pages are counted otherwise there: the youngest waits.
                if let Some((key, _)) = rows.last().copied() {
                    self.stage.schedule.give_way(key);
                    self.gave_way(key);
                }
            }
            Err(failure) if failure.is_lost() => self.lost(&failure),
            Err(failure) => {
                if let [(key, _)] = rows {
                    return self.engine_failed(*key, &failure);
                }
                tracing::warn!(sequences = rows.len(), error = %failure, "a step failed; halving it");
                let (first, second) = rows.split_at(rows.len() / 2);
                self.rows(first);
                if !self.is_lost {
                    self.rows(second);
                }
            }
        }
    }

    fn computed(&mut self, rows: &[(Key, usize)], picks: Picks, began: Instant) {
        let ended = Instant::now();
        let tokens: Vec<usize> = rows.iter().map(|(_, tokens)| *tokens).collect();
        let all: usize = tokens.iter().sum();
        let busy_us = self.time.add(ended - began);
        self.stage.schedule.stepped(ended - began);
        let progressed = all + std::mem::take(&mut self.cached);
        self.stage.holding.progressed(progressed, ended - began);
        self.stage.stats.computed(all as u64, busy_us);
        counter!("forebay_compute_tokens_total").increment(all as u64);
        counter!("forebay_compute_busy_us_total").increment(busy_us);
        self.tokens += picks.picked.len() as u64;
        counter!("forebay_generate_tokens_total").increment(picks.picked.len() as u64);
        histogram!("forebay_generate_step_ms").record((ended - began).as_secs_f64() * 1_000.0);
        histogram!("forebay_generate_step_tokens").record(all as f64);
        histogram!("forebay_generate_step_sequences").record(rows.len() as f64);
        let shares = device_time::share(busy_us, &tokens);
        self.measure.computed(all, picks.picked.len(), ended);
        for (&(key, tokens), device_us) in rows.iter().zip(shares) {
            self.stage.schedule.computed(key, tokens);
            if let Some(sequence) = self.jobs.get_mut(&key) {
                sequence.computed(tokens, device_us, (began, ended), (rows.len(), all));
            }
        }
        fail::point("after_step");
        for (id, picked) in picks.picked {
            let Some(key) = self.keys.get(&id).copied() else { continue };
            let Some(sequence) = self.jobs.get_mut(&key) else { continue };
            match sequence.picked(&picked, &self.stage.words) {
                Ok(Some(reason)) => self.finish(key, reason),
                Ok(None) => {
                    let is_cleared = sequence.is_cleared();
                    self.stage.schedule.picked(key);
                    self.stream_if_due(key, ended);
                    if is_cleared {
                        // It enters the journal again, beside others.
                        self.stage.schedule.give_way(key);
                        self.gave_way(key);
                    }
                }
                Err(error) => self.fail(key, error, Keep::Prefix),
            }
        }
        for (id, error) in picks.failed {
            if let Some(key) = self.keys.get(&id).copied() {
                let code = match error {
                    PickError::NotANumber { .. } => ErrorCode::NumericalError,
                    PickError::NothingAllowed { .. } => ErrorCode::InvalidRequest,
                };
                self.fail(key, JobError::new(code, error.to_string()), Keep::Nothing);
            }
        }
    }

    fn stream_if_due(&mut self, key: Key, now: Instant) {
        let Some(sequence) = self.jobs.get(&key) else { return };
        let pause = if sequence.is_followed() { FOLLOWED_PAUSE } else { STREAM_PAUSE };
        let Some(streamed) = sequence.streamed else { return };
        let tokens = sequence.output() - streamed;
        let is_first = streamed == 0 && sequence.is_followed();
        let is_late = now.saturating_duration_since(sequence.streamed_at) >= pause;
        if tokens >= STREAM_TOKENS || is_late || is_first {
            self.stream(key, TOKENS_TTL_S);
        }
    }
}
