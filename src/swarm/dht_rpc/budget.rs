//! What strangers can make us send to a host.
//!
//! Answers go to the address a request claims to come from, and relayed messages to one that a message
//! names; either may be a lie, and an answer may be several times larger than its request. So each host has a
//! budget of unasked-for bytes. Hosts share buckets by keyed hash: the table cannot be filled up.

use crate::crypto::hash;
use std::net::Ipv4Addr;
use std::time::Instant;

/// Bytes a host may be sent at once.
const BURST: f64 = 256.0 * 1024.0;
/// Bytes per second after that: some hundred full answers.
const RATE: f64 = 64.0 * 1024.0;
/// Buckets; 16 bytes each.
const BUCKETS: usize = 2048;
/// The same for all hosts together: a node may be used to send as much as a home line takes, not more.
const TOTAL_BURST: f64 = 4.0 * 1024.0 * 1024.0;
const TOTAL_RATE: f64 = 2.0 * 1024.0 * 1024.0;

/// Token buckets by host, and one for all.
pub struct Budget {
    key: [u8; 32],
    buckets: Vec<Bucket>,
    total: Bucket,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, rate: f64, burst: f64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + elapsed * rate).min(burst);
        self.at = now;
    }
}

impl Budget {
    pub fn new(key: [u8; 32], now: Instant) -> Self {
        let full = |level| Bucket { level, at: now };
        Self { key, buckets: vec![full(BURST); BUCKETS], total: full(TOTAL_BURST) }
    }

    /// Takes `bytes` from the host's budget and that of all, if they are there. Our own host has no limit.
    pub fn take(&mut self, host: &Ipv4Addr, bytes: usize, now: Instant) -> bool {
        if host.is_loopback() {
            return true;
        }
        let digest = hash::keyed(&self.key, &[&host.octets()]);
        let i = usize::from(u16::from_le_bytes([digest[0], digest[1]])) % BUCKETS;
        let (host, total, bytes) = (&mut self.buckets[i], &mut self.total, bytes as f64);
        host.refill(RATE, BURST, now);
        total.refill(TOTAL_RATE, TOTAL_BURST, now);
        let ok = host.level >= bytes && total.level >= bytes;
        if ok {
            host.level -= bytes;
            total.level -= bytes;
        }
        ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;
    use std::time::Duration;

    #[test]
    fn a_host_runs_dry_and_refills() {
        let start = epoch();
        let mut budget = Budget::new([1; 32], start);
        let host = Ipv4Addr::new(1, 2, 3, 4);
        let sent = (0..1000).filter(|_| budget.take(&host, 1200, start)).count();
        assert_eq!(sent, (BURST / 1200.0) as usize);
        let later = start + Duration::from_secs(1);
        let sent = (0..1000).filter(|_| budget.take(&host, 1200, later)).count();
        assert!((50..60).contains(&sent));
        assert!(budget.take(&Ipv4Addr::LOCALHOST, 1 << 30, start));
    }

    #[test]
    fn all_hosts_together_get_no_more_than_the_total() {
        let start = epoch();
        let mut budget = Budget::new([1; 32], start);
        let host = |n: u32| Ipv4Addr::from(0x0800_0000 + n);
        let sent = (0..20_000).filter(|&n| budget.take(&host(n), 1000, start)).count();
        assert_eq!(sent, (TOTAL_BURST / 1000.0) as usize);
        let later = start + Duration::from_secs(1);
        let sent = (0..20_000).filter(|&n| budget.take(&host(n), 1000, later)).count();
        assert_eq!(sent, (TOTAL_RATE / 1000.0) as usize);
    }
}
