//! Publishing and consuming: the client library and a subscription, and their peers with nothing but lapin.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use forebay_client::{Client, Job, Lane};
use forebay_fabric::{Broker, Config, broker::Window};
use forebay_schemas::{ContentType, MESSAGE_TYPE, names::JOBS, topology::Topology};
use futures_util::{StreamExt, stream};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::FieldTable,
};

/// A model that has queues and no worker.
pub(crate) const SINK: &str = "bench-sink";
const MESSAGES: usize = 10_000;
const IN_FLIGHT: usize = 1_024;
const PREFETCH: u16 = 256;

fn small_job() -> Result<Job> {
    Ok(Job::embed(SINK.parse()?, vec!["x".repeat(450)]))
}

/// Confirmed publishes a second of the client library.
pub(crate) async fn publish_rate(config: &Config) -> Result<f64> {
    let client = Client::connect(config)?;
    client.submit(small_job()?, Lane::Batch).await?;
    let jobs = (1..MESSAGES).map(|_| small_job()).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    let mut submitted = Box::pin(client.submit_many(stream::iter(jobs), Lane::Batch));
    while let Some((_, result)) = submitted.next().await {
        result?;
    }
    Ok(MESSAGES as f64 / started.elapsed().as_secs_f64())
}

/// Messages a second that a subscription receives and acknowledges.
pub(crate) async fn consume_rate(config: &Config) -> Result<f64> {
    let topology = Topology::new(config.models.keys(), &config.queues);
    let broker = Broker::start(config, "bench", topology)?;
    broker.ready().await?;
    let mut subscription =
        broker.subscribe(&Lane::Batch.queue(&SINK.parse()?), Window::new(PREFETCH, u64::MAX));
    let started = Instant::now();
    let mut taken = 0;
    while taken < MESSAGES {
        let mut acks = Vec::with_capacity(64);
        while acks.len() < 64 && taken < MESSAGES {
            let delivery = subscription.next().await.context("the subscription ended")?;
            acks.push(delivery.acker.ack());
            taken += 1;
        }
        futures_util::future::join_all(acks).await;
    }
    let rate = MESSAGES as f64 / started.elapsed().as_secs_f64();
    subscription.stop().await;
    broker.close().await;
    Ok(rate)
}

/// The peer: a connection with nothing but lapin.
pub(crate) struct BareClient {
    connection: Connection,
    queue: String,
}

impl BareClient {
    pub(crate) async fn connect(config: &Config) -> Result<Self> {
        let url = config.amqp_url.expose();
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        Ok(Self { connection, queue: Lane::Batch.queue(&SINK.parse()?) })
    }

    pub(crate) async fn publish_rate(&self) -> Result<f64> {
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let jobs = (0..MESSAGES).map(|_| small_job()).collect::<Result<Vec<_>>>()?;
        let started = Instant::now();
        let publishes = jobs.iter().map(|job| publish(&channel, job));
        let mut confirmed = stream::iter(publishes).buffer_unordered(IN_FLIGHT);
        while let Some(result) = confirmed.next().await {
            result?;
        }
        Ok(MESSAGES as f64 / started.elapsed().as_secs_f64())
    }

    pub(crate) async fn consume_rate(&self) -> Result<f64> {
        let channel = self.connection.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let table = FieldTable::default();
        let queue = self.queue.as_str();
        let mut consumer = channel.basic_consume(queue.into(), "".into(), options, table).await?;
        let started = Instant::now();
        let mut taken = 0;
        while taken < MESSAGES {
            let mut acks = Vec::with_capacity(64);
            while acks.len() < 64 && taken < MESSAGES {
                let delivery = consumer.next().await.context("the consumer ended")??;
                acks.push(async move { delivery.ack(BasicAckOptions::default()).await });
                taken += 1;
            }
            for acked in futures_util::future::join_all(acks).await {
                ensure!(acked?, "an acknowledgement was lost");
            }
        }
        Ok(MESSAGES as f64 / started.elapsed().as_secs_f64())
    }

    pub(crate) async fn remove_sink(&self) -> Result<()> {
        let channel = self.connection.create_channel().await?;
        channel.queue_purge(self.queue.as_str().into(), QueuePurgeOptions::default()).await?;
        for lane in Lane::ALL {
            let queue = lane.queue(&SINK.parse()?);
            channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
        }
        Ok(())
    }
}

async fn publish(channel: &Channel, job: &Job) -> Result<()> {
    let properties = BasicProperties::default()
        .with_content_type(ContentType::Msgpack.as_str().into())
        .with_message_id(job.id.as_str().into())
        .with_delivery_mode(2)
        .with_type(MESSAGE_TYPE.into());
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let body = job.encode(ContentType::Msgpack)?;
    let sent = channel.basic_publish(JOBS.into(), SINK.into(), options, &body, properties).await?;
    ensure!(sent.await?.is_ack(), "a publish was refused");
    Ok(())
}
