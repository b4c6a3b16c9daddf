//! The encoder families. Each reads its own fields of `config.json` and implements
//! [`Layers`](crate::encode::layers::Layers); [`architecture`] chooses among them by `model_type`, and [`classifier`]
//! has the names of their classification heads. The steps for adding one are in
//! `CONTRIBUTING.md`, "Add a model family".

pub(crate) mod architecture;
pub(crate) mod classifier;
mod deberta;
mod gte;
pub(crate) mod masked_lm;
mod modernbert;
mod named;
mod noop;
mod ntk;
mod post_norm;
mod post_norm_config;
mod relative;
mod rope;
