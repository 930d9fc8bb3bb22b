//! Where peers were found, or said to be found next time: the first nodes to ask when they are dialled again.
//!
//! Source: hyperdht/index.js:_relayAddressesCache

use super::messages::PeerRecord;
use crate::key::PublicKey;
use std::net::SocketAddrV4;
use std::num::NonZeroUsize;

/// Relays by key; of more keys than fit, the one not asked for longest is forgotten.
#[derive(Debug)]
pub(super) struct KnownRelays(lru::LruCache<PublicKey, Vec<SocketAddrV4>>);

impl KnownRelays {
    pub fn new(keys: NonZeroUsize) -> Self {
        Self(lru::LruCache::new(keys))
    }

    pub fn of(&mut self, key: &PublicKey) -> Vec<SocketAddrV4> {
        self.0.get(key).cloned().unwrap_or_default()
    }

    /// Takes the relays of a key; none tell nothing new.
    pub fn put(&mut self, key: PublicKey, mut relays: Vec<SocketAddrV4>) {
        relays.truncate(PeerRecord::MAX_RELAYS);
        if !relays.is_empty() {
            self.0.put(key, relays);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_relays_are_remembered_of_a_key_and_none_tell_nothing() {
        let mut known = KnownRelays::new(NonZeroUsize::MIN);
        let key = PublicKey([1; 32]);
        let relays: Vec<_> = (0..9).map(|n| SocketAddrV4::new([20, 0, 0, n].into(), 1)).collect();
        known.put(key, relays.clone());
        known.put(key, vec![]);
        assert_eq!(known.of(&key), relays[..PeerRecord::MAX_RELAYS]);
    }
}
