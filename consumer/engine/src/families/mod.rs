//! The encoder families. Each reads its own fields of `config.json` and implements
//! [`Layers`](crate::encode::layers::Layers); [`architecture`] chooses among them by `model_type`, and [`classifier`]
//! has the names of their classification heads. The crate's documentation lists the steps for adding one.

pub(crate) mod architecture;
pub(crate) mod classifier;
mod deberta;
mod modernbert;
mod named;
mod noop;
mod post_norm;
mod post_norm_config;
mod relative;
