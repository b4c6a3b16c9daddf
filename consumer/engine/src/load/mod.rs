//! Reads a model from disk: its folder, its configuration and its weights, and the options to load it with.

pub(crate) mod config;
pub(crate) mod fields;
pub(crate) mod files;
pub(crate) mod folder;
pub(crate) mod fp8;
pub(crate) mod generation;
pub(crate) mod gguf;
pub(crate) mod logit_score;
pub(crate) mod modules;
pub(crate) mod mxfp4;
pub(crate) mod options;
pub(crate) mod per_token;
pub(crate) mod pooling;
pub(crate) mod prompts;
pub(crate) mod safetensors;
pub(crate) mod sentence_config;
pub(crate) mod sizes;
pub(crate) mod stanford;
pub(crate) mod tensors;
pub(crate) mod token_modules;
pub(crate) mod token_reading;
pub(crate) mod tokenizer_config;
