//! The fleet's queues as AMQP reports them, with the counts of RabbitMQ's management API beside them.

use std::{collections::BTreeMap, time::Duration};

use forebay_client::{Client, ClientError, QueueInfo};
use forebay_fabric::{
    Config,
    management::{Management, ManagementError},
};
use serde::Serialize;

/// The longest that the management API may take.
const MANAGEMENT_MAX: Duration = Duration::from_secs(10);

/// A queue of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct QueueStatus {
    #[serde(flatten)]
    pub(crate) info: QueueInfo,
    /// Messages that were delivered and are not acknowledged. The management API counts them every five seconds;
    /// absent without it, and until it has counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unacknowledged: Option<u64>,
}

/// The queues of the fleet.
pub(crate) struct Queues {
    /// Those of models first, then the shared ones.
    pub(crate) queues: Vec<QueueStatus>,
    /// Why the management API, although configured, gave no counts.
    pub(crate) management_error: Option<ManagementError>,
}

/// Asks for all queues of the fleet: also those of models that only the management API knows. When that fails, the
/// queues are reported without it.
pub(crate) async fn queues(client: &Client, config: &Config) -> Result<Queues, ClientError> {
    let (counts, management_error) = match unacknowledged(config).await {
        Ok(counts) => (counts, None),
        Err(error) => (None, Some(error)),
    };
    let names = counts.iter().flat_map(BTreeMap::keys).map(String::as_str);
    let found = client.queues(names).await?;
    let status = |info: QueueInfo| QueueStatus {
        unacknowledged: counts.as_ref().and_then(|counts| *counts.get(&info.name)?),
        info,
    };
    Ok(Queues { queues: found.into_iter().map(status).collect(), management_error })
}

/// The counts of all queues that the management API knows; `None` without one.
async fn unacknowledged(
    config: &Config,
) -> Result<Option<BTreeMap<String, Option<u64>>>, ManagementError> {
    match Management::new(config, MANAGEMENT_MAX)? {
        Some(management) => Ok(Some(management.unacknowledged().await?)),
        None => Ok(None),
    }
}
