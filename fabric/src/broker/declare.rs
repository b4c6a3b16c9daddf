//! Declaring the topology. It is idempotent: every service declares the same data with the same arguments.

use forebay_schemas::topology::{
    Argument, Arguments, Binding, Exchange, ExchangeKind, Queue, Topology,
};
use lapin::{
    Channel, Connection,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use super::error::{BrokerError, is_conflict};

pub(super) async fn topology(
    connection: &Connection,
    topology: &Topology,
) -> Result<(), BrokerError> {
    let open = connection.create_channel().await;
    let channel = open.map_err(|e| BrokerError::command("opening a channel", e))?;
    for exchange in &topology.exchanges {
        declare_exchange(&channel, exchange).await.map_err(|e| failed(&exchange.name, e))?;
    }
    for queue in &topology.queues {
        declare_queue(&channel, queue).await.map_err(|e| failed(&queue.name, e))?;
    }
    for binding in &topology.bindings {
        declare_binding(&channel, binding).await.map_err(|e| failed(&binding.queue, e))?;
    }
    // Closing is a courtesy: the channel ends with the connection.
    let _ = channel.close(200, "declared".into()).await;
    Ok(())
}

fn failed(name: &str, error: lapin::Error) -> BrokerError {
    if is_conflict(&error) {
        return BrokerError::Conflict { name: name.into(), reason: error.to_string() };
    }
    BrokerError::command(format!("declaring `{name}`"), error)
}

async fn declare_exchange(channel: &Channel, exchange: &Exchange) -> lapin::Result<()> {
    let kind = match exchange.kind {
        ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        ExchangeKind::Fanout => lapin::ExchangeKind::Fanout,
    };
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let arguments = table(&exchange.arguments);
    channel.exchange_declare(exchange.name.as_str().into(), kind, options, arguments).await
}

async fn declare_queue(channel: &Channel, queue: &Queue) -> lapin::Result<()> {
    let options = QueueDeclareOptions::durable();
    channel.queue_declare(queue.name.as_str().into(), options, table(&queue.arguments)).await?;
    Ok(())
}

async fn declare_binding(channel: &Channel, binding: &Binding) -> lapin::Result<()> {
    let queue = binding.queue.as_str().into();
    let exchange = binding.exchange.as_str().into();
    let key = binding.routing_key.as_str().into();
    channel
        .queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default())
        .await
}

fn table(arguments: &Arguments) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
            // Beyond i64 is beyond any limit that a broker could keep.
            Argument::Number(n) => AMQPValue::LongLongInt(i64::try_from(*n).unwrap_or(i64::MAX)),
        };
        table.insert((*name).into(), value);
    }
    table
}
