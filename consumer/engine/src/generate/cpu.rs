//! A generator on the processor: a decoder's layers over pages, all threads sharing each operation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Device;
use forebay_kernels::{PAGE_TOKENS, Pages, SequenceRows, SpinPool, StepRows, for_each};

use crate::encode::workspace::Workspace;
use crate::error::EngineError;
use crate::families::decoder::{Decoder, Rows};
use crate::generate::generator::{
    Chunk, Generator, Keep, Opened, PendingPicks, Picks, Room, SequenceId, Step,
};
use crate::generate::pages::{Before, Counts, PageAllocator, Prefix};
use crate::generate::sample::{History, PickError, Picked, pick};

/// A generator on the processor.
pub(crate) struct CpuGenerator {
    decoder: Decoder,
    /// One store a layer.
    memory: Vec<Pages>,
    allocator: PageAllocator,
    sequences: HashMap<SequenceId, Sequence>,
    opened: u64,
    space: Workspace,
    /// Of the last step that picked, kept for the next.
    logits: Vec<f32>,
    pool: Arc<SpinPool>,
    tokens_max: usize,
}

/// An open sequence.
struct Sequence {
    tokens: Vec<u32>,
    /// Enough for its tokens.
    pages: Vec<u32>,
    /// The tokens before the page that is filled next.
    before: Before,
}

/// A chunk that picks, with the logits to pick from.
struct Row<'a, 'b> {
    chunk: &'a Chunk<'b>,
    logits: &'a mut [f32],
    made: Option<Result<Picked, PickError>>,
}

impl CpuGenerator {
    /// A generator with so many pages for the keys and values of all sequences, of up to `tokens_max` tokens each.
    pub(crate) fn new(
        decoder: Decoder,
        pages: u32,
        tokens_max: usize,
        dtype: candle_core::DType,
        threads: usize,
    ) -> Result<Self, EngineError> {
        let pool = SpinPool::new(threads)
            .map_err(|error| EngineError::Threads { threads, problem: error.to_string() })?;
        Ok(Self {
            memory: decoder.memory(pages as usize, dtype)?,
            allocator: PageAllocator::new(pages),
            sequences: HashMap::new(),
            opened: 0,
            space: Workspace::new(dtype, Device::Cpu),
            logits: Vec::new(),
            pool: Arc::new(pool),
            tokens_max: tokens_max.min(pages as usize * PAGE_TOKENS),
            decoder,
        })
    }

    /// Refuses a chunk that can't be computed.
    fn check(&self, step: &Step<'_>) -> Result<(), EngineError> {
        let vocabulary = self.decoder.config().vocabulary;
        let mut seen = HashMap::new();
        for (index, chunk) in step.rows.iter().enumerate() {
            let refused = |problem| Err(EngineError::Item { index, problem });
            let Some(sequence) = self.sequences.get(&chunk.id) else {
                return refused("the sequence is not open".to_owned());
            };
            if let Some(before) = seen.insert(chunk.id, index) {
                return refused(format!("the step has another chunk of its sequence, {before}"));
            }
            if chunk.tokens.is_empty() {
                return refused("it has no tokens".to_owned());
            }
            if let Some(id) = chunk.tokens.iter().find(|&&id| id as usize >= vocabulary) {
                return refused(format!("token id {id} is outside the vocabulary of {vocabulary}"));
            }
            let tokens = sequence.tokens.len() + chunk.tokens.len();
            if tokens > self.tokens_max {
                return refused(format!(
                    "{tokens} tokens, at most {} are supported",
                    self.tokens_max
                ));
            }
            if let Some(pick) = chunk.pick
                && pick.prompt_tokens > tokens
            {
                let prompt = pick.prompt_tokens;
                return refused(format!("a prompt of {prompt} tokens in a sequence of {tokens}"));
            }
        }
        Ok(())
    }

    /// Gives each sequence the pages that its new tokens need: all of them or none.
    fn take_pages(&mut self, step: &Step<'_>) -> Result<(), EngineError> {
        let mut needed = 0;
        for chunk in &step.rows {
            if let Some(sequence) = self.sequences.get(&chunk.id) {
                let tokens = sequence.tokens.len() + chunk.tokens.len();
                needed += tokens.div_ceil(PAGE_TOKENS).saturating_sub(sequence.pages.len());
            }
        }
        let left = self.allocator.left();
        if needed > left {
            return Err(EngineError::NoPages { needed, left });
        }
        for chunk in &step.rows {
            let Some(sequence) = self.sequences.get_mut(&chunk.id) else { continue };
            let tokens = sequence.tokens.len() + chunk.tokens.len();
            while sequence.pages.len() < tokens.div_ceil(PAGE_TOKENS) {
                sequence.pages.extend(self.allocator.take());
            }
        }
        Ok(())
    }

    /// Computes the step's rows, and the logits of the chunks that pick, in order.
    fn compute(&mut self, step: &Step<'_>) -> Result<(), EngineError> {
        let mut token_ids = Vec::new();
        let mut picked = Vec::new();
        let mut sequences = Vec::with_capacity(step.rows.len());
        for chunk in &step.rows {
            token_ids.extend_from_slice(chunk.tokens);
            if chunk.pick.is_some() {
                picked.push(token_ids.len() as u32 - 1);
            }
            let Some(sequence) = self.sequences.get(&chunk.id) else { continue };
            sequences.push(SequenceRows {
                tokens: chunk.tokens.len(),
                position: sequence.tokens.len(),
                pages: &sequence.pages,
            });
        }
        let rows = StepRows::new(sequences)?;
        let rows = Rows { token_ids: &token_ids, step: &rows, picked: &picked };
        let Self { decoder, memory, space, logits, .. } = self;
        decoder.forward(rows, memory, space, logits)
    }

    /// Counts the step's tokens as their sequences', and makes full pages known.
    fn append(&mut self, step: &Step<'_>) {
        for chunk in &step.rows {
            let Some(sequence) = self.sequences.get_mut(&chunk.id) else { continue };
            let first = sequence.tokens.len() / PAGE_TOKENS;
            sequence.tokens.extend_from_slice(chunk.tokens);
            let (whole, _) = sequence.tokens.as_chunks::<PAGE_TOKENS>();
            for (tokens, page) in whole.iter().zip(&mut sequence.pages).skip(first) {
                (*page, sequence.before) = self.allocator.fill(sequence.before, *tokens, *page);
            }
        }
    }

    /// Picks a token for each chunk that asks for one.
    fn pick(&self, step: &Step<'_>, logits: &mut [f32]) -> Picks {
        let vocabulary = self.decoder.config().vocabulary;
        let picks = step.rows.iter().filter(|chunk| chunk.pick.is_some());
        // Each is taken once, by the thread that picks from it.
        let rows: Vec<Mutex<Row<'_, '_>>> = picks
            .zip(logits.chunks_exact_mut(vocabulary))
            .map(|(chunk, logits)| Mutex::new(Row { chunk, logits, made: None }))
            .collect();
        for_each(rows.len(), |at| {
            let mut row = rows[at].lock().unwrap_or_else(PoisonError::into_inner);
            let row = &mut *row;
            row.made = Some(self.pick_one(row.chunk, row.logits));
        });
        let mut picks = Picks::default();
        for row in rows {
            let row = row.into_inner().unwrap_or_else(PoisonError::into_inner);
            match row.made {
                Some(Ok(picked)) => picks.picked.push((row.chunk.id, picked)),
                Some(Err(error)) => picks.failed.push((row.chunk.id, error)),
                None => {} // every task was run
            }
        }
        picks
    }

    fn pick_one(&self, chunk: &Chunk<'_>, logits: &mut [f32]) -> Result<Picked, PickError> {
        let tokens = self.sequences.get(&chunk.id).map_or(&[][..], |sequence| &sequence.tokens);
        let Some(asked) = chunk.pick else {
            return Err(PickError::NothingAllowed { position: 0 });
        };
        let (prompt, output) = tokens.split_at(asked.prompt_tokens.min(tokens.len()));
        pick(logits, asked.sampling, History { prompt, output }, asked.mask)
    }
}

impl Generator for CpuGenerator {
    fn open(&mut self, tokens: &[u32], salt: u64) -> Result<Opened, EngineError> {
        let Prefix { pages, before } = self.allocator.find(salt, tokens);
        let cached = pages.len() * PAGE_TOKENS;
        self.opened += 1;
        let id = SequenceId(self.opened);
        let tokens = tokens[..cached].to_vec();
        self.sequences.insert(id, Sequence { tokens, pages, before });
        Ok(Opened { id, cached })
    }

    fn begin(&mut self, step: &Step<'_>) -> Result<PendingPicks, EngineError> {
        self.check(step)?;
        if step.rows.is_empty() {
            return Ok(PendingPicks::done(Picks::default()));
        }
        self.take_pages(step)?;
        // Where this fails, sequences have pages more than they need yet and are as long as before: the next step
        // writes to them.
        let pool = Arc::clone(&self.pool);
        pool.step(|| {
            self.compute(step)?;
            self.append(step);
            let mut logits = std::mem::take(&mut self.logits);
            let picks = self.pick(step, &mut logits);
            self.logits = logits;
            Ok(PendingPicks::done(picks))
        })
    }

    fn close(&mut self, id: SequenceId, keep: Keep) {
        if let Some(sequence) = self.sequences.remove(&id) {
            self.allocator.release_all(&sequence.pages, keep);
        }
    }

    fn room(&self) -> Room {
        let Counts { free, held, cached } = self.allocator.counts();
        let page_bytes: usize = self.memory.iter().map(Pages::bytes_per_page).sum();
        Room {
            pages_free: free,
            pages_held: held,
            pages_cached: cached,
            page_tokens: PAGE_TOKENS,
            bytes_per_token: page_bytes / PAGE_TOKENS,
            tokens_max: self.tokens_max,
        }
    }
}
