//! Whatever arrives: the urgent lane first, the other one turn of nine, and neither held up by the other.

use std::{
    collections::VecDeque,
    future::Future,
    task::{Context, Poll, Waker},
};

use proptest::{collection::vec, prelude::*};

use super::*;

/// The value of a future that has no reason to wait; `None` if it waits.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn put(sender: &LaneSender<Lane>, lane: Lane, items: usize) {
    for _ in 0..items {
        at_once(sender.send(lane, lane)).unwrap().unwrap();
    }
}

fn count(items: &[Lane], lane: Lane) -> usize {
    items.iter().filter(|item| **item == lane).count()
}

proptest! {
    #[test]
    fn while_both_lanes_wait_the_other_gets_one_turn_of_nine_whatever_arrives(
        arrivals in vec((any::<bool>(), 0_usize..20), 1..200),
    ) {
        let mut turns = Turns::default();
        let mut waiting: Lanes<VecDeque<usize>> = Lanes::default();
        // Urgent turns since an item of the batch lane began to wait or was taken.
        let mut urgent = 0;
        for (n, (is_urgent, takes)) in arrivals.into_iter().enumerate() {
            let lane = if is_urgent { Lane::Interactive } else { Lane::Batch };
            waiting.of_mut(lane).push_back(n);
            for _ in 0..takes {
                let next = turns.order().into_iter().find(|lane| !waiting.of(*lane).is_empty());
                let Some(lane) = next else { break };
                waiting.of_mut(lane).pop_front();
                turns.taken(lane);
                urgent = if lane == Lane::Interactive && !waiting.batch.is_empty() { urgent + 1 } else { 0 };
                prop_assert!(urgent <= URGENT_STREAK_MAX, "{urgent} urgent turns in a row");
            }
        }
    }

    #[test]
    fn a_handful_counts_each_item_as_a_turn(
        handfuls in vec((0_usize..40, 0_usize..40, 1_usize..70), 1..40),
    ) {
        let (sender, mut receiver) = channel(4_096);
        let (next, _kept) = channel::<Lane>(4_096);
        let mut urgent = 0;
        let mut batch_waits = 0_usize;
        for (interactive, batch, max) in handfuls {
            put(&sender, Lane::Interactive, interactive);
            put(&sender, Lane::Batch, batch);
            batch_waits += batch;
            for lane in at_once(receiver.recv_some_for(&next, max)).unwrap_or_default() {
                batch_waits -= usize::from(lane == Lane::Batch);
                urgent = if lane == Lane::Interactive && batch_waits > 0 { urgent + 1 } else { 0 };
                prop_assert!(urgent <= URGENT_STREAK_MAX, "{urgent} urgent items in a row");
            }
        }
    }
}

#[tokio::test]
async fn urgent_items_go_first_and_others_are_not_starved() {
    let (sender, mut receiver) = channel(64);
    put(&sender, Lane::Batch, 32);
    put(&sender, Lane::Interactive, 32);
    drop(sender);
    let mut order = Vec::new();
    while let Some(lane) = receiver.recv().await {
        order.push(lane);
    }
    assert_eq!(order.len(), 64);
    let streak = URGENT_STREAK_MAX as usize;
    assert_eq!(count(&order[..streak], Lane::Interactive), streak);
    assert_eq!(order[streak], Lane::Batch);
    assert_eq!(count(&order[..36], Lane::Interactive), 32);
}

#[test]
fn the_urgent_items_of_a_handful_come_before_the_others_that_wait() {
    let (sender, mut receiver) = channel(64);
    let (next, _kept) = channel::<Lane>(64);
    put(&sender, Lane::Batch, 3);
    put(&sender, Lane::Interactive, 3);
    let handful = at_once(receiver.recv_some_for(&next, 5)).unwrap();
    assert_eq!(handful[..3], [Lane::Interactive; 3]);
    assert_eq!(handful[3..], [Lane::Batch; 2]);
}

#[test]
fn a_flood_of_urgent_items_leaves_the_other_lane_its_ninth_of_every_handful() {
    let (sender, mut receiver) = channel(1_024);
    let (next, _kept) = channel::<Lane>(1_024);
    put(&sender, Lane::Batch, 64);
    let mut taken = Vec::new();
    for _ in 0..9 {
        put(&sender, Lane::Interactive, 64);
        taken.extend(at_once(receiver.recv_some_for(&next, 64)).unwrap());
    }
    assert_eq!(count(&taken, Lane::Batch), 64, "of {}", taken.len());
}

#[test]
fn a_lane_that_is_full_further_on_holds_up_nothing_but_itself() {
    let (sender, mut receiver) = channel(8);
    let (next, mut from_next) = channel(2);
    put(&sender, Lane::Batch, 5);
    assert_eq!(at_once(receiver.recv_some_for(&next, 64)).unwrap(), [Lane::Batch; 2]);
    put(&next, Lane::Batch, 2);
    assert_eq!(at_once(receiver.recv_some_for(&next, 64)), None, "there is no room for the third");
    put(&sender, Lane::Interactive, 1);
    assert_eq!(at_once(receiver.recv_some_for(&next, 64)).unwrap(), [Lane::Interactive]);
    assert_eq!(from_next.try_recv(), Some(Lane::Batch));
    assert_eq!(at_once(receiver.recv_some_for(&next, 64)).unwrap(), [Lane::Batch]);
}

#[tokio::test]
async fn room_that_comes_later_wakes_the_one_who_waits_for_it() {
    let (sender, mut receiver) = channel(8);
    let (next, mut from_next) = channel(1);
    put(&next, Lane::Batch, 1);
    put(&sender, Lane::Batch, 1);
    let waiting = tokio::spawn(async move { receiver.recv_some_for(&next, 64).await });
    tokio::task::yield_now().await;
    assert_eq!(from_next.try_recv(), Some(Lane::Batch));
    assert_eq!(waiting.await.unwrap(), [Lane::Batch]);
}

#[tokio::test]
async fn one_lane_alone_flows_and_the_end_is_seen() {
    let (sender, mut receiver) = channel(4);
    let (next, from_next) = channel::<Lane>(4);
    put(&sender, Lane::Batch, 2);
    assert_eq!(receiver.recv_some_for(&next, 8).await, [Lane::Batch; 2]);
    drop(from_next);
    put(&sender, Lane::Batch, 1);
    assert_eq!(
        receiver.recv_some_for(&next, 8).await,
        [Lane::Batch],
        "for a receiver that is gone"
    );
    drop(sender);
    assert!(receiver.recv_some_for(&next, 8).await.is_empty());
    assert_eq!(receiver.recv().await, None);
}

#[tokio::test]
async fn an_item_comes_back_when_the_receiver_is_gone() {
    let (sender, receiver) = channel(1);
    drop(receiver);
    assert_eq!(sender.send(Lane::Batch, 7).await, Err(7));
    assert!(sender.reserve(Lane::Batch).await.is_none());
}
