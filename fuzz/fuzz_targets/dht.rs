//! A node of the DHT among liars: any request from any address, answers to its own questions, time passing.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use hdrive::key::{NodeId, PublicKey, Topic};
use hdrive::swarm::SocketId;
use hdrive::swarm::dht_rpc::message::{Message, Request, Response};
use hdrive::swarm::hyperdht::{DhtConfig, HyperDht};
use hdrive_fuzz::key_pair;
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SELF: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 49737);
/// Datagrams that a step may cause; a node that answers one with thousands is a weapon.
const BURST: usize = 600;

fn address(u: &mut Unstructured<'_>) -> Result<SocketAddrV4> {
    Ok(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, u.int_in_range(0..=8)?), u.int_in_range(1..=4)?))
}

fn option<T: for<'a> Arbitrary<'a>>(u: &mut Unstructured<'_>) -> Result<Option<T>> {
    u.arbitrary()
}

fn request(u: &mut Unstructured<'_>, tokens: &VecDeque<[u8; 32]>) -> Result<Request> {
    let token = match tokens.back() {
        Some(token) if u.arbitrary()? => Some(*token),
        _ => option(u)?,
    };
    Ok(Request {
        tid: u.arbitrary()?,
        to: SELF,
        id: option(u)?.map(NodeId),
        token,
        internal: u.arbitrary()?,
        command: u.int_in_range(0..=12)?,
        target: option(u)?.map(NodeId),
        value: option(u)?,
    })
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut now = Instant::now();
    let bootstrap = vec![SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 1)];
    let config = match u.arbitrary()? {
        true => DhtConfig::persistent(key_pair(1), bootstrap, SELF),
        false => DhtConfig::new(key_pair(1), bootstrap),
    };
    let mut dht = HyperDht::new(config, StdRng::seed_from_u64(1), now);
    dht.listen(Arc::new(key_pair(1)), now);
    let mut asked: VecDeque<(SocketAddrV4, Request)> = VecDeque::new();
    let mut tokens: VecDeque<[u8; 32]> = VecDeque::new();
    while !u.is_empty() {
        match u.int_in_range(0..=9u8)? {
            0 => now += Duration::from_millis(u.int_in_range(0..=20_000)?),
            1 => drop(dht.announce(Topic([u.int_in_range(0..=2)?; 32]), now)),
            2 => drop(dht.lookup(Topic([u.int_in_range(0..=2)?; 32]), now)),
            3 => drop(dht.connect(
                PublicKey(key_pair(u.int_in_range(2..=4)?).public()),
                Vec::new(),
                5,
                now,
            )),
            4 | 5 => {
                let from = address(u)?;
                dht.handle_datagram(SocketId::MAIN, from, &request(u, &tokens)?.encode(), now);
            }
            6 => {
                let (from, bytes): (_, Vec<u8>) = (address(u)?, u.arbitrary()?);
                dht.handle_datagram(SocketId::MAIN, from, &bytes, now);
            }
            _ => {
                let Some((from, question)) = asked.pop_front() else { continue };
                let count = u.int_in_range(0..=20)?;
                let answer = Response {
                    tid: question.tid,
                    to: if u.arbitrary()? { SELF } else { address(u)? },
                    id: option(u)?.map(NodeId),
                    token: option(u)?,
                    closer: (0..count).map(|_| address(u)).collect::<Result<_>>()?,
                    error: if u.arbitrary()? { 0 } else { u.int_in_range(0..=4)? },
                    value: option(u)?,
                };
                dht.handle_datagram(SocketId::MAIN, from, &answer.encode(), now);
            }
        }
        dht.handle_timeout(now);
        let mut burst = 0;
        while let Some(transmit) = dht.poll_transmit() {
            burst += 1;
            assert!(burst <= BURST, "too many datagrams at once");
            match Message::decode(&transmit.bytes) {
                Ok(Message::Request(request)) => asked.push_back((transmit.to, request)),
                Ok(Message::Response(response)) => tokens.extend(response.token),
                Err(_) => {} // a hole punch is no message
            }
        }
        while dht.poll_event().is_some() {}
        let _ = dht.poll_timeout();
        asked.truncate(64);
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});
