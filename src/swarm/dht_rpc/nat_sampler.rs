//! Our own address, by majority of what other nodes see.
//!
//! Each sample is entered twice, as (host, port) and as (host, 0), into a ring of 32 slots, so the last 16
//! samples count. A sample is only compared with the four latest of its kind; a longer detour starts a new
//! count. The address is believed when its hits reach the number of samples less a small allowance.
//!
//! Source: nat-sampler/index.js

use std::net::{Ipv4Addr, SocketAddrV4};

/// Slots of the ring: two per sample.
const SLOTS: usize = 32;

#[derive(Debug, Clone, Copy)]
struct Count {
    host: Ipv4Addr,
    port: u16,
    hits: i32,
}

/// Counts what others say our address is.
#[derive(Debug, Default)]
pub struct NatSampler {
    host: Option<Ipv4Addr>,
    port: u16,
    size: i32,
    threshold: i32,
    top: usize,
    /// The ring: indexes into `counts`.
    slots: Vec<usize>,
    counts: Vec<Count>,
    best_full: Option<usize>,
    best_host: Option<usize>,
}

impl NatSampler {
    /// The host the majority sees.
    pub fn host(&self) -> Option<Ipv4Addr> {
        self.host
    }

    /// The port the majority sees; 0 while unknown, or when it differs from node to node.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, when both are known.
    pub fn address(&self) -> Option<SocketAddrV4> {
        self.host.filter(|_| self.port != 0).map(|host| SocketAddrV4::new(host, self.port))
    }

    /// Samples that count.
    pub fn samples(&self) -> usize {
        self.slots.len() / 2
    }

    /// Enters one sample.
    pub fn add(&mut self, seen: SocketAddrV4) {
        let full = self.bump(*seen.ip(), seen.port(), 2);
        let host = self.bump(*seen.ip(), 0, 1);
        if self.slots.len() < SLOTS {
            self.size += 1;
            let allowance = match self.size {
                ..4 => 0,
                4..8 => 1,
                8..12 => 2,
                _ => 3,
            };
            self.threshold = self.size - allowance;
            self.slots.extend([full, host]);
            self.top += 2;
        } else {
            if self.top == SLOTS {
                self.top = 0;
            }
            for count in [full, host] {
                let old = std::mem::replace(&mut self.slots[self.top], count);
                self.counts[old].hits -= 1;
                self.top += 1;
            }
        }
        self.best_full = Some(self.better(self.best_full, full));
        self.best_host = Some(self.better(self.best_host, host));
        self.decide();
    }

    fn decide(&mut self) {
        let believed = |i: Option<usize>| {
            i.map(|i| self.counts[i]).filter(|count| count.hits >= self.threshold)
        };
        let best = believed(self.best_full).or(believed(self.best_host));
        self.host = best.map(|count| count.host);
        self.port = best.map_or(0, |count| count.port);
    }

    fn better(&self, best: Option<usize>, candidate: usize) -> usize {
        best.filter(|&b| self.counts[b].hits >= self.counts[candidate].hits).unwrap_or(candidate)
    }

    /// Index of the count for (host, port), one hit richer: one of the last four of its kind, or a new one.
    fn bump(&mut self, host: Ipv4Addr, port: u16, back: usize) -> usize {
        for i in 0..4 {
            let slot = (self.top + 2 * SLOTS - back - 2 * i) % SLOTS;
            let Some(&c) = self.slots.get(slot) else { break };
            let count = &mut self.counts[c];
            if count.host == host && count.port == port {
                count.hits += 1;
                return c;
            }
        }
        let fresh = Count { host, port, hits: 1 };
        let used = |i: &usize| {
            self.slots.contains(i) || self.best_full == Some(*i) || self.best_host == Some(*i)
        };
        // Between the two bumps of one sample nothing refers to the first count yet; it has a hit.
        match (0..self.counts.len()).find(|i| !used(i) && self.counts[*i].hits <= 0) {
            Some(i) => {
                self.counts[i] = fresh;
                i
            }
            None => {
                self.counts.push(fresh);
                self.counts.len() - 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::dht_rpc::testing::vectors;
    use proptest::prelude::*;

    #[test]
    fn samples_match_the_vectors() {
        for run in vectors()["nat_sampler"].as_array().unwrap() {
            let mut sampler = NatSampler::default();
            for step in run.as_array().unwrap() {
                let host = step["add"][0].as_str().unwrap().parse().unwrap();
                sampler.add(SocketAddrV4::new(host, step["add"][1].as_u64().unwrap() as u16));
                assert_eq!(sampler.host().map(|h| h.to_string()).as_deref(), step["host"].as_str());
                assert_eq!(u64::from(sampler.port()), step["port"].as_u64().unwrap());
            }
        }
    }

    proptest! {
        #[test]
        fn any_samples_keep_the_ring_bounded(samples in proptest::collection::vec((0..3u8, 1..4u16), 0..300)) {
            let mut sampler = NatSampler::default();
            for (host, port) in samples {
                sampler.add(SocketAddrV4::new([1, 1, 1, host].into(), port));
                prop_assert!(sampler.slots.len() <= SLOTS);
                prop_assert!(sampler.counts.len() <= SLOTS + 4);
                let hits: i32 = sampler.counts.iter().map(|c| c.hits.max(0)).sum();
                prop_assert_eq!(hits as usize, sampler.slots.len());
            }
        }
    }

    #[test]
    fn sixteen_steady_samples_outvote_an_older_address() {
        let mut sampler = NatSampler::default();
        let old = SocketAddrV4::new([1, 1, 1, 1].into(), 5);
        let new = SocketAddrV4::new([2, 2, 2, 2].into(), 6);
        (0..20).for_each(|_| sampler.add(old));
        (0..16).for_each(|_| sampler.add(new));
        assert_eq!(sampler.address(), Some(new));
    }
}
