//! Things that will happen, in the order of their time.

use std::collections::BTreeMap;
use std::time::Instant;

/// The earliest first; those of one moment in the order in which they were put in.
#[derive(Debug)]
pub struct Agenda<T> {
    items: BTreeMap<(Instant, u64), T>,
    count: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), count: 0 }
    }
}

impl<T> Agenda<T> {
    pub fn put(&mut self, at: Instant, item: T) {
        self.count += 1;
        self.items.insert((at, self.count), item);
    }

    pub fn next(&self) -> Option<Instant> {
        self.items.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next that is due at `now`.
    pub fn pop(&mut self, now: Instant) -> Option<T> {
        self.next().filter(|at| *at <= now)?;
        self.items.pop_first().map(|(_, item)| item)
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.values()
    }
}
