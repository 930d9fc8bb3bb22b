//! Which of the addresses that a peer names is tried.
//!
//! Source: hyperdht/lib/holepuncher.js:matchAddress, hyperdht/lib/connect.js

use crate::swarm::dht_rpc::bogon;
use std::net::{Ipv4Addr, SocketAddrV4};

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
}
