//! A local network that we are part of: which interface leads to it, and who is on it.

use super::{GROUP, GROUP6};
use crate::swarm::dht_rpc::bogon;
use std::net::SocketAddr;

/// An address of ours on an interface over which neighbours are called: of IPv4, or the link-local one of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The system's number of the interface.
    pub interface: u32,
    /// Where we are reached there: by the main socket, or by its companion for IPv6.
    pub addr: SocketAddr,
    /// Leading bits that all its addresses share.
    pub prefix: u8,
}

impl Link {
    /// Whether a host can be a neighbour on it.
    pub fn holds(&self, host: &SocketAddr) -> bool {
        match (host, &self.addr) {
            (SocketAddr::V4(host), SocketAddr::V4(own)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
                !bogon::is_reserved(host.ip())
                    && (host.ip().to_bits() ^ own.ip().to_bits()) & mask == 0
            }
            (SocketAddr::V6(host), SocketAddr::V6(_)) => {
                host.ip().is_unicast_link_local() && host.scope_id() == self.interface
            }
            _ => false,
        }
    }

    /// Whether neighbours may be called there. Where a machine has a public address its neighbours are strangers as a
    /// rule, of a data centre or a provider, who find it through the DHT and want to hear nothing more.
    pub fn is_private(&self) -> bool {
        match &self.addr {
            SocketAddr::V4(own) => bogon::is_bogon(own.ip()) && !bogon::is_reserved(own.ip()),
            SocketAddr::V6(own) => own.ip().is_unicast_link_local(),
        }
    }

    /// Where everybody on it is called.
    pub fn group(&self) -> SocketAddr {
        match self.addr {
            SocketAddr::V4(_) => GROUP.into(),
            SocketAddr::V6(_) => GROUP6.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ip: [u8; 4], prefix: u8) -> Link {
        Link { interface: 1, addr: (ip, 1).into(), prefix }
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn neighbours_are_told_from_others() {
        let home = link([192, 168, 1, 5], 24);
        assert!(home.holds(&at("192.168.1.200:7")));
        assert!(!home.holds(&at("192.168.2.5:7")) && !home.holds(&at("8.8.8.8:7")));
        assert!(!home.holds(&at("[fe80::1%1]:7")));
        assert!(link([10, 0, 0, 1], 0).holds(&at("8.8.8.8:7")));
        assert!(!link([10, 0, 0, 1], 0).holds(&at("224.0.0.1:7")));
        assert!(!link([10, 0, 0, 1], 32).holds(&at("10.0.0.2:7")));
        let ipv6 = Link { interface: 3, addr: at("[fe80::1%3]:1"), prefix: 64 };
        assert!(ipv6.holds(&at("[fe80::2%3]:7")));
        for other in ["[fe80::2%4]:7", "[2001:db8::1]:7", "[fd00::1%3]:7", "192.168.1.5:7"] {
            assert!(!ipv6.holds(&at(other)), "{other}");
        }
    }

    #[test]
    fn nobody_is_called_where_the_address_is_public() {
        for (ip, called) in [
            ([10, 1, 1, 1], true),
            ([169, 254, 3, 3], true),
            ([127, 0, 0, 1], true),
            ([8, 8, 8, 8], false),
        ] {
            assert_eq!(link(ip, 24).is_private(), called, "{ip:?}");
        }
        let public = Link { interface: 3, addr: at("[2001:db8::1]:1"), prefix: 64 };
        assert!(!public.is_private());
    }
}
