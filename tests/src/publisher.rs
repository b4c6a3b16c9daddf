//! A raw publisher: any bytes, any properties, confirmed by the broker.

use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

use crate::MODEL;
use crate::job::{Codec, Job, properties};

/// The routing key of the tests' model, which reaches its batch lane.
pub const BATCH: &str = MODEL;

/// The routing key of the interactive lane.
pub const INTERACTIVE: &str = "all-minilm-l6-v2.interactive";

/// The exchange that takes jobs.
const JOBS: &str = "forebay.jobs";

/// A connection with one channel on which confirms are on.
#[derive(Debug)]
pub struct Publisher {
    /// For what else a test wants to do with the broker.
    pub channel: Channel,
    _connection: Connection,
}

impl Publisher {
    /// Connects.
    pub async fn connect(url: &str) -> Self {
        Self::try_connect(url).await.expect("connect to RabbitMQ and turn confirms on")
    }

    /// Connects to a broker that may be away.
    pub async fn try_connect(url: &str) -> lapin::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { channel, _connection: connection })
    }

    /// Publishes any bytes and waits until the broker has taken them.
    pub async fn publish(&self, key: &str, body: &[u8], properties: BasicProperties) {
        let confirmation = self.try_publish(key, body, properties).await.expect("a confirm");
        assert!(matches!(confirmation, Confirmation::Ack(None)), "not taken: {confirmation:?}");
    }

    /// Publishes any bytes; what the broker says to that, if it says anything.
    pub async fn try_publish(
        &self,
        key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> lapin::Result<Confirmation> {
        let options = BasicPublishOptions::default();
        self.channel.basic_publish(JOBS.into(), key.into(), options, body, properties).await?.await
    }

    /// Publishes a job as the contract says.
    pub async fn submit(&self, key: &str, job: &Job, codec: Codec) {
        self.publish(key, &job.body(codec), properties(job.id(), codec)).await;
    }

    /// Publishes many jobs, with all confirms under way at once.
    pub async fn submit_all(&self, key: &str, jobs: &[Job], codec: Codec) {
        join_all(jobs.iter().map(|job| self.submit(key, job, codec))).await;
    }
}
