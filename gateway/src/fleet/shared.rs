//! [`Flights`]: work of one tenant that is under way is waited for, and not done once more.
//!
//! Equal texts often come at the same moment: a page that many open, a client that retries. Such a request joins the
//! work that it finds under way. The work goes on for as long as any of those that wait for it stays. It ends with its
//! result: this is no cache. Tenants share nothing, so that none learns from the time of an answer what another sent,
//! and each is billed for its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use forebay_client::{ModelId, Outcome, Work};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use metrics::counter;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::error::ApiError;

/// Larger work is not compared: it is hardly ever sent twice at once, and hashing it takes time that all requests wait.
const BYTES_MAX: usize = 64 * 1024;

/// The end of some work: a result, which may be a failure, or why there is none.
pub type Landed = Result<Arc<Outcome>, ApiError>;
/// Work that is under way. It is dropped, and with it what it does, when the last one that waits is.
pub type Flight = Shared<BoxFuture<'static, Landed>>;

/// The hash of a piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of work for a tenant. `None` for work that is not shared.
    pub fn of(tenant: &str, model: &ModelId, work: &Work) -> Option<Self> {
        let mut parts = Parts(Sha256::new());
        parts.add(tenant.as_bytes());
        parts.add(model.as_str().as_bytes());
        parts.add(work.task().as_str().as_bytes());
        let bytes: usize = match work {
            Work::EmbedIds { .. } => work.token_ids().saturating_mul(size_of::<u32>()),
            _ => work.texts().iter().map(|text| text.len()).sum(),
        };
        if bytes > BYTES_MAX {
            return None;
        }
        // The written form of parameters is the same within one process, which is as far as keys go.
        match work {
            Work::Embed { input, params } => {
                parts.add(format!("texts {params:?}").as_bytes());
                parts.all(input);
            }
            Work::EmbedIds { input_ids, params } => {
                parts.add(format!("ids {params:?}").as_bytes());
                for ids in input_ids {
                    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                    parts.add(&bytes);
                }
            }
            Work::EmbedSparse { input, params } => {
                parts.add(format!("{params:?}").as_bytes());
                parts.all(input);
            }
            Work::EmbedTokens { input, params } => {
                parts.add(format!("{params:?}").as_bytes());
                parts.all(input);
            }
            Work::Rerank { query, documents, params } => {
                parts.add(format!("{params:?}").as_bytes());
                parts.add(query.as_bytes());
                parts.all(documents);
            }
            Work::Classify { input } => parts.all(input),
            // Two samples of one prompt are two texts.
            Work::Generate { .. } => return None,
        }
        Some(Self(parts.0.finalize().into()))
    }
}

/// A hash of parts with their lengths: no two lists of parts are one text.
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    fn all(&mut self, texts: &[String]) {
        for text in texts {
            self.add(text.as_bytes());
        }
    }
}

/// Work to do, joined or begun.
pub struct Boarded<W> {
    /// The work under way.
    pub flight: Flight,
    /// The work that was to be done, where another's work does it.
    pub unused: Option<W>,
}

/// All work under way. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Flights {
    under_way: Arc<Mutex<UnderWay>>,
}

#[derive(Debug, Default)]
struct UnderWay {
    flights: HashMap<Key, Entry>,
    begun: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    flight: WeakShared<BoxFuture<'static, Landed>>,
    /// When it gives up.
    until: Instant,
}

impl Flights {
    /// The equal work that is under way, if it has about as much time as this has until `until`; else `begin` begins
    /// it with what there is to do.
    pub fn board<W>(
        &self,
        key: Key,
        until: Instant,
        work: W,
        begin: impl FnOnce(W) -> BoxFuture<'static, Landed>,
    ) -> Boarded<W> {
        let mut under_way = self.lock();
        if let Some(flight) = under_way.joinable(&key, until) {
            counter!("forebay_gateway_shared_jobs_total").increment(1);
            return Boarded { flight, unused: Some(work) };
        }
        under_way.begun += 1;
        let number = under_way.begun;
        let leaves = Leaves { flights: self.clone(), key, number };
        let begun = begin(work);
        let flight = async move {
            let landed = begun.await;
            drop(leaves);
            landed
        };
        let flight = flight.boxed().shared();
        // None only once it has landed, which it has not.
        if let Some(weak) = flight.downgrade() {
            under_way.flights.insert(key, Entry { number, flight: weak, until });
        }
        Boarded { flight, unused: None }
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    fn joinable(&self, key: &Key, until: Instant) -> Option<Flight> {
        let entry = self.flights.get(key)?;
        let now = Instant::now();
        let its = entry.until.saturating_duration_since(now);
        let wanted = until.saturating_duration_since(now);
        // One that is about to give up is of little use to a caller that still has time. Nothing that was upgraded may
        // be dropped here: the last to drop it takes this lock.
        if its * 2 >= wanted { entry.flight.upgrade() } else { None }
    }
}

/// Takes a flight's entry out when it has landed, or when the last one has left it.
struct Leaves {
    flights: Flights,
    key: Key,
    number: u64,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        let mut under_way = self.flights.lock();
        if under_way.flights.get(&self.key).is_some_and(|entry| entry.number == self.number) {
            under_way.flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use forebay_client::Job;
    use forebay_schemas::{EmbedParams, JobError};
    use tokio::sync::oneshot;

    use super::*;

    fn texts(texts: &[&str], params: EmbedParams) -> Work {
        Work::Embed { input: texts.iter().map(ToString::to_string).collect(), params }
    }

    fn key(tenant: &str, model: &str, work: &Work) -> Key {
        Key::of(tenant, &model.parse().unwrap(), work).unwrap()
    }

    #[test]
    fn only_the_same_work_of_the_same_tenant_has_the_same_key() {
        let plain = EmbedParams::default;
        let one = key("t", "m", &texts(&["ab", "c"], plain()));
        assert_eq!(one, key("t", "m", &texts(&["ab", "c"], plain())));
        let cut = EmbedParams { dimensions: Some(2), ..plain() };
        let classify = Work::Classify { input: vec!["ab".into(), "c".into()] };
        for other in [
            key("u", "m", &texts(&["ab", "c"], plain())),
            key("t", "n", &texts(&["ab", "c"], plain())),
            key("t", "m", &texts(&["a", "bc"], plain())),
            key("t", "m", &texts(&["c", "ab"], plain())),
            key("t", "m", &texts(&["ab", "c"], cut)),
            key("t", "m", &classify),
            key("t", "m", &Work::EmbedIds { input_ids: vec![vec![1]], params: plain() }),
        ] {
            assert_ne!(one, other);
        }
        let long = texts(&["x".repeat(BYTES_MAX + 1).as_str()], plain());
        assert_eq!(Key::of("t", &"m".parse().unwrap(), &long), None);
    }

    /// Work that counts how often it was begun and dropped, and lands when it is let.
    struct Counted {
        begun: Arc<AtomicUsize>,
        dropped: Arc<AtomicUsize>,
    }

    struct Drops(Arc<AtomicUsize>);

    impl Drop for Drops {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Counted {
        fn new() -> Self {
            Self { begun: Arc::default(), dropped: Arc::default() }
        }

        fn begin(&self, lands: oneshot::Receiver<Landed>) -> BoxFuture<'static, Landed> {
            self.begun.fetch_add(1, Ordering::SeqCst);
            let drops = Drops(self.dropped.clone());
            async move {
                let _drops = drops;
                lands.await.unwrap()
            }
            .boxed()
        }

        fn counts(&self) -> [usize; 2] {
            [self.begun.load(Ordering::SeqCst), self.dropped.load(Ordering::SeqCst)]
        }
    }

    fn outcome() -> Arc<Outcome> {
        let job = Job::embed("m".parse().unwrap(), vec!["x".into()]);
        Arc::new(Outcome::failed(&job, JobError::invalid("x")))
    }

    fn some_key() -> Key {
        key("t", "m", &texts(&["x"], EmbedParams::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_come_while_it_is_under_way_get_the_one_result_and_later_ones_their_own() {
        let flights = Flights::default();
        let work = Counted::new();
        let until = Instant::now() + Duration::from_secs(60);
        let (land, lands) = oneshot::channel();
        let first = flights.board(some_key(), until, lands, |lands| work.begin(lands));
        let (_, unused) = oneshot::channel();
        let second = flights.board(some_key(), until, unused, |lands| work.begin(lands));
        assert!(first.unused.is_none() && second.unused.is_some());
        let first = tokio::spawn(first.flight);
        tokio::task::yield_now().await;
        land.send(Ok(outcome())).unwrap();
        let first = first.await.unwrap().unwrap();
        let second = second.flight.await.unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(work.counts(), [1, 1]);
        let (_land, lands) = oneshot::channel();
        let third = flights.board(some_key(), until, lands, |lands| work.begin(lands));
        assert!(third.unused.is_none(), "a flight that has landed is not joined");
        drop(third);
        assert!(flights.lock().flights.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_leaves_ends_nothing_and_the_last_one_ends_it() {
        let flights = Flights::default();
        let work = Counted::new();
        let until = Instant::now() + Duration::from_secs(60);
        let (land, lands) = oneshot::channel();
        let first = flights.board(some_key(), until, lands, |lands| work.begin(lands)).flight;
        let (_, unused) = oneshot::channel();
        let second = flights.board(some_key(), until, unused, |lands| work.begin(lands)).flight;
        // The one that drives it leaves in the middle.
        let driving = tokio::spawn(first);
        tokio::task::yield_now().await;
        driving.abort();
        assert!(driving.await.unwrap_err().is_cancelled());
        assert_eq!(work.counts(), [1, 0]);
        let second = tokio::spawn(second);
        tokio::task::yield_now().await;
        land.send(Ok(outcome())).unwrap();
        assert!(second.await.unwrap().is_ok());

        let (_land, lands) = oneshot::channel();
        let alone = flights.board(some_key(), until, lands, |lands| work.begin(lands)).flight;
        let other = alone.clone();
        drop(alone);
        assert_eq!(work.counts(), [2, 1]);
        drop(other);
        assert_eq!(work.counts(), [2, 2]);
        assert!(flights.lock().flights.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_is_about_to_give_up_is_not_joined_by_one_that_has_time() {
        let flights = Flights::default();
        let work = Counted::new();
        let soon = Instant::now() + Duration::from_secs(1);
        let late = Instant::now() + Duration::from_secs(60);
        let board = |until| {
            let (_, lands) = oneshot::channel();
            flights.board(some_key(), until, lands, |lands| work.begin(lands)).flight
        };
        let _first = board(soon);
        let _second = board(soon + Duration::from_millis(100));
        assert_eq!(work.counts()[0], 1);
        let _third = board(late);
        assert_eq!(work.counts()[0], 2);
        let _fourth = board(late);
        assert_eq!(work.counts()[0], 2);
    }
}
