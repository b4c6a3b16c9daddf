//! Entries, their copy in the store, and suspects, which are alone.

use tokio::time::Instant;

use super::*;
use crate::testing::FakeStore;

fn id(text: &str) -> JobId {
    text.parse().unwrap()
}

/// A journal, and the store of its copy.
fn started() -> (SharedJournal, FakeStore) {
    let store = FakeStore::default();
    (SharedJournal::start("w".into(), Arc::new(store.clone())), store)
}

async fn enter(journal: &SharedJournal, job: &str, alone: bool) -> Option<Sequences> {
    journal.enter([(&id(job), 0..1)].into_iter(), alone).await
}

#[test]
fn sequences_leave_in_any_order_and_a_job_stays_until_its_last_one_is_done() {
    let split = id("split");
    let small = id("small");
    let mut journal = Journal::default();
    let first = journal.enter([(&split, 0..300)].into_iter());
    let second = journal.enter([(&split, 300..301), (&small, 0..1)].into_iter());
    assert_eq!(journal.jobs(), [&split, &split, &small]);
    journal.leave(second);
    assert_eq!(journal.jobs(), [&split]);
    let third = journal.enter([(&small, 1..2)].into_iter());
    journal.leave(first);
    assert_eq!(journal.jobs(), [&small]);
    journal.leave(third);
    assert!(journal.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_store_has_a_job_before_it_is_computed_and_no_longer_once_none_is_left() {
    let (journal, store) = started();
    let a = enter(&journal, "a", false).await.unwrap();
    assert_eq!(store.kept().journal, [id("a")]);
    let b = enter(&journal, "b", false).await.unwrap();
    assert_eq!(store.kept().journal, [id("a"), id("b")]);
    journal.leave(a);
    let left = Instant::now();
    while store.kept().journal != [id("b")] {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(left.elapsed() <= COPY_LATE_MAX + Duration::from_millis(2), "{:?}", left.elapsed());
    journal.leave(b);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(store.kept().journal.is_empty(), "at once");
}

#[tokio::test(start_paused = true)]
async fn many_that_enter_during_a_write_share_the_next_one() {
    let (journal, store) = started();
    store.kept().write_takes = Duration::from_millis(10);
    let many = (0..100).map(|n| {
        let journal = journal.clone();
        async move { enter(&journal, &format!("job-{n}"), false).await.unwrap() }
    });
    futures_util::future::join_all(many).await;
    assert_eq!(store.kept().journal.len(), 100);
    assert!(store.kept().writes <= 2, "{} writes", store.kept().writes);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_is_in_the_journal_alone() {
    let (journal, store) = started();
    let a = enter(&journal, "a", false).await.unwrap();
    let waits = |job: &'static str, alone| {
        let journal = journal.clone();
        tokio::spawn(async move { enter(&journal, job, alone).await.unwrap() })
    };
    let suspect = waits("suspect", true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let b = waits("b", false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!suspect.is_finished(), "another job is on the device");
    assert!(!b.is_finished(), "the suspect has waited for longer");
    journal.leave(a);
    let suspect = suspect.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(store.kept().journal, [id("suspect")]);
    assert!(!b.is_finished(), "the suspect is on the device");
    journal.leave(suspect);
    b.await.unwrap();
    assert_eq!(store.kept().journal, [id("b")]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_journal_leaves_no_copy_and_takes_no_entry() {
    let (journal, store) = started();
    let _on_the_device = enter(&journal, "a", true).await.unwrap();
    store.kept().write_takes = Duration::from_millis(10);
    let late = {
        let journal = journal.clone();
        tokio::spawn(async move { enter(&journal, "late", false).await })
    };
    tokio::time::sleep(Duration::from_millis(1)).await;
    journal.close().await;
    assert!(store.kept().journal.is_empty());
    assert_eq!(late.await.unwrap(), None);
    assert_eq!(enter(&journal, "later", false).await, None);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(store.kept().journal.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_journal_whose_stages_end_before_their_time_stays() {
    let (journal, store) = started();
    enter(&journal, "a", false).await.unwrap();
    drop(journal);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(store.kept().journal, [id("a")]);
}

#[tokio::test(start_paused = true)]
async fn an_earlier_worker_of_the_name_has_died_before_anything_is_entered() {
    let (journal, store) = started();
    store.kept().journal = vec![id("of-the-one-before")];
    enter(&journal, "a", false).await.unwrap();
    assert_eq!(store.kept().taken_over, ["w"]);
    assert_eq!(store.kept().journal, [id("a")]);
}

/// A step of one job.
#[derive(Debug)]
struct One(JobId, bool);

impl Step for One {
    fn is_alone(&self) -> bool {
        self.1
    }

    fn runs(&self) -> impl Iterator<Item = (&JobId, Range<usize>)> + Send {
        [(&self.0, 0..1)].into_iter()
    }
}

#[tokio::test(start_paused = true)]
async fn no_batch_is_journaled_beside_a_suspect_that_computes() {
    let (journal, store) = started();
    let (to_stage, steps) = mpsc::channel(4);
    let (device, mut batches) = mpsc::channel(4);
    let (done, from_device) = mpsc::channel(4);
    let stage = Journaling { journal, done: from_device };
    let stage = tokio::spawn(stage.run(steps));
    for (job, alone) in [("a", false), ("suspect", true), ("b", false)] {
        let step = One(id(job), alone);
        let room = device.clone().reserve_owned().await.unwrap();
        to_stage.send(Due { step, room }).await.unwrap();
    }
    drop(to_stage);
    drop(device);
    for job in ["a", "suspect", "b"] {
        let Journaled { step, sequences } = batches.recv().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((step.0, &store.kept().journal[..]), (id(job), &[id(job)][..]));
        assert!(batches.is_empty(), "nothing else is on the device");
        done.send(sequences).await.unwrap();
    }
    assert!(batches.recv().await.is_none());
    drop(done);
    stage.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(store.kept().journal.is_empty());
}
