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
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .expect("connect to RabbitMQ");
        let channel = connection.create_channel().await.expect("open a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("turn confirms on");
        Self { channel, _connection: connection }
    }

    /// Publishes any bytes and waits until the broker has taken them.
    pub async fn publish(&self, key: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions::default();
        let sent = self.channel.basic_publish(JOBS.into(), key.into(), options, body, properties);
        let confirmation = sent.await.expect("publish").await.expect("a confirm");
        assert!(matches!(confirmation, Confirmation::Ack(None)), "not taken: {confirmation:?}");
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
