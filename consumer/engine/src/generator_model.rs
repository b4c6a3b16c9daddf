//! Loading of models that generate text: from a folder in transformers' layout, or from one GGUF file. They compute on
//! the processor.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::EngineError;
use crate::families::decoder::Decoder;
use crate::families::decoder_config::{DECODERS, DecoderConfig};
use crate::generate::cpu::CpuGenerator;
use crate::info::{ModelInfo, ModelTask};
use crate::load::fields::{Fields, Ignored};
use crate::load::files::{read, read_if_there};
use crate::load::generation::{self, GenerationInfo};
use crate::load::gguf::GgufModel;
use crate::load::options::{DType, Device, LoadOptions};
use crate::load::safetensors::Weights;
use crate::load::tensors::Tensors;
use crate::tokenizer::Tokenizer;

/// Memory for keys and values where the options don't say it. The system gives it as sequences need it.
const CACHE_BYTES: u64 = 1 << 30;
/// The most tokens of a sequence where the options don't say it: models that read a hundred thousand have tables and
/// buffers by their number.
const CONTEXT_MAX: usize = 32_768;

/// Where a model that generates text lies.
pub(crate) enum Source {
    /// A folder with `config.json`.
    Folder(PathBuf),
    /// A file.
    Gguf(PathBuf),
}

/// The fields of `config.json` that say whether a model generates text.
#[derive(Deserialize)]
struct Kind {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
}

impl Source {
    /// `None` for a model that doesn't generate text, or not by these options, or that isn't there.
    pub(crate) fn find(path: &Path, options: &LoadOptions) -> Result<Option<Self>, EngineError> {
        let is_gguf = |path: &Path| path.extension().is_some_and(|extension| extension == "gguf");
        if is_gguf(path) && path.is_file() {
            return Ok(Some(Self::Gguf(path.to_owned())));
        }
        let config = path.join("config.json");
        let Some(json) = read_if_there(&config)? else {
            let files = std::fs::read_dir(path).into_iter().flatten().flatten();
            let mut files: Vec<PathBuf> =
                files.map(|file| file.path()).filter(|file| is_gguf(file)).collect();
            files.sort();
            return match files.len() {
                0 => Ok(None),
                1 => Ok(files.pop().map(Self::Gguf)),
                count => Err(EngineError::Config {
                    path: path.to_owned(),
                    problem: format!("{count} GGUF files and no config.json; name one of them"),
                }),
            };
        };
        // What it can't be read as is refused where encoders are loaded.
        let Ok(Kind { model_type, architectures }) = serde_json::from_slice(&json) else {
            return Ok(None);
        };
        let is_decoder = model_type.is_some_and(|name| DECODERS.contains(&name.as_str()));
        let continues = |class: &String| class.ends_with("ForCausalLM");
        let is_language_model = architectures.is_none_or(|classes| classes.iter().all(continues));
        // Modules make vectors of its states.
        let embeds = path.join("modules.json").is_file();
        let generates = is_decoder && is_language_model && !embeds && !options.reranks;
        Ok(generates.then(|| Self::Folder(path.to_owned())))
    }
}

/// A model's parts, read but not yet packed.
struct Parts {
    config: DecoderConfig,
    tensors: Box<dyn Tensors>,
    tokenizer: tokenizers::Tokenizer,
    generation: GenerationInfo,
    ignored: Vec<Ignored>,
}

/// Loads a model.
pub(crate) fn load(
    source: &Source,
    options: &LoadOptions,
) -> Result<(Tokenizer, CpuGenerator, ModelInfo), EngineError> {
    let path = match source {
        Source::Folder(path) | Source::Gguf(path) => path,
    };
    if options.device != Device::Cpu {
        let value = format!("text generation on {}", options.device);
        return Err(refused(path, "model_type", &value, "--device cpu"));
    }
    let dtype = options.resolve_generator_dtype()?;
    if options.reranks {
        let value = "a reranker in one GGUF";
        return Err(refused(path, "task", value, "a folder with config.json and safetensors"));
    }
    let Parts { config, tensors, tokenizer, generation, ignored } = match source {
        Source::Folder(folder) => of_folder(folder)?,
        Source::Gguf(file) => of_gguf(file)?,
    };
    if let Some(field) = config.bidirectional {
        let supported = "attention to earlier tokens alone, for a model that generates text";
        return Err(refused(path, field, "attention to later tokens", supported));
    }
    if dtype == DType::Q4 && !tensors.has_blocks() {
        return Err(EngineError::DTypeNotSupported {
            dtype: dtype.to_string(),
            device: format!("{}, whose weights are not in quantised blocks", path.display()),
            supported: "f32, bf16, int8, or a GGUF that has them",
        });
    }
    let page_bytes = config.page_bytes(dtype.tensor());
    let pages = options.cache_bytes.unwrap_or(CACHE_BYTES) / page_bytes.max(1);
    let pages = u32::try_from(pages).unwrap_or(u32::MAX).max(1);
    let asked = options.context_max.unwrap_or_else(|| config.positions_meant().min(CONTEXT_MAX));
    let tokens_max = asked
        .min(config.positions)
        .min((pages as usize).saturating_mul(forebay_kernels::PAGE_TOKENS));
    let threads = options.resolve_threads();
    let info = info(&config, &*tensors, dtype, threads, tokens_max);
    let info = ModelInfo { generation: Some(generation), ignored, ..info };
    let decoder = Decoder::load(config, &*tensors, dtype, tokens_max)?;
    let generator = CpuGenerator::new(decoder, pages, tokens_max, dtype.tensor(), threads)?;
    Ok((Tokenizer::of_library(tokenizer, tokens_max)?, generator, info))
}

fn refused(path: &Path, field: &'static str, value: &str, supported: &str) -> EngineError {
    EngineError::NotSupported {
        path: path.to_owned(),
        field,
        value: value.to_owned(),
        supported: supported.to_owned(),
    }
}

fn info(
    config: &DecoderConfig,
    tensors: &dyn Tensors,
    dtype: DType,
    threads: usize,
    tokens_max: usize,
) -> ModelInfo {
    ModelInfo {
        architecture: config.name,
        task: ModelTask::Generate,
        dim: config.hidden,
        labels: Vec::new(),
        tokens_max,
        vocabulary: config.vocabulary,
        keeps_end: false,
        pooling: Vec::new(),
        sparse_pooling: None,
        kinds: None,
        pair_prompt: None,
        after_pooling: Vec::new(),
        prompts: std::collections::BTreeMap::new(),
        default_prompt: None,
        ignored: Vec::new(),
        stored_dtypes: tensors.dtypes(),
        dtype,
        device: Device::Cpu,
        gpu: None,
        threads,
        bytes_per_token: config.bytes_per_token(dtype.tensor()),
        generation: None,
    }
}

fn of_folder(folder: &Path) -> Result<Parts, EngineError> {
    let path = folder.join("config.json");
    let mut fields = Fields::parse(&path, &read(&path)?)?;
    let model_type: String = fields.required("model_type")?;
    fields.taken_elsewhere(&["architectures", "eos_token_id", "bos_token_id"]);
    let config = DecoderConfig::parse(&model_type, &mut fields)?;
    let tensors = Weights::open(&folder.join("model.safetensors"))?;
    let tokenizer = Tokenizer::library_of(&folder.join("tokenizer.json"))?;
    let generation = generation::of_folder(folder)?;
    let ignored = fields.ignored();
    Ok(Parts { config, tensors: Box::new(tensors), tokenizer, generation, ignored })
}

fn of_gguf(file: &Path) -> Result<Parts, EngineError> {
    let model = GgufModel::open(file)?;
    let config = model.config()?;
    let mut fields = Fields::of(file, config);
    let model_type: String = fields.required("model_type")?;
    fields.taken_elsewhere(&["architectures", "eos_token_id", "bos_token_id"]);
    let config = DecoderConfig::parse(&model_type, &mut fields)?;
    let facts = model.generation()?;
    let tokenizer = model.tokenizer()?;
    let text = |id: u32| tokenizer.id_to_token(id);
    let bos = facts.bos.and_then(text).map(|text| ("bos_token".to_owned(), text));
    let eos = facts.eos.first().copied().and_then(text);
    let eos = eos.map(|text| ("eos_token".to_owned(), text));
    let generation = GenerationInfo {
        end_token_ids: facts.eos.clone(),
        chat_template: facts.chat_template.clone(),
        special_tokens: bos.into_iter().chain(eos).collect(),
        ..GenerationInfo::default()
    };
    let ignored = fields.ignored();
    Ok(Parts { config, tensors: Box::new(model), tokenizer, generation, ignored })
}
