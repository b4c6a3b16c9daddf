//! The peer: a concurrent publisher and consumer, with nothing but lapin.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use forebay_client::{Job, Lane};
use forebay_fabric::Config;
use forebay_schemas::{ContentType, MESSAGE_TYPE, names::JOBS};
use futures_util::{StreamExt, stream};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions,
    },
    types::FieldTable,
};

/// Publishes that wait for their confirmation at once: what the client library allows itself.
const IN_FLIGHT: usize = 1_024;
const PREFETCH: u16 = 1_024;
/// Deliveries covered by one acknowledgement: the fastest value for this consumer.
const ACK_EVERY: usize = 64;

/// Messages a second, published with confirmation and consumed by another connection meanwhile.
pub(crate) async fn rate(config: &Config, jobs: &[Job]) -> Result<f64> {
    let url = config.amqp_url.expose();
    let publisher = Connection::connect(url, ConnectionProperties::default()).await?;
    let consumer = Connection::connect(url, ConnectionProperties::default()).await?;
    let model = jobs.first().context("no jobs")?.model.clone();
    let bodies =
        jobs.iter().map(|job| Ok(job.encode(ContentType::Msgpack)?)).collect::<Result<Vec<_>>>()?;
    let channel = publisher.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let began = Instant::now();
    let publishing = async {
        let publishes = jobs.iter().zip(&bodies).map(|(job, body)| publish(&channel, job, body));
        let mut confirmed = stream::iter(publishes).buffer_unordered(IN_FLIGHT);
        while let Some(result) = confirmed.next().await {
            result?;
        }
        anyhow::Ok(())
    };
    let queue = Lane::Batch.queue(&model);
    let consuming = tokio::spawn(consume(consumer.create_channel().await?, queue, jobs.len()));
    publishing.await?;
    consuming.await??;
    let rate = jobs.len() as f64 / began.elapsed().as_secs_f64();
    // The last acknowledgements have to reach the queue before the channel closes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    publisher.close(200, "done".into()).await?;
    consumer.close(200, "done".into()).await?;
    Ok(rate)
}

async fn publish(channel: &Channel, job: &Job, body: &[u8]) -> Result<()> {
    let properties = BasicProperties::default()
        .with_content_type(ContentType::Msgpack.as_str().into())
        .with_message_id(job.id.as_str().into())
        .with_delivery_mode(2)
        .with_type(MESSAGE_TYPE.into());
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let key = job.model.as_str();
    let sent = channel.basic_publish(JOBS.into(), key.into(), options, body, properties).await?;
    ensure!(sent.await?.is_ack(), "a publish was refused");
    Ok(())
}

async fn consume(channel: Channel, queue: String, count: usize) -> Result<()> {
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let table = FieldTable::default();
    let mut consumer =
        channel.basic_consume(queue.as_str().into(), "".into(), options, table).await?;
    for taken in 1..=count {
        let delivery = consumer.next().await.context("the consumer ended")??;
        if taken % ACK_EVERY == 0 || taken == count {
            ensure!(delivery.ack(BasicAckOptions { multiple: true }).await?, "not acknowledged");
        }
    }
    Ok(())
}
