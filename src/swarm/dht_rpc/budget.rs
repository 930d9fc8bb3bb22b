//! What strangers can make us send to a host.
//!
//! Answers go to the address a request claims to come from, and relayed messages to one that a message
//! names; either may be a lie, and an answer may be several times larger than its request. So each host has a
//! budget of unasked-for bytes, and so have all together: of the latter a part is kept for those who shake hands
//! with us, which else a flood of lookups would use up.

use super::bucket::{Bucket, HostBuckets, Limit};
use std::net::Ipv4Addr;
use std::time::Instant;

/// Bytes a host may be sent: after the burst some hundred full answers a second.
const HOST: Limit = Limit { burst: 256.0 * 1024.0, rate: 64.0 * 1024.0 };
/// The same for a host that has not shown that it receives what it is sent ([`super::proven`]): two dozen full answers,
/// then some three a second.
const UNPROVEN: Limit = Limit { burst: 24.0 * 1024.0, rate: 4.0 * 1024.0 };
/// Buckets of hosts, 40 bytes each.
const BUCKETS: usize = 2048;
/// The same for all hosts together: a node may be used to send as much as a home line takes, not more.
const TOTAL: Limit = Limit { burst: 4.0 * 1024.0 * 1024.0, rate: 2.0 * 1024.0 * 1024.0 };

/// What is kept for handshakes when that is used up: some hundred answers a second, as many as there are.
const HANDSHAKES: Limit = Limit { burst: 128.0 * 1024.0, rate: 64.0 * 1024.0 };

/// On whose account bytes are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// Answers to requests, and what we pass on for others.
    Others,
    /// What we say to somebody who shakes hands with us.
    Handshakes,
}

/// Bytes by host, and of all.
pub struct Budget {
    hosts: HostBuckets,
    unproven: HostBuckets,
    total: Bucket,
    handshakes: Bucket,
}

impl Budget {
    pub fn new(key: [u8; 32], now: Instant) -> Self {
        Self {
            hosts: HostBuckets::new(key, HOST, BUCKETS, now),
            unproven: HostBuckets::new(key, UNPROVEN, BUCKETS, now),
            total: Bucket::full(TOTAL, now),
            handshakes: Bucket::full(HANDSHAKES, now),
        }
    }

    /// Whether a host that has not shown that it receives what it is sent may be sent so much more; and whether it is time
    /// that it does.
    pub fn take_unproven(&mut self, host: &Ipv4Addr, bytes: usize, now: Instant) -> (bool, bool) {
        if host.is_loopback() {
            return (true, false);
        }
        let bucket = self.unproven.of(host);
        let taken = bucket.take(bytes as f64, now);
        (taken, bucket.fill(now) < 0.5)
    }

    /// Takes `bytes` from the host's budget and that of all, if they are there. Our own host has no limit.
    pub fn take(&mut self, host: &Ipv4Addr, bytes: usize, account: Account, now: Instant) -> bool {
        let bytes = bytes as f64;
        if host.is_loopback() {
            return true;
        }
        let all = if account == Account::Handshakes && !self.total.has(bytes, now) {
            &mut self.handshakes
        } else {
            &mut self.total
        };
        all.has(bytes, now) && self.hosts.of(host).take(bytes, now) && all.take(bytes, now)
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
        let sent = (0..1000).filter(|_| budget.take(&host, 1200, Account::Others, start)).count();
        assert_eq!(sent, (HOST.burst / 1200.0) as usize);
        let later = start + Duration::from_secs(1);
        let sent = (0..1000).filter(|_| budget.take(&host, 1200, Account::Others, later)).count();
        assert!((50..60).contains(&sent));
        assert!(budget.take(&Ipv4Addr::LOCALHOST, 1 << 30, Account::Others, start));
    }

    #[test]
    fn all_hosts_together_get_no_more_than_the_total() {
        let start = epoch();
        let mut budget = Budget::new([1; 32], start);
        let host = |n: u32| Ipv4Addr::from(0x0800_0000 + n);
        let sent =
            (0..20_000).filter(|&n| budget.take(&host(n), 1000, Account::Others, start)).count();
        assert_eq!(sent, (TOTAL.burst / 1000.0) as usize);
        let later = start + Duration::from_secs(1);
        let sent =
            (0..20_000).filter(|&n| budget.take(&host(n), 1000, Account::Others, later)).count();
        assert_eq!(sent, (TOTAL.rate / 1000.0) as usize);
    }

    #[test]
    fn a_flood_of_lookups_leaves_something_for_handshakes() {
        let start = epoch();
        let mut budget = Budget::new([1; 32], start);
        let mut answered = 0;
        for ms in 0..20_000u64 {
            let now = start + Duration::from_millis(ms);
            for n in 0..20 {
                let forged = Ipv4Addr::from(0x0900_0000 + ms as u32 * 20 + n);
                budget.take(&forged, 200, Account::Others, now);
            }
            if ms % 10 == 0 {
                let client = Ipv4Addr::from(0x0800_0000 + ms as u32 % 4096);
                answered += usize::from(budget.take(&client, 400, Account::Handshakes, now));
            }
        }
        assert_eq!(answered, 2000);
        // What is kept is no more than that.
        let end = start + Duration::from_secs(20);
        let client = |n: u32| Ipv4Addr::from(0x0700_0000 + n);
        let all = |n: &u32| budget.take(&client(*n), 1000, Account::Handshakes, end);
        assert!((0..20_000).filter(all).count() <= 140);
    }
}
