//! 64 KiB frames from one process to another over loopback, in megabytes per second, with the processor
//! time that each thread took.
//!
//! `cargo bench --bench swarm_throughput [-- SECONDS]`. The parent receives, its child sends.
#![allow(clippy::disallowed_methods, reason = "measures real time")]

use hdrive::codec::FrameBuf;
use hdrive::crypto::KeyPair;
use hdrive::key::Topic;
use hdrive::swarm::driver::{Network, NetworkConfig, NetworkHandle};
use hdrive::swarm::{ConnId, JoinOptions, Limits, SwarmEvent};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

const TOPIC: Topic = Topic([7; 32]);
const FRAME: usize = 64 * 1024;

/// The sender pauses above this many bytes on their way, as an uploader does.
const QUEUE: usize = 2 << 20;

type Events = UnboundedReceiver<Vec<SwarmEvent>>;

fn network(bootstrap: Vec<SocketAddrV4>, persistent: bool) -> (NetworkHandle, Events) {
    let config = NetworkConfig {
        key_pair: KeyPair::generate(),
        bind: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
        bootstrap: bootstrap.into_iter().map(Into::into).collect(),
        persistent,
        address: None,
        limits: Limits::default(),
        relays: Vec::new(),
        lan: false,
    };
    Network::start(config).unwrap()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match &args[..] {
        [role, bootstrap] if role == "send" => send(bootstrap.parse().unwrap()),
        _ => receive(args.first().and_then(|arg| arg.parse().ok()).unwrap_or(5)),
    }
}

/// Sends until the receiver goes.
fn send(bootstrap: SocketAddrV4) {
    let (net, mut events) = network(vec![bootstrap], false);
    net.join(TOPIC, JoinOptions { server: false, client: true });
    let mut conn = None;
    let mut sent = 0u64;
    while let Some(list) = events.blocking_recv() {
        for event in list {
            match event {
                SwarmEvent::Connected { conn: id, .. } => conn = Some(id),
                SwarmEvent::Closed { why, .. } => {
                    println!("sender: closed ({why:?}) after {} MB", sent / 1_000_000);
                    threads("sender");
                    traffic("sender", &net);
                    return;
                }
                SwarmEvent::Queued { bytes, .. } if bytes >= QUEUE => continue,
                SwarmEvent::Queued { .. } => {}
                _ => continue,
            }
            sent += conn.map_or(0, |conn| fill(&net, conn));
        }
    }
}

fn fill(net: &NetworkHandle, conn: ConnId) -> u64 {
    let mut sent = 0;
    loop {
        let mut frame = FrameBuf::with_capacity(FRAME);
        frame.grow(FRAME);
        let queued = net.send(conn, frame);
        sent += FRAME as u64;
        if queued >= QUEUE || queued == 0 {
            return sent;
        }
    }
}

fn receive(seconds: u64) {
    let first = network(vec![], true);
    let bootstrap = vec![first.0.local_addr()];
    let _nodes: Vec<_> = (0..3).map(|_| network(bootstrap.clone(), true)).collect();
    let (net, mut events) = network(bootstrap.clone(), false);
    net.join(TOPIC, JoinOptions { server: true, client: false });
    let exe = std::env::current_exe().unwrap();
    let mut child = Command::new(exe).args(["send", &bootstrap[0].to_string()]).spawn().unwrap();
    let (mut start, mut bytes, mut lists, mut frames) = (None, 0u64, 0u64, 0u64);
    let mut tick = (Instant::now(), 0u64);
    while let Some(list) = events.blocking_recv() {
        lists += 1;
        for event in list {
            if let SwarmEvent::Frame { conn, data } = event {
                start.get_or_insert_with(Instant::now);
                bytes += data.len() as u64;
                frames += 1;
                net.consumed(conn, data.len());
            }
        }
        if tick.0.elapsed() >= Duration::from_secs(1) {
            let rate = (bytes - tick.1) as f64 / tick.0.elapsed().as_secs_f64() / 1e6;
            println!("{rate:.0} MB/s");
            tick = (Instant::now(), bytes);
        }
        if start.is_some_and(|start: Instant| start.elapsed() >= Duration::from_secs(seconds)) {
            break;
        }
    }
    let elapsed = start.unwrap().elapsed().as_secs_f64();
    println!(
        "mean {:.0} MB/s, {:.1} frames per list",
        bytes as f64 / elapsed / 1e6,
        frames as f64 / lists as f64
    );
    threads("receiver");
    traffic("receiver", &net);
    net.stop();
    while events.blocking_recv().is_some() {}
    child.wait().unwrap();
}

/// What the driver counted.
fn traffic(who: &str, net: &NetworkHandle) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let status = runtime.block_on(net.status()).unwrap();
    println!("  {who} {:?}", status.traffic);
    for connection in status.connections {
        println!("  {who} rtt {:?} queued {}", connection.rtt, connection.queued);
    }
}

/// Processor time of this process's threads, user and system.
fn threads(who: &str) {
    let mut sums = std::collections::BTreeMap::<String, (f64, f64)>::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((head, tail)) = stat.rsplit_once(')') else { continue };
        let name = head.split_once('(').map_or("", |(_, name)| name).to_string();
        let fields: Vec<f64> = tail.split_whitespace().filter_map(|f| f.parse().ok()).collect();
        // Behind the name and the state (a letter, left out): utime is field 14 of proc(5), stime 15.
        let sum = sums.entry(name).or_default();
        sum.0 += fields[10] / 100.0;
        sum.1 += fields[11] / 100.0;
    }
    for (name, (user, system)) in sums {
        println!("  {who} {name}: {user:.2} s user, {system:.2} s system");
    }
}
