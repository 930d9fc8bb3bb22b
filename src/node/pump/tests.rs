//! Wishes, answers and the counts of peers, with a network that reaches nobody.

use super::*;
use crate::crypto::sign::KeyPair;
use crate::hyper::cache::BlockCache;
use crate::hyper::core::storage::memory;
use crate::hyper::session::Patience;
use crate::hyper::store::Namespace;
use crate::swarm::driver::{Network, NetworkConfig};
use std::net::{Ipv4Addr, SocketAddrV4};

fn store() -> Arc<Store> {
    let (wishes, _) = mpsc::unbounded_channel();
    let cache = Arc::new(BlockCache::new(1 << 20));
    Arc::new(Store::open(memory(), cache, wishes, Patience::default()).unwrap())
}

fn attach(handle: &CoreHandle) -> Wish {
    Wish::Attach { handle: handle.clone(), downloading: true, small_blocks: false }
}

/// A pump whose network reaches nobody.
fn pump(store: Arc<Store>) -> Pump {
    let config = NetworkConfig {
        key_pair: KeyPair::generate(),
        bind: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
        bootstrap: Vec::new(),
        persistent: false,
        address: None,
        limits: swarm::Limits::default(),
        relays: Vec::new(),
        lan: false,
    };
    let (network, _) = Network::start(config).unwrap();
    let (wishes, _) = mpsc::unbounded_channel();
    Pump::new(network, Arc::default(), Arc::new(Cores::new(wishes)), store).unwrap()
}

#[test]
fn a_peer_counts_once_whenever_it_opened_the_core() {
    // Before it is attached, or after.
    for early in [true, false] {
        let ours = store();
        let core = ours.named(&Namespace::ROOT, "db", None).unwrap();
        let mut pump = pump(ours);
        let now = Instant::now();
        let mut remote = Hub::new(Limits::default());
        let theirs = store().by_key(core.key(), None).unwrap();
        let options = AttachOptions { downloading: true, small_blocks: false };
        remote.attach(theirs.shared(), options, now);
        let (handshake_hash, here, there) = ([7; 64], swarm::ConnId(1), ConnId(1));
        let info = |initiator| ConnInfo { handshake_hash, initiator, remote: PublicKey([1; 32]) };
        remote.handle_connected(there, info(true), now);
        remote.handle_met(there, Topic::from(core.discovery_key()), now);
        if !early {
            pump.on_wish(attach(&core));
        }
        pump.on_network(vec![SwarmEvent::Connected {
            conn: here,
            remote: PublicKey([1; 32]),
            handshake_hash,
            initiator: false,
            addr: (Ipv4Addr::LOCALHOST, 9).into(),
            topics: Vec::new(),
        }]);
        while let Some((_, frame)) = remote.poll_transmit() {
            let data = frame.payload().to_vec().into();
            pump.on_network(vec![SwarmEvent::Frame { conn: here, data }]);
        }
        pump.drain();
        let peers = || core.reach().borrow().peers;
        assert_eq!(peers(), usize::from(!early));
        for again in [false, true] {
            pump.on_wish(attach(&core));
            pump.drain();
            assert_eq!(peers(), 1, "early: {early}, again: {again}");
        }
        pump.on_network(vec![SwarmEvent::Closed { conn: here, why: swarm::Closed::Local }]);
        pump.drain();
        assert_eq!(peers(), 0, "early: {early}");
    }
}
