//! The model families. Each encoder family reads its own fields of `config.json` and implements
//! [`Layers`](crate::encode::layers::Layers); [`architecture`] chooses among them by `model_type`, and [`classifier`]
//! has the names of their classification heads. Decoders are one file of layers, [`decoder`], with their differences as
//! data in [`decoder_config`] and [`expert_config`]; [`decoder_encoder`] makes an encoder of them. The steps for adding
//! a family are in `CONTRIBUTING.md`, "Add a model family".

pub(crate) mod architecture;
pub(crate) mod classifier;
mod deberta;
pub(crate) mod decoder;
mod decoder_attention;
pub(crate) mod decoder_config;
pub(crate) mod decoder_encoder;
mod decoder_feed_forward;
mod decoder_layers;
mod decoder_rope;
mod decoder_tensors;
mod expert_config;
mod expert_tensors;
mod gte;
mod latent;
pub(crate) mod latent_config;
mod latent_experts;
pub(crate) mod logit_head;
pub(crate) mod masked_lm;
mod modernbert;
mod named;
mod noop;
mod ntk;
mod post_norm;
mod post_norm_config;
mod relative;
mod rope;
