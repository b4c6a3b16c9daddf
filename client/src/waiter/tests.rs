//! The waiter on paused time, with results in memory.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use super::*;

/// Results in memory that count the ids of each poll.
#[derive(Clone, Default)]
struct ResultsInMemory {
    there: Arc<Mutex<HashSet<JobId>>>,
    asked: Arc<Mutex<Vec<usize>>>,
    down: Arc<Mutex<bool>>,
}

impl Results for ResultsInMemory {
    async fn present(&self, ids: &[JobId]) -> Result<Vec<bool>, StoreError> {
        self.asked.lock().unwrap().push(ids.len());
        if *self.down.lock().unwrap() {
            let url = "redis://x".to_owned();
            let reason = "down".to_owned();
            return Err(StoreError::Unreachable { url, reason });
        }
        let there = self.there.lock().unwrap();
        Ok(ids.iter().map(|id| there.contains(id)).collect())
    }
}

struct Fixture {
    results: ResultsInMemory,
    notifications: mpsc::Sender<Notification>,
    waiter: Waiter,
}

impl Fixture {
    fn new() -> Self {
        let results = ResultsInMemory::default();
        let (notifications, received) = mpsc::channel(8);
        let waiter = Waiter::with(results.clone(), received, None);
        Self { results, notifications, waiter }
    }

    fn put(&self, id: &JobId) {
        self.results.there.lock().unwrap().insert(id.clone());
    }

    async fn watch(&self, ids: &[JobId]) -> mpsc::Receiver<JobId> {
        let (to, ready) = mpsc::channel(ids.len());
        let first_poll = Duration::ZERO;
        assert!(self.waiter.watch(Watch { ids: ids.to_vec(), to, first_poll }).await);
        ready
    }

    fn polls(&self) -> usize {
        self.results.asked.lock().unwrap().len()
    }
}

fn ids(count: usize) -> Vec<JobId> {
    (0..count).map(|_| JobId::random()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_result_that_exists_is_found_at_once() {
    let fixture = Fixture::new();
    let ids = ids(2);
    fixture.put(&ids[1]);
    let since = Instant::now();
    assert_eq!(fixture.watch(&ids).await.recv().await, Some(ids[1].clone()));
    assert!(since.elapsed() < PAUSE_FIRST);
}

#[tokio::test(start_paused = true)]
async fn a_notification_wakes_without_a_poll() {
    let fixture = Fixture::new();
    let ids = ids(1);
    let mut ready = fixture.watch(&ids).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let polls = fixture.polls();
    fixture.notifications.send(Notification::Written(ids[0].clone())).await.unwrap();
    assert_eq!(ready.recv().await, Some(ids[0].clone()));
    assert_eq!(fixture.polls(), polls);
}

#[tokio::test(start_paused = true)]
async fn a_lost_notification_is_made_up_for_within_the_longest_pause() {
    let fixture = Fixture::new();
    let ids = ids(1);
    let mut ready = fixture.watch(&ids).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let polls = fixture.polls();
    assert!(polls < 60, "pauses grow: {polls} polls in a minute");
    fixture.put(&ids[0]);
    let since = Instant::now();
    assert_eq!(ready.recv().await, Some(ids[0].clone()));
    assert!(since.elapsed() <= PAUSE_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_new_subscription_polls_at_once_for_results_that_were_not_notified() {
    let fixture = Fixture::new();
    let ids = ids(1);
    let mut ready = fixture.watch(&ids).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    fixture.put(&ids[0]);
    let since = Instant::now();
    fixture.notifications.send(Notification::Subscribed).await.unwrap();
    assert_eq!(ready.recv().await, Some(ids[0].clone()));
    assert!(since.elapsed() < PAUSE_FIRST);
}

#[tokio::test(start_paused = true)]
async fn redis_may_go_and_come_back() {
    let fixture = Fixture::new();
    let ids = ids(1);
    *fixture.results.down.lock().unwrap() = true;
    fixture.put(&ids[0]);
    let mut ready = fixture.watch(&ids).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(ready.try_recv().is_err());
    assert!(fixture.waiter.trouble().is_some_and(|trouble| trouble.contains("down")));
    *fixture.results.down.lock().unwrap() = false;
    assert_eq!(ready.recv().await, Some(ids[0].clone()));
    assert_eq!(fixture.waiter.trouble(), None);
}

#[tokio::test(start_paused = true)]
async fn two_waits_for_one_job_both_end() {
    let fixture = Fixture::new();
    let ids = ids(1);
    let mut one = fixture.watch(&ids).await;
    let mut two = fixture.watch(&ids).await;
    // The notification may come before the second watch is taken up; then a poll finds the record.
    fixture.put(&ids[0]);
    fixture.notifications.send(Notification::Written(ids[0].clone())).await.unwrap();
    assert_eq!(one.recv().await, Some(ids[0].clone()));
    assert_eq!(two.recv().await, Some(ids[0].clone()));
}

#[tokio::test(start_paused = true)]
async fn an_id_whose_wait_was_dropped_is_not_polled() {
    let fixture = Fixture::new();
    drop(fixture.watch(&ids(3)).await);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(fixture.polls() <= 1, "{} polls", fixture.polls());
}

#[tokio::test(start_paused = true)]
async fn many_waits_for_one_job_each_share_their_polls() {
    let fixture = Fixture::new();
    let mut waits = Vec::new();
    for id in ids(500) {
        waits.push(fixture.watch(&[id]).await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = fixture.polls();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let polls = fixture.polls() - before;
    assert!(polls < 60, "{polls} polls in a minute");
}

#[tokio::test(start_paused = true)]
async fn very_many_ids_are_polled_in_pieces_and_not_too_often() {
    let fixture = Fixture::new();
    let ids = ids(50_000);
    let _ready = fixture.watch(&ids).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let asked: Vec<usize> = fixture.results.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|&ids| ids <= POLL_IDS_MAX));
    let per_s = asked.iter().sum::<usize>() as f64 / 100.0;
    assert!(per_s <= POLLED_PER_S_MAX * 1.1, "{per_s} a second");
}
