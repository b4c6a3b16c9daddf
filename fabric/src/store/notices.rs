//! Notices: what is published on a Redis channel. Job ids as their results are written, above all.

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
        loop {
            if let Ok(id) = self.next_text().await?.parse() {
                return Some(id);
            }
        }
    }

    /// The next message; `None` once the connection is lost. One that is not UTF-8 is an empty text.
    pub async fn next_text(&mut self) -> Option<String> {
        let message = self.subscription.on_message().next().await?;
        Some(message.get_payload().unwrap_or_default())
    }
}
