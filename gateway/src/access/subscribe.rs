//! Staying subscribed to a Redis channel, across lost connections.

use std::time::Duration;

use forebay_fabric::{Store, backoff::Backoff};
use tokio_util::sync::CancellationToken;

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An event of a subscription.
pub(super) enum Event<'a> {
    /// It begins, for the first time or again; what was published before was missed.
    Subscribed,
    /// A message.
    Message(&'a str),
}

/// Starts a task that stays subscribed to `channel` until `stop`, and hands every event to `on_event`.
pub(super) fn subscribe(
    store: Store,
    channel: &'static str,
    stop: CancellationToken,
    on_event: impl Fn(Event<'_>) + Send + 'static,
) {
    let subscribed = async move {
        let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        loop {
            match store.notices(channel).await {
                Ok(mut notices) => {
                    backoff.reset();
                    on_event(Event::Subscribed);
                    while let Some(text) = notices.next_text().await {
                        on_event(Event::Message(&text));
                    }
                    tracing::debug!(channel, "a subscription is lost; subscribing again");
                }
                Err(error) => tracing::debug!(channel, %error, "can't subscribe; trying again"),
            }
            // Without a limit on attempts: what depends on it does not trust it, and works meanwhile.
            tokio::time::sleep(backoff.next_pause()).await;
        }
    };
    tokio::spawn(async move { stop.run_until_cancelled(subscribed).await });
}
