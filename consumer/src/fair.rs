//! Fair order among tenants: start-time fair queueing over what this worker holds.
//!
//! The items of one tenant wait in the order in which they came. Among tenants, the one goes next that has been served
//! least for its weight: each has a tag, which grows by the cost of what it is served, divided by its weight. One that
//! comes begins at the least tag of those that wait: it has no credit for the time in which it wanted nothing. So over
//! any time in which two tenants wait, what they are served differs from their weights by one turn of each.
//!
//! Nothing here knows time but for one rule: what has waited for very long gets every second turn, whatever the
//! weights, so that none is held until the broker takes it back.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

/// Tokens of a turn while several tenants wait: few, so that a small job waits for little of each large one, and enough
/// that a batch is not made of crumbs. As many as the smallest batch that a worker makes to be quick.
pub const TURN_TOKENS: usize = 256;
/// Bytes of text of such a turn, where tokens are not known yet: about as many tokens.
pub const TURN_BYTES: usize = 4 * TURN_TOKENS;

/// An item that has waited for so long gets every second turn. A sixth of the broker's time-out of half an hour: after
/// that it would deliver the job again, with all others of the channel.
const OVERDUE: Duration = Duration::from_secs(300);
/// The most tenants whose tags are kept although they have nothing that waits. Beyond it those are forgotten that were
/// served least, and with them at most one turn of each.
const IDLE_MAX: usize = 1_024;
/// Tag units of a cost of 1 at a weight of 1: weights are integers of 100 at most. At a million tokens a second without
/// a moment's rest, a tag lasts for half a million years.
const UNITS: u64 = 1 << 10;

/// The weights of tenants; of all others it is 1.
pub type Weights = Arc<BTreeMap<String, u32>>;

/// The cost of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Its cost, such as tokens.
    pub cost: usize,
    /// Whether nothing is left of the item.
    pub is_done: bool,
}

/// Items of many tenants. It has no bound of its own: what waits here is bounded by who puts it in.
#[derive(Debug)]
pub struct Fair<T> {
    weights: Weights,
    /// The tenants that are kept, by number. Those of numbers in `free` are gone.
    tenants: Vec<Tenant<T>>,
    free: Vec<usize>,
    numbers: HashMap<Arc<str>, usize>,
    /// Those that wait, by tag.
    by_tag: BTreeSet<(u64, usize)>,
    /// Those that wait, by when their first item came.
    by_age: BTreeSet<(Instant, usize)>,
    /// Those that don't wait and have been served more than others that do, by tag.
    idle: BTreeSet<(u64, usize)>,
    /// The least tag of those that waited when the last turn was given.
    reached: u64,
    /// Whether the last turn was given for age.
    was_overdue: bool,
}

#[derive(Debug)]
struct Tenant<T> {
    name: Arc<str>,
    weight: u64,
    /// The cost that it has been served, by its weight.
    tag: u64,
    /// Its items, and when each came.
    items: VecDeque<(Instant, T)>,
}

impl<T> Fair<T> {
    /// Holds nothing yet.
    pub fn new(weights: Weights) -> Self {
        Self {
            weights,
            tenants: Vec::new(),
            free: Vec::new(),
            numbers: HashMap::new(),
            by_tag: BTreeSet::new(),
            by_age: BTreeSet::new(),
            idle: BTreeSet::new(),
            reached: 0,
            was_overdue: false,
        }
    }

    /// Adds an item behind those of its tenant. Items without a tenant are those of one more.
    pub fn push(&mut self, tenant: Option<&str>, item: T, now: Instant) {
        let number = self.number(tenant.unwrap_or_default());
        let tenant = &mut self.tenants[number];
        if tenant.items.is_empty() {
            self.idle.remove(&(tenant.tag, number));
            tenant.tag = tenant.tag.max(self.reached);
            self.by_tag.insert((tenant.tag, number));
            self.by_age.insert((now, number));
        }
        tenant.items.push_back((now, item));
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.by_tag.is_empty()
    }

    /// Whether several tenants wait, so that turns have to be short.
    pub fn is_shared(&self) -> bool {
        self.by_tag.len() > 1
    }

    /// When the longest-waiting item came.
    pub fn oldest(&self) -> Option<Instant> {
        self.by_age.first().map(|(since, _)| *since)
    }

    /// Gives the next turn: `serve` works on an item and returns what that took, or `None` if it can't work on it now,
    /// after which the item is still the next one. Returns whether anything was served.
    pub fn turn(&mut self, now: Instant, serve: impl FnOnce(&mut T) -> Option<Served>) -> bool {
        let Some(&(least, next)) = self.by_tag.first() else { return false };
        let Some(&(since, oldest)) = self.by_age.first() else { return false };
        let is_overdue = !self.was_overdue && now.saturating_duration_since(since) >= OVERDUE;
        let number = if is_overdue { oldest } else { next };
        let tenant = &mut self.tenants[number];
        let Some((came, item)) = tenant.items.front_mut() else { return false };
        let Some(served) = serve(item) else { return false };
        self.reached = least;
        self.was_overdue = is_overdue;
        self.by_tag.remove(&(tenant.tag, number));
        // What costs nothing takes a turn all the same.
        let cost = (served.cost.max(1) as u64).saturating_mul(UNITS) / tenant.weight;
        tenant.tag = tenant.tag.saturating_add(cost);
        if served.is_done {
            self.by_age.remove(&(*came, number));
            tenant.items.pop_front();
            if let Some((came, _)) = tenant.items.front() {
                self.by_age.insert((*came, number));
            }
        }
        let waits = !tenant.items.is_empty();
        let tenants = if waits { &mut self.by_tag } else { &mut self.idle };
        tenants.insert((tenant.tag, number));
        self.forget();
        true
    }

    /// The number of a tenant, which is kept from now on.
    fn number(&mut self, name: &str) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let name: Arc<str> = name.into();
        let weight = self.weights.get(&*name).map_or(1, |weight| u64::from(*weight).max(1));
        let tenant = Tenant { name: name.clone(), weight, tag: 0, items: VecDeque::new() };
        let number = self.free.pop().unwrap_or(self.tenants.len());
        match self.tenants.get_mut(number) {
            Some(gone) => *gone = tenant,
            None => self.tenants.push(tenant),
        }
        self.numbers.insert(name, number);
        number
    }

    /// Forgets tenants that don't wait and would begin where all others do, or are too many.
    fn forget(&mut self) {
        if self.by_tag.is_empty() {
            // Who comes next finds none that was served before.
            self.tenants.clear();
            self.free.clear();
            self.numbers.clear();
            self.idle.clear();
            self.reached = 0;
            return;
        }
        while let Some(&(tag, number)) = self.idle.first()
            && (tag <= self.reached || self.idle.len() > IDLE_MAX)
        {
            self.idle.remove(&(tag, number));
            self.numbers.remove(&self.tenants[number].name);
            self.free.push(number);
        }
    }
}

#[cfg(test)]
mod tests;
