//! The scale of a Deployment: how many pods it is to have.

use std::time::Duration;

use forebay_fabric::backoff::Backoff;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::api::{Cluster, Refusal};

/// How often a change is tried that others came before. What changes a Deployment most is its own status, whenever a
/// pod becomes ready.
const TRIES_MAX: u32 = 8;

/// How many pods a Deployment is to have, and of which version of it that was read.
struct Scale {
    replicas: u32,
    version: String,
}

impl Cluster {
    /// How many pods a Deployment is to have; `None` where there is no such Deployment.
    pub async fn replicas(&self, deployment: &str) -> Result<Option<u32>, Refusal> {
        match self.read_scale(deployment).await {
            Ok(scale) => Ok(Some(scale.replicas)),
            Err(refusal) if refusal.status == Some(404) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// By which labels a Deployment knows its pods.
    pub async fn selector(&self, deployment: &str) -> Result<String, Refusal> {
        let read =
            self.call(|apis| async move { apis.deployments.get_scale(deployment).await }).await?;
        Ok(read.status.and_then(|status| status.selector).unwrap_or_default())
    }

    /// Changes how many pods a Deployment is to have, unless `change` leaves it. The change is made to the version that
    /// was read or not at all, so two writers can't lose each other's.
    pub async fn rescale(
        &self,
        deployment: &str,
        change: impl Fn(u32) -> u32,
    ) -> Result<(), Refusal> {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));
        let mut tries = 1;
        loop {
            let read = self.read_scale(deployment).await?;
            let replicas = change(read.replicas);
            if replicas == read.replicas {
                return Ok(());
            }
            let patch = Patch::Merge(json!({
                "metadata": { "resourceVersion": read.version },
                "spec": { "replicas": replicas },
            }));
            let params = &PatchParams::default();
            let patch = &patch;
            let patched = self
                .call(|apis| async move {
                    apis.deployments.patch_scale(deployment, params, patch).await
                })
                .await;
            match patched {
                Ok(_) => return Ok(()),
                Err(refusal) if refusal.status == Some(409) && tries < TRIES_MAX => {
                    tries += 1;
                    tokio::time::sleep(backoff.next_pause()).await;
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    async fn read_scale(&self, deployment: &str) -> Result<Scale, Refusal> {
        let read =
            self.call(|apis| async move { apis.deployments.get_scale(deployment).await }).await?;
        let replicas = read.spec.and_then(|spec| spec.replicas).unwrap_or_default();
        let Some(version) = read.metadata.resource_version else {
            let reason = format!("the scale of {deployment} came without its resourceVersion");
            return Err(Refusal { status: None, reason });
        };
        Ok(Scale { replicas: replicas.max(0).unsigned_abs(), version })
    }
}
