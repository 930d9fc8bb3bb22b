//! Against the JavaScript reference on loopback, both ways.
//!
//! Skipped with a printed reason where it is not installed.
//! There is no UDX here: a first packet by hand is enough for the reference to call a stream connected.
#![allow(clippy::disallowed_methods, reason = "real sockets, real time")]

use super::sim::pair;
use crate::key::{PublicKey, Topic, hex, unhex};
use crate::reference;
use crate::swarm::hyperdht::{DhtConfig, DhtEvent, HyperDht};
use crate::swarm::socket::SocketId;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

/// A node process that runs `tests/interop/js/dht.js`.
struct Js {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<Value>,
    events: Vec<Value>,
    next: u64,
}

impl Js {
    fn start() -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/js/dht.js");
        let mut command = reference::node()?;
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let (stdin, stdout) = (child.stdin.take()?, child.stdout.take()?);
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(serde_json::from_str(&line).expect(&line));
            }
        });
        Some(Self { child, stdin, lines, events: Vec::new(), next: 0 })
    }
}

impl Drop for Js {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of our machines on a socket of its own.
struct Peer {
    socket: UdpSocket,
    dht: HyperDht,
    events: Vec<DhtEvent>,
    /// Datagrams that are not for the DHT, with their source.
    streams: Vec<(SocketAddrV4, Vec<u8>)>,
}

impl Peer {
    fn new(n: u16, config: impl FnOnce(&mut DhtConfig, SocketAddrV4)) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let SocketAddr::V4(addr) = socket.local_addr().unwrap() else { panic!() };
        let mut cfg = DhtConfig::new(pair(n), vec![]);
        cfg.local_addresses = vec![addr];
        cfg.allow_bogons = true;
        config(&mut cfg, addr);
        let dht = HyperDht::new(cfg, StdRng::from_os_rng(), Instant::now());
        Self { socket, dht, events: Vec::new(), streams: Vec::new() }
    }

    fn ephemeral(n: u16, bootstrap: u16) -> Self {
        Self::new(n, |c, _| c.bootstrap = vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, bootstrap)])
    }

    fn first_node(n: u16) -> Self {
        Self::new(n, |c, addr| {
            c.persistent = true;
            c.address = Some(addr);
        })
    }

    fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    fn run(&mut self) {
        let mut buf = [0; 2048];
        loop {
            match self.socket.recv_from(&mut buf) {
                Ok((n, SocketAddr::V4(from))) => {
                    let data = &buf[..n];
                    if !self.dht.handle_datagram(SocketId::MAIN, from, data, Instant::now()) {
                        self.streams.push((from, data.to_vec()));
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                other => drop(other.unwrap()),
            }
        }
        if self.dht.poll_timeout().is_some_and(|at| at <= Instant::now()) {
            self.dht.handle_timeout(Instant::now());
        }
        while let Some(t) = self.dht.poll_transmit() {
            self.socket.send_to(&t.bytes, t.to).unwrap();
        }
        self.events.extend(std::iter::from_fn(|| self.dht.poll_event()));
    }
}

/// Our machines and the reference's, side by side.
struct World {
    js: Js,
    peers: Vec<Peer>,
}

impl World {
    fn start() -> Option<Self> {
        Some(Self { js: Js::start()?, peers: Vec::new() })
    }

    fn run(&mut self) {
        self.peers.iter_mut().for_each(Peer::run);
        if let Ok(line) = self.js.lines.recv_timeout(Duration::from_millis(1)) {
            self.js.events.push(line);
        }
    }

    /// Runs until `pick` gives something.
    fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(found) = pick(self) {
                return found;
            }
            assert!(Instant::now() < end, "no {what}: {:#?}", self.js.events);
            self.run();
        }
    }

    /// Lets the reference do something, and gives its answer.
    fn js(&mut self, cmd: &str, mut args: Value) -> Value {
        self.js.next += 1;
        let id = self.js.next;
        args["id"] = json!(id);
        args["cmd"] = json!(cmd);
        writeln!(self.js.stdin, "{args}").unwrap();
        let answer = self.wait(cmd, |w| {
            let at = w.js.events.iter().position(|e| e["id"] == json!(id))?;
            Some(w.js.events.remove(at))
        });
        assert!(answer["error"].is_null(), "{cmd}: {answer}");
        answer
    }

    fn js_event(&mut self, event: &str, name: &str) -> Value {
        self.wait(event, |w| {
            let is = |e: &Value| e["event"] == json!(event) && e["name"] == json!(name);
            let failed = |e: &Value| e["event"] == "error" && e["name"] == json!(name);
            if let Some(e) = w.js.events.iter().find(|e| failed(e)) {
                panic!("waiting for {event}: {e}");
            }
            let at = w.js.events.iter().position(is)?;
            Some(w.js.events.remove(at))
        })
    }

    fn event<T>(&mut self, i: usize, what: &str, pick: impl Fn(&DhtEvent) -> Option<T>) -> T {
        self.wait(what, |w| {
            let (at, found) =
                w.peers[i].events.iter().enumerate().find_map(|(i, e)| Some((i, pick(e)?)))?;
            w.peers[i].events.remove(at);
            Some(found)
        })
    }

    /// Connects machine `i` to a reference server and knocks at the stream it is given.
    fn connect_to_js(&mut self, i: usize, key: &str, server: &str) {
        let key = PublicKey(unhex(key).unwrap().try_into().unwrap());
        self.peers[i].dht.connect(key, vec![], 4711, Instant::now());
        let (dial, remote_id, hash) = self.event(i, "outgoing", |e| match e {
            DhtEvent::Outgoing { agreed, .. } => {
                Some((agreed.dial, agreed.remote_id, agreed.keys.hash))
            }
            DhtEvent::ConnectFailed { why, .. } => panic!("{why}"),
            _ => None,
        });
        // A bare ack of UDX: magic, version, type, offset, stream, window, seq, ack.
        let mut knock = vec![0xff, 1, 0, 0];
        knock.extend(remote_id.to_le_bytes());
        knock.extend([0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.peers[i].socket.send_to(&knock, dial.expect("a firewalled client dials").to).unwrap();
        let got = self.js_event("connection", server);
        assert_eq!(got["hash"], json!(hex(&hash)));
        assert_eq!(got["remote"], json!(hex(&self.peers[i].dht.public_key().0)));
    }

    /// Lets a reference client connect to machine `i`, and checks that its first packet comes.
    fn connect_from_js(&mut self, i: usize, name: &str) {
        let key = self.peers[i].dht.public_key();
        self.js("connect", json!({ "name": name, "key": hex(&key.0) }));
        let (local_id, hash) = self.event(i, "incoming", |e| match e {
            DhtEvent::Incoming { agreed, .. } => Some((agreed.local_id, agreed.keys.hash)),
            _ => None,
        });
        let open = self.js_event("open", name);
        assert_eq!(open["hash"], json!(hex(&hash)));
        assert_eq!(open["remote"], json!(hex(&key.0)));
        self.wait("stream packet", |w| {
            let streams = &w.peers[i].streams;
            streams.iter().find(|(_, d)| d.get(4..8) == Some(&local_id.to_le_bytes()[..])).map(drop)
        });
    }

    fn listen(&mut self, i: usize, n: u16) {
        self.peers[i].dht.listen(Arc::new(pair(n)), Instant::now());
        self.event(i, "listening", |e| match e {
            DhtEvent::Listening { relays, .. } if *relays > 0 => Some(()),
            _ => None,
        });
    }

    fn lookup(&mut self, i: usize, topic: Topic) -> Vec<(PublicKey, usize)> {
        self.peers[i].dht.lookup(topic, Instant::now());
        self.event(i, "lookup", |e| matches!(e, DhtEvent::QueryDone { .. }).then_some(()));
        let events = self.peers[i].events.iter();
        let peers = events.filter_map(|e| match e {
            DhtEvent::Peer { public_key, relay_addresses, .. } => {
                Some((*public_key, relay_addresses.len()))
            }
            _ => None,
        });
        let peers = peers.collect();
        self.peers[i].events.clear();
        peers
    }
}

#[test]
fn on_their_network_we_find_them_and_they_find_us() {
    let Some(mut w) = World::start() else { return };
    let port = w.js("testnet", json!({ "size": 6 }))["port"].as_u64().unwrap();
    w.js("node", json!({ "name": "server", "bootstrap": port }));
    let server = w.js("listen", json!({ "name": "server" }));
    let topic = Topic([0x55; 32]);
    let announced =
        w.js("announce", json!({ "name": "server", "topic": hex(&topic.0) }))["key"].clone();

    w.peers.push(Peer::ephemeral(1, port as u16));
    let begin = Instant::now();
    w.event(0, "bootstrapped", |e| matches!(e, DhtEvent::Bootstrapped { .. }).then_some(()));
    eprintln!("bootstrapped in {:?}", begin.elapsed());
    let found = w.lookup(0, topic);
    assert_eq!(found.len(), 1);
    assert_eq!((json!(hex(&found[0].0.0)), found[0].1), (announced, 3));
    let begin = Instant::now();
    w.connect_to_js(0, server["key"].as_str().unwrap(), "server");
    eprintln!("connected to a reference server in {:?}", begin.elapsed());

    let begin = Instant::now();
    w.listen(0, 1);
    eprintln!("listening in {:?}", begin.elapsed());
    w.peers[0].dht.announce(Topic([0x66; 32]), Instant::now());
    let stored = |e: &DhtEvent| match e {
        DhtEvent::Announced { nodes, .. } => Some(*nodes),
        _ => None,
    };
    assert_eq!(w.event(0, "announced", stored), 5, "all but the first node, which is ephemeral");
    w.js("node", json!({ "name": "client", "bootstrap": port }));
    let peers = w.js("lookup", json!({ "name": "client", "topic": hex(&[0x66; 32]) }));
    let own = hex(&w.peers[0].dht.public_key().0);
    assert_eq!(peers["peers"], json!({ own: 3 }));
    let begin = Instant::now();
    w.connect_from_js(0, "client");
    eprintln!("connected from a reference client in {:?}", begin.elapsed());

    let now = Instant::now();
    let left = w.peers[0].dht.unannounce(Topic([0x66; 32]), now);
    let done = |e: &DhtEvent| {
        matches!(e, DhtEvent::QueryDone { query, .. } if *query == left).then_some(())
    };
    w.event(0, "unannounced", done);
    let peers = w.js("lookup", json!({ "name": "client", "topic": hex(&[0x66; 32]) }));
    assert_eq!(peers["peers"], json!({}));
    let key = w.peers[0].dht.public_key();
    w.peers[0].dht.unlisten(&key, Instant::now());
    w.event(0, "unlistened", |e| matches!(e, DhtEvent::Unlistened { .. }).then_some(()));
    let found = w.js("findPeer", json!({ "name": "client", "key": hex(&key.0) }));
    assert_eq!(found["found"], json!(0));
}

#[test]
fn our_node_alone_carries_two_reference_peers() {
    let Some(mut w) = World::start() else { return };
    w.peers.push(Peer::first_node(10));
    let port = w.peers[0].port();
    for name in ["a", "b"] {
        w.js("node", json!({ "name": name, "bootstrap": port }));
    }
    let server = w.js("listen", json!({ "name": "a" }));
    assert_eq!(server["relays"], json!(1));
    let begin = Instant::now();
    w.js("connect", json!({ "name": "b", "key": server["key"], "text": "hello" }));
    w.js_event("connection", "a");
    assert_eq!(w.js_event("data", "a")["text"], json!("hello"));
    assert_eq!(w.js_event("data", "b")["text"], json!("echo hello"));
    eprintln!("two reference peers met through our node in {:?}", begin.elapsed());

    let topic = hex(&[0x77; 32]);
    let key = w.js("announce", json!({ "name": "a", "topic": topic }))["key"].clone();
    let found = w.js("lookup", json!({ "name": "b", "topic": topic }));
    assert_eq!(found["peers"], json!({ key.as_str().unwrap(): 1 }));
    w.js("unannounce", json!({ "name": "a", "topic": topic }));
    assert_eq!(w.js("lookup", json!({ "name": "b", "topic": topic }))["peers"], json!({}));

    let put = w.js("immutablePut", json!({ "name": "a", "text": "for ever" }));
    let got = w.js("immutableGet", json!({ "name": "b", "hash": put["hash"] }));
    assert_eq!(got["text"], json!("for ever"));
    let put = w.js("mutablePut", json!({ "name": "a", "text": "first", "seq": 1 }));
    w.js("mutablePut", json!({ "name": "a", "text": "second", "seq": 2 }));
    let got = w.js("mutableGet", json!({ "name": "b", "key": put["key"] }));
    assert_eq!((got["text"].clone(), got["seq"].clone()), (json!("second"), json!(2)));

    w.js("unlisten", json!({ "name": "a" }));
    let found = w.js("findPeer", json!({ "name": "b", "key": server["key"] }));
    assert_eq!(found["found"], json!(0));
}

#[test]
fn through_our_node_ours_and_theirs_meet_both_ways() {
    let Some(mut w) = World::start() else { return };
    w.peers.push(Peer::first_node(20));
    let port = w.peers[0].port();
    w.peers.push(Peer::ephemeral(21, port));
    w.js("node", json!({ "name": "js", "bootstrap": port }));
    let server = w.js("listen", json!({ "name": "js" }));
    w.connect_to_js(1, server["key"].as_str().unwrap(), "js");
    w.listen(1, 21);
    w.connect_from_js(1, "js");
    // And straight to the node itself, which nobody has to relay for.
    w.peers[0].dht.listen(Arc::new(pair(20)), Instant::now());
    w.js("node", json!({ "name": "other", "bootstrap": port }));
    w.connect_from_js(0, "other");
}

#[test]
fn reference_nodes_join_a_network_that_our_node_began() {
    let Some(mut w) = World::start() else { return };
    w.peers.push(Peer::first_node(30));
    let port = w.peers[0].port();
    let net = w.js("testnet", json!({ "size": 5, "bootstrap": port }));
    assert_eq!(net["persistent"], json!([true, true, true, true, true]));
    w.wait("nodes in our table", |w| (w.peers[0].dht.nodes() == 5).then_some(()));
    w.peers.push(Peer::ephemeral(31, port));
    w.listen(1, 31);
    assert_eq!(w.peers[1].dht.relay_addresses(&w.peers[1].dht.public_key()).len(), 3);
    w.js("node", json!({ "name": "client", "bootstrap": port }));
    w.connect_from_js(1, "client");
}

#[test]
fn our_second_node_joins_a_network_of_theirs_and_serves() {
    let Some(mut w) = World::start() else { return };
    let port = w.js("testnet", json!({ "size": 3 }))["port"].as_u64().unwrap() as u16;
    w.peers.push(Peer::new(40, |c, _| {
        c.persistent = true;
        c.bootstrap = vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)];
    }));
    w.event(0, "persistent", |e| matches!(e, DhtEvent::Persistent { .. }).then_some(()));
    w.js("node", json!({ "name": "a", "bootstrap": port }));
    w.js("announce", json!({ "name": "a", "topic": hex(&[0x88; 32]) }));
    assert_eq!(w.peers[0].dht.records(), 1, "they store with us");
    let server = w.js("listen", json!({ "name": "a" }));
    assert_eq!(server["relays"], json!(3));
    assert_eq!(w.peers[0].dht.records(), 2);
}

#[test]
fn from_another_host_they_dial_us_where_the_relay_sees_us() {
    let Some(mut w) = World::start() else { return };
    w.peers.push(Peer::first_node(50));
    let port = w.peers[0].port();
    w.peers.push(Peer::ephemeral(51, port));
    w.listen(1, 51);
    w.js("node", json!({ "name": "far", "bootstrap": port, "host": "127.0.0.2" }));
    w.connect_from_js(1, "far");
    // Our own datagram towards them, which would have opened a NAT, is nothing to them.
    w.js("node", json!({ "name": "near", "bootstrap": port }));
    w.connect_from_js(1, "near");
}

/// On loopback nothing has to be opened, but both sides go through all of it.
#[test]
fn a_firewalled_server_on_another_host_is_punched_to() {
    let Some(mut w) = World::start() else { return };
    w.peers.push(Peer::first_node(60));
    let port = w.peers[0].port();
    // A punch socket of the reference asks four nodes what they see.
    for n in 61..65 {
        w.peers.push(Peer::new(n, |c, addr| {
            c.bootstrap = vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)];
            c.persistent = true;
            c.address = Some(addr);
        }));
    }
    w.peers.push(Peer::ephemeral(66, port));
    let client = w.peers.len() - 1;
    w.event(client, "bootstrap", |e| matches!(e, DhtEvent::Bootstrapped { .. }).then_some(()));
    w.js("node", json!({ "name": "far", "bootstrap": port, "host": "127.0.0.2" }));
    let key = w.js("listen", json!({ "name": "far" }))["key"].clone();
    let key = PublicKey(unhex(key.as_str().unwrap()).unwrap().try_into().unwrap());
    w.peers[client].dht.connect(key, vec![], 1, Instant::now());
    let dial = w.event(client, "way", |e| match e {
        DhtEvent::Outgoing { agreed, .. } => Some(agreed.dial),
        DhtEvent::ConnectFailed { why, .. } => panic!("{why}"),
        _ => None,
    });
    assert!(dial.is_some_and(|dial| dial.to.ip().is_loopback()), "{dial:?}");
}
