//! The addresses under which peers of the same network reach us.
//!
//! Source: hyperdht/lib/holepuncher.js:localAddresses

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Addresses told to peers; a machine with more interfaces leaves the rest out.
const MAX_ADDRESSES: usize = 8;

/// Every IPv4 address of an interface that is up and not loopback, with the port of a socket bound to
/// `bound`. A socket bound to one address has only that one; without any interface it is loopback.
pub fn local_addresses(bound: SocketAddrV4) -> Vec<SocketAddrV4> {
    if !bound.ip().is_unspecified() {
        return vec![bound];
    }
    let mut found: Vec<Ipv4Addr> = getifaddrs()
        .map(|list| list.filter_map(|interface| external_ipv4(&interface)).collect())
        .unwrap_or_default();
    found.truncate(MAX_ADDRESSES);
    if found.is_empty() {
        found.push(Ipv4Addr::LOCALHOST);
    }
    found.into_iter().map(|ip| SocketAddrV4::new(ip, bound.port())).collect()
}

fn external_ipv4(interface: &nix::ifaddrs::InterfaceAddress) -> Option<Ipv4Addr> {
    let up = interface.flags.contains(InterfaceFlags::IFF_UP);
    let ip = interface.address?.as_sockaddr_in()?.ip();
    (up && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_bound_to_one_address_has_only_that() {
        let bound = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5);
        assert_eq!(local_addresses(bound), [bound]);
    }

    #[test]
    fn an_unbound_socket_has_an_address_and_its_port() {
        let found = local_addresses(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 7));
        assert!(!found.is_empty() && found.iter().all(|addr| addr.port() == 7));
    }
}
