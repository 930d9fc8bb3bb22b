//! Whose a request or query is, and what it was for: plain data, under which its answer is brought home.

use super::event::ConnectId;
use super::messages::RelayInfo;
use crate::key::NodeId;
use crate::swarm::dht_rpc::QueryId;
use std::net::SocketAddrV4;

/// The part that asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// The announcer of the server at this target.
    Announcer(NodeId, AnnouncerStep),
    Connect(ConnectId, ConnectStep),
    Topic(QueryId, TopicStep),
    /// The withdrawal of that number, of what a node holds at a target.
    Leave(u64, LeaveStep, (NodeId, SocketAddrV4)),
}

/// What the announcer of a key asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AnnouncerStep {
    Look,
    Announce(RelayInfo),
    Ping(SocketAddrV4),
}

/// What a connection attempt asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConnectStep {
    Find,
    Handshake { via: SocketAddrV4, road: Road },
    Lan(SocketAddrV4),
    Punch,
}

/// Which way a handshake went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Road {
    /// To where the peer itself is said to be.
    Direct,
    /// Through a relay known from before.
    Known,
    /// Through a node of the query.
    Found,
}

/// What a lookup, announcement or withdrawal of a topic asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TopicStep {
    Look,
    /// A node that showed as many peers as fit is asked for others.
    More,
    Commit,
}

/// What the withdrawal of a key asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaveStep {
    Token,
    Unannounce,
}
