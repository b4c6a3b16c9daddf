//! A job that generates text: its tokens, and the answer that they make.

use forebay_engine::{Chunk, Guide, Pick, Picked, Sampling, SequenceId, TokenMask};
use forebay_fabric::{
    disposition::Disposition, store::TokenAppend, telemetry::trace::Stages, ticket::Ticket,
};
use forebay_schemas::{
    FinishReason, Job, JobError, Lane, Outcome, Output, Timing, TokenChunk, TokenLogprob, Usage,
    Work,
};
use tokio::time::{Duration, Instant};

use crate::{
    generate::{
        answer::{Answer, Words},
        prefix::Prefix,
        schedule::{Key, Waiting},
    },
    journal::Sequences,
};

/// So many tokens further than what it had written, a job that is suspected of its worker's death has come past
/// where that was: the tokens between two entries of its stream, and those between that were not written yet.
/// Without it, all that ran on a worker that was killed would run one after the other to their ends.
const CLEARED_TOKENS: usize = 2 * STREAM_TOKENS;

/// Tokens of output after which an entry of the token stream is due.
pub const STREAM_TOKENS: usize = 16;

/// A sequence that the device holds.
#[derive(Debug, Clone, Copy)]
pub struct Open {
    /// Its id at the generator.
    pub id: SequenceId,
    /// Tokens that are computed.
    pub done: usize,
}

/// A job that generates text.
pub struct Sequence {
    /// The job; its prompt is tokens by now.
    pub job: Job,
    /// The right to answer it.
    pub ticket: Ticket,
    /// The lane it came by.
    pub lane: Lane,
    /// Milliseconds from submission to admission.
    pub queued_ms: u64,
    /// When it was admitted.
    pub admitted_at: Instant,
    /// This attempt's name, as the owner of the token stream.
    pub owner: String,
    /// The cache's salt: tenants share no prefixes.
    pub salt: u64,
    /// The tokens of the prompt, and then of the output.
    pub tokens: Vec<u32>,
    /// How many are the prompt's.
    pub prompt_tokens: usize,
    /// The most tokens of output.
    pub output_max: usize,
    /// How tokens are picked.
    pub sampling: Sampling,
    /// Keeps the output to its format.
    pub guide: Option<Guide>,
    /// The tokens that may come next, by the guide; made before each pick.
    pub mask: Option<TokenMask>,
    /// The text.
    pub answer: Answer,
    /// The output's log-probabilities, if they are asked for.
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// Its entry in the journal.
    pub entry: Option<Sequences>,
    /// Its state on the device, which holds it.
    pub open: Option<Open>,
    /// Tokens of output that the token stream has; `None` where the job has no stream.
    pub streamed: Option<usize>,
    /// When an entry was made last.
    pub streamed_at: Instant,
    /// The tokens of output up to which it runs alone.
    pub alone_until: Option<usize>,
    /// Figures of it.
    pub figures: Figures,
}

/// Figures of a job on its way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Tokens of the prompt that the device had.
    pub cached: Option<usize>,
    /// Its share of the device's time, in microseconds.
    pub device_us: u64,
    /// When the device began its first step, and ended its last.
    pub computed: Option<(Instant, Instant)>,
    /// When its prompt was tokenized.
    pub tokenized: Option<(Instant, Instant)>,
    /// Sequences in its last step.
    pub step_sequences: u64,
    /// Tokens in its last step.
    pub step_tokens: u64,
}

impl Sequence {
    /// Tokens of output so far.
    pub fn output(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    /// Whether it must run alone: a worker died of it, or of those that ran beside it, and it has not come past
    /// where that was yet.
    pub fn alone(&self) -> bool {
        self.alone_until.is_some()
    }

    /// A worker that died of it, if it was this one, was at most so much further than what it had written. One that
    /// wrote nothing runs alone to its end.
    pub fn suspect(&mut self) {
        let until = self.streamed.map_or(usize::MAX, |_| self.output() + CLEARED_TOKENS);
        self.alone_until = (self.ticket.deaths > 0).then_some(until);
    }

    /// Whether it ran alone, and has come past where a worker died: from then on it may run beside others.
    pub fn is_cleared(&mut self) -> bool {
        let output = self.output();
        let is_cleared = self.alone_until.is_some_and(|until| output >= until);
        if is_cleared {
            self.alone_until = None;
        }
        is_cleared
    }

    /// Takes a picked token. Returns why the output ends with it, if it does.
    pub fn take(&mut self, picked: &Picked, words: &Words) -> Option<FinishReason> {
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.push(words.logprob(picked));
        }
        self.take_token(picked.token)
    }

    /// Takes a token, without its log-probability.
    fn take_token(&mut self, token: u32) -> Option<FinishReason> {
        self.tokens.push(token);
        let output = self.output();
        if self.sampling.ends(token) {
            self.answer.end_token();
            return Some(self.answer.finish(FinishReason::Stop));
        }
        if self.answer.push(token, output >= self.sampling.min_tokens) {
            return Some(FinishReason::Stop);
        }
        (output >= self.output_max).then(|| self.answer.finish(FinishReason::Length))
    }

    /// Takes up the output of an earlier attempt. Returns why it had ended, if it had.
    pub fn resume(&mut self, chunks: Vec<TokenChunk>) -> Result<Option<FinishReason>, JobError> {
        for chunk in chunks {
            if let (Some(all), Some(more)) = (&mut self.logprobs, chunk.logprobs) {
                all.extend(more);
            }
            if let Some(guide) = &mut self.guide {
                guide.take(&chunk.ids).map_err(|error| JobError::invalid(error.to_string()))?;
            }
            for token in chunk.ids {
                let end = self.take_token(token);
                self.streamed = Some(self.output());
                if end.is_some() {
                    return Ok(end);
                }
            }
        }
        Ok(None)
    }

    /// The next entry of its token stream: all of the output that the stream does not have.
    pub fn chunk(&self) -> Option<TokenChunk> {
        let from = self.streamed?;
        let ids = self.tokens.get(self.prompt_tokens + from..).filter(|ids| !ids.is_empty())?;
        let logprobs = self.logprobs.as_ref();
        Some(TokenChunk {
            at: from as u32,
            ids: ids.to_vec(),
            text: self.answer.text_from(from).to_owned(),
            logprobs: logprobs.map(|all| all.get(from..).unwrap_or_default().to_vec()),
        })
    }

    /// The most tokens that its output may still have.
    pub fn output_left(&self) -> usize {
        self.output_max.saturating_sub(self.output()).max(1)
    }

    /// Ends the job with its output.
    pub fn succeed(mut self, reason: FinishReason) -> (Ticket, Outcome) {
        let (usage, timing) = self.end();
        let Work::Generate { params, .. } = &self.job.work else {
            let error = JobError::invalid("not a generation");
            return (self.ticket, Outcome::failed(&self.job, error));
        };
        let token_ids = params.return_token_ids;
        let (text, tool_calls) = self.answer.into_parts(&self.job.id);
        let calls = reason == FinishReason::Stop && !tool_calls.is_empty();
        let output = Output::Generate {
            text,
            finish_reason: if calls { FinishReason::ToolCalls } else { reason },
            tool_calls,
            token_ids: token_ids.then(|| self.tokens[self.prompt_tokens..].to_vec()),
            logprobs: self.logprobs,
        };
        let outcome = Outcome::succeeded(&self.job, output, usage, timing);
        (self.ticket, outcome)
    }

    /// Ends the job with an error.
    pub fn fail(mut self, error: JobError, attempts_max: u32) -> Disposition {
        let (usage, timing) = self.end();
        let outcome = Outcome { usage, timing, ..Outcome::failed(&self.job, error) };
        Disposition::of(self.ticket, outcome, attempts_max)
    }

    fn end(&mut self) -> (Usage, Timing) {
        let Figures { cached, device_us, computed, tokenized, .. } = self.figures;
        let usage = Usage {
            input_tokens: self.prompt_tokens as u64,
            output_tokens: self.output() as u64,
            cached_tokens: cached.unwrap_or_default() as u64,
            truncated: 0,
            device_us,
        };
        if let Some(trace) = &mut self.ticket.trace {
            let stages =
                Stages { admitted_at: self.admitted_at, tokenized, computed, batches: Vec::new() };
            trace.passed(stages);
        }
        let (began, ended) = computed.unwrap_or((self.admitted_at, self.admitted_at));
        let timing = Timing {
            queued_ms: self.queued_ms,
            batch_wait_ms: began.saturating_duration_since(self.admitted_at).as_millis() as u64,
            compute_ms: ended.saturating_duration_since(began).as_millis() as u64,
            batch_size: self.figures.step_sequences,
            batch_tokens: self.figures.step_tokens,
        };
        (usage, timing)
    }

    /// Makes the mask of the pick that follows so many more tokens, if they end with one.
    pub fn make_mask(&mut self, tokens: usize) -> Result<(), JobError> {
        let picks = self.open.is_some_and(|open| open.done + tokens == self.tokens.len());
        self.mask = None;
        if let Some(guide) = self.guide.as_mut().filter(|_| picks) {
            let mask = guide.mask().map_err(|error| JobError::invalid(error.to_string()))?;
            self.mask = Some(mask);
        }
        Ok(())
    }

    /// The next so many tokens as a row of a step.
    pub fn row(&self, tokens: usize) -> Option<Chunk<'_>> {
        let open = self.open?;
        let end = (open.done + tokens).min(self.tokens.len());
        let pick = Pick {
            sampling: &self.sampling,
            prompt_tokens: self.prompt_tokens,
            mask: self.mask.as_ref(),
        };
        Some(Chunk {
            id: open.id,
            tokens: &self.tokens[open.done..end],
            pick: (end == self.tokens.len()).then_some(pick),
        })
    }

    /// A step computed so many of its tokens, from one moment to another, beside others.
    pub fn computed(
        &mut self,
        tokens: usize,
        device_us: u64,
        (began, ended): (Instant, Instant),
        (step_sequences, step_tokens): (usize, usize),
    ) {
        if let Some(open) = &mut self.open {
            open.done += tokens;
        }
        let figures = &mut self.figures;
        figures.device_us += device_us;
        figures.computed = Some((figures.computed.map_or(began, |(first, _)| first), ended));
        figures.step_sequences = step_sequences as u64;
        figures.step_tokens = step_tokens as u64;
    }

    /// Takes a picked token, and the guide with it. Returns why the output ends with it, if it does.
    pub fn picked(
        &mut self,
        picked: &Picked,
        words: &Words,
    ) -> Result<Option<FinishReason>, JobError> {
        if let Some(guide) = &mut self.guide {
            let taken = guide.take(&[picked.token]);
            taken.map_err(|error| JobError::invalid(error.to_string()))?;
        }
        Ok(self.take(picked, words))
    }

    /// Whether somebody follows its tokens.
    pub fn is_followed(&self) -> bool {
        matches!(&self.job.work, Work::Generate { params, .. } if params.stream)
    }

    /// The next entry of its token stream, which counts as written from now on.
    pub fn append(&mut self, ttl_s: u64) -> Option<TokenAppend> {
        let chunk = self.chunk()?;
        self.streamed = Some(self.output());
        self.streamed_at = Instant::now();
        let notify = self.ticket.notify.clone().filter(|_| self.is_followed());
        let id = self.job.id.clone();
        Some(TokenAppend { id, owner: self.owner.clone(), chunk, ttl_s, notify })
    }

    /// How the schedule sees it, at a moment that is so many Unix milliseconds.
    pub fn waiting(&self, key: Key, page_tokens: usize, now_ms: u64) -> Waiting {
        let expires_in = |at: u64| Duration::from_millis(at.saturating_sub(now_ms));
        Waiting {
            key,
            tokens: self.tokens.len(),
            output_max: self.output_left(),
            output_expected: None,
            prefix: Prefix::of(&self.tokens, self.salt, page_tokens),
            expires: self.job.expires_at_ms().map(|at| Instant::now() + expires_in(at)),
        }
    }
}
