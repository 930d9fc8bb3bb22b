//! A bounded map whose entries fade: two generations that swap.
//!
//! New entries go to the young generation. Every two thirds of the maximum age, or when the young one is
//! full, the old one is dropped and the young one takes its place: an entry that is not written again
//! lives between two thirds and four thirds of the age, and nothing keeps a clock per entry.
//!
//! Source: xache/index.js, record-cache/index.js

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// A fading map. Never iterated: it has no order.
#[derive(Debug)]
pub struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    max: usize,
    turn: Duration,
    turn_at: Instant,
}

impl<K: Hash + Eq, V> Cache<K, V> {
    /// At most `max` entries, that live for about `age`.
    pub fn new(max: usize, age: Duration, now: Instant) -> Self {
        let turn = age * 2 / 3;
        Self { young: HashMap::new(), old: HashMap::new(), max, turn, turn_at: now + turn }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let young = self.young.remove(key);
        let old = self.old.remove(key);
        young.or(old)
    }

    pub fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        // Half of the room for each generation.
        if self.young.len() >= self.max / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub fn poll_timeout(&self) -> Instant {
        self.turn_at
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.turn_at {
            self.turn_at = now + self.turn;
            self.old = std::mem::take(&mut self.young);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;

    #[test]
    fn entries_fade_unless_written_again() {
        let start = epoch();
        let age = Duration::from_secs(60);
        let mut cache = Cache::new(10, age, start);
        cache.insert(1, 'a');
        cache.insert(2, 'b');
        cache.handle_timeout(start + age * 2 / 3);
        cache.insert(1, 'c');
        assert_eq!((cache.get(&1), cache.get(&2)), (Some(&'c'), Some(&'b')));
        cache.handle_timeout(start + age * 4 / 3);
        assert_eq!((cache.get(&1), cache.get(&2)), (Some(&'c'), None));
        assert_eq!(cache.remove(&1), Some('c'));
        assert!(cache.is_empty());
    }

    #[test]
    fn it_never_holds_more_than_its_bound() {
        let mut cache = Cache::new(10, Duration::from_secs(60), epoch());
        for i in 0..1000 {
            cache.insert(i, ());
            assert!(cache.len() <= 10);
        }
        assert!(cache.get(&999).is_some());
    }
}
