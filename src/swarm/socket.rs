//! A UDP socket as the machines know it: the driver has it, they have its number. And what an address says.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4};

/// One UDP socket of the driver, by number. A number is never given twice. The driver binds a socket when something is
/// first sent from it, and closes it when the machine says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

impl SocketId {
    /// The socket that announces, answers and carries streams.
    pub const MAIN: Self = Self(0);
    /// Its companion for IPv6, which the DHT knows nothing of. It is bound from the start, where the machine has IPv6.
    pub const IPV6: Self = Self(1);
    /// The one from which nodes are asked to answer to the main one. It is opened and closed.
    pub const PROBE: Self = Self(2);
    /// The first of those that are opened for one peer.
    pub const FIRST_OTHER: Self = Self(3);

    /// The one of the two that stay that leads to `to`.
    pub fn towards(to: &SocketAddr) -> Self {
        if to.is_ipv4() { Self::MAIN } else { Self::IPV6 }
    }
}

/// The same address in its one form: what is IPv4 in the clothes of IPv6 is IPv4, and there is no flow.
pub fn plain(addr: SocketAddr) -> SocketAddr {
    let mut plain = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    // A link-local address counts on one interface only.
    if let (SocketAddr::V6(plain), SocketAddr::V6(addr)) = (&mut plain, addr) {
        plain.set_scope_id(addr.scope_id());
    }
    plain
}

/// What the DHT can speak of.
pub fn ipv4(addr: SocketAddr) -> Option<SocketAddrV4> {
    match addr {
        SocketAddr::V4(addr) => Some(addr),
        SocketAddr::V6(_) => None,
    }
}

/// Whose share of anything it is: a customer has one address of IPv4, and at least a whole /64 of IPv6.
pub fn host_of(addr: &SocketAddr) -> IpAddr {
    match addr.ip() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        ip => ip,
    }
}

/// Whose share of it is where there is little: a customer of IPv6 may have a /48, which is 65,536 hosts.
pub fn site_of(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            let [a, b, c, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_one_form() {
        assert_eq!(plain(addr("[::ffff:1.2.3.4]:5")), addr("1.2.3.4:5"));
        assert_eq!(plain(addr("[fe80::1%3]:5")), addr("[fe80::1%3]:5"));
        assert_eq!(plain(addr("[2001:db8::1]:5")), addr("[2001:db8::1]:5"));
    }

    #[test]
    fn a_customer_is_one_host() {
        assert_eq!(host_of(&addr("[2001:db8::1]:5")), host_of(&addr("[2001:db8::2:3]:6")));
        assert_ne!(host_of(&addr("[2001:db8::1]:5")), host_of(&addr("[2001:db8:0:1::1]:5")));
        assert!(host_of(&addr("[::1]:5")).is_loopback());
        assert_eq!(host_of(&addr("1.2.3.4:5")), addr("1.2.3.4:6").ip());
    }
}
