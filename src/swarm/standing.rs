//! How this machine stands towards the rest of the network: what a person wants to know whom nobody reaches.

use super::dht_rpc::Access;
use super::hyperdht::Firewall;
use std::net::SocketAddrV4;

/// What is between this machine and the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nat {
    /// Too few nodes were asked.
    #[default]
    Unknown,
    /// Others see an address of this machine's own.
    None,
    /// Everybody sees the same other address.
    Steady,
    /// Everybody sees another port.
    Varying,
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Whether others can send to us unasked.
    pub access: Access,
    pub nat: Nat,
    /// Where others see us; port 0 if each sees another.
    pub address: Option<SocketAddrV4>,
    /// We serve others as a node of the DHT.
    pub is_node: bool,
    /// Every node knows us already. One is left alone until it can tell whether others reach us.
    pub asks_later: bool,
}

impl Standing {
    /// Of what nodes told of our address, and whether that is one of ours.
    pub fn new(
        access: Access,
        (firewall, seen): (Firewall, Option<SocketAddrV4>),
        own: &[SocketAddrV4],
        is_node: bool,
    ) -> Self {
        let is_own = seen.is_some_and(|seen| own.contains(&seen));
        let nat = match firewall {
            _ if is_own => Nat::None,
            Firewall::Unknown => Nat::Unknown,
            Firewall::Random => Nat::Varying,
            Firewall::Open | Firewall::Consistent => Nat::Steady,
        };
        Self { access, nat, address: seen, is_node, asks_later: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_seen_at_an_address_of_his_own_is_behind_no_nat() {
        let at = |port| Some(SocketAddrV4::new([20, 0, 0, 1].into(), port));
        let own = [SocketAddrV4::new([20, 0, 0, 1].into(), 5)];
        for (firewall, seen, expected) in [
            (Firewall::Unknown, None, Nat::Unknown),
            (Firewall::Open, at(5), Nat::None),
            (Firewall::Consistent, at(5), Nat::None),
            (Firewall::Open, at(6), Nat::Steady),
            (Firewall::Consistent, at(6), Nat::Steady),
            (Firewall::Random, at(0), Nat::Varying),
        ] {
            let standing = Standing::new(Access::Open, (firewall, seen), &own, false);
            assert_eq!(standing.nat, expected, "{firewall:?} {seen:?}");
        }
    }
}
