//! The executor as a process: buffers and a launch go in, the buffers or a fault come back.

use std::cell::RefCell;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use half::{bf16, f16};

use super::Program;
use crate::cuda::launch::{Argument, Half, Launch};

/// A position in a buffer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct At {
    buffer: u32,
    offset_bytes: u32,
}

/// The buffers of a launch.
#[derive(Default)]
pub(super) struct Memory {
    buffers: Vec<Buffer>,
    past_bytes: u32,
}

struct Buffer {
    bytes: Vec<u8>,
    past_bytes: u32,
}

impl Memory {
    /// Whose values in a kernel's number type begin so many bytes past a multiple of 256.
    pub(super) fn past(past_bytes: u32) -> Self {
        Self { past_bytes, ..Self::default() }
    }

    /// A buffer of its own.
    pub(super) fn bytes(&mut self, bytes: Vec<u8>) -> At {
        self.buffers.push(Buffer { bytes, past_bytes: self.past_bytes });
        At { buffer: self.buffers.len() as u32 - 1, offset_bytes: 0 }
    }

    /// Values in a kernel's number type.
    pub(super) fn halves(&mut self, half: Half, values: &[f32]) -> At {
        self.bytes(values.iter().flat_map(|value| bits(half, *value).to_le_bytes()).collect())
    }

    pub(super) fn floats(&mut self, values: &[f32]) -> At {
        let past = std::mem::take(&mut self.past_bytes);
        let at = self.bytes(values.iter().flat_map(|value| value.to_le_bytes()).collect());
        self.past_bytes = past;
        at
    }

    pub(super) fn words(&mut self, values: &[u32]) -> At {
        self.floats(&values.iter().map(|value| f32::from_bits(*value)).collect::<Vec<_>>())
    }

    /// A buffer for results, full of NaN.
    pub(super) fn output(&mut self, half: Half, count: usize) -> At {
        self.halves(half, &vec![f32::NAN; count])
    }

    /// As [`Self::output`], of f32.
    pub(super) fn output_floats(&mut self, count: usize) -> At {
        self.floats(&vec![f32::NAN; count])
    }

    pub(super) fn read(&self, half: Half, at: At) -> Vec<f32> {
        let bytes = &self.buffers[at.buffer as usize].bytes;
        let bits = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
        bytes.chunks_exact(2).map(|pair| value(half, bits(pair))).collect()
    }

    pub(super) fn read_floats(&self, at: At) -> Vec<f32> {
        let bytes = &self.buffers[at.buffer as usize].bytes;
        bytes.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect()
    }
}

fn bits(half: Half, value: f32) -> u16 {
    if half == Half::Bf16 {
        bf16::from_f32(value).to_bits()
    } else {
        f16::from_f32(value).to_bits()
    }
}

fn value(half: Half, bits: u16) -> f32 {
    if half == Half::Bf16 { bf16::from_bits(bits).to_f32() } else { f16::from_bits(bits).to_f32() }
}

/// A value as a number type rounds it.
pub(super) fn rounded(half: Half, value: f32) -> f32 {
    self::value(half, bits(half, value))
}

/// A running executor.
pub(super) struct Executor {
    process: Child,
    input: BufWriter<ChildStdin>,
    output: BufReader<ChildStdout>,
}

thread_local! {
    static KERNELS: RefCell<Option<Executor>> = const { RefCell::new(None) };
}

impl Executor {
    /// The kernels as they are, started once a thread.
    pub(super) fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        KERNELS.with_borrow_mut(|executor| {
            work(executor.get_or_insert_with(|| Self::start(&Program::kernels().build())))
        })
    }

    /// Runs `work` with another program's kernels instead of these.
    pub(super) fn instead<T>(program: &Program, work: impl FnOnce() -> T) -> T {
        let other = Self::start(&program.build());
        let own = KERNELS.replace(Some(other));
        let result = work();
        KERNELS.set(own);
        result
    }

    fn start(program: &Path) -> Self {
        let mut process =
            Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = BufWriter::new(process.stdin.take().unwrap());
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    /// Runs a launch on `memory`, or says what the kernel did wrong.
    pub(super) fn run(&mut self, launch: &Launch<At>, memory: &mut Memory) -> Result<(), String> {
        self.send(launch, memory).unwrap();
        if self.word() == 0 {
            for buffer in &mut memory.buffers {
                self.output.read_exact(&mut buffer.bytes).unwrap();
            }
            return Ok(());
        }
        Err(self.text())
    }

    /// Every kernel of the program: the path of the source that defines it, and its name.
    pub(super) fn kernels(&mut self) -> Vec<(PathBuf, String)> {
        self.input.write_all(&0_u32.to_le_bytes()).unwrap();
        self.input.flush().unwrap();
        (0..self.word()).map(|_| (self.text().into(), self.text())).collect()
    }

    fn send(&mut self, launch: &Launch<At>, memory: &Memory) -> std::io::Result<()> {
        let out = &mut self.input;
        let mut words =
            |words: &[u32]| words.iter().try_for_each(|word| out.write_all(&word.to_le_bytes()));
        words(&[launch.kernel.len() as u32])?;
        self.input.write_all(launch.kernel.as_bytes())?;
        let mut bytes = Vec::new();
        let [x, y] = launch.grid;
        for word in [x, y, 1, launch.threads, launch.shared_bytes, memory.buffers.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        for buffer in &memory.buffers {
            bytes.extend((buffer.bytes.len() as u64).to_le_bytes());
            bytes.extend(buffer.past_bytes.to_le_bytes());
            bytes.extend(&buffer.bytes);
        }
        bytes.extend((launch.arguments.len() as u32).to_le_bytes());
        for argument in &launch.arguments {
            let (kind, value): (u32, u64) = match *argument {
                Argument::Pointer(at) => {
                    (1, u64::from(at.buffer) | u64::from(at.offset_bytes) << 32)
                }
                Argument::Null => (0, 0),
                Argument::U32(value) => (0, u64::from(value)),
                Argument::F32(value) => (0, u64::from(value.to_bits())),
            };
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        self.input.write_all(&bytes)?;
        self.input.flush()
    }

    fn word(&mut self) -> u32 {
        let mut word = [0; 4];
        self.output.read_exact(&mut word).unwrap();
        u32::from_le_bytes(word)
    }

    fn text(&mut self) -> String {
        let mut text = vec![0; self.word() as usize];
        self.output.read_exact(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // It only ever waits for the next launch.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
