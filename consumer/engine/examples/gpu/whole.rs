//! Whole models beside rows that `PyTorch` computed, and their speed at several lengths.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Instant;

use forebay_engine::{DType, Device, Finish, LoadOptions, Model, PackedBatch, load};
use serde_json::{Value, json};

use crate::measure::Result;

/// The least cosine of a vector and the one that `PyTorch` computed in f32.
const COSINE_MIN: f64 = 0.999;

fn open(ordinal: usize, folder: &str, dtype: DType) -> Result<Model> {
    let options =
        LoadOptions { device: Device::Cuda(ordinal), dtype: Some(dtype), ..LoadOptions::default() };
    Ok(load(Path::new(folder), &options)?)
}

/// Each row of `oracle` alone and all of them together; false where a cosine is too small.
pub fn agree(ordinal: usize, folder: &str, oracle: &str, report: &mut Value) -> Result<bool> {
    let lines = std::fs::read_to_string(oracle)?;
    let rows: Vec<Value> =
        lines.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    let mut agrees = true;
    for dtype in [DType::Bf16, DType::F16] {
        let mut model = open(ordinal, folder, dtype)?;
        let mut together = PackedBatch::new();
        let mut least = 1.0_f64;
        let mut alike = true;
        let mut alone = Vec::new();
        for row in &rows {
            let tokens =
                model.tokenizer.encode(row["text"].as_str().ok_or("a row without a text")?)?;
            together.push(&tokens.ids, Finish::default());
            let mut single = PackedBatch::new();
            single.push(&tokens.ids, Finish::default());
            alone.push(model.engine.encoder()?.compute(&single)?.data);
        }
        let vectors = model.engine.encoder()?.compute(&together)?;
        for ((row, vector), alone) in rows.iter().zip(vectors.rows()).zip(&alone) {
            let expected: Vec<f32> = serde_json::from_value(row["embedding"].clone())?;
            least = least.min(cosine(vector, &expected)).min(cosine(alone, &expected));
            alike &= vector == alone.as_slice();
        }
        agrees &= least >= COSINE_MIN;
        println!(
            "{} rows of the oracle in {dtype}: least cosine {least:.6}; alone and together {}",
            rows.len(),
            if alike { "the same bits" } else { "not the same bits" }
        );
        report[dtype.to_string()] =
            json!({ "rows": rows.len(), "cosine_min": least, "alone_as_together": alike });
    }
    Ok(agrees)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Tokens a second, from ids to rows on the host, for each length the best of several batch sizes; and how long one
/// short text takes.
pub fn time(ordinal: usize, folder: &str) -> Result<Value> {
    let mut report = json!({});
    for dtype in [DType::Bf16, DType::F16] {
        let mut model = open(ordinal, folder, dtype)?;
        println!("{:<20} {:>16} {:>24}", format!("engine, {dtype}"), "at best with", "tokens/s");
        for length in [32, 64, 128, 256] {
            let mut best = (0.0, 0);
            let mut all = json!({});
            for tokens in [4_096, 8_192, 16_384, 32_768, 65_536] {
                let rate = rate(&mut model, length, tokens)?;
                all[tokens.to_string()] = json!(rate);
                if rate > best.0 {
                    best = (rate, tokens);
                }
            }
            println!("length {length:<13} {:>9} tokens {:>24.0}", best.1, best.0);
            report[dtype.to_string()][length.to_string()] =
                json!({ "tokens_per_s": best.0, "batch_tokens": best.1, "all": all });
        }
        for tokens in [16, 512] {
            let (begun_us, took_us) = latency_us(&mut model, tokens)?;
            println!(
                "one text of {tokens} tokens: {took_us:.0} us, {begun_us:.0} of them until it was begun"
            );
            report[dtype.to_string()][format!("one_of_{tokens}_us")] =
                json!({ "begun": begun_us, "done": took_us });
        }
    }
    Ok(report)
}

fn batch(model: &Model, length: usize, tokens: usize) -> Result<PackedBatch> {
    let words = model
        .tokenizer
        .encode(&"the quick water of a river turns seven old mills ".repeat(length))?
        .ids;
    let mut batch = PackedBatch::new();
    let inside = &words[1..words.len() - 1];
    for index in 0..tokens / length {
        let mut ids = vec![words[0]];
        ids.extend((0..length - 2).map(|at| inside[(index * 3 + at) % inside.len()]));
        ids.push(words[words.len() - 1]);
        batch.push(&ids, Finish::default());
    }
    Ok(batch)
}

fn rate(model: &mut Model, length: usize, tokens: usize) -> Result<f64> {
    const TOKENS_ALL: usize = 4 << 20;
    let batch = batch(model, length, tokens)?;
    // Whether fused kernels pay is measured at their first use.
    model.engine.encoder()?.compute(&batch)?;
    let rounds = TOKENS_ALL / tokens;
    let mut on_the_way = VecDeque::new();
    let began = Instant::now();
    for _ in 0..rounds {
        if on_the_way.len() == model.engine.encoder()?.ahead() {
            wait(on_the_way.pop_front())?;
        }
        // A clone, as a worker passes a fresh batch each time.
        on_the_way.push_back(model.engine.encoder()?.begin(&batch.clone())?);
    }
    while !on_the_way.is_empty() {
        wait(on_the_way.pop_front())?;
    }
    Ok((rounds * batch.tokens()) as f64 / began.elapsed().as_secs_f64())
}

fn wait(pending: Option<forebay_engine::Pending>) -> Result<()> {
    pending.map_or(Ok(()), |pending| Ok(pending.wait().map(drop)?))
}

/// The medians of the time until a batch of one text is begun, and until its row is there.
fn latency_us(model: &mut Model, length: usize) -> Result<(f64, f64)> {
    const RUNS: usize = 200;
    let batch = batch(model, length, length)?;
    let mut begun = Vec::new();
    let mut done = Vec::new();
    for _ in 0..RUNS {
        let began = Instant::now();
        let pending = model.engine.encoder()?.begin(&batch.clone())?;
        begun.push(began.elapsed().as_secs_f64() * 1e6);
        pending.wait()?;
        done.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[RUNS / 2]
    };
    Ok((median(begun), median(done)))
}
