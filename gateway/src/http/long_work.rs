//! Work that takes long for its size, done where it holds up no other request.

use std::{num::NonZero, panic, sync::Arc, thread};

use tokio::sync::Semaphore;

use crate::error::ApiError;

/// Work on so many bytes is done in place. A quarter of a mebibyte takes less than a millisecond to read; moving it to
/// another thread takes a tenth of one.
const IN_PLACE_BYTES_MAX: usize = 256 * 1024;

/// Threads for long work: as many at once as there are cores, so that small requests find one free soon. Clones share
/// them.
#[derive(Debug, Clone)]
pub struct LongWork(Arc<Semaphore>);

impl LongWork {
    /// Threads for this machine.
    pub fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new(cores)))
    }

    /// Does `work` on about so many bytes. It is done to its end also when the caller leaves.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        if bytes <= IN_PLACE_BYTES_MAX {
            return Ok(work());
        }
        let stopping = || ApiError::unavailable("unavailable", "the gateway stops: try again");
        let slot = self.0.clone().acquire_owned().await.map_err(|_| stopping())?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(slot);
            done
        });
        match done.await {
            Ok(done) => Ok(done),
            // As it would have been in place.
            Err(error) if error.is_panic() => panic::resume_unwind(error.into_panic()),
            Err(_) => Err(stopping()),
        }
    }
}

impl Default for LongWork {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_work_is_done_on_another_thread_and_short_work_in_place() {
        let long_work = LongWork::new();
        let here = thread::current().id();
        for (bytes, is_here) in [(IN_PLACE_BYTES_MAX, true), (IN_PLACE_BYTES_MAX + 1, false)] {
            let at = long_work.run(bytes, || thread::current().id()).await.unwrap();
            assert_eq!(at == here, is_here, "{bytes}");
        }
    }

    #[tokio::test]
    async fn what_work_holds_is_held_until_its_end_although_the_caller_left() {
        let held = Arc::new(Semaphore::new(1));
        let permit = held.clone().acquire_owned().await.unwrap();
        let (go, gone) = std::sync::mpsc::channel();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let long_work = LongWork::new();
        let working = tokio::spawn(async move {
            let work = move || {
                begun.send(()).unwrap();
                gone.recv().unwrap();
                drop(permit);
            };
            long_work.run(IN_PLACE_BYTES_MAX + 1, work).await
        });
        begins.await.unwrap();
        working.abort();
        assert!(working.await.unwrap_err().is_cancelled());
        assert_eq!(held.available_permits(), 0);
        go.send(()).unwrap();
        assert!(held.acquire().await.is_ok());
    }
}
