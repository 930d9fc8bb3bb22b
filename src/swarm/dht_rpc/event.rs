//! What the owner decides about a node and asks of it, and what the node tells its owner.

use super::message::{self, Request, Token, error};
use super::{Access, QueryId, Reply};
use crate::key::NodeId;
use crate::swarm::socket::SocketId;
use std::net::SocketAddrV4;

/// Retries of an ordinary request: four datagrams in all.
pub const RETRIES: u8 = 3;

/// A datagram to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    pub socket: SocketId,
    pub to: SocketAddrV4,
    pub bytes: Vec<u8>,
    pub ttl: Option<u8>,
}

/// What the owner decides about a node.
#[derive(Debug, Clone)]
pub struct RpcConfig {
    /// Nodes to start from.
    pub bootstrap: Vec<SocketAddrV4>,
    /// Serve others from the start: have an id as soon as our address is known. Who is not told to does so when it was
    /// found to be open for long ([`super::probe`]).
    pub persistent: bool,
    /// Our public address, if the owner knows it. The first node of a network must be told.
    pub address: Option<SocketAddrV4>,
    /// Talk to nodes at private, loopback and test addresses.
    pub allow_bogons: bool,
}

/// Handle of one of the owner's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One request to one node.
#[derive(Debug, Clone)]
pub struct Ask {
    pub to: SocketAddrV4,
    pub internal: bool,
    pub command: u64,
    pub target: Option<NodeId>,
    pub token: Option<Token>,
    pub value: Option<Vec<u8>>,
    pub retries: u8,
    /// Somebody waits for the answer: it is asked once more, soon.
    pub hasty: bool,
    pub socket: SocketId,
}

impl Ask {
    pub fn new(to: SocketAddrV4, command: u64) -> Self {
        Self {
            to,
            internal: false,
            command,
            target: None,
            token: None,
            value: None,
            retries: RETRIES,
            hasty: false,
            socket: SocketId::MAIN,
        }
    }

    /// A dht PING.
    pub fn ping(to: SocketAddrV4) -> Self {
        Self { internal: true, ..Self::new(to, message::internal::PING) }
    }
}

/// A request from another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    pub socket: SocketId,
    pub from: SocketAddrV4,
    /// The sender's id, if it is really its own.
    pub id: Option<NodeId>,
    /// Its token, if any, has been checked.
    pub request: Request,
}

/// What an answer carries besides its value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extras {
    pub error: u64,
    /// A token, so that the requester may store something.
    pub token: bool,
    /// Nodes near the target.
    pub closer: bool,
}

impl Extras {
    /// Just the value.
    pub const BARE: Self = Self { error: error::NONE, token: false, closer: false };
    /// What a reply to a query carries.
    pub const QUERY: Self = Self { error: error::NONE, token: true, closer: true };
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RpcEvent {
    /// The first look around is over.
    Bootstrapped,
    /// We have an id from now on.
    Persistent(NodeId),
    /// We have none any more: nobody can rely on us.
    Ephemeral,
    /// Others can send to us unasked from now on, or cannot.
    Access(Access),
    /// What others know of our address is not so any more.
    Moved,
    /// The socket of a probe is needed no more.
    ProbeOver,
    /// Whom the main socket leaves alone are others now, or none any more.
    Released,
    /// The machine slept: whatever others keep for us may have faded.
    WokeUp,
    /// Nobody was there, and somebody is: what failed meanwhile may succeed.
    Met,
    /// The network went or came back, or is in bad shape.
    Health { online: bool, degraded: bool },
    /// A request that is not one of [`message::internal`].
    Request(Incoming),
    /// The answer to a request of the owner.
    Response { id: RequestId, reply: Reply },
    /// A request of the owner was not answered.
    Timeout { id: RequestId },
    /// One good answer within a query.
    QueryReply { query: QueryId, reply: Reply },
    /// The query is over; the nearest good answers, nearest first.
    QueryDone { query: QueryId, closest: Vec<Reply> },
}
