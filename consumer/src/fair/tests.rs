//! Shares by weight whatever waits, no credit for idling, no starvation, order within a tenant, bounded memory.

use proptest::{collection::vec, prelude::*};

use super::*;

/// An item: its tenant, its number within the tenant, what is left of its cost.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    tenant: usize,
    number: usize,
    left: usize,
}

fn name(tenant: usize) -> String {
    format!("tenant-{tenant}")
}

fn weights(all: &[u32]) -> Weights {
    Arc::new(all.iter().enumerate().map(|(tenant, weight)| (name(tenant), *weight)).collect())
}

fn push(fair: &mut Fair<Item>, tenant: usize, number: usize, cost: usize, now: Instant) {
    fair.push(Some(&name(tenant)), Item { tenant, number, left: cost }, now);
}

/// Gives one turn of at most `most`: the item as it was, and what it was served.
fn turn(fair: &mut Fair<Item>, most: usize, now: Instant) -> Option<(Item, usize)> {
    let mut served = None;
    fair.turn(now, |item| {
        let cost = item.left.min(most);
        served = Some((item.clone(), cost));
        item.left -= cost;
        Some(Served { cost, is_done: item.left == 0 })
    });
    served
}

/// The cost that each tenant is served in so many turns.
fn serve(fair: &mut Fair<Item>, turns: usize, most: usize, tenants: usize) -> Vec<usize> {
    let now = Instant::now();
    let mut served = vec![0; tenants];
    for _ in 0..turns {
        let Some((item, cost)) = turn(fair, most, now) else { break };
        served[item.tenant] += cost;
    }
    served
}

#[test]
fn a_few_small_items_wait_for_one_turn_each_and_not_for_a_backlog() {
    let now = Instant::now();
    let mut fair = Fair::new(Weights::default());
    for number in 0..100 {
        push(&mut fair, 0, number, 10_000, now);
    }
    serve(&mut fair, 7, 256, 2);
    for number in 0..10 {
        push(&mut fair, 1, number, 20, now);
    }
    // The ten cost less than one turn of the other.
    let served = serve(&mut fair, 11, 256, 2);
    assert_eq!(served, [256, 200]);
}

#[test]
fn shares_follow_the_weights_and_tenants_without_one_have_the_weight_of_one() {
    let now = Instant::now();
    let mut fair = Fair::new(weights(&[3, 1]));
    for tenant in 0..3 {
        push(&mut fair, tenant, 0, 1_000_000, now);
    }
    assert_eq!(serve(&mut fair, 500, 100, 3), [30_000, 10_000, 10_000]);
}

#[test]
fn what_is_taken_out_costs_no_turn_and_leaves_no_tenant_that_waits_for_nothing() {
    let now = Instant::now();
    let mut fair = Fair::new(Weights::default());
    for tenant in 0..2 {
        (0..2)
            .for_each(|number| push(&mut fair, tenant, number, 10, now + OVERDUE * number as u32));
    }
    let first = |line: &mut Fifo<Item>| line.pop_front().map(|(_, item)| item);
    assert_eq!(fair.remove(Some(&name(0)), first).map(|item| item.number), Some(0));
    assert!(fair.remove(Some("of none"), first).is_none());
    assert_eq!(fair.oldest(), Some(now), "the other's first");
    assert_eq!(fair.remove(Some(&name(1)), first).map(|item| item.number), Some(0));
    assert_eq!(fair.oldest(), Some(now + OVERDUE));
    assert_eq!(fair.remove(Some(&name(1)), first).map(|item| item.number), Some(1));
    assert!(!fair.is_empty() && !fair.is_shared());
    assert_eq!(serve(&mut fair, 5, 100, 2), [10, 0]);
    assert!(fair.is_empty() && fair.oldest().is_none());
}

#[test]
fn items_without_a_tenant_are_those_of_one_tenant() {
    let now = Instant::now();
    let mut fair = Fair::new(Weights::default());
    for number in 0..2 {
        fair.push(None, Item { tenant: 0, number, left: 100 }, now);
    }
    push(&mut fair, 1, 0, 100, now);
    assert!(fair.is_shared());
    let order: Vec<usize> =
        std::iter::from_fn(|| turn(&mut fair, 100, now)).map(|(item, _)| item.tenant).collect();
    assert_eq!(order, [0, 1, 0]);
}

#[test]
fn a_tenant_has_no_credit_for_the_time_in_which_it_wanted_nothing() {
    let now = Instant::now();
    let mut fair = Fair::new(Weights::default());
    push(&mut fair, 0, 0, 1_000_000, now);
    push(&mut fair, 1, 0, 100, now);
    serve(&mut fair, 1_000, 100, 2);
    push(&mut fair, 1, 1, 1_000_000, now);
    let served = serve(&mut fair, 100, 100, 2);
    assert!(served[0] >= 4_900, "the one that was away took {served:?}");
}

#[test]
fn a_tenant_whose_items_come_one_by_one_gets_its_share_and_no_more() {
    let now = Instant::now();
    let mut fair = Fair::new(Weights::default());
    push(&mut fair, 0, 0, 1_000_000, now);
    let mut turns = [0; 2];
    let mut last = 1;
    for number in 0..1_000 {
        if last == 1 {
            push(&mut fair, 1, number, 100, now);
        }
        last = turn(&mut fair, 100, now).unwrap().0.tenant;
        turns[last] += 1;
    }
    assert_eq!(turns, [500, 500], "of two tenants that always want something");
}

#[test]
fn what_can_t_be_served_now_is_the_next_one_and_costs_nothing() {
    let now = Instant::now();
    let mut fair = Fair::new(Weights::default());
    push(&mut fair, 0, 0, 100, now);
    push(&mut fair, 1, 0, 100, now);
    for _ in 0..3 {
        let mut seen = None;
        let served = fair.turn(now, |item| {
            seen = Some(item.tenant);
            None
        });
        assert_eq!((served, seen), (false, Some(0)));
    }
    assert_eq!(serve(&mut fair, 2, 100, 2), [100, 100]);
}

#[test]
fn what_has_waited_too_long_gets_every_second_turn_whatever_its_weight() {
    let began = Instant::now();
    let mut fair = Fair::new(weights(&[1, 100]));
    push(&mut fair, 0, 0, 100_000, began);
    push(&mut fair, 1, 0, 100_000, began + Duration::from_secs(1));
    let serve = |fair: &mut Fair<Item>, now| {
        let tenants = (0..100).filter_map(|_| turn(fair, 10, now)).map(|(item, _)| item.tenant);
        tenants.filter(|tenant| *tenant == 0).count()
    };
    assert!(serve(&mut fair, began + OVERDUE.checked_sub(Duration::from_millis(1)).unwrap()) <= 2);
    assert_eq!(serve(&mut fair, began + OVERDUE), 50);
}

#[test]
fn the_oldest_is_the_longest_waiting_item_of_all() {
    let first = Instant::now();
    let later = first + Duration::from_millis(1);
    let mut fair = Fair::new(Weights::default());
    assert_eq!(fair.oldest(), None);
    push(&mut fair, 0, 0, 10, later);
    push(&mut fair, 0, 1, 10, later + Duration::from_millis(1));
    push(&mut fair, 1, 0, 10, first);
    assert_eq!(fair.oldest(), Some(first));
    // Tenant 0 came first, and its first item is done.
    assert_eq!(turn(&mut fair, 10, later).unwrap().0.tenant, 0);
    assert_eq!(fair.oldest(), Some(first));
    assert_eq!(turn(&mut fair, 10, later).unwrap().0.tenant, 1);
    assert_eq!(fair.oldest(), Some(later + Duration::from_millis(1)));
}

#[test]
fn tenants_that_come_once_are_forgotten() {
    let now = Instant::now();
    let mut fair = Fair::new(Weights::default());
    push(&mut fair, 0, 0, usize::MAX / 2, now);
    // Each owes much, so none may be forgotten for having nothing to lose.
    for tenant in 1..=3 * IDLE_MAX {
        push(&mut fair, tenant, 0, 1_000_000, now);
        while turn(&mut fair, 1_000_000, now).unwrap().0.tenant == 0 {}
        assert!(fair.numbers.len() <= IDLE_MAX + 2, "{} tenants are kept", fair.numbers.len());
        assert_eq!(fair.tenants.len(), fair.numbers.len() + fair.free.len());
    }
    assert_eq!(fair.idle.len(), IDLE_MAX);
    turn(&mut fair, usize::MAX, now);
    assert!(fair.is_empty() && fair.numbers.is_empty() && fair.tenants.is_empty());
}

/// An event of a queue: an item of a tenant comes, or so many turns are given.
#[derive(Debug, Clone)]
enum Event {
    Comes(usize, usize),
    Turns(usize),
}

fn events(tenants: usize) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        2 => (0..tenants, 1_usize..600).prop_map(|(tenant, cost)| Event::Comes(tenant, cost)),
        1 => (1_usize..8).prop_map(Event::Turns),
    ];
    vec(event, 1..200)
}

/// How far apart two tenants have come while both wait, by their weights.
#[derive(Debug, Clone, Copy, Default)]
struct Apart {
    now: f64,
    least: f64,
    most: f64,
}

proptest! {
    /// Goyal's bound: while both wait, what two are served by their weights differs by a turn of each at most.
    #[test]
    fn shares_follow_the_weights_over_any_time_in_which_two_wait(
        all in vec(1_u32..100, 2..6),
        events in events(6),
    ) {
        const MOST: usize = 256;
        let now = Instant::now();
        let tenants = all.len();
        let mut fair = Fair::new(weights(&all));
        let mut waiting = vec![0_usize; tenants];
        let mut apart = vec![vec![Apart::default(); tenants]; tenants];
        let share = |tenant: usize, cost: usize| cost as f64 / f64::from(all[tenant]);
        for event in events {
            let turns = match event {
                Event::Turns(turns) => turns,
                Event::Comes(tenant, cost) => {
                    push(&mut fair, tenant % tenants, 0, cost, now);
                    waiting[tenant % tenants] += 1;
                    0
                }
            };
            for _ in 0..turns {
                let Some((item, cost)) = turn(&mut fair, MOST, now) else { break };
                for other in (0..tenants).filter(|other| *other != item.tenant) {
                    let (one, two) = (item.tenant.min(other), item.tenant.max(other));
                    let pair = &mut apart[one][two];
                    if waiting[other] == 0 {
                        *pair = Apart::default();
                        continue;
                    }
                    let sign = if item.tenant == one { 1.0 } else { -1.0 };
                    pair.now += sign * share(item.tenant, cost);
                    pair.least = pair.least.min(pair.now);
                    pair.most = pair.most.max(pair.now);
                    // Tags are integers: each of up to 1,400 turns rounds by a 1,024th at most.
                    let bound = share(one, MOST) + share(two, MOST) + 1.5;
                    prop_assert!(pair.most - pair.least <= bound, "{one} and {two}: {pair:?}, bound {bound}");
                }
                if item.left == cost {
                    waiting[item.tenant] -= 1;
                    if waiting[item.tenant] == 0 {
                        for other in 0..tenants {
                            let (one, two) = (item.tenant.min(other), item.tenant.max(other));
                            apart[one][two] = Apart::default();
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_item_is_served_once_in_the_order_of_its_tenant(
        all in vec(1_u32..100, 1..6),
        events in events(6),
        most in 1_usize..700,
    ) {
        let now = Instant::now();
        let tenants = all.len();
        let mut fair = Fair::new(weights(&all));
        let mut came = vec![Vec::new(); tenants];
        let mut done = vec![Vec::new(); tenants];
        let mut serve = |fair: &mut Fair<Item>| {
            let served = turn(fair, most, now);
            if let Some((item, cost)) = &served && item.left == *cost {
                done[item.tenant].push(item.number);
            }
            served.is_some()
        };
        for event in events {
            match event {
                Event::Comes(tenant, cost) => {
                    let tenant = tenant % tenants;
                    let number = came[tenant].len();
                    push(&mut fair, tenant, number, cost, now);
                    came[tenant].push(number);
                }
                Event::Turns(turns) => for _ in 0..turns {
                    let waits = !fair.is_empty();
                    prop_assert_eq!(serve(&mut fair), waits, "it works while anything waits");
                },
            }
        }
        while serve(&mut fair) {}
        prop_assert!(fair.is_empty() && fair.numbers.is_empty());
        prop_assert_eq!(done, came);
    }

    /// Among tenants of equal weights, one that comes after a pause waits for a turn of each at most.
    #[test]
    fn one_that_comes_back_after_a_pause_is_served_within_a_turn_of_each(
        backlogs in vec(10_000_usize..20_000, 1..6),
        before in 0_usize..40,
    ) {
        let now = Instant::now();
        let newcomer = backlogs.len();
        let mut fair = Fair::new(Weights::default());
        for (tenant, cost) in backlogs.iter().enumerate() {
            push(&mut fair, tenant, 0, *cost, now);
        }
        serve(&mut fair, before, 256, newcomer + 1);
        push(&mut fair, newcomer, 0, 10_000, now);
        let mut turns = 1;
        while turn(&mut fair, 256, now).unwrap().0.tenant != newcomer {
            turns += 1;
        }
        prop_assert!(turns <= newcomer + 1, "served in turn {turns} beside {newcomer} others");
    }
}
