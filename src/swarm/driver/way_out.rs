//! Where from what we send leaves this machine. Addresses of it may come and go, of containers and of networks that lead nowhere
//! else, without any of that being another.

use crate::swarm::dht_rpc::bogon;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

/// Somebody of the Internet, to whom nothing is sent: the way there is asked of the system.
pub const SOMEBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9);

/// Nodes to enter the DHT by that are looked at: it may be one of a network without Internet.
const MAX_NODES: usize = 4;

/// Our addresses on the ways to the Internet and to nodes; where there are no ways, all addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayOut(BTreeSet<Ipv4Addr>);

impl WayOut {
    pub fn find(bound: SocketAddrV4, nodes: &[SocketAddrV4], addresses: &[SocketAddrV4]) -> Self {
        let to = std::iter::once(&SOMEBODY).chain(nodes.iter().take(MAX_NODES));
        let ways = Self(to.filter_map(|to| source(bound, *to)).collect());
        if ways.leads_anywhere() {
            ways
        } else {
            Self(addresses.iter().map(|own| *own.ip()).collect())
        }
    }

    /// Whether there is one.
    pub fn leads_anywhere(&self) -> bool {
        self.0.iter().any(|own| !own.is_loopback())
    }
}

/// Whether what becomes of a datagram to or from somebody tells of the way to the DHT. On a local network that leads nowhere
/// packets come and go all the same, and so they do not where a neighbour has left; the DHT is one of IPv4.
pub fn is_on_the_way(somebody: SocketAddr, nodes: impl FnOnce() -> Vec<SocketAddrV4>) -> bool {
    match somebody {
        SocketAddr::V4(at) => !bogon::is_private(at.ip()) || nodes().contains(&at),
        SocketAddr::V6(_) => false,
    }
}

/// Where from a socket bound to `bound` writes to `to`. Rules of a VPN are in no table: the system is asked.
pub fn source(bound: SocketAddrV4, to: SocketAddrV4) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((*bound.ip(), 0)).ok()?;
    socket.connect(to).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(own) => Some(*own.ip()),
        SocketAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_say_nothing_of_the_way_to_the_dht_unless_they_are_its_nodes() {
        let node: SocketAddrV4 = "10.7.0.3:49737".parse().unwrap();
        let tells = |at: &str| is_on_the_way(at.parse().unwrap(), || vec![node]);
        assert!(tells("20.0.0.1:5") && tells("10.7.0.3:49737"));
        for near in ["10.7.0.2:49737", "169.254.0.1:5", "[fe80::1]:5", "[2a00::1]:5"] {
            assert!(!tells(near), "{near}");
        }
    }

    #[test]
    fn what_is_bound_to_loopback_leads_nowhere_and_stays_as_it_is() {
        let bound = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        let way = |addresses: &[SocketAddrV4]| WayOut::find(bound, &[bound], addresses);
        assert!(!way(&[bound]).leads_anywhere());
        assert_eq!(way(&[bound]), way(&[bound]));
        // A network without any way out: what counts are the addresses.
        let own = |n: u8| SocketAddrV4::new([169, 254, 0, n].into(), 9);
        assert!(way(&[own(1)]).leads_anywhere() && way(&[own(1)]) != way(&[own(2)]));
    }
}
