//! Reads a model from disk: its folder, its configuration and its weights, and the options to load it with.

pub(crate) mod config;
pub(crate) mod folder;
pub(crate) mod options;
pub(crate) mod safetensors;
pub(crate) mod sizes;
