//! The pool of channels that publish, each in confirm mode, each on the connection that is currently up.

use deadpool::managed::{self, Metrics, QueueMode, RecycleError, RecycleResult};
use lapin::{Channel, options::ConfirmSelectOptions};
use tokio::sync::watch;

use super::{
    error::BrokerError,
    link::{self, Link},
};

/// Channels that wait for the next publish.
pub(super) type ChannelPool = managed::Pool<ChannelManager>;

/// Opens channels on the connection that is up, and drops those of a lost one.
pub(super) struct ChannelManager {
    link: watch::Receiver<Link>,
}

/// A pool of at most `channels_max` channels.
pub(super) fn channel_pool(link: watch::Receiver<Link>, channels_max: usize) -> ChannelPool {
    // Last in, first out: the broker coalesces more confirmations the fewer channels the messages come on.
    let builder = ChannelPool::builder(ChannelManager { link }).max_size(channels_max);
    #[allow(clippy::expect_used)]
    // only a pool with time-outs needs a runtime named, and this has none
    builder.queue_mode(QueueMode::Lifo).build().expect("no time-outs")
}

impl managed::Manager for ChannelManager {
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
            Err(RecycleError::message("the channel is closed: another one is opened"))
        }
    }
}
