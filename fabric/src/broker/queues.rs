//! Looking at queues without touching them.

use std::{io, time::Duration};

use lapin::{Channel, options::QueueDeclareOptions, types::FieldTable};

use super::{
    connection::Broker,
    error::{BrokerError, is_not_found},
};

/// The depth of a queue, as a passive declaration reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    /// Messages that wait, without those that are delivered and not acknowledged.
    pub ready: u32,
    /// Consumers.
    pub consumers: u32,
}

/// The longest that the broker may take to report on a queue.
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

    /// How full these queues are, in their order, all looked at on one channel; `None` for one that is not there.
    pub async fn queue_depths(
        &self,
        queues: &[String],
    ) -> Result<Vec<Option<QueueDepth>>, BrokerError> {
        let look = tokio::time::timeout(ANSWER_WITHIN, self.look_at_all(queues));
        look.await.unwrap_or_else(|_| {
            let late = io::Error::from(io::ErrorKind::TimedOut).into();
            Err(BrokerError::command("looking at queues", late))
        })
    }

    async fn look_at_all(&self, queues: &[String]) -> Result<Vec<Option<QueueDepth>>, BrokerError> {
        let connection = self.connection()?;
        let opening = |e| BrokerError::command("opening a channel", e);
        let mut channel = connection.create_channel().await.map_err(opening)?;
        let mut depths = Vec::with_capacity(queues.len());
        for queue in queues {
            match passive(&channel, queue).await {
                Ok(depth) => depths.push(Some(depth)),
                Err(error) if is_not_found(&error) => {
                    depths.push(None);
                    // The broker closes the channel with that reply.
                    channel = connection.create_channel().await.map_err(opening)?;
                }
                Err(e) => {
                    return Err(BrokerError::command(format!("looking at queue `{queue}`"), e));
                }
            }
        }
        let _ = channel.close(200, "seen".into()).await;
        Ok(depths)
    }

    async fn look_at(&self, queue: &str) -> Result<Option<QueueDepth>, BrokerError> {
        let failed = |e| BrokerError::command(format!("looking at queue `{queue}`"), e);
        // A channel of its own: the broker closes it when the queue is not there.
        let channel = self.connection()?.create_channel().await.map_err(failed)?;
        match passive(&channel, queue).await {
            Ok(depth) => {
                let _ = channel.close(200, "seen".into()).await;
                Ok(Some(depth))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

async fn passive(channel: &Channel, queue: &str) -> lapin::Result<QueueDepth> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let state = channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
    Ok(QueueDepth { ready: state.message_count(), consumers: state.consumer_count() })
}
