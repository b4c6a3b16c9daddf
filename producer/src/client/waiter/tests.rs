//! The waiter on paused time, with results in memory.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use super::*;

/// A shelf in memory that counts what it is asked for.
#[derive(Clone, Default)]
struct Memory {
    there: Arc<Mutex<HashSet<JobId>>>,
    asked: Arc<Mutex<Vec<usize>>>,
    down: Arc<Mutex<bool>>,
}

impl Shelf for Memory {
    async fn present(&self, ids: &[JobId]) -> Result<Vec<bool>, StoreError> {
        self.asked.lock().unwrap().push(ids.len());
        if *self.down.lock().unwrap() {
            let (url, reason) = ("redis://x".to_owned(), "down".to_owned());
            return Err(StoreError::Unreachable { url, reason });
        }
        let there = self.there.lock().unwrap();
        Ok(ids.iter().map(|id| there.contains(id)).collect())
    }
}

struct Fixture {
    shelf: Memory,
    notices: mpsc::Sender<Heard>,
    waiter: Waiter,
}

impl Fixture {
    fn new() -> Self {
        let shelf = Memory::default();
        let (notices, heard) = mpsc::channel(8);
        let waiter = Waiter::with(shelf.clone(), heard, None);
        Self { shelf, notices, waiter }
    }

    fn put(&self, id: &JobId) {
        self.shelf.there.lock().unwrap().insert(id.clone());
    }

    async fn watch(&self, ids: &[JobId]) -> mpsc::Receiver<JobId> {
        let (to, ready) = mpsc::channel(ids.len());
        let first_look = Duration::ZERO;
        assert!(self.waiter.watch(Watch { ids: ids.to_vec(), to, first_look }).await);
        ready
    }

    fn looks(&self) -> usize {
        self.shelf.asked.lock().unwrap().len()
    }
}

fn ids(count: usize) -> Vec<JobId> {
    (0..count).map(|_| JobId::random()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_there_already_is_found_at_once() {
    let fixture = Fixture::new();
    let ids = ids(2);
    fixture.put(&ids[1]);
    let since = Instant::now();
    assert_eq!(fixture.watch(&ids).await.recv().await, Some(ids[1].clone()));
    assert!(since.elapsed() < PAUSE_FIRST);
}

#[tokio::test(start_paused = true)]
async fn a_notice_wakes_without_a_look() {
    let fixture = Fixture::new();
    let ids = ids(1);
    let mut ready = fixture.watch(&ids).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let looks = fixture.looks();
    fixture.notices.send(Heard::Written(ids[0].clone())).await.unwrap();
    assert_eq!(ready.recv().await, Some(ids[0].clone()));
    assert_eq!(fixture.looks(), looks);
}

#[tokio::test(start_paused = true)]
async fn a_lost_notice_is_made_up_for_within_the_longest_pause() {
    let fixture = Fixture::new();
    let ids = ids(1);
    let mut ready = fixture.watch(&ids).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let looks = fixture.looks();
    assert!(looks < 60, "pauses grow: {looks} looks in a minute");
    fixture.put(&ids[0]);
    let since = Instant::now();
    assert_eq!(ready.recv().await, Some(ids[0].clone()));
    assert!(since.elapsed() <= PAUSE_MAX);
}

#[tokio::test(start_paused = true)]
async fn listening_anew_looks_at_once_for_what_was_not_heard() {
    let fixture = Fixture::new();
    let ids = ids(1);
    let mut ready = fixture.watch(&ids).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    fixture.put(&ids[0]);
    let since = Instant::now();
    fixture.notices.send(Heard::Subscribed).await.unwrap();
    assert_eq!(ready.recv().await, Some(ids[0].clone()));
    assert!(since.elapsed() < PAUSE_FIRST);
}

#[tokio::test(start_paused = true)]
async fn redis_may_go_and_come_back() {
    let fixture = Fixture::new();
    let ids = ids(1);
    *fixture.shelf.down.lock().unwrap() = true;
    fixture.put(&ids[0]);
    let mut ready = fixture.watch(&ids).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(ready.try_recv().is_err());
    assert!(fixture.waiter.trouble().is_some_and(|trouble| trouble.contains("down")));
    *fixture.shelf.down.lock().unwrap() = false;
    assert_eq!(ready.recv().await, Some(ids[0].clone()));
    assert_eq!(fixture.waiter.trouble(), None);
}

#[tokio::test(start_paused = true)]
async fn two_who_wait_for_one_job_both_hear_of_it() {
    let fixture = Fixture::new();
    let ids = ids(1);
    let (mut one, mut two) = (fixture.watch(&ids).await, fixture.watch(&ids).await);
    // The first notice may come before the second watch is taken up; then the record tells.
    fixture.put(&ids[0]);
    fixture.notices.send(Heard::Written(ids[0].clone())).await.unwrap();
    assert_eq!(one.recv().await, Some(ids[0].clone()));
    assert_eq!(two.recv().await, Some(ids[0].clone()));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_any_more_is_not_looked_for() {
    let fixture = Fixture::new();
    drop(fixture.watch(&ids(3)).await);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(fixture.looks() <= 1, "{} looks", fixture.looks());
}

#[tokio::test(start_paused = true)]
async fn many_who_wait_for_one_each_share_their_looks() {
    let fixture = Fixture::new();
    let mut waits = Vec::new();
    for id in ids(500) {
        waits.push(fixture.watch(&[id]).await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = fixture.looks();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let looks = fixture.looks() - before;
    assert!(looks < 60, "{looks} looks in a minute");
}

#[tokio::test(start_paused = true)]
async fn very_many_are_looked_for_in_pieces_and_not_too_often() {
    let fixture = Fixture::new();
    let ids = ids(50_000);
    let _ready = fixture.watch(&ids).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let asked: Vec<usize> = fixture.shelf.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|&ids| ids <= LOOK_IDS_MAX));
    let per_s = asked.iter().sum::<usize>() as f64 / 100.0;
    assert!(per_s <= LOOKED_PER_S_MAX * 1.1, "{per_s} a second");
}
