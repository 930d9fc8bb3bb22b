//! What the owner of a network has in hand: how it is set up, and the commands to the thread that runs it.

use super::bootstrap::BootstrapNode;
use super::inbox::{Command, Inbox};
use super::peer_address::PeerAddress;
use crate::codec::FrameBuf;
use crate::crypto::KeyPair;
use crate::key::{PublicKey, Topic};
use crate::swarm::{ConnId, JoinOptions, Limits, RelayLimits, SwarmStatus};
#[cfg(doc)]
use crate::swarm::{Swarm, SwarmEvent};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// How a network is set up.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    pub key_pair: KeyPair,
    /// Where the main socket is bound; port 0 for any, and a taken port is replaced.
    pub bind: SocketAddrV4,
    /// Nodes to enter the DHT by.
    pub bootstrap: Vec<BootstrapNode>,
    /// Be a full node of the DHT.
    pub persistent: bool,
    /// Our public address, if known. A full node bound to one address has that; the first of a network, which
    /// nobody can tell its address, takes this machine's first.
    pub address: Option<SocketAddrV4>,
    pub limits: Limits,
    /// Relays to go through where there is no direct way.
    pub relays: Vec<PublicKey>,
    /// Call to neighbours on the local networks, and hear them.
    pub lan: bool,
}

/// Talks to a running network, from any thread. The last one to be dropped stops it.
#[derive(Clone)]
pub struct NetworkHandle {
    owner: Arc<Owner>,
}

struct Owner {
    inbox: Arc<Inbox>,
    local_addr: SocketAddrV4,
    public_key: PublicKey,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.inbox.push(Command::Stop);
    }
}

impl NetworkHandle {
    pub(super) fn new(inbox: Arc<Inbox>, local_addr: SocketAddrV4, public_key: PublicKey) -> Self {
        Self { owner: Arc::new(Owner { inbox, local_addr, public_key }) }
    }

    /// Our public address, if it was known from the start; else where the main socket is bound.
    pub fn local_addr(&self) -> SocketAddrV4 {
        self.owner.local_addr
    }

    pub fn public_key(&self) -> PublicKey {
        self.owner.public_key
    }

    /// See [`Swarm::join`].
    pub fn join(&self, topic: Topic, options: JoinOptions) {
        self.push(Command::Join(topic, options));
    }

    /// See [`Swarm::tell`]; names are looked up.
    pub fn tell(&self, addresses: Vec<PeerAddress>) {
        self.push(Command::Tell(addresses));
    }

    /// See [`Swarm::hint`].
    pub fn hint(&self, topic: Topic, nodes: Vec<SocketAddrV4>) {
        self.push(Command::Hint(topic, nodes));
    }

    /// See [`Swarm::leave`].
    pub fn leave(&self, topic: Topic) {
        self.push(Command::Leave(topic));
    }

    /// Sends one message. Answers the bytes on their way for the connection, this one included: above a
    /// bound of your own wait for [`SwarmEvent::Queued`]. 0 if the connection is gone.
    pub fn send(&self, conn: ConnId, frame: FrameBuf) -> usize {
        self.owner.inbox.push_frame(conn, frame)
    }

    /// See [`Swarm::consumed`].
    pub fn consumed(&self, conn: ConnId, bytes: usize) {
        self.push(Command::Consumed(conn, bytes));
    }

    /// See [`Swarm::close`].
    pub fn close(&self, conn: ConnId) {
        self.push(Command::Close(conn));
    }

    /// See [`Swarm::release`].
    pub fn release(&self, conn: ConnId) {
        self.push(Command::Release(conn));
    }

    /// See [`Swarm::ban`].
    pub fn ban(&self, key: PublicKey, until: Instant) {
        self.push(Command::Ban(key, until));
    }

    /// See [`Swarm::visit`].
    pub fn visit(&self, relay: PublicKey) {
        self.push(Command::Visit(relay));
    }

    /// See [`Swarm::set_relay`].
    pub fn set_relay(&self, relay: Option<(Arc<KeyPair>, RelayLimits)>) {
        self.push(Command::SetRelay(relay));
    }

    /// Asks the gateway, if it is one of a private network, for a UDP port that leads to the main socket, for as long as that
    /// is wanted. See [`super::gateway`].
    pub fn map_port(&self, wanted: bool) {
        self.push(Command::MapPort(wanted));
    }

    /// See [`Swarm::hints`]; `None` once the network has stopped.
    pub async fn hints(&self, topic: Topic) -> Option<Vec<SocketAddrV4>> {
        let (answer, hints) = oneshot::channel();
        self.push(Command::Hints(topic, answer));
        hints.await.ok()
    }

    /// The state of everything; `None` once the network has stopped.
    pub async fn status(&self) -> Option<SwarmStatus> {
        let (answer, status) = oneshot::channel();
        self.push(Command::Status(answer));
        status.await.ok()
    }

    /// Withdraws announcements, ends connections and stops. The end of the event channel says when.
    pub fn stop(&self) {
        self.push(Command::Stop);
    }

    fn push(&self, command: Command) {
        self.owner.inbox.push(command);
    }
}
