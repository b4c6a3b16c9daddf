//! The context that all commands share: configuration, output and Ctrl-C.

use forebay_client::{Client, ModelId};
use forebay_fabric::{Config, Store, access::AccessError};
use tokio_util::sync::CancellationToken;

use crate::{error::CommandError, output::Output};

/// The context of a command.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) output: Output,
    /// Cancelled by Ctrl-C.
    pub(crate) stop: CancellationToken,
}

impl Context {
    pub(crate) fn client(&self) -> Result<Client, CommandError> {
        Ok(Client::connect(&self.config)?)
    }

    /// The store alone, for commands that need no broker.
    pub(crate) fn store(&self) -> Result<Store, CommandError> {
        Ok(Store::new(&self.config).map_err(AccessError::from)?)
    }

    /// The model that a command works with: the one named with `--model`, or else the only one of the configuration.
    pub(crate) fn model(&self, named: Option<ModelId>) -> Result<ModelId, CommandError> {
        choose_model(named, self.config.models.keys()).map_err(CommandError::Usage)
    }
}

/// The model that is named, or else the only one that is configured. The error says which ones there are to choose
/// from.
fn choose_model<'a>(
    named: Option<ModelId>,
    mut configured: impl Iterator<Item = &'a ModelId>,
) -> Result<ModelId, String> {
    if let Some(named) = named {
        return Ok(named);
    }
    let Some(first) = configured.next() else {
        return Err("which model? None is configured: name one with --model, or add a [models.<name>] table to \
                    forebay.toml"
            .to_owned());
    };
    let others: Vec<&str> = configured.map(ModelId::as_str).collect();
    if others.is_empty() {
        return Ok(first.clone());
    }
    Err(format!(
        "which model? Name one with --model; configured are {first}, {}",
        others.join(", ")
    ))
}

/// Runs `work` until it ends or Ctrl-C interrupts it.
pub(crate) async fn unless_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    let interrupted = || CommandError::Interrupted(String::new());
    stop.run_until_cancelled(work).await.unwrap_or_else(|| Err(interrupted()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn models(names: &[&str]) -> Vec<ModelId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn choose(named: Option<&str>, configured: &[&str]) -> Result<String, String> {
        let named = named.map(|name| name.parse().unwrap());
        choose_model(named, models(configured).iter()).map(|model| model.to_string())
    }

    #[test]
    fn a_named_model_is_taken_whatever_is_configured() {
        for configured in [&[][..], &["a"], &["a", "b"]] {
            assert_eq!(choose(Some("other"), configured), Ok("other".to_owned()));
        }
    }

    #[test]
    fn the_only_configured_model_is_the_default() {
        assert_eq!(choose(None, &["only"]), Ok("only".to_owned()));
    }

    #[test]
    fn among_several_models_one_must_be_named_and_the_error_lists_them() {
        let error = choose(None, &["a", "b", "c"]).unwrap_err();
        assert_eq!(error, "which model? Name one with --model; configured are a, b, c");
    }

    #[test]
    fn without_any_model_the_error_says_how_to_add_one() {
        let error = choose(None, &[]).unwrap_err();
        assert!(error.contains("--model") && error.contains("[models.<name>]"), "{error}");
    }
}
