//! The pool of channels that publish, each in confirm mode, each on the connection of the day.

use deadpool::managed::{self, Metrics, QueueMode, RecycleError, RecycleResult};
use lapin::{Channel, options::ConfirmSelectOptions};
use tokio::sync::watch;

use super::{
    BrokerError,
    link::{self, Link},
};

pub(super) type Pool = managed::Pool<Manager>;

pub(super) struct Manager {
    link: watch::Receiver<Link>,
}

pub(super) fn pool(link: watch::Receiver<Link>, channels_max: usize) -> Pool {
    // The last one used goes first: the broker confirms more messages in one word the fewer channels they come on.
    let builder = Pool::builder(Manager { link }).max_size(channels_max);
    #[allow(clippy::expect_used)]
    // only a pool with time-outs needs a runtime named, and this has none
    builder.queue_mode(QueueMode::Lifo).build().expect("no time-outs")
}

impl managed::Manager for Manager {
    type Type = Channel;
    type Error = BrokerError;

    /// Waits for a connection and opens a channel on it.
    async fn create(&self) -> Result<Channel, BrokerError> {
        let connection = link::next_up(self.link.clone()).await.ok_or(BrokerError::Closed)?;
        let failed = |e| BrokerError::command("opening a channel", e);
        let channel = connection.create_channel().await.map_err(failed)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed)?;
        Ok(channel)
    }

    async fn recycle(&self, channel: &mut Channel, _: &Metrics) -> RecycleResult<BrokerError> {
        if channel.status().connected() {
            Ok(())
        } else {
            Err(RecycleError::message("the channel is closed"))
        }
    }
}
