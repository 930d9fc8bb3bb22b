//! How many handshakes a server reads and answers.
//!
//! Reading one costs a curve multiplication, answering it several more and a place among the connections that
//! wait. Who sends nonsense, or too much, uses up what is his own: each source has an allowance, and only a
//! handshake that opens counts against the number of those that are answered. A source can be forged, so there are
//! totals as well. Hosts share buckets by keyed hash: the table cannot be filled up.

use crate::crypto::hash;
use std::net::Ipv4Addr;
use std::time::Instant;

/// Tokens that come back with time.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: f64,
    at: Instant,
}

/// How many at once after a quiet time, and how many a second.
#[derive(Debug, Clone, Copy)]
struct Limit {
    burst: f64,
    rate: f64,
}

/// Of one host: a household or an office that comes back at once, each member through several relays.
const SOURCE: Limit = Limit { burst: 32.0, rate: 10.0 };
/// Read in all; a tenth of a core at some 100 µs each.
const READ: Limit = Limit { burst: 1000.0, rate: 1000.0 };
/// Answered in all.
pub(super) const ANSWERED_BURST: usize = 200;
pub(super) const ANSWERED_RATE: usize = 100;
const ANSWERED: Limit = Limit { burst: ANSWERED_BURST as f64, rate: ANSWERED_RATE as f64 };
/// Buckets of sources, 24 bytes each.
const BUCKETS: usize = 1024;

impl Bucket {
    fn full(limit: Limit, now: Instant) -> Self {
        Self { level: limit.burst, at: now }
    }

    fn take(&mut self, limit: Limit, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + elapsed * limit.rate).min(limit.burst);
        self.at = now;
        let ok = self.level >= 1.0;
        if ok {
            self.level -= 1.0;
        }
        ok
    }
}

/// The accounts of one server.
pub(super) struct HandshakeAllowance {
    key: [u8; 32],
    sources: Vec<Bucket>,
    read: Bucket,
    answered: Bucket,
}

impl HandshakeAllowance {
    pub fn new(key: [u8; 32], now: Instant) -> Self {
        Self {
            key,
            sources: vec![Bucket::full(SOURCE, now); BUCKETS],
            read: Bucket::full(READ, now),
            answered: Bucket::full(ANSWERED, now),
        }
    }

    /// Whether a handshake that came from `source` is to be read. This machine has no limit of its own.
    pub fn read(&mut self, source: &Ipv4Addr, now: Instant) -> bool {
        let digest = hash::keyed(&self.key, &[&source.octets()]);
        let i = usize::from(u16::from_le_bytes([digest[0], digest[1]])) % BUCKETS;
        (source.is_loopback() || self.sources[i].take(SOURCE, now)) && self.read.take(READ, now)
    }

    /// Whether a handshake that was read and opens is to be answered.
    pub fn answer(&mut self, now: Instant) -> bool {
        self.answered.take(ANSWERED, now)
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
