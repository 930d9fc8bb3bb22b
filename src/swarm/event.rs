//! What the swarm is told at the start, and what it tells its owner.

use super::conn_id::ConnId;
use super::lan::{Hearing, LinkStatus};
use super::port_mapping::PortMappingStatus;
use super::secret_stream::frame::FrameError;
use super::standing::Standing;
use super::topic::TopicStatus;
use super::udx;
use crate::crypto::KeyPair;
use crate::key::{PublicKey, Topic};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

/// How a swarm is set up.
#[derive(Debug, Clone)]
pub struct SwarmConfig {
    /// Our identity: whom others connect to, and who announces.
    pub key_pair: KeyPair,
    /// Nodes to enter the DHT by.
    pub bootstrap: Vec<SocketAddrV4>,
    /// Be a full node of the DHT from the start: known address, no firewall in front.
    pub persistent: bool,
    /// Our public address, if known; the first node of a DHT must be told.
    pub address: Option<SocketAddrV4>,
    /// Where peers of the same network may reach the main socket.
    pub local_addresses: Vec<SocketAddrV4>,
    /// The wall clock at the start, in milliseconds since 1970.
    pub unix_ms: u64,
    pub limits: Limits,
    /// Relays to go through where there is no direct way.
    pub relays: Vec<PublicKey>,
}

/// How much of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections above which we dial nobody any more, but still accept.
    pub max_peers: usize,
    /// Dials at a time of peers that were dialled in vain before, once there is a connection to a peer of a joined
    /// topic.
    pub max_parallel: usize,
    /// The same while there is none; and dials at a time, at any time, of those not dialled before, as far as they are
    /// no older than [`super::dialling::KNOCK`].
    pub max_parallel_first: usize,
    /// Dials at a time of peers not dialled before where a topic has few peers or none: records of the dead must not
    /// keep somebody waiting who is there.
    pub max_sought: usize,
    /// Connections above which none are accepted.
    pub max_connections: usize,
}

impl Default for Limits {
    /// `max_peers` and `max_parallel` as the reference; it accepts without limit.
    fn default() -> Self {
        Self {
            max_peers: 64,
            max_parallel: 3,
            max_parallel_first: 8,
            max_sought: 48,
            max_connections: 256,
        }
    }
}

/// Something the owner must know.
#[derive(Debug)]
pub enum SwarmEvent {
    /// The DHT answers.
    Ready,
    /// Our public address, as a full node, is another one.
    Moved { address: SocketAddrV4 },
    /// A peer that we dialled is being written to, and most likely there: what is sent now need not wait for its first
    /// word. [`Self::Connected`] or [`Self::Closed`] follows.
    Reaching {
        conn: ConnId,
        remote: PublicKey,
        handshake_hash: [u8; 64],
        /// Joined topics under which it was found.
        topics: Vec<Topic>,
    },
    /// A connection is open; frames may be sent.
    Connected {
        conn: ConnId,
        remote: PublicKey,
        /// Names the session on both sides.
        handshake_hash: [u8; 64],
        /// We dialled.
        initiator: bool,
        addr: SocketAddr,
        /// Joined topics under which the peer was found; none for a stranger who dialled us.
        topics: Vec<Topic>,
    },
    /// The peer of a connection was found under a joined topic, again perhaps.
    Met { conn: ConnId, topic: Topic },
    /// One message, decrypted. [`super::Swarm::consumed`] must follow sooner or later.
    Frame { conn: ConnId, data: Bytes },
    /// The peer of a connection is at another address now.
    PeerMoved { conn: ConnId, addr: SocketAddr },
    /// The bytes queued for a connection fell or rose to this.
    Queued { conn: ConnId, bytes: usize },
    /// The connection is gone. Its name is never used again.
    Closed { conn: ConnId, why: Closed },
    /// A round of looking for peers of a topic ended.
    Round { topic: Topic, found: usize, announced: bool },
    /// Every peer that a round of the topic found is connected or has failed once. Who waits for a first
    /// peer may give up now, as `connected` of them are there; the swarm goes on trying.
    Settled { topic: Topic, connected: usize },
    /// The announcement of our relay was renewed at so many nodes.
    RelayListens { relays: usize },
    /// A topic is looked for where just before nobody could be asked. It is all the same, but who only wants to know
    /// whether it is worth while to wait need not find that out anew.
    Alone { topic: Topic },
    /// A peer could not be reached.
    DialFailed { remote: PublicKey, why: String },
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// We closed it.
    Local,
    /// We wrote to its peer, who was not there.
    Unreached,
    /// The peer ended the stream in good order.
    RemoteEnded,
    /// The peer is connected twice; the other connection stays.
    Duplicate,
    /// The peer is banned.
    Banned,
    /// The encrypted stream broke.
    Frame(FrameError),
    /// The stream under it ended.
    Stream(udx::CloseReason),
}

/// A connection as a person may want to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionStatus {
    pub conn: ConnId,
    pub remote: PublicKey,
    pub initiator: bool,
    pub open: bool,
    pub addr: Option<SocketAddr>,
    /// Its peer is on a local network of ours.
    pub near: bool,
    /// The relay that it goes through.
    pub relay: Option<PublicKey>,
    /// Bytes of messages.
    pub received: u64,
    pub sent: u64,
    /// Of each a second, over the last seconds before [`super::Swarm::measure`].
    pub receiving: u64,
    pub sending: u64,
    pub queued: usize,
    pub rtt: Option<Duration>,
}

/// What we are as a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayingStatus {
    pub key: PublicKey,
    /// Peers who came to have something passed on, and pairs of them for which it is.
    pub customers: usize,
    pub pairs: usize,
    /// Bytes of datagrams, since the start, and a second as above.
    pub passed: u64,
    pub passing: u64,
}

/// A relay that we go through, or are on our way to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayStatus {
    pub key: PublicKey,
    /// It answered as a relay does.
    pub serves: bool,
    pub addr: Option<SocketAddr>,
    pub rtt: Option<Duration>,
}

/// The peers that were found under a joined topic, as far as they are remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reachability {
    /// Connections that are open.
    pub connected: usize,
    /// Dials under way or queued.
    pub dialling: usize,
    /// Peers that were dialled in vain, last.
    pub failed: usize,
    /// Why the last of those could not be reached.
    pub why: Option<String>,
    /// Where we were told that somebody is, and nobody who has it answers.
    pub silent: Vec<SocketAddr>,
}

/// What the driver did since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Turns of the loop, and how many of them ended in waiting.
    pub turns: u64,
    pub waits: u64,
    /// Runs of datagrams received, and their bytes.
    pub received: u64,
    pub received_bytes: u64,
    /// Runs of datagrams sent, and their bytes.
    pub sent: u64,
    pub sent_bytes: u64,
    /// Sends that found the kernel's buffer full.
    pub blocked: u64,
    /// The system's error number for the last send to somebody beyond the local networks, or to a node to enter the DHT by,
    /// that had no way to go, if none had since.
    pub no_way: Option<i32>,
}

/// The state of everything, for people and tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwarmStatus {
    pub ready: bool,
    pub listening: bool,
    pub standing: Standing,
    /// Nodes of the DHT that we know.
    pub nodes: usize,
    /// Nodes that pass handshakes on to us.
    pub relays: Vec<SocketAddrV4>,
    pub peers_known: usize,
    pub peers_queued: usize,
    pub connections: Vec<ConnectionStatus>,
    /// Relays with a connection, whether open or being made.
    pub visited: Vec<RelayStatus>,
    /// Relays that we were told of and were found nowhere, or are none.
    pub absent_relays: Vec<PublicKey>,
    /// If we are one for others.
    pub relaying: Option<RelayingStatus>,
    pub topics: Vec<TopicStatus>,
    /// How the peers of each of these stand.
    pub reachability: BTreeMap<Topic, Reachability>,
    /// The local networks on which neighbours are called; this machine's own where there is no other.
    pub links: Vec<LinkStatus>,
    /// These are filled in by the driver.
    /// There is a local network, on which neighbours are called.
    pub local_network: bool,
    pub port_mapping: PortMappingStatus,
    pub traffic: Traffic,
    /// Where peers may be, as people said, that has no address.
    pub nameless: Vec<String>,
}

impl SwarmStatus {
    /// Whether calls to neighbours are heard on any local network.
    pub fn hearing(&self) -> Hearing {
        let is = |hearing| self.links.iter().any(|link| link.hearing == hearing);
        match (is(Hearing::Heard), is(Hearing::Unknown)) {
            (true, _) => Hearing::Heard,
            (false, false) if is(Hearing::Unheard) => Hearing::Unheard,
            _ => Hearing::Unknown,
        }
    }
}
