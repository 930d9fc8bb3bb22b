//! How fast two drivers move frames over loopback, without the DHT: `cargo test --release --lib
//! loopback_throughput -- --ignored --nocapture`.

use super::*;
use crate::codec::FrameBuf;
use crate::crypto::KeyPair;
use crate::swarm::Limits;
use crate::swarm::tests::agree;
use std::net::Ipv4Addr;

const FRAME: usize = 64 * 1024;
const QUEUE: usize = 2 << 20;

type Events = mpsc::UnboundedReceiver<Vec<SwarmEvent>>;

fn driver() -> (Driver, NetworkHandle, Events) {
    let bind = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let config = NetworkConfig {
        key_pair: KeyPair::generate(),
        bind,
        bootstrap: vec![],
        persistent: false,
        address: None,
        limits: Limits::default(),
        relays: Vec::new(),
        lan: false,
    };
    let socket = Socket::bind(bind.into()).unwrap();
    let local_addr = main_addr(socket.local_addr().unwrap()).unwrap();
    let inbox = Arc::new(Inbox::new().unwrap());
    let public_key = PublicKey(config.key_pair.public());
    let (events, receiver) = mpsc::unbounded_channel();
    let handle = NetworkHandle::new(inbox.clone(), local_addr, public_key);
    (Driver::new(config, socket, local_addr, inbox, events), handle, receiver)
}

#[test]
#[ignore = "measures"]
fn loopback_throughput() {
    let (mut a, to_a, mut from_a) = driver();
    let (mut b, to_b, mut from_b) = driver();
    agree(&mut a.swarm, &mut b.swarm, to_b.local_addr(), 1, Instant::now());
    std::thread::Builder::new().name("net-a".into()).spawn(move || a.run()).unwrap();
    std::thread::Builder::new().name("net-b".into()).spawn(move || b.run()).unwrap();
    let send = move || {
        let mut conn = None;
        while let Some(list) = from_a.blocking_recv() {
            for event in list {
                match event {
                    SwarmEvent::Connected { conn: id, .. } => conn = Some(id),
                    SwarmEvent::Queued { bytes, .. } if bytes < QUEUE => {}
                    _ => continue,
                }
                loop {
                    let mut frame = FrameBuf::with_capacity(FRAME);
                    frame.grow(FRAME);
                    let queued = conn.map_or(0, |conn| to_a.send(conn, frame));
                    if queued == 0 || queued >= QUEUE {
                        break;
                    }
                }
            }
        }
    };
    std::thread::Builder::new().name("owner-a".into()).spawn(send).unwrap();
    let (mut bytes, start) = (0, Instant::now());
    while start.elapsed() < Duration::from_secs(4) {
        for event in from_b.blocking_recv().unwrap() {
            if let SwarmEvent::Frame { conn, data } = event {
                bytes += data.len();
                to_b.consumed(conn, data.len());
            }
        }
    }
    println!("{:.0} MB/s", bytes as f64 / start.elapsed().as_secs_f64() / 1e6);
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let Some((head, tail)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = tail.split_whitespace().collect();
        println!("{head}: user {}0 ms, system {}0 ms", fields[11], fields[12]);
    }
}
