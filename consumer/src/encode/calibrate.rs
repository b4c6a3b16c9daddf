//! Calibration: the best number of tokens of a batch, measured once for a model on a machine and kept beside the
//! models.
//!
//! Batches of growing size are computed until one takes too long. The smallest that computes nearly as many tokens a
//! second as the best is chosen: more would only add latency for the next job.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use forebay_engine::{EngineError, Finish, Model, PackedBatch};
use forebay_schemas::ModelId;

use crate::encode::budget::BATCH_TIME;

/// The first size that is tried; it doubles from there on.
const TOKENS_MIN: usize = 512;
const TOKENS_MAX: usize = 131_072;
/// Tokens of each sequence, where the model reads so many: some 90 words.
const SEQUENCE_TOKENS: usize = 128;
/// Larger batches are not tried: at work none takes more than half of this, where it can be so short
/// ([`BATCH_TIME`]).
const BATCH_TIME_MAX: Duration = BATCH_TIME.saturating_mul(2);
/// The better of so many runs counts; the first one also brings in memory.
const RUNS: usize = 2;
/// No larger size is begun after this: jobs may be waiting for the worker.
const MEASURE_TIME_MAX: Duration = Duration::from_millis(700);
/// The share of the best rate that a smaller batch must reach: measurements repeat to about so much.
const NEARLY: f64 = 0.97;
/// Entries of one model's file, which machines that share the folder may share.
const ENTRIES_MAX: usize = 64;

/// The tokens of a batch for this model: as measured before on a machine like this, or as measured now.
pub fn batch_tokens(
    model: &mut Model,
    models_dir: &Path,
    name: &ModelId,
) -> Result<usize, EngineError> {
    kept(model, models_dir, name, measure)
}

/// A size as it was measured before for this model on a machine like this, or as it is measured now, and kept.
pub(crate) fn kept(
    model: &mut Model,
    models_dir: &Path,
    name: &ModelId,
    measure: impl FnOnce(&mut Model) -> Result<usize, EngineError>,
) -> Result<usize, EngineError> {
    let file = file(models_dir, name);
    let key = key(model);
    let mut known = read(&file);
    if let Some(&tokens) = known.get(&key).filter(|&&tokens| tokens > 0) {
        return Ok(tokens);
    }
    let began = Instant::now();
    let tokens = measure(model)?;
    let took_ms = began.elapsed().as_millis() as u64;
    tracing::info!(tokens, took_ms, "measured the best number of tokens of a batch");
    if known.len() >= ENTRIES_MAX {
        known.clear();
    }
    known.insert(key, tokens);
    if let Err(error) = write(&file, &known) {
        tracing::info!(%error, file = %file.display(), "not kept: the next start measures again");
    }
    Ok(tokens)
}

fn file(models_dir: &Path, name: &ModelId) -> PathBuf {
    models_dir.join(".batch-tokens").join(format!("{name}.json"))
}

/// Everything that the best size depends on.
fn key(model: &Model) -> String {
    let info = &model.info;
    let version = env!("CARGO_PKG_VERSION");
    if let Some(gpu) = &info.gpu {
        return format!("{} {}, {version}", gpu.name(), info.dtype);
    }
    let processor = processor();
    format!("{} {} on {} threads, {processor}, {version}", info.device, info.dtype, info.threads)
}

/// The processor's own name, where the system gives it.
fn processor() -> String {
    let system = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = system.lines().find_map(|line| line.strip_prefix("model name"));
    let name = name.map(|name| name.trim_start_matches([' ', '\t', ':']).trim());
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}

/// The sizes that a file holds; none if it is missing or can't be read.
fn read(file: &Path) -> BTreeMap<String, usize> {
    let bytes = fs::read(file).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Workers that start together each write the whole file: the last write wins.
fn write(file: &Path, known: &BTreeMap<String, usize>) -> io::Result<()> {
    fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    let made = file.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&made, serde_json::to_vec_pretty(known)?)?;
    fs::rename(&made, file)
}

fn measure(model: &mut Model) -> Result<usize, EngineError> {
    let mut tried = Vec::new();
    let began = Instant::now();
    let mut tokens = TOKENS_MIN;
    while tokens <= TOKENS_MAX && began.elapsed() < MEASURE_TIME_MAX {
        let took = match time(model, tokens) {
            // A smaller size that fitted is there to be chosen.
            Err(error) if error.is_out_of_memory() && !tried.is_empty() => break,
            took => took?,
        };
        if took > BATCH_TIME_MAX && !tried.is_empty() {
            break;
        }
        tried.push((tokens, tokens as f64 / took.as_secs_f64()));
        if took > BATCH_TIME_MAX || is_flat(&tried) {
            break;
        }
        tokens *= 2;
    }
    Ok(choose(&tried))
}

/// Whether the last two doublings brought nothing: then further ones bring nothing either.
fn is_flat(tried: &[(usize, f64)]) -> bool {
    matches!(tried, [.., (_, first), (_, second), (_, third)] if second.max(*third) * NEARLY < *first)
}

/// The smallest size whose rate is nearly the best one's.
fn choose(tried: &[(usize, f64)]) -> usize {
    let best = tried.iter().map(|&(_, rate)| rate).fold(0.0, f64::max);
    let enough = tried.iter().find(|&&(_, rate)| rate >= NEARLY * best);
    enough.map_or(TOKENS_MIN, |&(tokens, _)| tokens)
}

/// The shortest time of a batch of so many tokens, or of one run that is far too long.
fn time(model: &mut Model, tokens: usize) -> Result<Duration, EngineError> {
    let length = SEQUENCE_TOKENS.min(model.info.tokens_max);
    let mut ids = model.tokenizer.encode(&"water ".repeat(length))?.ids;
    ids.truncate(length);
    let mut batch = PackedBatch::new();
    while batch.tokens() < tokens {
        batch.push(&ids, Finish::default());
    }
    let mut best = Duration::MAX;
    for _ in 0..RUNS {
        let began = Instant::now();
        model.engine.encoder()?.compute(&batch)?;
        best = best.min(began.elapsed());
        if best > BATCH_TIME_MAX {
            break;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_batch_that_is_nearly_the_fastest_is_taken() {
        assert_eq!(choose(&[(512, 900.0), (1_024, 980.0), (2_048, 1_000.0)]), 1_024);
        assert_eq!(choose(&[(512, 1_000.0), (1_024, 990.0)]), 512);
        assert_eq!(choose(&[(512, 10.0)]), 512);
        assert_eq!(choose(&[]), TOKENS_MIN);
    }

    #[test]
    fn growing_ends_once_it_brings_nothing() {
        assert!(is_flat(&[(512, 1_000.0), (1_024, 1_010.0), (2_048, 1_000.0)]));
        assert!(!is_flat(&[(512, 1_000.0), (1_024, 1_010.0), (2_048, 1_100.0)]));
        assert!(!is_flat(&[(512, 1_000.0), (1_024, 1_000.0)]));
    }

    #[test]
    fn measurements_are_kept_and_a_broken_file_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path(), &"m".parse().unwrap());
        assert!(read(&file).is_empty());
        let known = BTreeMap::from([("a machine".to_owned(), 2_048)]);
        write(&file, &known).unwrap();
        assert_eq!(read(&file), known);
        fs::write(&file, "{").unwrap();
        assert!(read(&file).is_empty());
    }
}
