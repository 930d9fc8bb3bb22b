//! Which of this machine's addresses each remote writes to, so that what goes back leaves from there.
//!
//! A machine with several addresses would else answer from the one its routes prefer, and the asker, or the
//! NAT in front of it, would not know the answer for its own.

use lru::LruCache;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;

/// Remotes remembered; of more, those not heard from for longest are forgotten.
const MAX_WAYS: usize = 4096;

/// Our address by remote.
pub struct Ways(LruCache<SocketAddr, IpAddr>);

impl Default for Ways {
    fn default() -> Self {
        Self(LruCache::new(NonZeroUsize::new(MAX_WAYS).unwrap_or(NonZeroUsize::MIN)))
    }
}

impl Ways {
    /// `remote` wrote to our address `to`.
    pub fn note(&mut self, remote: SocketAddr, to: IpAddr) {
        // What everybody hears can be no source.
        let broadcast = matches!(to, IpAddr::V4(to) if to.is_broadcast());
        if !(broadcast || to.is_multicast() || to.is_unspecified()) {
            self.0.put(remote, to);
        }
    }

    /// The address that `remote` writes to, if it does.
    pub fn source(&self, remote: &SocketAddr) -> Option<IpAddr> {
        self.0.peek(remote).copied()
    }

    /// That address is not ours, or not any more.
    pub fn forget(&mut self, remote: &SocketAddr) {
        self.0.pop(remote);
    }

    /// Our addresses changed.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
