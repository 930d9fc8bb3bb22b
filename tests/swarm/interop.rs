//! Against the JavaScript reference on loopback, each side in each role.
//!
//! Skipped with a printed reason where it is not installed.

use crate::common::{PATIENCE, Peer};
use hdrive::key::{Topic, hex};
use hdrive::swarm::{ConnId, JoinOptions, SwarmEvent};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;
use tokio::sync::mpsc;

const TOPIC: Topic = Topic([42; 32]);

/// A node process that runs `tests/interop/js/swarm.js`.
struct Js {
    child: Child,
    stdin: ChildStdin,
    lines: mpsc::UnboundedReceiver<Value>,
    bootstrap: Vec<SocketAddrV4>,
    key: String,
}

impl Js {
    async fn start() -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/js/swarm.js");
        let mut command = crate::reference::node()?;
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let (stdin, stdout) = (child.stdin.take()?, child.stdout.take()?);
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).expect(&line));
            }
        });
        let mut js = Self { child, stdin, lines, bootstrap: vec![], key: String::new() };
        let ready = js.until("ready").await;
        let ports = ready["bootstrap"].as_array()?.iter().filter_map(Value::as_u64);
        js.bootstrap =
            ports.map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port as u16)).collect();
        js.key = ready["key"].as_str()?.to_string();
        Some(js)
    }

    fn tell(&mut self, command: Value) {
        writeln!(self.stdin, "{command}").unwrap();
    }

    /// The next event of this name; others are dropped.
    async fn until(&mut self, name: &str) -> Value {
        loop {
            let line = tokio::time::timeout(PATIENCE, self.lines.recv()).await;
            let event = line.unwrap_or_else(|_| panic!("no {name}")).expect("node ended");
            if event["event"] == name {
                return event;
            }
        }
    }

    async fn join(&mut self, server: bool) {
        let topic = hex(&TOPIC.0);
        self.tell(json!({"cmd": "join", "topic": topic, "server": server, "client": !server}));
        self.until("flushed").await;
    }
}

impl Drop for Js {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both ends of a connection in which the reference is server or client.
async fn connect(js: &mut Js, js_is_server: bool) -> (Peer, ConnId) {
    let mut ours = Peer::start(&js.bootstrap, false);
    let options = JoinOptions { server: !js_is_server, client: js_is_server };
    if js_is_server {
        js.join(true).await;
        ours.net.join(TOPIC, options);
    } else {
        ours.net.join(TOPIC, options);
        let announced = |event: &SwarmEvent| {
            matches!(event, SwarmEvent::Round { announced: true, .. }).then_some(())
        };
        ours.until(announced).await;
        js.join(false).await;
    }
    let opened = |event: &SwarmEvent| match event {
        SwarmEvent::Connected { conn, remote, handshake_hash, initiator, .. } => {
            Some((*conn, hex(&remote.0), hex(handshake_hash), *initiator))
        }
        _ => None,
    };
    let (conn, remote, hash, initiator) = ours.until(opened).await;
    assert_eq!((remote, initiator), (js.key.clone(), js_is_server));
    let theirs = js.until("connection").await;
    assert_eq!(theirs["hash"], hash);
    assert_eq!(theirs["initiator"], !js_is_server);
    assert_eq!(theirs["key"], hex(&ours.net.public_key().0));
    (ours, conn)
}

/// Messages of all sizes go there and come back reversed.
async fn echo(js: &mut Js, ours: &mut Peer, conn: ConnId) {
    for len in [1usize, 15, 16, 17, 1000, 1452, 65_536, 1 << 20, 5 << 20] {
        let mut data: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
        let sum = data.iter().fold(0u32, |sum, &b| sum.wrapping_mul(31).wrapping_add(b.into()));
        ours.send(conn, &data);
        let there = js.until("message").await;
        assert_eq!((&there["bytes"], &there["sum"]), (&json!(len), &json!(sum)));
        data.reverse();
        assert!(ours.frame(conn).await == data, "{len} bytes came back wrong");
    }
}

#[tokio::test]
async fn the_reference_finds_us_and_echoes() {
    let Some(mut js) = Js::start().await else { return };
    let (mut ours, conn) = connect(&mut js, false).await;
    echo(&mut js, &mut ours, conn).await;
    let key = hex(&ours.net.public_key().0);
    js.tell(json!({"cmd": "send", "key": key, "bytes": 100_000, "fill": 9}));
    assert!(ours.frame(conn).await == vec![9; 100_000]);
}

#[tokio::test]
async fn we_find_the_reference_and_it_echoes() {
    let Some(mut js) = Js::start().await else { return };
    let (mut ours, conn) = connect(&mut js, true).await;
    echo(&mut js, &mut ours, conn).await;
}

#[tokio::test]
async fn silence_does_not_end_a_connection_with_the_reference() {
    let Some(mut js) = Js::start().await else { return };
    let (mut ours, conn) = connect(&mut js, true).await;
    // Twice the reference's keep-alive, and some.
    let closed = ours.until(|event| matches!(event, SwarmEvent::Closed { .. }).then_some(()));
    assert!(tokio::time::timeout(Duration::from_secs(12), closed).await.is_err());
    ours.send(conn, b"still there");
    assert_eq!(ours.frame(conn).await, b"ereht llits");
}

#[tokio::test]
async fn both_sides_end_in_good_order_with_the_reference() {
    let Some(mut js) = Js::start().await else { return };
    let (ours, conn) = connect(&mut js, true).await;
    ours.net.close(conn);
    js.until("close").await;

    let Some(mut js) = Js::start().await else { return };
    let (mut ours, _) = connect(&mut js, false).await;
    js.tell(json!({"cmd": "close", "key": hex(&ours.net.public_key().0)}));
    ours.until(|event| matches!(event, SwarmEvent::Closed { .. }).then_some(())).await;
    js.until("close").await;
}
