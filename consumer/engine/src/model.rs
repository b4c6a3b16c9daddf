//! Loading: from a model folder to a tokenizer and an encoder, refused early and by name when it cannot run.

use std::path::Path;
use std::sync::Arc;

use forebay_kernels::Pooling;

use crate::device::{self, Gpu};
use crate::encoder::PackedEncoder;
use crate::folder::ModelFolder;
#[cfg(feature = "cuda")]
use crate::gpu::GpuEncoder;
use crate::head::Head;
use crate::weights::Weights;
use crate::{DType, Device, EngineError, LoadOptions, PackedBatch, Rows, Tokenizer};

/// A model that turns packed sequences into rows of numbers, driven by one thread at a time.
pub trait Encoder: Send {
    /// One row a sequence: a vector, pooled as the model says and finished as each sequence asks; or scores.
    ///
    /// An empty sequence's vector is zeros. Nothing in a batch makes this panic: an item that cannot be
    /// computed is [`EngineError::Item`], and the batch computes without it.
    fn compute(&mut self, batch: &PackedBatch) -> Result<Rows, EngineError> {
        self.begin(batch)?.wait()
    }

    /// Begins what [`Encoder::compute`] does. A device that computes by itself goes on after this returns, and takes up to
    /// [`Encoder::ahead`] batches before the first of them is waited for.
    fn begin(&mut self, batch: &PackedBatch) -> Result<Pending, EngineError>;

    /// How many batches are worth beginning before the first is waited for. At least one.
    fn ahead(&self) -> usize {
        1
    }
}

/// The rows of a batch that was begun.
pub struct Pending(Box<dyn FnOnce() -> Result<Rows, EngineError> + Send>);

impl Pending {
    /// Rows that `wait` waits for.
    pub fn new(wait: impl FnOnce() -> Result<Rows, EngineError> + Send + 'static) -> Self {
        Self(Box::new(wait))
    }

    /// Rows that are there.
    pub fn done(rows: Rows) -> Self {
        Self::new(move || Ok(rows))
    }

    /// Waits until they are there.
    pub fn wait(self) -> Result<Rows, EngineError> {
        (self.0)()
    }
}

/// A loaded model.
pub struct Model {
    /// Turns texts into token ids, on any thread.
    pub tokenizer: Arc<Tokenizer>,
    /// Turns token ids into vectors or scores.
    pub encoder: Box<dyn Encoder>,
    /// What was loaded, and how.
    pub info: ModelInfo,
}

/// What a model does with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelTask {
    /// Gives its vector.
    Embed,
    /// Says how well each label fits it: probabilities.
    Classify,
    /// Says how well it answers a query, the first text of a pair: one score.
    Rerank,
}

/// What was loaded, and how.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// The architecture's name as in `config.json`, such as `bert`.
    pub architecture: &'static str,
    /// What it does.
    pub task: ModelTask,
    /// Values a row: the vector's dimensions, the labels of a classifier, one of a reranker.
    pub dim: usize,
    /// What the values of a classifier's row are called, in their order; of other models nothing.
    pub labels: Vec<String>,
    /// The most tokens of a text that the model reads, special tokens included.
    pub tokens_max: usize,
    /// How token vectors become one.
    pub pooling: Pooling,
    /// The number type computed in.
    pub dtype: DType,
    /// Where it computes.
    pub device: Device,
    /// The GPU, if it is one.
    pub gpu: Option<Gpu>,
    /// Compute threads.
    pub threads: usize,
    /// An upper bound of the memory of the device that a token of a batch takes while it is computed.
    pub bytes_per_token: usize,
}

/// Loads the model in `folder` (`config.json`, `model.safetensors`, `tokenizer.json`, and what
/// sentence-transformers keeps beside them).
pub fn load(folder: &Path, options: &LoadOptions) -> Result<Model, EngineError> {
    let folder = ModelFolder::open(folder)?;
    let architecture = folder.architecture()?;
    let outputs = folder.head()?;
    let (name, sizes, task) = (architecture.name(), architecture.sizes(), outputs.task());
    let f32_only = architecture.is_f32_only().then_some(name);
    let dtype = options.resolve_dtype(task != ModelTask::Embed, f32_only)?;
    let threads = options.resolve_threads();
    let tokens_max = folder.tokens_max(sizes.positions)?;
    let pooling = folder.pooling()?;
    let device = device::open(options.device)?;
    let tokenizer = Tokenizer::load(&folder, tokens_max)?;
    let (mut head, mut labels) = (Head::Vector(pooling), Vec::new());
    let open = || Weights::open(&folder.weights_path());
    if task != ModelTask::Embed {
        let scores = outputs.load(name, &folder.config_path(), &open()?)?;
        head = Head::Scores(Box::new(scores));
    }
    if task == ModelTask::Classify {
        labels = outputs.labels();
    }
    #[cfg(feature = "cuda")]
    if !device.is_cpu() {
        let named = (&device, options.device);
        device::check(named, &folder.config_path(), &architecture, dtype, &open()?)?;
    }
    let layers = architecture.layers(open, (dtype, &device))?;
    let bytes_per_token = architecture.bytes_per_token(dtype);
    let info = ModelInfo {
        architecture: name,
        task,
        dim: head.width(sizes.hidden),
        labels,
        tokens_max,
        pooling,
        dtype,
        device: options.device,
        gpu: Gpu::of(&device),
        threads,
        bytes_per_token,
    };
    let encoder: Box<dyn Encoder> = match device {
        #[cfg(feature = "cuda")]
        device if device.is_cuda() => Box::new(GpuEncoder::new(
            (options.device, device),
            sizes,
            layers,
            head,
            (dtype, bytes_per_token),
        )),
        _ => Box::new(PackedEncoder::new(sizes, layers, head, threads, dtype.tensor())?),
    };
    Ok(Model { tokenizer: Arc::new(tokenizer), encoder, info })
}
