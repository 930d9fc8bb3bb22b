//! The dht-rpc node as the parts of [`super::HyperDht`] share it: who asked what, and what to tell the owner.

use super::event::{DhtConfig, DhtEvent, RelayAsk};
use super::messages::{Firewall, NoisePayload, RelayThrough, UdxInfo};
use super::owner::Owner;
use super::silent_relays::SilentRelays;
use super::turns::Turns;
use crate::crypto::KeyPair;
use crate::key::{NodeId, PublicKey};
use crate::swarm::dht_rpc::bucket::{HostBuckets, Limit};
use crate::swarm::dht_rpc::{Ask, NatSampler, QueryId, QuerySpec, RequestId, Rpc, bogon};
use crate::swarm::lan::Link;
use crate::swarm::socket::SocketId;
use rand::RngCore;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

/// Local addresses told to a peer.
const MAX_LOCAL_ADDRESSES: usize = 8;

/// Nodes that have to be asked before anything is said of our NAT, as in the reference: one alone sees one port whatever
/// the NAT does.
const MIN_SAMPLES: usize = 3;

/// Handshakes sent to one host that records name as a relay, while there are many. The three nodes of a small DHT may
/// be the relays of all readers of a drive, the dead included; and a record may name anybody. A handshake has
/// less than 500 bytes.
pub const KNOCKS: Limit = Limit { burst: 128.0, rate: 20.0 };
/// Buckets of hosts, 40 bytes each.
const KNOCK_BUCKETS: usize = 1024;

/// An announcement that some nodes are to forget.
#[derive(Debug)]
pub(super) struct Withdrawal {
    pub key_pair: Arc<KeyPair>,
    pub target: NodeId,
    pub nodes: Vec<SocketAddrV4>,
}

pub(super) struct Net {
    pub rpc: Rpc,
    pub config: DhtConfig,
    pub rng: StdRng,
    pub events: VecDeque<DhtEvent>,
    /// Announcements to withdraw, not begun yet.
    pub withdrawals: Vec<Withdrawal>,
    pub punching: Turns,
    /// Not to be named for who was not heard through them.
    pub silent_relays: SilentRelays,
    /// Sockets that nothing here needs any more.
    pub retired: Vec<SocketId>,
    /// The local networks that we are on.
    pub links: Vec<Link>,
    /// Datagrams that do not go through the DHT.
    pub direct: VecDeque<(SocketAddr, Vec<u8>)>,
    /// The number of the next one.
    next_socket: u32,
    requests: BTreeMap<RequestId, Owner>,
    queries: BTreeMap<QueryId, Owner>,
    knocks: HostBuckets,
}

impl Net {
    pub fn new(rpc: Rpc, config: DhtConfig, mut rng: StdRng, now: Instant) -> Self {
        let mut key = [0; 32];
        rng.fill_bytes(&mut key);
        let mut turns = [0; 32];
        rng.fill_bytes(&mut turns);
        Self {
            rpc,
            config,
            rng,
            events: VecDeque::new(),
            withdrawals: Vec::new(),
            punching: Turns::new(turns, now),
            silent_relays: SilentRelays::default(),
            retired: Vec::new(),
            links: Vec::new(),
            direct: VecDeque::new(),
            next_socket: SocketId::FIRST_OTHER.0,
            requests: BTreeMap::new(),
            queries: BTreeMap::new(),
            knocks: HostBuckets::new(key, KNOCKS, KNOCK_BUCKETS, now),
        }
    }

    pub fn ask(&mut self, mut ask: Ask, owner: Owner, now: Instant) -> RequestId {
        // Where it comes from does not matter.
        if matches!(owner, Owner::Topic(..) | Owner::Leave(..)) {
            ask.socket = self.rpc.any_socket(ask.to.ip());
        }
        let id = self.rpc.request(ask, now);
        self.requests.insert(id, owner);
        id
    }

    /// A node is announced to: it is not told any more to forget what it holds at a target.
    pub fn keep(&mut self, target: NodeId, node: SocketAddrV4) {
        for withdrawal in self.withdrawals.iter_mut().filter(|one| one.target == target) {
            withdrawal.nodes.retain(|other| *other != node);
        }
        for (id, owner) in &self.requests {
            if matches!(owner, Owner::Leave(_, _, what) if *what == (target, node)) {
                self.rpc.give_up(*id);
            }
        }
    }

    /// A socket beside the main one. It is there once something is sent from it.
    pub fn open_socket(&mut self) -> SocketId {
        let socket = SocketId(self.next_socket);
        // After four thousand million of them the first are long closed.
        self.next_socket = self.next_socket.checked_add(1).unwrap_or(SocketId::FIRST_OTHER.0);
        socket
    }

    /// Which of some nodes a peer is dialled through next: one that is left alone only if `all` of them were found.
    pub fn next_way(&self, ways: &mut VecDeque<SocketAddrV4>, all: bool) -> Option<SocketAddrV4> {
        let used = ways.iter().position(|way| !self.rpc.is_aside(way.ip()));
        ways.remove(used.or(all.then_some(0))?)
    }

    /// Names a relay, with a token of its own.
    pub fn relay_through(&mut self, public_key: PublicKey) -> RelayThrough {
        let mut token = [0; 32];
        self.rng.fill_bytes(&mut token);
        RelayThrough { public_key, token }
    }

    /// What relay a connection may go through: that of the server, if both name one.
    pub fn relay_ask(theirs: Option<RelayThrough>, ours: Option<RelayThrough>) -> Option<RelayAsk> {
        let ask = |relay: RelayThrough, initiator| RelayAsk {
            relay: relay.public_key,
            token: relay.token,
            initiator,
            client: None,
        };
        theirs.map(|relay| ask(relay, false)).or(ours.map(|relay| ask(relay, true)))
    }

    /// What we say of ourselves to a server.
    pub fn client_payload(
        &self,
        local_id: u32,
        relay_through: Option<RelayThrough>,
    ) -> NoisePayload {
        NoisePayload {
            firewall: self.firewall(),
            addresses4: self.addresses(),
            udx: Some(UdxInfo {
                reusable_socket: false,
                big_datagrams: self.config.big_datagrams,
                id: local_id,
                seq: 0,
            }),
            secret_stream: true,
            relay_through,
            relay: self.config.relay,
            ..NoisePayload::empty(NoisePayload::VERSION)
        }
    }

    /// Whether one more handshake may go to a host that a record names. This machine has no limit.
    pub fn can_knock(&mut self, host: &Ipv4Addr, now: Instant) -> bool {
        host.is_loopback() || self.knocks.of(host).has(1.0, now)
    }

    /// The same, and counts it.
    pub fn knock(&mut self, host: &Ipv4Addr, now: Instant) -> bool {
        host.is_loopback() || self.knocks.of(host).take(1.0, now)
    }

    pub fn query(&mut self, spec: QuerySpec, owner: Owner, now: Instant) -> QueryId {
        let id = self.rpc.query(spec, now);
        self.queries.insert(id, owner);
        id
    }

    /// Names the owner of a query that was started at the rpc node.
    pub fn own_query(&mut self, id: QueryId, owner: Owner) {
        self.queries.insert(id, owner);
    }

    /// The owner of a request that is over.
    pub fn finish_request(&mut self, id: RequestId) -> Option<Owner> {
        self.requests.remove(&id)
    }

    /// The owner of a query that goes on.
    pub fn query_owner(&self, id: QueryId) -> Option<Owner> {
        self.queries.get(&id).cloned()
    }

    pub fn finish_query(&mut self, id: QueryId) -> Option<Owner> {
        self.queries.remove(&id)
    }

    pub fn cancel_query(&mut self, id: QueryId) {
        self.queries.remove(&id);
        self.rpc.cancel_query(id);
    }

    /// Forgets all requests and queries of some owner.
    pub fn cancel_owner(&mut self, is: impl Fn(&Owner) -> bool) {
        let requests: Vec<_> =
            self.requests.iter().filter(|(_, o)| is(o)).map(|(id, _)| *id).collect();
        for id in requests {
            self.requests.remove(&id);
            self.rpc.cancel_request(id);
        }
        let queries: Vec<_> =
            self.queries.iter().filter(|(_, o)| is(o)).map(|(id, _)| *id).collect();
        queries.into_iter().for_each(|id| self.cancel_query(id));
    }

    /// Our public address, if anybody can reach us there. Who is open though behind a NAT is met as others behind NATs are:
    /// those beside it have a shorter way.
    pub fn open_address(&self) -> Option<SocketAddrV4> {
        let own = &self.config.local_addresses;
        self.rpc.open_address().filter(|open| self.config.persistent || own.contains(open))
    }

    pub fn firewall(&self) -> Firewall {
        if self.open_address().is_some() { Firewall::Open } else { Firewall::Unknown }
    }

    /// What is to be expected of our main socket, as far as the nodes tell that have answered us, and the addresses to tell
    /// a peer who punches.
    pub fn nat_verdict(&self) -> (Firewall, Vec<SocketAddrV4>) {
        let (firewall, mut addresses) = self.nat();
        // A port of the router that leads here lets everybody in, whichever ports it gives what we send.
        let open = self.rpc.open_address().filter(|open| !addresses.contains(open));
        match (firewall, open) {
            (Firewall::Consistent | Firewall::Random, Some(open)) => {
                addresses.retain(|address| address.port() != 0);
                addresses.insert(0, open);
                (Firewall::Consistent, addresses)
            }
            _ => (firewall, addresses),
        }
    }

    /// What our NAT does to what the main socket sends, and where that is seen; port 0 if each sees another.
    pub fn nat(&self) -> (Firewall, Vec<SocketAddrV4>) {
        // Who finds out that it is open while it punches goes on: the other side was told of a NAT.
        if let Some(open) = self.open_address().filter(|_| self.config.persistent) {
            return (Firewall::Open, vec![open]);
        }
        verdict(self.rpc.nat())
    }

    /// Whether an address is one of our neighbours on a local network.
    pub fn is_near(&self, addr: &SocketAddrV4) -> bool {
        addr.port() != 0 && self.links.iter().any(|link| link.holds(&(*addr).into()))
    }

    /// Whether it is our own main socket that is found at an address.
    pub fn is_own(&self, addr: &SocketAddrV4) -> bool {
        let seen = [self.rpc.address(), self.rpc.nat().address(), self.rpc.open_address()];
        self.config.local_addresses.contains(addr) || seen.contains(&Some(*addr))
    }

    /// Whether a host is this machine.
    pub fn is_here(&self, host: &Ipv4Addr) -> bool {
        host.is_loopback() || self.config.local_addresses.iter().any(|a| a.ip() == host)
    }

    /// Whether we have an address that a peer on the same local network would try. The reference takes those for
    /// documentation and benchmarks for nobody's.
    pub fn has_lan_address(&self) -> bool {
        let usable = |a: &SocketAddrV4| !bogon::is_reserved(a.ip()) && !bogon::is_test(a.ip());
        self.config.local_addresses.iter().any(usable)
    }

    /// The addresses to tell a peer: the public one if it is known, and those on our networks.
    pub fn addresses(&self) -> Vec<SocketAddrV4> {
        let mut list: Vec<_> = self.open_address().into_iter().collect();
        let local = self.config.local_addresses.iter().take(MAX_LOCAL_ADDRESSES);
        list.extend(local.filter(|a| Some(**a) != self.open_address()));
        list
    }
}

fn verdict(nat: &NatSampler) -> (Firewall, Vec<SocketAddrV4>) {
    match (nat.address(), nat.host()) {
        _ if nat.samples() < MIN_SAMPLES => (Firewall::Unknown, Vec::new()),
        (Some(address), _) => (Firewall::Consistent, vec![address]),
        (None, Some(host)) => (Firewall::Random, vec![SocketAddrV4::new(host, 0)]),
        (None, None) => (Firewall::Unknown, Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_nat_nothing_is_said_before_three_nodes_were_asked() {
        let said = |ports: &[u16]| {
            let mut nat = NatSampler::default();
            ports.iter().for_each(|port| nat.add(SocketAddrV4::new([20, 0, 0, 1].into(), *port)));
            verdict(&nat).0
        };
        for few in [&[][..], &[5], &[5, 5], &[5, 6]] {
            assert_eq!(said(few), Firewall::Unknown, "{few:?}");
        }
        assert_eq!(said(&[5, 5, 5]), Firewall::Consistent);
        assert_eq!(said(&[5, 6, 7]), Firewall::Random);
        assert_eq!(said(&[5, 6, 5, 7]), Firewall::Random);
    }
}
