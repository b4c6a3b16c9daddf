//! Declaring the queues of models that are new while the fleet runs.

use std::time::Duration;

use forebay_fabric::{Broker, broker::BrokerError};
use forebay_schemas::topology::Topology;
use tokio_util::task::AbortOnDropHandle;

/// How long a tick waits for the broker's answer. It takes milliseconds, but a minute where the leader of one of the
/// queues stands still (seen with RabbitMQ 3.10.8 on three nodes), in which pools are to be looked after as ever.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Declares queues on one connection.
pub struct Declaring {
    broker: Broker,
    /// One that the broker has not answered yet; ends with the next.
    under_way: Option<AbortOnDropHandle<Result<(), BrokerError>>>,
}

impl Declaring {
    /// Declares by `broker`.
    pub fn new(broker: Broker) -> Self {
        Self { broker, under_way: None }
    }

    /// Has the topology declared in place of the one before. An error is one that waiting does not mend: then that one
    /// goes on being declared.
    pub async fn declare(&mut self, topology: Topology) -> Result<(), BrokerError> {
        self.under_way = None;
        let broker = self.broker.clone();
        let declared = tokio::spawn(async move {
            let declared = broker.declare(topology).await;
            match &declared {
                Err(error) if error.is_final() => {
                    tracing::error!(%error, "the broker refuses the queues of the configuration");
                }
                Err(error) => {
                    tracing::warn!(%error, "new queues are declared with the next connection");
                }
                Ok(()) => {}
            }
            declared
        });
        let mut declared = AbortOnDropHandle::new(declared);
        match tokio::time::timeout(ANSWER_MAX, &mut declared).await {
            Ok(Ok(Err(error))) if error.is_final() => Err(error),
            Ok(_) => Ok(()),
            Err(_) => {
                tracing::warn!(
                    "RabbitMQ has not declared the queues of the configuration in {} s; goes on waiting",
                    ANSWER_MAX.as_secs()
                );
                self.under_way = Some(declared);
                Ok(())
            }
        }
    }
}
