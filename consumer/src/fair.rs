//! Fair order among tenants: start-time fair queueing over what this worker holds.
//!
//! The items of one tenant wait in the order in which they came. Among tenants, the one goes next that has been served
//! least for its weight: each has a tag, which grows by the cost of what it is served, divided by its weight. One that
//! comes begins at the least tag of those that wait: it has no credit for the time in which it wanted nothing. So over
//! any time in which two tenants wait, what they are served differs from their weights by one turn of each.
//!
//! Nothing here knows time but for one rule: what has waited for very long gets every second turn, whatever the
//! weights, so that none is held until the broker takes it back.
//!
//! The items of a tenant are in a [`Line`]: first come, first served, unless another order is better for them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    marker::PhantomData,
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

/// The items of one tenant that wait, and their order.
pub trait Line<T> {
    /// An empty line in which items are served in this one's order.
    #[must_use]
    fn another(&self) -> Self;

    /// Adds an item, which comes now.
    fn push(&mut self, item: T, now: Instant);

    /// When the item came that has waited longest; `None` if none waits.
    fn oldest(&self) -> Option<Instant>;

    /// Chooses the next item: if one is overdue, that which has waited longest.
    fn choose(&mut self, now: Instant, is_overdue: bool) -> Option<&mut T>;

    /// Nothing is left of the item that was chosen last.
    fn done(&mut self);
}

/// First come, first served: each item, and when it came.
pub type Fifo<T> = VecDeque<(Instant, T)>;

impl<T> Line<T> for Fifo<T> {
    fn another(&self) -> Self {
        Self::new()
    }

    fn push(&mut self, item: T, now: Instant) {
        self.push_back((now, item));
    }

    fn oldest(&self) -> Option<Instant> {
        self.front().map(|(since, _)| *since)
    }

    fn choose(&mut self, _: Instant, _: bool) -> Option<&mut T> {
        self.front_mut().map(|(_, item)| item)
    }

    fn done(&mut self) {
        self.pop_front();
    }
}

/// Items of many tenants. It has no bound of its own: what waits here is bounded by who puts it in.
#[derive(Debug)]
pub struct Fair<T, L = Fifo<T>> {
    weights: Weights,
    /// The line of a tenant that comes.
    empty: L,
    /// The tenants that are kept, by number. Those of numbers in `free` are gone.
    tenants: Vec<Tenant<L>>,
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
    items: PhantomData<T>,
}

#[derive(Debug)]
struct Tenant<L> {
    name: Arc<str>,
    weight: u64,
    /// The cost that it has been served, by its weight.
    tag: u64,
    /// Its items.
    line: L,
}

impl<T> Fair<T> {
    /// Holds nothing yet. The items of a tenant are served in the order in which they come.
    pub fn new(weights: Weights) -> Self {
        Self::with_lines(weights, Fifo::new())
    }
}

impl<T, L: Line<T>> Fair<T, L> {
    /// Holds nothing yet. The items of each tenant are in a line like this empty one.
    pub fn with_lines(weights: Weights, empty: L) -> Self {
        Self {
            weights,
            empty,
            tenants: Vec::new(),
            free: Vec::new(),
            numbers: HashMap::new(),
            by_tag: BTreeSet::new(),
            by_age: BTreeSet::new(),
            idle: BTreeSet::new(),
            reached: 0,
            was_overdue: false,
            items: PhantomData,
        }
    }

    /// Adds an item to those of its tenant. Items without a tenant are those of one more.
    pub fn push(&mut self, tenant: Option<&str>, item: T, now: Instant) {
        let number = self.number(tenant.unwrap_or_default());
        let tenant = &mut self.tenants[number];
        if tenant.line.oldest().is_none() {
            self.idle.remove(&(tenant.tag, number));
            tenant.tag = tenant.tag.max(self.reached);
            self.by_tag.insert((tenant.tag, number));
            self.by_age.insert((now, number));
        }
        tenant.line.push(item, now);
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
        let Some(before) = tenant.line.oldest() else { return false };
        let Some(item) = tenant.line.choose(now, is_overdue) else { return false };
        let Some(served) = serve(item) else { return false };
        self.reached = least;
        self.was_overdue = is_overdue;
        self.by_tag.remove(&(tenant.tag, number));
        // What costs nothing takes a turn all the same.
        let cost = (served.cost.max(1) as u64).saturating_mul(UNITS) / tenant.weight;
        tenant.tag = tenant.tag.saturating_add(cost);
        if served.is_done {
            tenant.line.done();
        }
        self.wait_or_rest(number, before);
        true
    }

    /// Takes an item out of a tenant's line, which is no turn.
    pub fn remove(
        &mut self,
        tenant: Option<&str>,
        take: impl FnOnce(&mut L) -> Option<T>,
    ) -> Option<T> {
        let number = *self.numbers.get(tenant.unwrap_or_default())?;
        let tenant = &mut self.tenants[number];
        let before = tenant.line.oldest()?;
        let taken = take(&mut tenant.line)?;
        self.by_tag.remove(&(tenant.tag, number));
        self.wait_or_rest(number, before);
        Some(taken)
    }

    /// Enters a tenant among those that wait, or those that don't; before, its oldest item was of that time.
    fn wait_or_rest(&mut self, number: usize, before: Instant) {
        let tenant = &self.tenants[number];
        self.by_age.remove(&(before, number));
        if let Some(since) = tenant.line.oldest() {
            self.by_age.insert((since, number));
            self.by_tag.insert((tenant.tag, number));
        } else {
            self.idle.insert((tenant.tag, number));
        }
        self.forget();
    }

    /// The number of a tenant, which is kept from now on.
    fn number(&mut self, name: &str) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let name: Arc<str> = name.into();
        let weight = self.weights.get(&*name).map_or(1, |weight| u64::from(*weight).max(1));
        let tenant = Tenant { name: name.clone(), weight, tag: 0, line: self.empty.another() };
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
