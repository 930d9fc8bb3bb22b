//! What kind of NAT a socket is behind, and which address of a peer to try on a LAN.
//!
//! Source: hyperdht/lib/nat.js, hyperdht/lib/holepuncher.js:matchAddress, hyperdht/lib/connect.js

use super::messages::Firewall;
use crate::swarm::dht_rpc::bogon;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Samples of one socket's address and the verdict from them.
#[derive(Debug)]
pub struct Nat {
    firewalled: bool,
    by_host: Vec<(Ipv4Addr, u32)>,
    /// Sorted by hits, most first; equals in order of appearance.
    by_address: Vec<(SocketAddrV4, u32)>,
    /// Nodes that have given a sample.
    visited: Vec<SocketAddrV4>,
    frozen: bool,
    firewall: Firewall,
    addresses: Option<Vec<SocketAddrV4>>,
}

/// Samples taken at most; four decide.
const MAX_SAMPLES: usize = 16;

impl Nat {
    pub fn new(firewalled: bool) -> Self {
        Self {
            firewalled,
            by_host: Vec::new(),
            by_address: Vec::new(),
            visited: Vec::new(),
            frozen: false,
            firewall: if firewalled { Firewall::Unknown } else { Firewall::Open },
            addresses: None,
        }
    }

    pub fn firewall(&self) -> Firewall {
        self.firewall
    }

    /// The addresses to tell the peer; a random NAT's has port 0.
    pub fn addresses(&self) -> Option<&[SocketAddrV4]> {
        self.addresses.as_deref()
    }

    pub fn sampled(&self) -> usize {
        self.visited.len()
    }

    /// The verdict stays as it is: the peer has been told.
    pub fn freeze(&mut self) {
        self.frozen = true;
    }

    /// `from` sees us at `addr`. One sample per node.
    pub fn add(&mut self, addr: SocketAddrV4, from: SocketAddrV4) {
        if self.visited.contains(&from) || self.visited.len() >= MAX_SAMPLES {
            return;
        }
        self.visited.push(from);
        count(&mut self.by_host, *addr.ip());
        count(&mut self.by_address, addr);
        if (self.sampled() >= 3 || !self.firewalled) && !self.frozen {
            self.update_firewall();
            self.update_addresses();
        }
    }

    fn update_firewall(&mut self) {
        if !self.firewalled {
            self.firewall = Firewall::Open;
            return;
        }
        let second = self.by_address.get(1).map_or(0, |(_, hits)| *hits);
        self.firewall = match self.by_address.first().map_or(0, |(_, hits)| *hits) {
            3.. => Firewall::Consistent,
            1 => Firewall::Random,
            2 if self.by_host.len() == 1 && self.sampled() > 3 => Firewall::Random,
            2 if self.by_host.len() > 1 && second > 1 => Firewall::Consistent,
            2 if self.sampled() > 4 => Firewall::Random,
            _ => self.firewall,
        };
    }

    fn update_addresses(&mut self) {
        self.addresses = match self.firewall {
            Firewall::Unknown => None,
            Firewall::Random => self.by_host.first().map(|(h, _)| vec![SocketAddrV4::new(*h, 0)]),
            Firewall::Consistent => {
                let mut told: Vec<SocketAddrV4> = Vec::new();
                for (addr, hits) in &self.by_address {
                    if *hits >= 2 || told.len() < 2 {
                        told.push(*addr);
                    }
                }
                Some(told)
            }
            Firewall::Open => self.addresses.take(),
        };
    }
}

/// One hit more for `key`; the list stays sorted by hits.
fn count<T: PartialEq + Copy>(list: &mut Vec<(T, u32)>, key: T) {
    let Some(mut i) = list.iter().position(|(k, _)| *k == key) else {
        return list.push((key, 1));
    };
    list[i].1 += 1;
    while i > 0 && list[i - 1].1 < list[i].1 {
        list.swap(i - 1, i);
        i -= 1;
    }
}

/// The remote address most likely on our LAN: the first that shares the most leading octets (at most
/// three count) with one of ours.
pub fn match_address(local: &[Ipv4Addr], remote: &[SocketAddrV4]) -> Option<SocketAddrV4> {
    let shared = |a: &Ipv4Addr, b: &Ipv4Addr| {
        a.octets().iter().zip(b.octets()).take(3).take_while(|(a, b)| **a == *b).count()
    };
    let mut best: Option<(usize, SocketAddrV4)> = None;
    for (mine, theirs) in local.iter().flat_map(|m| remote.iter().map(move |t| (m, t))) {
        let n = shared(mine, theirs.ip());
        if n > best.map_or(0, |(n, _)| n) {
            best = Some((n, *theirs));
        }
    }
    best.map(|(_, addr)| addr)
}

/// Where to dial an open server: its first public address, else where its relay sees it.
pub fn first_public(addresses: &[SocketAddrV4], seen_at: SocketAddrV4) -> SocketAddrV4 {
    addresses.iter().copied().find(|a| !bogon::is_bogon(a.ip())).unwrap_or(seen_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::dht_rpc::testing::vectors;

    #[test]
    fn verdicts_match_the_vectors() {
        for run in vectors()["nat_firewall"].as_array().unwrap() {
            let mut nat = Nat::new(true);
            for (i, step) in run.as_array().unwrap().iter().enumerate() {
                let host = step["add"][0].as_str().unwrap().parse().unwrap();
                let addr = SocketAddrV4::new(host, step["add"][1].as_u64().unwrap() as u16);
                nat.add(addr, SocketAddrV4::new([9, 9, 9, 9].into(), i as u16 + 1));
                assert_eq!(nat.firewall() as u64, step["firewall"].as_u64().unwrap());
                let told = nat.addresses().map(|a| a.iter().map(ToString::to_string).collect());
                let want: Option<Vec<String>> = step["addresses"]
                    .as_array()
                    .map(|a| a.iter().map(|s| s.as_str().unwrap().to_string()).collect());
                assert_eq!(told, want);
            }
        }
    }

    #[test]
    fn matches_are_those_of_the_vectors() {
        for v in vectors()["match_address"].as_array().unwrap() {
            let ips = |v: &serde_json::Value| -> Vec<Ipv4Addr> {
                v.as_array().unwrap().iter().map(|s| s.as_str().unwrap().parse().unwrap()).collect()
            };
            let remote: Vec<_> =
                ips(&v["remote"]).into_iter().map(|ip| SocketAddrV4::new(ip, 1)).collect();
            let got = match_address(&ips(&v["local"]), &remote).map(|a| a.ip().to_string());
            assert_eq!(got.as_deref(), v["match"].as_str());
        }
    }

    #[test]
    fn a_frozen_verdict_stays_and_a_node_counts_once() {
        let mut nat = Nat::new(true);
        let node = |n| SocketAddrV4::new([9, 9, 9, 9].into(), n);
        let me = |port| SocketAddrV4::new([1, 1, 1, 1].into(), port);
        (1..=3).for_each(|n| nat.add(me(5), node(n)));
        assert_eq!(nat.firewall(), Firewall::Consistent);
        nat.freeze();
        nat.add(me(6), node(1));
        (4..9).for_each(|n| nat.add(me(n + 100), node(n)));
        assert_eq!(nat.addresses(), Some(&[me(5)][..]));
    }
}
