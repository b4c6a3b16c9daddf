//! A model for the simulation. A job says by its `dimensions` how it behaves in the engine.

use std::{path::Path, sync::LazyLock};

use forebay_engine::{
    Encoder, Engine, EngineError, LoadOptions, Model, ModelInfo, PackedBatch, Pending, Rows,
};
use tokio::time::{Duration, Instant};

use super::life::Life;

/// How a job behaves in the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Behavior {
    /// It is computed.
    Good = 9,
    /// Its worker dies.
    Kills = 1,
    /// It fails every time.
    Fails = 2,
    /// It fails in the first seconds of the run.
    FailsAtFirst = 3,
    /// It gives no numbers for the longest of its inputs.
    Nan = 4,
    /// It needs a small batch.
    Large = 5,
    /// It makes the engine panic.
    Panics = 6,
}

impl Behavior {
    const ALL: [Self; 7] = [
        Self::Good,
        Self::Kills,
        Self::Fails,
        Self::FailsAtFirst,
        Self::Nan,
        Self::Large,
        Self::Panics,
    ];

    fn of(dimensions: Option<usize>) -> Self {
        let asked = |behavior: &Self| Some(*behavior as usize) == dimensions;
        Self::ALL.into_iter().find(asked).unwrap_or(Self::Good)
    }

    /// Whether an input of so many tokens behaves like that, too: of a `Nan` job one alone does.
    pub fn is_of(self, tokens: usize) -> bool {
        self != Self::Nan || tokens > NAN_TOKENS_MIN
    }
}

/// The tokens of a text of the simulation: each word is one, and two stand around them.
pub fn tokens(text: &str) -> usize {
    text.split_whitespace().count() + 2
}

/// How long jobs fail "at first".
pub const AT_FIRST: Duration = Duration::from_secs(4);
/// Longer than any other input.
const NAN_TOKENS_MIN: usize = 16;
/// The words of the input that gives no numbers.
pub const NAN_WORDS: usize = 20;
/// The largest batch that a large job fits into.
const LARGE_TOKENS_MAX: usize = 48;

/// The tokenizer of a real small model, with the encoder of the simulation.
pub fn model(life: Life, began: Instant) -> Model {
    static REAL: LazyLock<(std::sync::Arc<forebay_engine::Tokenizer>, ModelInfo)> =
        LazyLock::new(|| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engine/tests/data/tiny/bert");
            let options = LoadOptions { threads: Some(1), ..LoadOptions::default() };
            let real = forebay_engine::load(&folder, &options).unwrap();
            (real.tokenizer, real.info)
        });
    let (tokenizer, info) = REAL.clone();
    let dim = info.dim;
    let engine = Engine::Encoder(Box::new(Simulated { life, began, dim }));
    Model { tokenizer, info, engine }
}

/// Gives each input a row of its number of tokens.
struct Simulated {
    life: Life,
    began: Instant,
    dim: usize,
}

impl Encoder for Simulated {
    fn begin(&mut self, batch: &PackedBatch) -> Result<Pending, EngineError> {
        let mut data = vec![0.0; batch.sequences() * self.dim];
        let rows = data.chunks_exact_mut(self.dim).zip(batch.cu_seqlens().ranges());
        for ((row, sequence), finish) in rows.zip(batch.finishes()) {
            row.fill(sequence.len() as f32);
            match Behavior::of(finish.dimensions) {
                Behavior::Kills => self.life.die(),
                Behavior::Nan if Behavior::Nan.is_of(sequence.len()) => row.fill(f32::NAN),
                Behavior::Fails => return Err(failed()),
                Behavior::FailsAtFirst if self.began.elapsed() < AT_FIRST => return Err(failed()),
                Behavior::Large if batch.tokens() > LARGE_TOKENS_MAX => {
                    let tokens = batch.tokens();
                    return Err(EngineError::OutOfMemory { tokens, needed: 2, left: 1 });
                }
                Behavior::Panics => std::panic::resume_unwind(Box::new("on purpose")),
                Behavior::Good | Behavior::Nan | Behavior::FailsAtFirst | Behavior::Large => {}
            }
        }
        Ok(Pending::done(Rows { width: self.dim, data, ends: None }))
    }
}

fn failed() -> EngineError {
    EngineError::Tokenizer { problem: "failed on purpose".into() }
}
