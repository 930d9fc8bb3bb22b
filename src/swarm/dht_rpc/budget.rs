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

/// Token buckets by host.
pub struct Budget {
    key: [u8; 32],
    buckets: Vec<(f64, Instant)>,
}

impl Budget {
    pub fn new(key: [u8; 32], now: Instant) -> Self {
        Self { key, buckets: vec![(BURST, now); BUCKETS] }
    }

    /// Takes `bytes` from the host's budget, if they are there. Our own host has no limit.
    pub fn take(&mut self, host: &Ipv4Addr, bytes: usize, now: Instant) -> bool {
        if host.is_loopback() {
            return true;
        }
        let digest = hash::keyed(&self.key, &[&host.octets()]);
        let i = usize::from(u16::from_le_bytes([digest[0], digest[1]])) % BUCKETS;
        let (level, at) = &mut self.buckets[i];
        *level = (*level + now.saturating_duration_since(*at).as_secs_f64() * RATE).min(BURST);
        *at = now;
        let ok = *level >= bytes as f64;
        if ok {
            *level -= bytes as f64;
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
}
