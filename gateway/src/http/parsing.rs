//! Work that takes long for its size, done where it holds up no other request.

use std::{num::NonZero, panic, sync::Arc, thread};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::Held;
use crate::error::ApiError;

/// Bodies up to here are read in place. A quarter of a mebibyte takes less than a millisecond; moving it to another
/// thread takes a tenth of one.
const IN_PLACE_BYTES_MAX: usize = 256 * 1024;

/// Threads for long work: as many at once as there are cores, so that small requests find one free soon.
#[derive(Debug, Clone)]
pub struct Bench(Arc<Semaphore>);

impl Bench {
    /// A bench for this machine.
    pub fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new(cores)))
    }

    /// Reads a body, and returns what was read of it with the right to hold it.
    pub async fn parsed<T: Send + 'static>(
        &self,
        held: Held,
        parse: impl FnOnce(&[u8]) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<(T, Option<OwnedSemaphorePermit>), ApiError> {
        // The bytes stay accounted for also when the caller leaves while they are read.
        let Held { bytes, permit } = held;
        self.run(bytes.len(), move || parse(&bytes).map(|parsed| (parsed, permit))).await?
    }

    /// Runs `work` on about so many bytes.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_body_is_read_on_another_thread_and_a_short_one_in_place() {
        let bench = Bench::new();
        let here = thread::current().id();
        for (bytes, is_here) in [(IN_PLACE_BYTES_MAX, true), (IN_PLACE_BYTES_MAX + 1, false)] {
            let held = Held { bytes: vec![b'x'; bytes], permit: None };
            let read = |bytes: &[u8]| Ok((bytes.len(), thread::current().id()));
            let ((length, at), _) = bench.parsed(held, read).await.unwrap();
            assert_eq!((length, at == here), (bytes, is_here));
        }
    }

    #[tokio::test]
    async fn the_bytes_of_a_caller_that_left_are_accounted_for_until_they_are_read() {
        let bytes = Arc::new(Semaphore::new(1));
        let permit = Some(bytes.clone().acquire_owned().await.unwrap());
        let held = Held { bytes: vec![0; IN_PLACE_BYTES_MAX + 1], permit };
        let (go, gone) = std::sync::mpsc::channel();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let bench = Bench::new();
        let reading = tokio::spawn(async move {
            bench
                .parsed(held, move |_| {
                    begun.send(()).unwrap();
                    gone.recv().unwrap();
                    Ok(())
                })
                .await
                .map(drop)
        });
        begins.await.unwrap();
        reading.abort();
        assert!(reading.await.unwrap_err().is_cancelled());
        assert_eq!(bytes.available_permits(), 0);
        go.send(()).unwrap();
        assert!(bytes.acquire().await.is_ok());
    }
}
