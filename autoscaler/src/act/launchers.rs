//! The launchers that a configuration asks for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use forebay_fabric::{Config, config::LauncherKind};
use forebay_schemas::ModelId;
use futures_util::future::join_all;

use super::{
    docker::DockerLauncher,
    kubernetes::KubernetesLauncher,
    launcher::{Instance, LaunchError, Launcher},
    process::{self, Processes},
};

/// The longest that listing workers may take: it holds up the tick.
const LIST_MAX: Duration = Duration::from_secs(5);
/// The longest that another call may take.
const CALL_MAX: Duration = Duration::from_secs(15);

/// The launchers that were asked for so far, each made once.
#[derive(Default)]
pub struct Launchers {
    made: BTreeMap<LauncherKind, Result<Arc<dyn Launcher>, String>>,
}

impl Launchers {
    /// Makes the launchers that `config` asks for and that are not there yet. One that can't be made is tried again at
    /// the next call. Workers that are processes read `config_text`.
    pub fn make(&mut self, config: &Config, config_text: Option<&str>) {
        // Processes that an earlier autoscaler launched may be there although no model asks for them any more.
        let state_dir = config.autoscaler.process.state_dir();
        let left_over =
            state_dir.is_ok_and(|folder| folder.is_dir()).then_some(LauncherKind::Process);
        let wanted = config.models.values().map(|model| model.pool.launcher);
        for kind in wanted.chain(left_over) {
            if matches!(self.made.get(&kind), Some(Ok(_))) {
                continue;
            }
            let Some(made) = make(kind, config, config_text) else { continue };
            let made = made.map_err(|error| error.to_string());
            // Each tick tries again; the failure is logged once.
            if let Err(error) = &made
                && !matches!(self.made.get(&kind), Some(Err(before)) if before == error)
            {
                tracing::warn!(error, "no launcher");
            }
            self.made.insert(kind, made);
        }
    }

    /// Gives processes that are launched from now on another configuration to read.
    pub fn accept(&self, config: &Config, config_text: Option<&str>) {
        if matches!(self.made.get(&LauncherKind::Process), Some(Ok(_)))
            && let Err(error) = process::keep_config(&config.autoscaler.process, config_text)
        {
            tracing::warn!(%error, "workers go on with the configuration before this one");
        }
    }

    /// The launcher of a kind; the reason when there is none.
    pub fn get(&self, kind: LauncherKind) -> Result<&Arc<dyn Launcher>, String> {
        match self.made.get(&kind) {
            Some(Ok(launcher)) => Ok(launcher),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err("nothing launches the workers of this model".to_owned()),
        }
    }

    /// The workers of every launcher. A cluster is asked for the models that it runs and for no others: its account has
    /// no right to more, and those of models without a launcher are not ours.
    pub async fn list(
        &self,
        models: &[(ModelId, LauncherKind)],
    ) -> BTreeMap<LauncherKind, Result<Vec<Instance>, String>> {
        let all = self.made.iter().map(async |(kind, launcher)| {
            let mine: Vec<ModelId> = models
                .iter()
                .filter(|(_, by)| by == kind)
                .map(|(model, _)| model.clone())
                .collect();
            let listed = match launcher {
                Ok(launcher) => {
                    let looked = launcher.list(&mine);
                    let listed = bounded(LIST_MAX, launcher.kind(), "list its workers", looked);
                    listed.await.map_err(|error| error.to_string())
                }
                Err(reason) => Err(reason.clone()),
            };
            (*kind, listed)
        });
        join_all(all).await.into_iter().collect()
    }
}

/// Awaits a call to a launcher, at most for as long as one may take.
pub async fn within<T>(
    launcher: &'static str,
    action: &str,
    call: impl Future<Output = Result<T, LaunchError>>,
) -> Result<T, LaunchError> {
    bounded(CALL_MAX, launcher, action, call).await
}

async fn bounded<T>(
    limit: Duration,
    launcher: &'static str,
    action: &str,
    call: impl Future<Output = Result<T, LaunchError>>,
) -> Result<T, LaunchError> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
        let reason = format!("it took longer than {} s", limit.as_secs());
        Err(LaunchError { launcher, action: action.to_owned(), reason })
    })
}

/// The launcher of a kind; `None` for models whose workers something else launches.
fn make(
    kind: LauncherKind,
    config: &Config,
    config_text: Option<&str>,
) -> Option<Result<Arc<dyn Launcher>, LaunchError>> {
    let launcher: Arc<dyn Launcher> = match kind {
        LauncherKind::None => return None,
        LauncherKind::Process => {
            let idle_s_max = config.worker.idle_s_max;
            match Processes::new(&config.autoscaler.process, config_text, idle_s_max) {
                Ok(launcher) => Arc::new(launcher),
                Err(error) => return Some(Err(error)),
            }
        }
        LauncherKind::Docker => {
            Arc::new(DockerLauncher::new(&config.autoscaler.docker, std::env::vars()))
        }
        LauncherKind::Kubernetes => {
            Arc::new(KubernetesLauncher::new(&config.autoscaler.kubernetes))
        }
    };
    Some(Ok(launcher))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_launched_for_models_without_a_launcher() {
        assert!(make(LauncherKind::None, &Config::default(), None).is_none());
        let launchers = Launchers::default();
        assert!(launchers.get(LauncherKind::None).is_err());
    }
}
