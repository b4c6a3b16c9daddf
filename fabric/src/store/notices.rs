//! Notices: a Redis channel on which job ids are published as their results are written.

use std::time::Duration;

use forebay_schemas::JobId;
use futures_util::StreamExt;
use redis::aio::PubSub;

use super::{connection::Store, error::StoreError};

/// A subscription to a channel, on a connection of its own, shared by all waiters of a process.
pub struct Notices {
    subscription: PubSub,
}

impl Store {
    /// Subscribes to `channel`. The subscription ends with its connection: subscribe again then.
    pub async fn notices(&self, channel: &str) -> Result<Notices, StoreError> {
        let connect = tokio::time::timeout(CONNECT_TIMEOUT, self.connections.manager().subscribe());
        let Ok(connected) = connect.await else {
            let reason = "no connection in time".to_owned();
            return Err(StoreError::Unreachable { url: self.url.to_string(), reason });
        };
        let mut subscription = connected?;
        subscription.subscribe(channel).await.map_err(|error| self.failed(error))?;
        Ok(Notices { subscription })
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Notices {
    /// The next id; `None` once the connection is lost. Messages that are not a job id are skipped.
    pub async fn next(&mut self) -> Option<JobId> {
        let mut messages = self.subscription.on_message();
        loop {
            let text: String = messages.next().await?.get_payload().unwrap_or_default();
            if let Ok(id) = text.parse() {
                return Some(id);
            }
        }
    }
}
