//! Loading: from a model folder to a tokenizer and an encoder, refused early and by name when it cannot run.

use std::path::Path;
use std::sync::Arc;

use crate::device::{self, Gpu};
use crate::encode::cpu::CpuEncoder;
use crate::encode::encoder::Encoder;
#[cfg(feature = "cuda")]
use crate::encode::gpu::GpuEncoder;
use crate::encode::head::Head;
use crate::error::EngineError;
use crate::families::architecture::Architecture;
use crate::families::classifier::ClassifierConfig;
use crate::generate::generator::Generator;
use crate::generator_model::{self, Source};
use crate::info::{ModelInfo, ModelTask};
use crate::load::fields::{Fields, Ignored};
use crate::load::folder::ModelFolder;
use crate::load::logit_score::LogitScore;
use crate::load::options::{Device, LoadOptions};
use crate::load::safetensors::Weights;
use crate::per_token_model;
use crate::reranker::{self, Asks};
use crate::tokenizer::Tokenizer;

/// A loaded model.
pub struct Model {
    /// Turns texts into token ids, on any thread.
    pub tokenizer: Arc<Tokenizer>,
    /// Computes with token ids.
    pub engine: Engine,
    /// The facts of the model, and how it was loaded.
    pub info: ModelInfo,
}

/// Computes with token ids, in one of two ways.
pub enum Engine {
    /// Turns them into vectors or scores.
    Encoder(Box<dyn Encoder>),
    /// Continues them.
    Generator(Box<dyn Generator>),
}

impl Engine {
    /// The encoder, or [`EngineError::OtherEngine`] of a model that generates text.
    pub fn encoder(&mut self) -> Result<&mut dyn Encoder, EngineError> {
        match self {
            Self::Encoder(encoder) => Ok(&mut **encoder),
            Self::Generator(_) => Err(NO_ENCODER),
        }
    }

    /// As [`Self::encoder`], to keep.
    pub fn into_encoder(self) -> Result<Box<dyn Encoder>, EngineError> {
        match self {
            Self::Encoder(encoder) => Ok(encoder),
            Self::Generator(_) => Err(NO_ENCODER),
        }
    }

    /// The generator, or [`EngineError::OtherEngine`] of a model of vectors or scores.
    pub fn generator(&mut self) -> Result<&mut dyn Generator, EngineError> {
        match self {
            Self::Generator(generator) => Ok(&mut **generator),
            Self::Encoder(_) => Err(NO_GENERATOR),
        }
    }

    /// As [`Self::generator`], to keep.
    pub fn into_generator(self) -> Result<Box<dyn Generator>, EngineError> {
        match self {
            Self::Generator(generator) => Ok(generator),
            Self::Encoder(_) => Err(NO_GENERATOR),
        }
    }
}

const NO_ENCODER: EngineError =
    EngineError::OtherEngine { found: "generates text", expected: "gives vectors or scores" };
const NO_GENERATOR: EngineError =
    EngineError::OtherEngine { found: "gives vectors or scores", expected: "generates text" };

/// Loads the model in `folder` (`config.json`, `model.safetensors` or its shards, `tokenizer.json`, and what
/// sentence-transformers keeps beside them). A model that generates text may also be one GGUF file: the only one of the
/// folder, or `folder` itself.
pub fn load(folder: &Path, options: &LoadOptions) -> Result<Model, EngineError> {
    if let Some(source) = Source::find(folder, options)? {
        let (tokenizer, generator, info) = generator_model::load(&source, options)?;
        let engine = Engine::Generator(Box::new(generator));
        return Ok(Model { tokenizer: Arc::new(tokenizer), engine, info });
    }
    let folder = ModelFolder::open(folder)?;
    if let Some(modules) = folder.per_token() {
        let (tokenizer, encoder, info) = per_token_model::load(&folder, modules, options)?;
        let engine = Engine::Encoder(Box::new(encoder));
        return Ok(Model { tokenizer: Arc::new(tokenizer), engine, info });
    }
    let model = load_encoder(&folder, options)?;
    if options.reranks && model.info.task != ModelTask::Rerank {
        let value = format!("rerank, of a model that does {:?}", model.info.task);
        let supported = "models that rerank, and language models whose folder leaves it open";
        return Err(not_supported(&folder, "task", value, supported));
    }
    Ok(model)
}

/// Loads a model of one row a text.
fn load_encoder(folder: &ModelFolder, options: &LoadOptions) -> Result<Model, EngineError> {
    let (architecture, mut fields, classes) = Architecture::read(&folder.config_path())?;
    let name = architecture.name();
    let sizes = architecture.sizes();
    let classifier = ClassifierConfig::parse(&mut fields, &classes, name)?;
    let asks = reranker::asks(folder, &architecture, &classifier, options);
    let task = task(folder, &classifier, asks);
    let f32_only = architecture.is_f32_only().then_some(name);
    let dtype = options.resolve_dtype(task != ModelTask::Embed, f32_only)?;
    let threads = if architecture.computes_nothing() { 1 } else { options.resolve_threads() };
    let tokens_max = folder.tokens_max(sizes.positions);
    let device = open_device(folder, &architecture, options.device)?;
    let tokenizer = Tokenizer::load(folder, tokens_max, architecture.gives_types())?;
    let tokenizer = reranker::with_prompt(tokenizer, folder, &architecture, task, asks)?;
    let open = || Weights::open(&folder.weights_path());
    let pooling = folder.pooling();
    let head = match task {
        ModelTask::Classify | ModelTask::Rerank => {
            let answers = reranker::answers(folder, &tokenizer, asks)?;
            scores(folder, &architecture, &classifier, answers)?
        }
        _ => Head::of_vectors(&pooling, folder.after(), sizes.hidden)?,
    };
    let labels = if task == ModelTask::Classify { classifier.labels() } else { &[] };
    let bytes_per_token = architecture.bytes_per_token(dtype);
    #[cfg(feature = "cuda")]
    if !device.is_cpu() {
        let needs = device::Needs {
            hidden: sizes.hidden,
            head_size: architecture.head_size(),
            weight_values: open()?.values(),
            bytes_per_token,
            dtype,
        };
        device::check(&device, options.device, &folder.config_path(), &needs)?;
    }
    // An architecture that computes nothing has no weights.
    let stored_dtypes = open().map(|weights| weights.dtypes()).unwrap_or_default();
    let layers = architecture.layers(open, dtype, &device)?;
    let info = ModelInfo {
        architecture: name,
        task,
        dim: head.width(sizes.hidden),
        labels: labels.to_vec(),
        tokens_max,
        vocabulary: sizes.vocabulary,
        keeps_end: tokenizer.keeps_end(),
        pooling,
        sparse_pooling: None,
        kinds: None,
        pair_prompt: tokenizer.pair_prompt("{query}", "{document}")?,
        after_pooling: folder.after().iter().map(ToString::to_string).collect(),
        prompts: folder.prompts().named.clone(),
        default_prompt: folder.prompts().default.clone(),
        ignored: ignored(fields, folder, &tokenizer)?,
        stored_dtypes,
        dtype,
        device: options.device,
        gpu: Gpu::of(&device),
        threads,
        bytes_per_token,
        generation: None,
    };
    let encoder: Box<dyn Encoder> = match device {
        #[cfg(feature = "cuda")]
        device if device.is_cuda() => Box::new(GpuEncoder::new(device, &info, sizes, layers, head)),
        _ => Box::new(CpuEncoder::new(sizes, layers, head, threads, dtype.tensor())?),
    };
    Ok(Model { tokenizer: Arc::new(tokenizer), engine: Engine::Encoder(encoder), info })
}

/// Loads the head of a model that gives scores: of a language model's answers, or one of its own.
fn scores(
    folder: &ModelFolder,
    architecture: &Architecture,
    classifier: &ClassifierConfig,
    answers: Option<LogitScore>,
) -> Result<Head, EngineError> {
    let weights = Weights::open(&folder.weights_path())?;
    Ok(Head::Scores(Box::new(match answers {
        Some(answers) => reranker::head(folder, architecture, &weights, answers)?,
        None => classifier.load(architecture, &weights)?,
    })))
}

/// The fields of the model's files that are ignored.
fn ignored(
    fields: Fields,
    folder: &ModelFolder,
    tokenizer: &Tokenizer,
) -> Result<Vec<Ignored>, EngineError> {
    let mut ignored = fields.ignored();
    ignored.extend_from_slice(folder.ignored());
    // Libraries before transformers 5 appended it: vectors of the last token are others without.
    if folder.tokenizer_config().says_end && !tokenizer.closes()? {
        ignored.push(Ignored {
            file: "tokenizer_config.json".to_owned(),
            field: "add_eos_token".to_owned(),
            is_known: false,
            value: "true".to_owned(),
        });
    }
    Ok(ignored)
}

/// A folder that pools was made to embed, also where its weights are those of a classifier.
fn task(folder: &ModelFolder, classifier: &ClassifierConfig, asks: Asks) -> ModelTask {
    match asks {
        _ if folder.has_pooling() => ModelTask::Embed,
        Asks::Nothing => classifier.task(),
        Asks::AsModulesSay(_) | Asks::YesOrNo => ModelTask::Rerank,
    }
}

/// Opens the device. Another one than the processor is refused for a model that only that computes.
fn open_device(
    folder: &ModelFolder,
    architecture: &Architecture,
    device: Device,
) -> Result<candle_core::Device, EngineError> {
    if device == Device::Cpu || !architecture.is_cpu_only() {
        return device::open(device);
    }
    let value = format!("{} on {device}", architecture.name());
    Err(not_supported(folder, "model_type", value, "decoders on the processor; use --device cpu"))
}

fn not_supported(
    folder: &ModelFolder,
    field: &'static str,
    value: String,
    supported: &str,
) -> EngineError {
    let path = folder.config_path();
    EngineError::NotSupported { path, field, value, supported: supported.to_owned() }
}
