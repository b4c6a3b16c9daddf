//! The phase that a connection is in, and since when: by this the listener ends those that take too long.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// The longest that a connection may stay in each phase.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// From its start, or from a request's first byte, to the end of the request's head.
    pub header: Duration,
    /// Without any of an answer being taken.
    pub answer: Duration,
    /// Between two requests.
    pub idle: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The head of a request is awaited or on its way.
    Head,
    /// A handler is at work, which has time limits of its own.
    Running,
    /// The answer is on its way.
    Answering,
    /// The answer is on its way, and not all of it is there yet.
    Streaming,
    /// The last answer was taken, and no byte of another request has come.
    Idle,
}

/// The phase of one connection.
#[derive(Debug)]
pub struct Activity(Mutex<(Phase, Instant)>);

impl Activity {
    /// Of a connection that begins now.
    pub fn new() -> Self {
        Self(Mutex::new((Phase::Head, Instant::now())))
    }

    /// A request's head is there, and its handler begins.
    pub fn began(&self) {
        self.set(Phase::Running);
    }

    /// The handler has answered.
    pub fn answered(&self) {
        self.set(Phase::Answering);
    }

    /// The handler has answered with a stream, which goes on until [`Self::answered`].
    pub fn streams(&self) {
        self.set(Phase::Streaming);
    }

    /// Bytes came in.
    fn received(&self) {
        self.step(Phase::Idle, Phase::Head);
    }

    /// Bytes went out.
    fn sent(&self) {
        self.step(Phase::Answering, Phase::Answering);
        self.step(Phase::Streaming, Phase::Streaming);
    }

    /// All bytes went out.
    fn flushed(&self) {
        self.step(Phase::Answering, Phase::Idle);
    }

    /// Whether it has been in its phase for too long.
    pub fn is_overdue(&self, waits: &Waits) -> bool {
        let (phase, since) = *self.lock();
        let limit = match phase {
            Phase::Head => waits.header,
            Phase::Answering | Phase::Streaming => waits.answer,
            Phase::Idle => waits.idle,
            Phase::Running => return false,
        };
        since.elapsed() > limit
    }

    /// Since when it has been idle, if it is.
    pub fn idle_since(&self) -> Option<Instant> {
        let (phase, since) = *self.lock();
        (phase == Phase::Idle).then_some(since)
    }

    fn set(&self, phase: Phase) {
        *self.lock() = (phase, Instant::now());
    }

    fn step(&self, from: Phase, to: Phase) {
        let mut state = self.lock();
        if state.0 == from {
            *state = (to, Instant::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Phase, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that keeps a connection's [`Activity`] in step with the bytes that move.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    /// Watches `stream`.
    pub fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.activity.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.activity.sent();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.activity.sent();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.activity.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: Waits = Waits {
        header: Duration::from_secs(10),
        answer: Duration::from_secs(20),
        idle: Duration::from_secs(75),
    };

    async fn is_overdue_after(activity: &Activity, s: u64) -> bool {
        tokio::time::advance(Duration::from_secs(s)).await;
        activity.is_overdue(&WAITS)
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_own_limit() {
        let activity = Activity::new();
        assert!(!is_overdue_after(&activity, 9).await);
        assert!(is_overdue_after(&activity, 2).await, "a head that does not come");
        activity.began();
        assert!(!is_overdue_after(&activity, 1_000).await, "a handler has its own limits");
        activity.answered();
        assert!(!is_overdue_after(&activity, 19).await);
        activity.sent();
        assert!(!is_overdue_after(&activity, 19).await, "some of the answer was taken");
        assert!(is_overdue_after(&activity, 2).await);
        activity.flushed();
        assert!(activity.idle_since().is_some());
        assert!(!is_overdue_after(&activity, 70).await);
        activity.received();
        assert!(activity.idle_since().is_none());
        assert!(is_overdue_after(&activity, 11).await, "a head that begins and does not end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_pauses_is_not_idle_and_ends_when_none_of_it_is_taken() {
        let activity = Activity::new();
        activity.began();
        activity.streams();
        for _ in 0..10 {
            activity.sent();
            activity.flushed();
            assert!(!is_overdue_after(&activity, 15).await);
            assert!(activity.idle_since().is_none(), "none of it makes room");
        }
        assert!(is_overdue_after(&activity, 6).await, "twenty-one seconds without a byte taken");
        activity.answered();
        activity.flushed();
        assert!(activity.idle_since().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_trickle_do_not_make_a_head_longer() {
        let activity = Activity::new();
        for _ in 0..11 {
            activity.received();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(activity.is_overdue(&WAITS));
    }
}
