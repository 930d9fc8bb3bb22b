//! Real sockets on the loopback interface: two of ours, and ours with the reference.
//!
//! `cargo test --release udx::tests::loopback -- --ignored --nocapture --test-threads=1`; `make test-long` runs those with
//! the reference.

#![allow(clippy::disallowed_methods, reason = "real sockets, real time")]

use std::io::{BufRead, BufReader, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::{Child, Stdio};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};

use super::*;
use crate::reference;

/// One socket, one machine, one stream.
struct Node {
    socket: UdpSocket,
    state: UdpSocketState,
    udx: Udx,
    id: u32,
    check: Collect,
    buf: Vec<u8>,
    recv: Vec<u8>,
    closed: Option<CloseReason>,
    send_errors: u64,
    waits: u64,
    batches: u64,
    datagrams: u64,
    last: Option<Stats>,
    cpu: f64,
}

impl Node {
    fn new(id: u32, force_buffer: bool) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let state = UdpSocketState::new((&socket).into()).unwrap();
        let _ = setsockopt(&socket, sockopt::RcvBuf, &212_992);
        let _ = setsockopt(&socket, sockopt::SndBuf, &(4 << 20));
        if force_buffer {
            let _ = setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20));
            let _ = setsockopt(&socket, sockopt::SndBufForce, &(8 << 20));
        }
        let receive_buffer = getsockopt(&socket, sockopt::RcvBuf).unwrap();
        let mut udx =
            Udx::new(StdRng::from_os_rng(), UdxConfig { receive_buffer, ..UdxConfig::default() });
        udx.open(Some(id));
        Self {
            socket,
            state,
            udx,
            id,
            check: Collect::new(),
            buf: Vec::new(),
            recv: vec![0; 65_536 * BATCH_SIZE],
            closed: None,
            send_errors: 0,
            waits: 0,
            batches: 0,
            datagrams: 0,
            last: None,
            cpu: 0.0,
        }
    }

    fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    fn connect(&mut self, remote: u32, port: u16, max_datagram: usize) {
        let opts = ConnectOptions { max_datagram, ..ConnectOptions::default() };
        self.udx.connect(self.id, SocketId::MAIN, remote, address(port), opts, Instant::now());
    }

    /// Most datagrams are taken in one call per 64 KiB; returns false if nothing was there.
    fn receive(&mut self) -> bool {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut slices: Vec<_> = self.recv.chunks_mut(65_536).map(IoSliceMut::new).collect();
        let Ok(count) = self.state.recv((&self.socket).into(), &mut slices, &mut metas) else {
            return false;
        };
        let now = Instant::now();
        for (meta, slice) in metas.iter().zip(&slices).take(count) {
            let from = meta.addr;
            for datagram in slice[..meta.len].chunks(meta.stride.max(1)) {
                self.datagrams += 1;
                self.udx.handle_datagram(SocketId::MAIN, from, datagram, now, &mut self.check);
            }
        }
        self.udx.end_of_batch(now);
        self.batches += 1;
        true
    }

    fn send(&mut self) {
        while let Some(transmit) =
            self.udx.poll_transmit(Instant::now(), &mut self.buf, self.state.max_gso_segments())
        {
            let datagram = quinn_udp::Transmit {
                destination: transmit.to,
                ecn: None,
                contents: &self.buf,
                segment_size: transmit.segment_size,
                src_ip: None,
            };
            while let Err(error) = self.state.try_send((&self.socket).into(), &datagram) {
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    self.send_errors += 1;
                    let size = transmit.segment_size.unwrap_or(self.buf.len());
                    self.udx.handle_send_error(transmit.socket, transmit.to, size, Instant::now());
                    break;
                }
                let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                ppoll(&mut fds, None, None).unwrap();
            }
        }
    }

    fn wait(&mut self) {
        self.waits += 1;
        let limit = Duration::from_millis(100);
        let left = self
            .udx
            .poll_timeout()
            .map_or(limit, |at| at.saturating_duration_since(Instant::now()));
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        ppoll(&mut fds, Some(TimeSpec::from(left.min(limit))), None).unwrap();
    }

    /// Sends `total` bytes (if any), takes what comes, until both halves have ended.
    fn run(&mut self, total: u64) {
        let began = super::bench::cpu();
        let mut written = 0;
        if total == 0 {
            self.udx.end(self.id);
        }
        while self.closed.is_none() {
            while written < total && self.udx.unsent(self.id) < 512 << 10 {
                let len = (total - written).min(65_536) as usize;
                self.udx.write(self.id, payload(written, len), Instant::now()).unwrap();
                written += len as u64;
                if written == total {
                    self.udx.end(self.id);
                }
            }
            self.send();
            if !self.receive() {
                self.wait();
            }
            let now = Instant::now();
            if self.udx.poll_timeout().is_some_and(|at| at <= now) {
                self.udx.handle_timeout(now);
            }
            while let Some(event) = self.udx.poll_event() {
                if let UdxEvent::Closed { reason, .. } = event {
                    self.closed = Some(reason);
                }
            }
            self.last = self.udx.stats(self.id).or(self.last.take());
        }
        self.send();
        self.cpu = super::bench::cpu() - began;
    }
}

/// MB/s between two of ours, each in its own thread.
fn ours(total: u64, max_datagram: usize, force_buffer: bool) -> f64 {
    source();
    let (mut a, mut b) = (Node::new(1, force_buffer), Node::new(2, force_buffer));
    a.connect(2, b.port(), max_datagram);
    b.connect(1, a.port(), max_datagram);
    let start = Instant::now();
    let receiver = std::thread::spawn(move || {
        b.run(0);
        b
    });
    a.run(total);
    let b = receiver.join().unwrap();
    let rate = total as f64 / start.elapsed().as_secs_f64() / 1e6;
    assert!(b.check.intact && b.check.bytes == total, "{} of {total}", b.check.bytes);
    assert_eq!((a.closed, b.closed), (Some(CloseReason::Ended), Some(CloseReason::Ended)));
    println!(
        "{max_datagram} forced {force_buffer}: {rate:.0} MB/s, CPU {:.2} + {:.2} s, waits {} {}, {:?}, errors {}",
        a.cpu, b.cpu, a.waits, b.waits, a.last, a.send_errors
    );
    rate
}

#[test]
#[ignore = "a measurement"]
fn ours_with_ours() {
    for force_buffer in [false, true] {
        for max_datagram in [ORDINARY_MAX, 9000, 16_500, 32_000, MAX_DATAGRAM] {
            ours(1 << 30, max_datagram, force_buffer);
        }
    }
}

/// None, and told, where the reference is not here.
fn reference(mode: &str, port: u16, total: u64) -> Option<(Child, impl Iterator<Item = String>)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/udx.js");
    let mut child = reference::node()?
        .args([script, mode, &port.to_string(), &total.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    Some((child, lines))
}

/// Runs against the reference, if it is here, which saw what `wanted` says.
fn with_reference(mode: &str, total: u64, wanted: &str) {
    let mut node = Node::new(1, false);
    let Some((mut child, mut lines)) = reference(mode, node.port(), total) else { return };
    let port: u16 = lines.next().unwrap().strip_prefix("port ").unwrap().parse().unwrap();
    node.connect(2, port, ORDINARY_MAX);
    let start = Instant::now();
    node.run(if mode == "receive" { total } else { 0 });
    let rate = total as f64 / start.elapsed().as_secs_f64() / 1e6;
    let result = lines.last().unwrap();
    child.wait().unwrap();
    println!(
        "reference {mode}s: {rate:.0} MB/s; it says: {result}; we: {} datagrams in {} batches, {:?}",
        node.datagrams, node.batches, node.last
    );
    assert_eq!(node.closed, Some(CloseReason::Ended));
    assert!(node.check.intact);
    if mode == "send" {
        assert_eq!(node.check.bytes, total);
    }
    assert!(result.starts_with(wanted), "{result}");
}

#[test]
#[ignore = "long: make test-long"]
fn the_reference_receives() {
    for _ in 0..3 {
        with_reference("receive", 64 << 20, "seen 67108864 true mtu");
    }
}

#[test]
#[ignore = "long: make test-long"]
fn the_reference_sends() {
    for _ in 0..3 {
        with_reference("send", 64 << 20, "seen 0 true mtu");
    }
}
