//! Commands from any thread to the network thread, and its alarm bell.
//!
//! A command is pushed under a lock that nobody holds for long; only the one that finds the inbox empty
//! rings, and only if the thread may be asleep. The bell is a socket pair, so that the thread can wait
//! for it and for its UDP sockets in one call.

use super::bootstrap::LookUp;
use super::peer_address::PeerAddress;
use crate::codec::FrameBuf;
use crate::crypto::KeyPair;
use crate::key::{PublicKey, Topic};
use crate::swarm::{ConnId, JoinOptions, PortMappingStatus, RelayLimits, SwarmStatus};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::oneshot;

/// What the owner wants.
pub enum Command {
    Join(Topic, JoinOptions),
    Leave(Topic),
    Send(ConnId, FrameBuf),
    Consumed(ConnId, usize),
    Close(ConnId),
    Release(ConnId),
    Ban(PublicKey, Instant),
    Visit(PublicKey),
    SetRelay(Option<(Arc<KeyPair>, RelayLimits)>),
    /// A name of a bootstrap node was looked up.
    Found(LookUp, io::Result<Vec<Ipv4Addr>>),
    /// Peers may be there.
    Tell(Vec<PeerAddress>),
    /// A name of a peer was looked up.
    Reached(PeerAddress, io::Result<Vec<SocketAddr>>),
    /// A key says so much about where peers of a topic are.
    Hint(Topic, Vec<SocketAddrV4>),
    /// A port of the gateway is wanted, or not any more.
    MapPort(bool),
    /// How that stands.
    PortMapping(PortMappingStatus),
    Hints(Topic, oneshot::Sender<Vec<SocketAddrV4>>),
    Status(oneshot::Sender<SwarmStatus>),
    Stop,
}

/// Bytes on their way out of one connection.
#[derive(Debug, Default, Clone, Copy)]
struct Gauge {
    /// In commands that the network thread has not taken yet.
    pending: usize,
    /// Queued in the stream, as the network thread said last.
    queued: usize,
}

#[derive(Default)]
struct State {
    commands: Vec<Command>,
    /// Open connections only: the network thread adds and removes them.
    gauges: BTreeMap<ConnId, Gauge>,
    /// The thread has gone to sleep, or is about to: ring.
    asleep: bool,
    closed: bool,
}

/// Shared by the handles and the thread.
pub struct Inbox {
    state: Mutex<State>,
    bell: UnixStream,
    ear: UnixStream,
}

impl Inbox {
    pub fn new() -> io::Result<Self> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        Ok(Self { state: Mutex::default(), bell, ear })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // The lock is never held across code that could panic.
        crate::lock::lock(&self.state)
    }

    /// Hands a command over. `false` if the network is down.
    pub fn push(&self, command: Command) -> bool {
        let mut state = self.state();
        if state.closed {
            return false;
        }
        state.commands.push(command);
        let ring = std::mem::take(&mut state.asleep);
        drop(state);
        if ring {
            self.ring();
        }
        true
    }

    /// Hands a message over and answers the bytes then on their way for its connection.
    pub fn push_frame(&self, conn: ConnId, frame: FrameBuf) -> usize {
        let mut state = self.state();
        let len = frame.len();
        let Some(gauge) = state.gauges.get_mut(&conn) else { return 0 };
        gauge.pending += len;
        let queued = gauge.pending + gauge.queued;
        state.commands.push(Command::Send(conn, frame));
        let ring = std::mem::take(&mut state.asleep);
        drop(state);
        if ring {
            self.ring();
        }
        queued
    }

    fn ring(&self) {
        // A full pipe means that it rings already.
        let _ = (&self.bell).write(&[1]);
    }

    /// Takes all commands, in order, into the empty `into`. What they send counts as queued from here on.
    pub fn take(&self, into: &mut Vec<Command>) {
        let mut state = self.state();
        state.asleep = false;
        std::mem::swap(&mut state.commands, into);
        for command in &*into {
            if let Command::Send(conn, frame) = command
                && let Some(gauge) = state.gauges.get_mut(conn)
            {
                gauge.pending = gauge.pending.saturating_sub(frame.len());
                gauge.queued += frame.len();
            }
        }
    }

    /// Says that the thread is about to wait. `false` if it must not, as there are commands.
    pub fn sleep(&self) -> bool {
        let mut state = self.state();
        state.asleep = state.commands.is_empty();
        state.asleep
    }

    /// Stops the bell.
    pub fn hush(&self) {
        let mut sink = [0; 64];
        while matches!((&self.ear).read(&mut sink), Ok(n) if n == sink.len()) {}
    }

    /// What to wait on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.ear.as_fd()
    }

    /// From now on messages for `conn` are taken. One that was spoken to early opens twice, and what is on its way counts on.
    pub fn open(&self, conn: ConnId) {
        self.state().gauges.entry(conn).or_default();
    }

    pub fn close(&self, conn: ConnId) {
        self.state().gauges.remove(&conn);
    }

    /// The stream of `conn` holds `queued` bytes. Answers all that are on their way.
    pub fn set_queued(&self, conn: ConnId, queued: usize) -> usize {
        let mut state = self.state();
        let Some(gauge) = state.gauges.get_mut(&conn) else { return queued };
        gauge.queued = queued;
        gauge.pending + gauge.queued
    }

    /// The thread ends: no more commands.
    pub fn shut(&self) {
        let mut state = self.state();
        state.closed = true;
        state.commands.clear();
        state.gauges.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bell_rings_once_for_a_sleeper() {
        let inbox = Inbox::new().unwrap();
        assert!(inbox.sleep());
        assert!(inbox.push(Command::Stop));
        assert!(inbox.push(Command::Stop));
        let mut byte = [0; 8];
        assert_eq!((&inbox.ear).read(&mut byte).unwrap(), 1);
        assert!(!inbox.sleep(), "there are commands");
        let mut taken = Vec::new();
        inbox.take(&mut taken);
        assert_eq!(taken.len(), 2);
        assert!(inbox.sleep());
    }

    #[test]
    fn the_gauge_counts_what_waits_and_what_is_queued() {
        let inbox = Inbox::new().unwrap();
        let conn = ConnId(1);
        assert_eq!(inbox.push_frame(conn, FrameBuf::from(&[0; 10][..])), 0, "not open");
        inbox.open(conn);
        assert_eq!(inbox.push_frame(conn, FrameBuf::from(&[0; 10][..])), 10);
        assert_eq!(inbox.push_frame(conn, FrameBuf::from(&[0; 10][..])), 20);
        let mut taken = Vec::new();
        inbox.take(&mut taken);
        inbox.open(conn);
        assert_eq!(inbox.push_frame(conn, FrameBuf::from(&[0; 5][..])), 25);
        assert_eq!(inbox.set_queued(conn, 7), 12);
        inbox.close(conn);
        assert_eq!(inbox.push_frame(conn, FrameBuf::from(&[0; 5][..])), 0);
    }
}
