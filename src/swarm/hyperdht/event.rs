//! What the owner decides about a node, and what the node tells its owner.

use super::messages::{NoisePayload, RelayOffer};
use crate::crypto::KeyPair;
use crate::key::{NodeId, PublicKey, Topic};
use crate::swarm::dht_rpc::{Access, QueryId, bogon};
use crate::swarm::secret_stream::noise::SessionKeys;
use crate::swarm::socket::SocketId;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the owner decides about the node.
#[derive(Debug, Clone)]
pub struct DhtConfig {
    /// Our identity: connects, and announces topics.
    pub key_pair: Arc<KeyPair>,
    /// Nodes to start from; empty for the first node of a network.
    pub bootstrap: Vec<SocketAddrV4>,
    /// Be a node for others: has an id, stores, relays. Needs an address that everybody can reach.
    pub persistent: bool,
    /// Our public address, if known; the first node of a network must be told.
    pub address: Option<SocketAddrV4>,
    /// Addresses of [`SocketId::MAIN`] on the local networks, with its port. If it is bound to loopback,
    /// that one.
    pub local_addresses: Vec<SocketAddrV4>,
    /// Use nodes at private, loopback and test addresses: private networks and laboratories.
    pub allow_bogons: bool,
    /// We take datagrams up to the UDP limit; said to peers, of whom only ours understand.
    pub big_datagrams: bool,
    /// The wall clock when the machine is made, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Relays that peers who come to us are to go through, where they cannot otherwise.
    pub relays: Vec<PublicKey>,
    /// Our own relay, which others may go through.
    pub relay: Option<RelayOffer>,
}

impl DhtConfig {
    /// An ephemeral node. Private and test addresses are allowed if a bootstrap node has one.
    pub fn new(key_pair: KeyPair, bootstrap: Vec<SocketAddrV4>) -> Self {
        Self {
            key_pair: Arc::new(key_pair),
            allow_bogons: bootstrap.iter().any(|b| bogon::is_bogon(b.ip())),
            bootstrap,
            persistent: false,
            address: None,
            local_addresses: Vec::new(),
            big_datagrams: false,
            unix_ms: 0,
            relays: Vec::new(),
            relay: None,
        }
    }

    /// A persistent node at `address`.
    pub fn persistent(
        key_pair: KeyPair,
        bootstrap: Vec<SocketAddrV4>,
        address: SocketAddrV4,
    ) -> Self {
        let mut config = Self::new(key_pair, bootstrap);
        config.persistent = true;
        config.allow_bogons |= bogon::is_bogon(address.ip());
        config.address = Some(address);
        config
    }
}

/// Handle of a connection attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectId(pub u64);

/// Why no connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("nobody knows this peer: it is not announced")]
    PeerNotFound,
    #[error("the peer is announced but did not answer")]
    PeerConnectionFailed,
    #[error("too many others are announced at the same relays")]
    RelaysBusy,
    #[error("the peer's answer is garbled")]
    HandshakeInvalid,
    #[error("the peer speaks version {0} of the handshake")]
    ServerIncompatible(u64),
    #[error("the peer refused with error {0}")]
    ServerError(u64),
    #[error("the peer is behind the same router but cannot be reached on the local network")]
    LanUnreachable,
    #[error(
        "this machine and the peer are both behind routers that give each destination another port: they need a \
         relay that both can reach: `hdrive seed` of the drive on a third machine, or --relay KEY of a `hdrive relay`"
    )]
    CannotHolepunch,
    #[error("no way through the routers of both sides was found")]
    HolepunchFailed,
    #[error("this is no public key, or our own")]
    BadKey,
}

impl ConnectError {
    /// Whether the peer is there, and only no way to it was found.
    pub fn is_of_path(&self) -> bool {
        match self {
            Self::LanUnreachable | Self::CannotHolepunch | Self::HolepunchFailed => true,
            Self::ServerError(code) => *code == NoisePayload::ERROR_ABORTED,
            _ => false,
        }
    }

    /// Whether it may go better at once: what was lost on the way, say, ends a punch.
    pub fn may_be_chance(&self) -> bool {
        matches!(self, Self::HolepunchFailed)
            || *self == Self::ServerError(NoisePayload::ERROR_ABORTED)
    }
}

/// Where to send a stream's packets, and from which socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dial {
    pub socket: SocketId,
    pub to: SocketAddr,
}

/// A relay that a handshake names: both sides may go through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayAsk {
    pub relay: PublicKey,
    pub token: [u8; 32],
    /// We named it.
    pub initiator: bool,
    /// The host of the client who named it; of all for whose word on that nobody stands it is 0.0.0.0.
    pub client: Option<IpAddr>,
}

/// What a handshake says of relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Relays {
    /// The one for this connection.
    pub ask: Option<RelayAsk>,
    /// That of the peer, which it offers for other connections; so it says.
    pub offered: Option<RelayOffer>,
}

/// What a handshake inside the DHT came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    pub keys: SessionKeys,
    /// Our stream. A server chooses it; the client sends to it, perhaps before the event is handled.
    pub local_id: u32,
    pub remote_id: u32,
    /// None: wait for the other side's first packet. It may be there already, or never come.
    pub dial: Option<Dial>,
    /// Both sides take datagrams up to the UDP limit.
    pub big_datagrams: bool,
    pub relays: Relays,
}

/// How long a side that is found at random ports may take until a punch arrives.
pub const PUNCH_WAIT: Duration = Duration::from_secs(40);

#[derive(Debug, Clone)]
pub enum DhtEvent {
    /// The first look around is over, with or without success.
    Bootstrapped {
        nodes: usize,
    },
    /// We have an id and serve others from now on.
    Persistent {
        id: NodeId,
        address: Option<SocketAddrV4>,
    },
    /// Others can send to us unasked from now on, or cannot.
    Access(Access),
    /// What others know of our address is not so any more. Listening keys are announced again; topics are the owner's.
    Moved,
    /// The machine slept. Listening keys are announced again; topics are the owner's.
    WokeUp,
    /// Those who held our records were silent or have forgotten us, and are there again. Listening keys are announced
    /// again; topics are the owner's.
    Forgotten,
    /// Nobody of the DHT answered, and somebody does. Listening keys are announced again; topics are the owner's.
    Met,
    /// The network went or came back.
    Health {
        online: bool,
        degraded: bool,
    },
    /// A lookup or announcement found a peer; each once per query.
    Peer {
        query: QueryId,
        public_key: PublicKey,
        relay_addresses: Vec<SocketAddrV4>,
    },
    /// An announcement was stored at so many nodes. [`DhtEvent::QueryDone`] follows.
    Announced {
        query: QueryId,
        topic: Topic,
        nodes: usize,
    },
    /// A lookup, announcement or withdrawal is over.
    QueryDone {
        query: QueryId,
        topic: Topic,
        found: usize,
    },
    /// The announcement of a listening key was renewed; 0 relays: nobody can find us, retried soon.
    Listening {
        public_key: PublicKey,
        relays: usize,
    },
    /// The relays of a key that is no longer listened on were told.
    Unlistened {
        public_key: PublicKey,
    },
    /// A connection attempt has its keys, and may go through a relay; a path of its own is still looked for.
    Answered {
        connect: ConnectId,
        agreed: Agreed,
    },
    /// A connection attempt has its keys and path.
    Outgoing {
        connect: ConnectId,
        agreed: Agreed,
    },
    /// No direct path has come so far, and it may take long or come to nothing: time to begin with another way. `Outgoing`
    /// or `ConnectFailed` of the same attempt follows.
    Late {
        connect: ConnectId,
    },
    /// A client shook hands with a key we listen on.
    Incoming {
        /// The key that was asked for.
        local: Arc<KeyPair>,
        agreed: Agreed,
    },
    /// The client of such a stream, of which [`DhtEvent::Incoming`] told, is being punched to: its first packet may take so
    /// long.
    Punching {
        local_id: u32,
        until: Instant,
    },
    ConnectFailed {
        connect: ConnectId,
        remote: PublicKey,
        why: ConnectError,
    },
}
