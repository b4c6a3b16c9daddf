//! Options of sampling, as `submit` and `chat` have them.

use forebay_client::GenerateParams;

/// How text is generated; what is not given is left to the model.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(id = "sampling")]
pub(super) struct SamplingArgs {
    /// Stop after N tokens, for `generate`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// 0 takes the likeliest token each time, for `generate`; up to 2
    #[arg(long, value_name = "X")]
    temperature: Option<f32>,
    /// Sample from the likeliest tokens that together have this probability, for `generate`
    #[arg(long, value_name = "X")]
    top_p: Option<f32>,
    /// Makes sampling repeatable, for `generate`
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End where this text begins, for `generate`; may be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

impl SamplingArgs {
    /// The parameters of a job.
    pub(super) fn params(&self) -> GenerateParams {
        GenerateParams {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            seed: self.seed,
            stop: self.stop.clone(),
            ..GenerateParams::default()
        }
    }
}
