//! Checks and measures a GPU: every operation beside its CPU implementation, whole models beside rows that `PyTorch`
//! computed, and how fast both are, as shares of what the device itself was measured to do.
//!
//! `gpu [--device cuda:0] [--agree] [--time] [--model FOLDER] [--oracle ROWS.jsonl] [--json FILE]`: without `--agree`
//! and `--time` it does both. `scripts/gpu-check` builds it and runs it beside its peers. Ends with 1 where something
//! disagrees.
#![allow(clippy::print_stdout)]

mod agreement;
mod data;
mod measure;
mod operations;
mod whole;

use std::process::ExitCode;

use forebay_kernels::gpu;
use serde_json::{Value, json};

use crate::measure::Result;

#[derive(Default)]
struct Arguments {
    ordinal: usize,
    agree: bool,
    time: bool,
    model: Option<String>,
    oracle: Option<String>,
    json: Option<String>,
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut read = Self::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--device" => {
                    let device = value()?;
                    let ordinal = device.strip_prefix("cuda:").ok_or("use --device cuda:N")?;
                    read.ordinal = ordinal.parse()?;
                }
                "--agree" => read.agree = true,
                "--time" => read.time = true,
                "--model" => read.model = Some(value()?),
                "--oracle" => read.oracle = Some(value()?),
                "--json" => read.json = Some(value()?),
                _ => return Err(format!("{argument} is not known").into()),
            }
        }
        if !read.agree && !read.time {
            read.agree = true;
            read.time = true;
        }
        Ok(read)
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::read()?;
    let device = gpu::open(arguments.ordinal)?;
    let memory = gpu::memory(&device)?;
    let name = gpu::name(&device)?;
    println!("{name}, {} of {} MiB free", memory.free >> 20, memory.total >> 20);
    let mut report = json!({ "device": name, "memory_bytes": memory.total });
    let mut agrees = true;
    if arguments.agree {
        agrees &= agreement::check(&device, &mut report["agreement"])?;
        if let (Some(model), Some(oracle)) = (&arguments.model, &arguments.oracle) {
            agrees &= whole::agree(arguments.ordinal, model, oracle, &mut report["oracle"])?;
        }
    }
    if arguments.time {
        operations::time(&device, &mut report)?;
        if let Some(model) = &arguments.model {
            report["engine"] = whole::time(arguments.ordinal, model)?;
        }
    }
    write(&arguments, &report)?;
    println!("{}", if agrees { "everything agrees" } else { "SOMETHING DISAGREES" });
    Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(arguments: &Arguments, report: &Value) -> Result<()> {
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_vec_pretty(report)?)?;
    }
    Ok(())
}
