//! Faults that a job asks for, in a build for tests: `"metadata": {"fault": "abort"}`.
//!
//! They happen where real ones do, in the engine's call, so that everything around it is tested. Without the
//! cargo feature `fail-points`, which no released program has, no fault is read and none happens.

use std::ops::Range;

use forebay_engine::EngineError;

use crate::encode::packer::Piece;

/// The faults of a batch's rows.
#[derive(Debug, Default)]
pub struct Faults {
    #[cfg(feature = "fail-points")]
    by_row: Vec<Option<armed::Fault>>,
}

impl Faults {
    /// Those that the pieces' jobs ask for.
    pub fn of(pieces: &[Piece]) -> Self {
        #[cfg(feature = "fail-points")]
        return Self { by_row: armed::by_row(pieces) };
        #[cfg(not(feature = "fail-points"))]
        {
            let _ = pieces;
            Self::default()
        }
    }

    /// Causes the faults that come before rows of so many tokens are computed.
    pub fn before(&self, rows: Range<usize>, tokens: usize) -> Result<(), EngineError> {
        #[cfg(feature = "fail-points")]
        armed::before(self.by_row.get(rows).unwrap_or_default(), tokens)?;
        #[cfg(not(feature = "fail-points"))]
        let _ = (rows, tokens);
        Ok(())
    }

    /// Causes the faults in values that were computed for rows.
    pub fn after(&self, rows: Range<usize>, computed: &mut [Vec<f32>]) {
        #[cfg(feature = "fail-points")]
        armed::after(self.by_row.get(rows).unwrap_or_default(), computed);
        #[cfg(not(feature = "fail-points"))]
        let _ = (rows, computed);
    }
}

#[cfg(feature = "fail-points")]
mod armed {
    use std::time::Duration;

    use super::{EngineError, Piece};

    /// Batches of more tokens do not fit the memory of a device with the fault `out_of_memory`.
    const FITTING_TOKENS_MAX: usize = 64;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Fault {
        Abort,
        Hang,
        Panic,
        Nan,
        OutOfMemory,
        Error,
        /// Takes this many milliseconds longer.
        Slow(u64),
    }

    pub(super) fn by_row(pieces: &[Piece]) -> Vec<Option<Fault>> {
        let rows = pieces.iter().flat_map(|piece| {
            let asked = piece.job.job.metadata.get("fault");
            let fault = asked.and_then(|text| parse(text, piece.job.ticket.failures));
            std::iter::repeat_n(fault, piece.count)
        });
        rows.collect()
    }

    /// `error:2` fails the first two attempts, and `error` all of them.
    fn parse(text: &str, failures: u32) -> Option<Fault> {
        match text.split_once(':') {
            Some(("error", times)) => {
                (failures < times.parse().unwrap_or(u32::MAX)).then_some(Fault::Error)
            }
            Some(("slow", ms)) => ms.parse().ok().map(Fault::Slow),
            _ => match text {
                "abort" => Some(Fault::Abort),
                "hang" => Some(Fault::Hang),
                "panic" => Some(Fault::Panic),
                "nan" => Some(Fault::Nan),
                "out_of_memory" => Some(Fault::OutOfMemory),
                "error" => Some(Fault::Error),
                _ => None,
            },
        }
    }

    pub(super) fn before(faults: &[Option<Fault>], tokens: usize) -> Result<(), EngineError> {
        for fault in faults.iter().flatten() {
            match fault {
                Fault::Abort => std::process::abort(),
                Fault::Slow(ms) => std::thread::sleep(Duration::from_millis(*ms)),
                Fault::Hang => loop {
                    std::thread::sleep(Duration::from_secs(1));
                },
                Fault::Panic => panic!("a fault that a job asked for"),
                Fault::Error => {
                    return Err(EngineError::Tokenizer { problem: "asked to fail".into() });
                }
                Fault::OutOfMemory if tokens > FITTING_TOKENS_MAX => {
                    return Err(EngineError::OutOfMemory { tokens, needed: 1, left: 0 });
                }
                Fault::OutOfMemory | Fault::Nan => {}
            }
        }
        Ok(())
    }

    pub(super) fn after(faults: &[Option<Fault>], computed: &mut [Vec<f32>]) {
        for (row, fault) in computed.iter_mut().zip(faults) {
            if *fault == Some(Fault::Nan) {
                row.fill(f32::NAN);
            }
        }
    }
}
