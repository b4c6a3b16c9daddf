//! Errors of the broker, each with its remedy.

use std::sync::Arc;

use lapin::{
    ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
};

use crate::tls::TlsError;

/// The broker can't be used as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// The address can't be parsed.
    #[error(
        "amqp_url {url} is not an address of a broker: {reason}; write \
         amqp://user:password@host:5672/vhost"
    )]
    Address {
        /// The address, password hidden.
        url: String,
        /// Why it can't be parsed.
        reason: String,
    },
    /// There is no connection.
    #[error("can't reach RabbitMQ at {url}: {source}; check amqp_url and that RabbitMQ runs")]
    Unreachable {
        /// The address, password hidden.
        url: String,
        /// Why.
        source: Arc<lapin::Error>,
    },
    /// Connecting took too long.
    #[error(
        "RabbitMQ at {url} did not answer within {after_ms} ms; check amqp_url, the network and the broker's load"
    )]
    Silent {
        /// The address, password hidden.
        url: String,
        /// How long the service waited, in milliseconds.
        after_ms: u64,
    },
    /// Its certificate is not accepted.
    #[error(
        "RabbitMQ at {url} is not trusted: {reason}; its certificate has to come from an authority of the system \
         or of tls.ca_file, be valid today, and name the host in amqp_url"
    )]
    Untrusted {
        /// The address, password hidden.
        url: String,
        /// Why the certificate is not accepted.
        reason: String,
    },
    /// A file of `[tls]` can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// User, password or virtual host are refused.
    #[error(
        "RabbitMQ at {url} refuses the login: {reason}; check user, password and virtual host in amqp_url"
    )]
    Refused {
        /// The address, password hidden.
        url: String,
        /// The broker's own words.
        reason: String,
    },
    /// A queue or exchange exists with other arguments.
    #[error(
        "RabbitMQ has `{name}` with other arguments: {reason}; delete it, or set the [queues] of forebay.toml to \
         what it was declared with"
    )]
    Conflict {
        /// The queue or exchange.
        name: String,
        /// The broker's own words: the argument, the value asked for, and the value there.
        reason: String,
    },
    /// The broker refused or dropped a command.
    #[error("RabbitMQ failed at {action}: {source}")]
    Command {
        /// The command, such as "opening a channel".
        action: String,
        /// Why it failed.
        source: Arc<lapin::Error>,
    },
    /// This process has closed the connection.
    #[error("the connection to RabbitMQ is closed")]
    Closed,
}

impl BrokerError {
    pub(super) fn command(action: impl Into<String>, source: lapin::Error) -> Self {
        Self::Command { action: action.into(), source: Arc::new(source) }
    }

    /// Whether trying again can't help.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Address { .. } | Self::Tls(_) | Self::Refused { .. } | Self::Conflict { .. }
        )
    }
}

/// A message that is not in a queue, or not known to be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// No queue is bound for it.
    #[error(
        "no queue takes messages of exchange `{exchange}` with routing key `{routing_key}`; \
             bind a queue for it, or correct the routing key"
    )]
    Unroutable {
        /// The exchange.
        exchange: String,
        /// The routing key.
        routing_key: String,
    },
    /// This user may not publish there.
    #[error(
        "RabbitMQ refuses messages to exchange `{exchange}`: {reason}; give this user the right to write there"
    )]
    Forbidden {
        /// The exchange; empty for the default one.
        exchange: String,
        /// The broker's own words.
        reason: String,
    },
    /// The queue is full and refuses it.
    #[error(
        "the queue for `{routing_key}` is full and refuses the message; send it again later, or start more workers"
    )]
    Full {
        /// The routing key.
        routing_key: String,
    },
    /// It is longer than the broker takes; it is in no queue, and sending it again can't help.
    #[error(
        "the message has {bytes} bytes, and RabbitMQ takes {bytes_max}: send less at once, or raise both \
         `max_message_size` in rabbitmq.conf and `broker.message_bytes_max`"
    )]
    TooLarge {
        /// The bytes of its body.
        bytes: usize,
        /// The most that the broker takes.
        bytes_max: usize,
    },
    /// The broker did not confirm it in time; it may be in the queue. Sending the same id again is idempotent.
    #[error(
        "RabbitMQ did not confirm the message within {after_ms} ms ({last}); sending it again is safe"
    )]
    Unconfirmed {
        /// How long the service waited, in milliseconds.
        after_ms: u64,
        /// The last failure, or the reason for the wait.
        last: String,
    },
}

/// Whether the broker closed one channel for it, and the connection goes on.
pub(super) fn is_of_channel(error: &lapin::Error) -> bool {
    soft(error).is_some()
}

pub(super) fn is_not_found(error: &lapin::Error) -> bool {
    soft(error) == Some(&AMQPSoftError::NOTFOUND)
}

pub(super) fn is_conflict(error: &lapin::Error) -> bool {
    soft(error) == Some(&AMQPSoftError::PRECONDITIONFAILED)
}

pub(super) fn is_refused(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(e) => matches!(
            e.kind(),
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
        ),
        _ => false,
    }
}

/// The most bytes that the broker takes in a message, where it closed the channel because one was larger. All messages
/// that wait for their confirmation on that channel get the same error.
pub(super) fn bytes_max(error: &lapin::Error) -> Option<usize> {
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return None };
    bytes_max_of(refusal.get_message().as_str())
}

/// RabbitMQ says "message size 17000000 is larger than configured max size 16777216", or "than max size" where its own
/// bound is the limit.
fn bytes_max_of(reason: &str) -> Option<usize> {
    let (_, sizes) = reason.split_once("message size ")?;
    let (_, bytes_max) = sizes.split_once("max size ")?;
    let digits = bytes_max.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn soft(error: &lapin::Error) -> Option<&AMQPSoftError> {
    match error.kind() {
        ErrorKind::ProtocolError(e) => match e.kind() {
            AMQPErrorKind::Soft(soft) => Some(soft),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_s_limit_is_read_from_its_refusal() {
        let of = |reason: &str| bytes_max_of(&format!("PRECONDITION_FAILED - {reason}"));
        assert_eq!(of("message size 17 is larger than configured max size 16"), Some(16));
        assert_eq!(
            of("message size 536870913 is larger than max size 536870912"),
            Some(536_870_912)
        );
        assert_eq!(of("message size 17 is larger than configured max size"), None);
        assert_eq!(of("unknown delivery tag 17"), None);
    }
}
