//! A local network that we are part of: which interface leads to it, and who is on it.

use crate::swarm::dht_rpc::bogon;
use std::net::{Ipv4Addr, SocketAddrV4};

/// An address of ours on an interface over which neighbours are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The system's number of the interface.
    pub interface: u32,
    /// Where the main socket is reached there.
    pub addr: SocketAddrV4,
    /// Leading bits that all its addresses share.
    pub prefix: u8,
}

impl Link {
    /// Whether a host can be a neighbour on it.
    pub fn holds(&self, host: &Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
        !bogon::is_reserved(host) && (host.to_bits() ^ self.addr.ip().to_bits()) & mask == 0
    }

    /// Whether neighbours may be called there. Where a machine has a public address its neighbours are strangers as a
    /// rule, of a data centre or a provider, who find it through the DHT and want to hear nothing more.
    pub fn is_private(&self) -> bool {
        let ip = self.addr.ip();
        bogon::is_bogon(ip) && !bogon::is_reserved(ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ip: [u8; 4], prefix: u8) -> Link {
        Link { interface: 1, addr: SocketAddrV4::new(ip.into(), 1), prefix }
    }

    #[test]
    fn neighbours_are_told_from_others() {
        let home = link([192, 168, 1, 5], 24);
        assert!(home.holds(&[192, 168, 1, 200].into()));
        assert!(!home.holds(&[192, 168, 2, 5].into()) && !home.holds(&[8, 8, 8, 8].into()));
        assert!(link([10, 0, 0, 1], 0).holds(&[8, 8, 8, 8].into()));
        assert!(!link([10, 0, 0, 1], 0).holds(&[224, 0, 0, 1].into()));
        assert!(!link([10, 0, 0, 1], 32).holds(&[10, 0, 0, 2].into()));
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
    }
}
