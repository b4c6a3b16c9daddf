//! Looking at queues without touching them.

use std::sync::Arc;

use std::{io, time::Duration};

use lapin::{Connection, options::QueueDeclareOptions, types::FieldTable};

use super::{Broker, BrokerError, Link, error::is_not_found};

/// What a passive declaration tells of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    /// Messages that wait; those handed out and not acknowledged don't count.
    pub ready: u32,
    /// Consumers.
    pub consumers: u32,
}

/// The longest that the broker may take to tell of a queue.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

impl Broker {
    /// How full a queue is; `None` if there is no such queue.
    pub async fn queue_depth(&self, queue: &str) -> Result<Option<QueueDepth>, BrokerError> {
        let look = tokio::time::timeout(ANSWER_WITHIN, self.look_at(queue));
        look.await.unwrap_or_else(|_| {
            let late = io::Error::from(io::ErrorKind::TimedOut).into();
            Err(BrokerError::command(format!("looking at queue `{queue}`"), late))
        })
    }

    async fn look_at(&self, queue: &str) -> Result<Option<QueueDepth>, BrokerError> {
        let failed = |e| BrokerError::command(format!("looking at queue `{queue}`"), e);
        // A channel of its own: the broker closes it when the queue is not there.
        let channel = self.connection()?.create_channel().await.map_err(failed)?;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        match channel.queue_declare(queue.into(), options, FieldTable::default()).await {
            Ok(state) => {
                let _ = channel.close(200, "seen".into()).await;
                let (ready, consumers) = (state.message_count(), state.consumer_count());
                Ok(Some(QueueDepth { ready, consumers }))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The connection that is up now.
    pub(super) fn connection(&self) -> Result<Arc<Connection>, BrokerError> {
        match &*self.inner.link.borrow() {
            Link::Up { connection, .. } => Ok(connection.clone()),
            Link::Down { error: Some(error) } => Err((**error).clone()),
            Link::Down { error: None } => Err(BrokerError::Closed),
        }
    }
}
