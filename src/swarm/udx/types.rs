//! What the owner of a [`super::Udx`] gives and gets.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::ORDINARY_MAX;
use crate::swarm::socket::SocketId;

#[derive(Debug, Clone)]
pub struct UdxConfig {
    /// [`UdxEvent::Writable`] comes when fewer bytes than this wait to be sent for the first time.
    pub low_water: usize,
    /// Bytes of the sockets' receive buffer, as the system reports it. Peers on this machine are offered no more than fits, since
    /// they fill it faster than this process may be scheduled, and the reference does not slow down for what is dropped.
    pub receive_buffer: usize,
}

impl Default for UdxConfig {
    fn default() -> Self {
        Self { low_water: 512 << 10, receive_buffer: 2 * super::MAX_WINDOW }
    }
}

#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Largest UDP payload the peer takes. Above [`ORDINARY_MAX`] only if it said so.
    pub max_datagram: usize,
    /// Send something at least this often.
    pub keep_alive: Option<Duration>,
    /// Nothing shows yet that the peer is at this address: so many bytes may go there, and three times what comes from
    /// there, until the peer has answered, see [`super::Udx::peer_known`]. `None`: the address is known to be the peer's.
    pub unproven: Option<u64>,
    /// Numbers agreed on elsewhere: our first packet, the peer's first packet.
    pub initial_seq: u32,
    pub initial_ack: u32,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            max_datagram: ORDINARY_MAX,
            keep_alive: None,
            unproven: None,
            initial_seq: 0,
            initial_ack: 0,
        }
    }
}

/// How to send what [`Udx::poll_transmit`] has laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    pub socket: SocketId,
    pub to: SocketAddr,
    /// The buffer holds several datagrams of this size, the last may be shorter; `None`: one datagram.
    pub segment_size: Option<usize>,
    pub ttl: Option<u8>,
    /// Too large for the path as it is now, and not to be sent in any other size: routers may take it apart.
    pub in_parts: bool,
}

impl Transmit {
    /// One datagram.
    pub const fn whole(socket: SocketId, to: SocketAddr) -> Self {
        Self { socket, to, segment_size: None, ttl: None, in_parts: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    #[error("both sides have ended")]
    Ended,
    #[error("reset by the peer")]
    Reset,
    #[error("timed out")]
    TimedOut,
    #[error("destroyed")]
    Destroyed,
    #[error("it held too much memory")]
    Overfull,
    #[error("it did not take what was sent to it")]
    Unread,
    #[error("the peer acknowledged what was never sent")]
    Forged,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UdxEvent {
    /// A packet came for a stream without a peer (once per place); the owner may connect it.
    Unconnected { id: u32, socket: SocketId, from: SocketAddr },
    /// The write queue has run below the low-water mark.
    Writable { id: u32 },
    /// The peer has shown that it is where the stream leads to: for the first time, or where it has moved to.
    Proven { id: u32 },
    /// The peer has ended its half; everything it sent was delivered.
    RemoteEnded { id: u32 },
    /// The stream leads elsewhere now: it has followed its peer, or goes back since there was no answer. Whether the
    /// peer is there is to be asked ([`Udx::ask`](super::Udx::ask)).
    Moved { id: u32, socket: SocketId, to: SocketAddr },
    /// An unordered message, and where it came from. Anybody may have sent it, see
    /// [`Udx::heard_from`](super::Udx::heard_from).
    Message { id: u32, socket: SocketId, from: SocketAddr, payload: Bytes },
    /// The stream is gone and its id free.
    Closed { id: u32, reason: CloseReason },
    /// A packet came from somewhere else than where the stream leads to and than its leg, for the first time since it has
    /// one, or has gone back to it. Anybody may have sent it.
    Elsewhere { id: u32, socket: SocketId, from: SocketAddr },
    /// The peer of a leg has ended its stream at once: the leg is gone.
    LegEnded { leg: u32 },
}

impl UdxEvent {
    /// The stream of ours that it is about.
    pub fn stream(&self) -> Option<u32> {
        match self {
            Self::Unconnected { id, .. }
            | Self::Writable { id }
            | Self::Proven { id }
            | Self::RemoteEnded { id }
            | Self::Message { id, .. }
            | Self::Closed { id, .. }
            | Self::Moved { id, .. }
            | Self::Elsewhere { id, .. } => Some(*id),
            Self::LegEnded { .. } => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("there is no such stream")]
    Unknown,
    #[error("the stream was ended")]
    Ended,
    #[error("the message does not fit a datagram")]
    TooLarge,
}

/// Figures of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    pub rtt: Option<Duration>,
    /// Bytes that may be in flight.
    pub cwnd: u64,
    /// Estimated bandwidth of the path, bytes per second.
    pub bandwidth: u64,
    pub in_flight: u64,
    /// Bytes of datagrams sent, bytes of payload received.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Packets sent again.
    pub retransmits: u64,
    /// IP packet size in use.
    pub mtu: usize,
}
