//! What a persistent node keeps of one kind for others: values, mutable or immutable, tokens and bumps.
//!
//! It fades some time after it was last put, values after [`VALUE_AGE`]. A value belongs to the host that put it last, and each host has
//! a share ([`Ledger`]): one that fills its own neither takes the place of others' values nor replaces one of them.

use super::ledger::{Bounds, Held, Ledger};
use crate::key::NodeId;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Bytes of all values of a kind: as many large ones as the reference keeps entries, about.
const MAX_BYTES: usize = 32 << 20;
/// Bytes of those that came from one host: some nine hundred of the largest.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// How long values live.
pub const VALUE_AGE: Duration = Duration::from_secs(48 * 3600);

#[derive(Debug)]
pub struct ValueStore<V> {
    values: HashMap<NodeId, (V, Held)>,
    ledger: Ledger<NodeId>,
}

impl<V> Default for ValueStore<V> {
    fn default() -> Self {
        Self::new(Bounds { total: MAX_BYTES, source: MAX_SOURCE_BYTES, age: VALUE_AGE })
    }
}

impl<V> ValueStore<V> {
    pub fn new(bounds: Bounds) -> Self {
        Self { values: HashMap::new(), ledger: Ledger::new(bounds) }
    }

    /// Takes a value out.
    pub fn remove(&mut self, target: &NodeId) -> Option<V> {
        let (value, held) = self.values.remove(target)?;
        self.ledger.uncount(&held);
        Some(value)
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn get(&self, target: &NodeId) -> Option<&V> {
        self.values.get(target).map(|(value, _)| value)
    }

    /// Holds a value of `len` bytes; false, and all stays as it was, if its source holds too much already.
    pub fn put(
        &mut self,
        target: NodeId,
        value: V,
        len: usize,
        source: Ipv4Addr,
        now: Instant,
    ) -> bool {
        let old = self.values.get(&target).map(|(_, held)| *held);
        if !self.ledger.may_hold(Some(source), len, old.as_ref()) {
            return false;
        }
        if let Some(old) = old {
            self.ledger.uncount(&old);
        }
        let held = self.ledger.count(Some(source), len, target, now);
        self.values.insert(target, (value, held));
        self.handle_timeout(now);
        true
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ledger.poll_timeout()
    }

    /// Drops what has faded, and the oldest where there is too much.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(target) = self.ledger.to_drop(now) {
            self.remove(&target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::OVERHEAD;
    use super::*;
    use crate::crypto::hash;
    use crate::sim::epoch;

    const LEN: usize = 1000;

    fn target(n: usize) -> NodeId {
        NodeId(hash::hash(&[&n.to_le_bytes()]))
    }

    fn host(n: usize) -> Ipv4Addr {
        Ipv4Addr::from(0x0800_0000 + n as u32)
    }

    #[test]
    fn one_source_gets_its_share_and_others_still_get_theirs() {
        let (now, mut store) = (epoch(), ValueStore::default());
        assert!(store.put(target(9999), 'b', LEN, host(2), now));
        let kept = (0..5000).filter(|&n| store.put(target(n), 'a', LEN, host(1), now)).count();
        assert_eq!(kept, MAX_SOURCE_BYTES / (LEN + OVERHEAD));
        assert!(store.put(target(7000), 'b', LEN, host(2), now));
        // What it holds it may put again; what others hold it may not take over.
        assert!(store.put(target(0), 'c', LEN, host(1), now));
        assert!(!store.put(target(0), 'd', 2 * LEN, host(1), now));
        assert!(!store.put(target(9999), 'd', LEN, host(1), now));
        assert_eq!((store.get(&target(0)), store.get(&target(9999))), (Some(&'c'), Some(&'b')));
    }

    #[test]
    fn when_all_is_full_the_oldest_make_room() {
        let (now, mut store) = (epoch(), ValueStore::default());
        for n in 0..60_000 {
            let at = now + Duration::from_millis(n as u64);
            assert!(store.put(target(n), (), LEN, host(n / 100), at));
        }
        assert_eq!(store.len(), MAX_BYTES / (LEN + OVERHEAD));
        assert_eq!((store.get(&target(0)), store.get(&target(59_999))), (None, Some(&())));
    }

    #[test]
    fn a_value_fades_unless_it_is_put_again_and_makes_room() {
        let (now, mut store) = (epoch(), ValueStore::default());
        let big = MAX_SOURCE_BYTES / 2 - OVERHEAD;
        assert!(store.put(target(1), (), big, host(1), now));
        assert!(store.put(target(2), (), big, host(1), now));
        let later = now + VALUE_AGE / 2;
        assert!(store.put(target(2), (), big, host(1), later));
        assert!(!store.put(target(3), (), big, host(1), later));
        assert_eq!(store.poll_timeout(), Some(now + VALUE_AGE));
        store.handle_timeout(now + VALUE_AGE);
        assert_eq!((store.get(&target(1)), store.get(&target(2))), (None, Some(&())));
        assert!(store.put(target(3), (), big, host(1), now + VALUE_AGE));
    }
}
