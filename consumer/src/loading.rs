//! Finding a model's files, what the configuration says of loading it, and loading one that generates text.

use std::path::PathBuf;

use forebay_engine::{Chunk, DType, Keep, LoadOptions, Model, Pick, Sampling, Step};
use forebay_fabric::Config;
use forebay_fabric::config::{NumberType, OpenTask};
use forebay_schemas::ModelId;

use crate::{error::WorkerError, memory::MemoryLimit};

/// The number type that the configuration has for a model.
pub fn dtype_of(config: &Config, model: &ModelId) -> Option<DType> {
    let dtype = config.models.get(model)?.dtype?;
    Some(match dtype {
        NumberType::F32 => DType::F32,
        NumberType::Bf16 => DType::Bf16,
        NumberType::F16 => DType::F16,
        NumberType::Int8 => DType::Int8,
        NumberType::Q4 => DType::Q4,
    })
}

/// Whether the configuration says of a model that it reranks.
pub fn reranks(config: &Config, model: &ModelId) -> bool {
    config.models.get(model).is_some_and(|model| model.task == Some(OpenTask::Rerank))
}

/// The folder of a model that this process can load.
pub(crate) fn folder_of(config: &Config, name: &ModelId) -> Result<PathBuf, WorkerError> {
    if config.models.get(name).is_some_and(|model| model.remote.is_some()) {
        return Err(WorkerError::IsRemote(name.clone()));
    }
    let folder = config.model_dir(name)?;
    let mut files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let is_model = |file: std::fs::DirEntry| {
        let path = file.path();
        path.extension().is_some_and(|extension| extension == "gguf")
            || path.ends_with("config.json")
    };
    if files.any(is_model) {
        Ok(folder)
    } else {
        Err(WorkerError::NotPulled { model: name.clone(), folder })
    }
}

/// The options with as much memory for keys and values as this process can spare, unless they say how much.
pub(crate) fn with_pages(options: &LoadOptions, config: &Config) -> LoadOptions {
    let memory = MemoryLimit::new(config.worker.memory_bytes_max, 0);
    LoadOptions { cache_bytes: options.cache_bytes.or(memory.for_pages()), ..options.clone() }
}

/// Loads a model that generates text from the cache.
pub fn load_generator(
    config: &Config,
    name: &ModelId,
    options: &LoadOptions,
) -> Result<Model, WorkerError> {
    let model = forebay_engine::load(&folder_of(config, name)?, &with_pages(options, config))?;
    warn_of_ignored(&model);
    Ok(model)
}

/// Warns of fields of a model's files that are not known here.
pub(crate) fn warn_of_ignored(model: &Model) {
    for field in model.info.ignored.iter().filter(|field| !field.is_known) {
        tracing::warn!(
            file = field.file,
            field = field.field,
            value = field.value,
            "a field of the model is not known and was ignored; `forebay check` compares vectors"
        );
    }
}

/// Computes one token, so that the first job finds warm memory.
pub(crate) fn warm_up(model: &mut Model) -> Result<(), WorkerError> {
    let tokens = model.tokenizer.encode_prompt("warm up", false)?;
    let generator = model.engine.generator()?;
    let opened = generator.open(&tokens, 0)?;
    let sampling = Sampling::default();
    let pick = Pick { sampling: &sampling, prompt_tokens: tokens.len(), mask: None };
    let chunk = Chunk { id: opened.id, tokens: &tokens[opened.cached..], pick: Some(pick) };
    let picks = generator.begin(&Step { rows: vec![chunk] })?.wait();
    generator.close(opened.id, Keep::Nothing);
    picks?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use forebay_fabric::config::ModelConfig;

    use super::*;

    #[test]
    fn a_model_is_loaded_as_the_configuration_says_if_it_says_anything() {
        let model: ModelId = "m".parse().unwrap();
        let mut config = Config::default();
        assert_eq!((dtype_of(&config, &model), reranks(&config, &model)), (None, false));
        let of_model = ModelConfig {
            dtype: Some(NumberType::Int8),
            task: Some(OpenTask::Rerank),
            ..ModelConfig::of("folder:/m")
        };
        config.models.insert(model.clone(), of_model);
        assert_eq!(
            (dtype_of(&config, &model), reranks(&config, &model)),
            (Some(DType::Int8), true)
        );
    }
}
