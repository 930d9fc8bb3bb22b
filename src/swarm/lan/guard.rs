//! How much is done for hosts of the local network, each and all of them.
//!
//! A source can be forged, so there are totals as well; of one that runs low datagrams are dropped at random, before it is
//! used up: else a flood in step with it would get all of it.

use crate::swarm::dht_rpc::bucket::{Bucket, HostBuckets, Limit};
use rand::Rng;
use rand::rngs::StdRng;
use std::net::IpAddr;
use std::time::Instant;

/// Calls that are looked at: a host that begins with a thousand drives calls three times sixteen at once.
const CALLS: [Limit; 2] = [Limit { burst: 96.0, rate: 8.0 }, Limit { burst: 512.0, rate: 128.0 }];
/// Topics that are hashed to find those of a call among ours, in all: some 20 ms of each second.
const HASHES: Limit = Limit { burst: 65_536.0, rate: 50_000.0 };
/// Answers and calls to one host that we send because of what came from it. Each has at most 1.4 times the size of that.
const SENT: [Limit; 2] = [Limit { burst: 96.0, rate: 4.0 }, Limit { burst: 256.0, rate: 64.0 }];
/// Of those as many are sent to everybody as well: a host that begins with a thousand drives asks for twice sixteen. It is what
/// each host of the network hears, and what Wi-Fi sends slowly.
pub(super) const SPREAD: [Limit; 2] =
    [Limit { burst: 32.0, rate: 0.1 }, Limit { burst: 64.0, rate: 2.0 }];
/// Answers whose signature is looked at, 100 µs each.
const ANSWERS: [Limit; 2] = [Limit { burst: 96.0, rate: 8.0 }, Limit { burst: 512.0, rate: 128.0 }];
/// Buckets of hosts, 40 bytes each.
const BUCKETS: usize = 256;
/// Below this part of a total some are dropped, the more the less there is.
const LOW: f64 = 0.5;

/// What a host wants of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A call is to be looked at.
    Call,
    /// Something is to be sent to it.
    Send,
    /// What is sent to it everybody is to hear.
    Spread,
    /// An answer is to be looked at.
    Answer,
}

struct Account {
    hosts: HostBuckets,
    all: Bucket,
}

impl Account {
    fn new([host, all]: [Limit; 2], key: [u8; 32], now: Instant) -> Self {
        let hosts = HostBuckets::new(key, host, BUCKETS, now);
        Self { hosts, all: Bucket::full(all, now) }
    }

    fn take(&mut self, host: &IpAddr, chance: f64, now: Instant) -> bool {
        self.hosts.of(host).take(1.0, now)
            && chance * LOW < self.all.fill(now)
            && self.all.take(1.0, now)
    }
}

/// The accounts of all hosts.
pub struct Guard {
    calls: Account,
    sent: Account,
    spread: Account,
    answers: Account,
    hashes: Bucket,
}

impl Guard {
    pub fn new(rng: &mut StdRng, now: Instant) -> Self {
        let mut account = |limits| Account::new(limits, rng.random(), now);
        Self {
            calls: account(CALLS),
            sent: account(SENT),
            spread: account(SPREAD),
            answers: account(ANSWERS),
            hashes: Bucket::full(HASHES, now),
        }
    }

    pub fn take(&mut self, want: Want, host: &IpAddr, rng: &mut StdRng, now: Instant) -> bool {
        let account = match want {
            Want::Call => &mut self.calls,
            Want::Send => &mut self.sent,
            Want::Spread => &mut self.spread,
            Want::Answer => &mut self.answers,
        };
        account.take(host, rng.random(), now)
    }

    /// Whether so many topics may be hashed for somebody. More than there are tokens for are never too many for once.
    pub fn hash(&mut self, topics: usize, now: Instant) -> bool {
        self.hashes.take((topics as f64).min(HASHES.burst / 2.0), now)
    }
}
