//! A hub and a JavaScript Hypercore at the two ends of a pipe, in real time.

use bytes::Bytes;
use hdrive::hyper::core::{Core, SharedCore};
use hdrive::hyper::replication::{AttachOptions, ConnId, ConnInfo, CoreId, Hub, HubEvent, Limits};
use hdrive::key::{PublicKey, Topic};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const CONN: ConnId = ConnId(1);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Peer {
    pub hub: Hub,
    topics: Vec<Topic>,
    pub events: Vec<HubEvent>,
    child: Child,
    stdin: Option<ChildStdin>,
    records: Receiver<(u8, Vec<u8>)>,
    answers: Vec<Value>,
    next: u64,
}

impl Peer {
    /// `None`, with a printed reason, where the reference is not installed.
    pub fn start() -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/replication/peer.js");
        let mut child = crate::reference::node()?
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (sender, records) = channel();
        std::thread::spawn(move || {
            let mut head = [0; 5];
            while stdout.read_exact(&mut head).is_ok() {
                let len = u32::from_le_bytes(head[..4].try_into().unwrap());
                let mut payload = vec![0; len as usize];
                if stdout.read_exact(&mut payload).is_err()
                    || sender.send((head[4], payload)).is_err()
                {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        let hub = Hub::new(Limits::default());
        let topics = Vec::new();
        Some(Self { hub, topics, events: vec![], child, stdin, records, answers: vec![], next: 1 })
    }

    fn record(&mut self, kind: u8, payload: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(&(payload.len() as u32).to_le_bytes()).unwrap();
        stdin.write_all(&[kind]).unwrap();
        stdin.write_all(payload).unwrap();
    }

    /// Sends a command and gives its number.
    pub fn begin(&mut self, op: &str, mut args: Value) -> u64 {
        let id = self.next;
        self.next += 1;
        args["op"] = json!(op);
        args["id"] = json!(id);
        self.record(1, args.to_string().as_bytes());
        id
    }

    /// The answer to a command.
    pub fn end(&mut self, id: u64) -> Value {
        let found = |peer: &mut Self| {
            let at = peer.answers.iter().position(|answer| answer["id"] == json!(id))?;
            Some(peer.answers.remove(at))
        };
        self.until("an answer", found)
    }

    pub fn ask(&mut self, op: &str, args: Value) -> Value {
        let id = self.begin(op, args);
        self.end(id)
    }

    pub fn attach(&mut self, core: Core) -> (CoreId, SharedCore) {
        let shared = Arc::new(Mutex::new(core));
        let options = AttachOptions { downloading: true, small_blocks: false };
        let discovery = *shared.lock().unwrap().discovery_key();
        let id = self.hub.attach(shared.clone(), options, Instant::now());
        self.topics.push(Topic::from(discovery));
        self.meet();
        (id, shared)
    }

    /// The other side was found under the topic of each core.
    fn meet(&mut self) {
        for topic in &self.topics {
            self.hub.handle_met(CONN, *topic, Instant::now());
        }
    }

    pub fn connect(&mut self, we_begin: bool) {
        self.ask("connect", json!({ "initiator": !we_begin }));
        let info = ConnInfo {
            handshake_hash: std::array::from_fn(|i| i as u8),
            initiator: we_begin,
            remote: PublicKey([1; 32]),
        };
        self.hub.handle_connected(CONN, info, Instant::now());
        self.meet();
    }

    pub fn until_event(&mut self, event: &HubEvent) {
        let what = format!("{event:?}");
        self.until(&what, |peer| peer.events.contains(event).then_some(()));
    }

    /// Runs both sides until something is so.
    pub fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.drain();
            if let Some(found) = done(self) {
                return found;
            }
            let now = Instant::now();
            let events = &self.events;
            assert!(now < deadline, "no {what}; {events:?}");
            let at = self.hub.poll_timeout().unwrap_or(deadline).min(deadline);
            match self.records.recv_timeout(at.saturating_duration_since(now)) {
                Ok((0, frame)) => self.hub.handle_frame(CONN, Bytes::from(frame), Instant::now()),
                Ok((_, answer)) => {
                    let answer: Value = serde_json::from_slice(&answer).unwrap();
                    assert!(answer["error"].is_null() && answer["closed"].is_null(), "{answer}");
                    self.answers.push(answer);
                }
                Err(RecvTimeoutError::Timeout) => self.hub.handle_timeout(Instant::now()),
                Err(error) => panic!("the JavaScript side ended: {error}"),
            }
        }
    }

    fn drain(&mut self) {
        while let Some((_, frame)) = self.hub.poll_transmit() {
            self.record(0, frame.payload());
            self.hub.handle_queued(CONN, 0, Instant::now());
        }
        while let Some(event) = self.hub.poll_event() {
            let bad = matches!(event, HubEvent::Violation { .. } | HubEvent::StorageFailed { .. });
            assert!(!bad, "{event:?}");
            self.events.push(event);
        }
        while let Some(fork) = self.hub.poll_fork() {
            self.hub.handle_stored(fork.store(), Instant::now());
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stdin.take();
        let _ = self.child.wait();
    }
}
