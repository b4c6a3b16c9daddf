//! [`Recent`]: values that are trusted for a short time, in bounded memory.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// The values that were put in last, as long as they are young.
///
/// It has two generations of maps. Once the young one is full, it becomes the old one, and the old one is forgotten: so
/// it never has more than `entries_max` values, and no list of uses has to be kept.
pub(super) struct Recent<K, V> {
    young: HashMap<K, (Instant, V)>,
    old: HashMap<K, (Instant, V)>,
    generation_max: usize,
    ttl: Duration,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    pub(super) fn new(entries_max: usize, ttl: Duration) -> Self {
        let generation_max = (entries_max / 2).max(1);
        Self { young: HashMap::new(), old: HashMap::new(), generation_max, ttl }
    }

    /// A value, unless it was read longer ago than values are trusted.
    pub(super) fn get(&self, key: &K, now: Instant) -> Option<V> {
        let (read_at, value) = self.young.get(key).or_else(|| self.old.get(key))?;
        (now.duration_since(*read_at) < self.ttl).then(|| value.clone())
    }

    /// Keeps a value that was read at that time.
    pub(super) fn put(&mut self, key: K, read_at: Instant, value: V) {
        if self.young.len() >= self.generation_max && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, (read_at, value));
    }

    /// Forgets all of it.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    #[test]
    fn a_value_is_trusted_for_its_time_and_no_longer() {
        let mut recent = Recent::new(8, TTL);
        let now = Instant::now();
        recent.put("a", now, 1);
        assert_eq!(recent.get(&"a", now + TTL - Duration::from_nanos(1)), Some(1));
        assert_eq!(recent.get(&"a", now + TTL), None);
        recent.put("a", now + TTL, 2);
        assert_eq!(recent.get(&"a", now + TTL), Some(2));
        recent.clear();
        assert_eq!(recent.get(&"a", now + TTL), None);
    }

    #[test]
    fn it_has_no_more_values_than_allowed_and_the_last_ones_among_them() {
        let mut recent = Recent::new(10, TTL);
        let now = Instant::now();
        for n in 0..1_000 {
            recent.put(n, now, n);
            assert!(recent.young.len() + recent.old.len() <= 10);
        }
        assert!((995..1_000).all(|n| recent.get(&n, now) == Some(n)));
        assert_eq!(recent.get(&900, now), None);
    }
}
