//! The kinds of NAT that natlab has, by the same names.

use super::{Machine, NatConfig, Net, Realm};
use std::net::Ipv4Addr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Open,
    Full,
    Addr,
    Port,
    Sym,
    /// A home router of its own behind a carrier's box with random ports.
    Cgnat,
    /// The same, and the carrier's ports are others for each remote.
    CgnatSym,
}

impl Kind {
    pub const ALL: [Self; 7] =
        [Self::Open, Self::Full, Self::Addr, Self::Port, Self::Sym, Self::Cgnat, Self::CgnatSym];

    /// The boxes, from the outermost inwards.
    fn boxes(self) -> Vec<NatConfig> {
        match self {
            Self::Open => vec![],
            Self::Full => vec![NatConfig::full()],
            Self::Addr => vec![NatConfig::addr()],
            Self::Port => vec![NatConfig::port()],
            Self::Sym => vec![NatConfig::sym()],
            Self::Cgnat => vec![NatConfig::carrier(), NatConfig::port()],
            Self::CgnatSym => vec![NatConfig::sym(), NatConfig::port()],
        }
    }
}

impl<M: Machine> Net<M> {
    /// Builds a place of a kind, the only one with this number: where a machine is to be added. The world sees it as
    /// 80.0.n.1; behind boxes it is 192.168.n.2, a carrier's network is 100.64.n.0.
    pub fn place(&mut self, kind: Kind, n: u8) -> (Realm, Ipv4Addr) {
        let (mut realm, mut ip) = (Realm::INTERNET, Ipv4Addr::new(80, 0, n, 1));
        let boxes = kind.boxes();
        for (depth, cfg) in (1..).zip(&boxes) {
            realm = self.add_nat(realm, ip, *cfg);
            ip = if depth == boxes.len() { [192, 168, n, 2] } else { [100, 64, n, 2] }.into();
        }
        (realm, ip)
    }
}
