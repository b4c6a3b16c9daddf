//! The peer: a concurrent publisher and consumer, with nothing but lapin.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use forebay_client::{Job, Lane};
use forebay_fabric::Config;
use forebay_schemas::{ContentType, MESSAGE_TYPE, names::JOBS};
use futures_util::{StreamExt, stream};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions,
    },
    types::FieldTable,
};

use crate::cpu::{Began, Round};

/// Publishes that wait for their confirmation at once: what the client library allows itself.
const IN_FLIGHT: usize = 1_024;
const PREFETCH: u16 = 1_024;
/// Deliveries covered by one acknowledgement: the fastest value for this consumer.
const ACK_EVERY: usize = 64;

/// Messages a second, published with confirmation and consumed by another connection meanwhile. Counted is the last of
/// the `passes`, each of which begins when the one before is done.
pub(crate) async fn rate(config: &Config, passes: [Vec<Job>; 2]) -> Result<Round> {
    let url = config.amqp_url.expose();
    let publisher = Connection::connect(url, ConnectionProperties::default()).await?;
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = publisher.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let model = passes[0].first().context("no jobs")?.model.clone();
    let mut consumer =
        consumer(&connection.create_channel().await?, &Lane::Batch.queue(&model)).await?;
    let mut round = None;
    for jobs in passes {
        let encode = |job: &Job| job.encode(ContentType::Msgpack);
        let bodies = jobs.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let began = Began::now(None)?;
        let consuming = tokio::spawn(consume(consumer, jobs.len()));
        let publishes = jobs.iter().zip(&bodies).map(|(job, body)| publish(&channel, job, body));
        let mut confirmed = stream::iter(publishes).buffer_unordered(IN_FLIGHT);
        while let Some(result) = confirmed.next().await {
            result?;
        }
        consumer = consuming.await??;
        round = Some(began.until_now(None, jobs.len())?);
    }
    // The last acknowledgements have to reach the queue before the channel closes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    publisher.close(200, "done".into()).await?;
    connection.close(200, "done".into()).await?;
    round.context("no passes")
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

async fn consumer(channel: &Channel, queue: &str) -> Result<Consumer> {
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    Ok(channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?)
}

/// Takes so many messages and acknowledges them.
async fn consume(mut consumer: Consumer, count: usize) -> Result<Consumer> {
    for taken in 1..=count {
        let delivery = consumer.next().await.context("the consumer ended")??;
        if taken % ACK_EVERY == 0 || taken == count {
            ensure!(delivery.ack(BasicAckOptions { multiple: true }).await?, "not acknowledged");
        }
    }
    Ok(consumer)
}
