//! Looking at queues without touching them.

use std::{io, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use lapin::{
    Channel,
    options::{BasicGetOptions, BasicNackOptions, QueueDeclareOptions},
    types::FieldTable,
};

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

impl QueueDepth {
    /// Whether only the queue's leader can have answered this. Nothing at all is also what is answered for a quorum
    /// queue whose leader can't be reached: [`Broker::waiting_by_proof`] distinguishes them.
    pub fn proves_itself(self) -> bool {
        self.ready > 0 || self.consumers > 0
    }
}

/// The most queues that are looked at on one channel, one after the other,
const QUEUES_A_CHANNEL: usize = 8;
/// and the most channels at once.
const CHANNELS_MAX: usize = 16;
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

    /// How full these queues are, in their order; `None` for one that is not there. Some are looked at at once: one
    /// whose leader does not answer takes a third of a second.
    pub async fn queue_depths(
        &self,
        queues: &[String],
    ) -> Result<Vec<Option<QueueDepth>>, BrokerError> {
        let some = queues.chunks(QUEUES_A_CHANNEL).map(|some| self.look_at_all(some));
        let all = stream::iter(some).buffered(CHANNELS_MAX).try_concat();
        tokio::time::timeout(ANSWER_WITHIN, all).await.unwrap_or_else(|_| {
            let late = io::Error::from(io::ErrorKind::TimedOut).into();
            Err(BrokerError::command("looking at queues", late))
        })
    }

    /// How many messages wait in a queue that shows none, by taking the first and giving it back: proof that the
    /// queue's leader was reached, which a zero of [`Broker::queue_depths`] is not. RabbitMQ waits for a leader that
    /// does not answer, and closes the whole connection where there is none: ask on a connection that nothing else
    /// needs.
    pub async fn waiting_by_proof(&self, queue: &str) -> Result<u32, BrokerError> {
        let failed = |e| BrokerError::command(format!("looking into queue `{queue}`"), e);
        let channel = self.connection()?.create_channel().await.map_err(failed)?;
        let got = channel.basic_get(queue.into(), BasicGetOptions::default()).await;
        let waiting = match got.map_err(failed)? {
            None => 0,
            Some(got) => {
                let requeue = BasicNackOptions { multiple: false, requeue: true };
                got.delivery.acker.nack(requeue).await.map_err(failed)?;
                got.message_count.saturating_add(1)
            }
        };
        let _ = channel.close(200, "seen".into()).await;
        Ok(waiting)
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
