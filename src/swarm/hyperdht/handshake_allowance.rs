//! How many handshakes a server reads and answers.
//!
//! Reading one costs a curve multiplication, answering it several more and a place among the connections that
//! wait. Who sends nonsense, or too much, uses up what is his own: each source has an allowance, and only a
//! handshake that opens counts against the number of those that are answered. A source can be forged, so there are
//! totals as well.

use crate::swarm::dht_rpc::bucket::{Bucket, HostBuckets, Limit};
use std::net::Ipv4Addr;
use std::time::Instant;

/// Of one host: a household or an office that comes back at once, each member through several relays.
const SOURCE: Limit = Limit { burst: 32.0, rate: 10.0 };
/// Read in all; a tenth of a core at some 100 µs each.
const READ: Limit = Limit { burst: 1000.0, rate: 1000.0 };
/// Answered in all.
pub(super) const ANSWERED_BURST: usize = 200;
pub(super) const ANSWERED_RATE: usize = 100;
const ANSWERED: Limit = Limit { burst: ANSWERED_BURST as f64, rate: ANSWERED_RATE as f64 };
/// Buckets of sources, 40 bytes each.
const BUCKETS: usize = 1024;

/// The accounts of one server.
pub(super) struct HandshakeAllowance {
    sources: HostBuckets,
    read: Bucket,
    answered: Bucket,
}

impl HandshakeAllowance {
    pub fn new(key: [u8; 32], now: Instant) -> Self {
        Self {
            sources: HostBuckets::new(key, SOURCE, BUCKETS, now),
            read: Bucket::full(READ, now),
            answered: Bucket::full(ANSWERED, now),
        }
    }

    /// Whether a handshake that came from `source` is to be read. This machine has no limit of its own.
    pub fn read(&mut self, source: &Ipv4Addr, now: Instant) -> bool {
        (source.is_loopback() || self.sources.of(source).take(1.0, now)) && self.read.take(1.0, now)
    }

    /// Whether a handshake that was read and opens is to be answered.
    pub fn answer(&mut self, now: Instant) -> bool {
        self.answered.take(1.0, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;
    use std::time::Duration;

    #[test]
    fn a_source_uses_up_its_own_and_gets_it_back() {
        let now = epoch();
        let mut allowance = HandshakeAllowance::new([1; 32], now);
        let (loud, quiet) = (Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(8, 8, 8, 8));
        assert_eq!((0..500).filter(|_| allowance.read(&loud, now)).count(), SOURCE.burst as usize);
        assert!(allowance.read(&quiet, now));
        let later = now + Duration::from_secs(1);
        assert_eq!((0..500).filter(|_| allowance.read(&loud, later)).count(), SOURCE.rate as usize);
    }

    #[test]
    fn many_sources_together_have_a_total() {
        let now = epoch();
        let mut allowance = HandshakeAllowance::new([1; 32], now);
        let sources = (0..5000).map(|n| Ipv4Addr::from(0x0900_0000 + n));
        assert_eq!(sources.filter(|s| allowance.read(s, now)).count(), READ.burst as usize);
        let answered = (0..5000).filter(|_| allowance.answer(now)).count();
        assert_eq!(answered, ANSWERED_BURST);
    }
}
