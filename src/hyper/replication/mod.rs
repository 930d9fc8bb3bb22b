//! Replication: what peers tell, ask and answer about cores.
//!
//! [`Hub`] is one machine for the whole process: all connections, all cores. It does no I/O but reading
//! and writing cores, knows no clock, and is driven like every machine here: `handle_*`, then
//! [`Hub::poll_transmit`], [`Hub::poll_event`] and [`Hub::poll_fork`] until they give nothing, then
//! [`Hub::poll_timeout`].
//!
//! | file | what it tracks |
//! |---|---|
//! | `hub.rs` | connections and cores, and which message is for whom |
//! | `hub/incoming.rs`, `local.rs` | what peers send; what is wished here |
//! | `hub/opening.rs` | channels that wait for a core |
//! | `hub/meeting.rs`, `tags.rs` | who is told of which cores |
//! | `fork.rs` | forks of cores, which wait for the device |
//! | `connection.rs` | multiplexer, backlog and strikes of one connection |
//! | `replica.rs` | one core: its peers, its wishes, what it announces |
//! | `sync.rs` | lengths and forks: who may prove what to whom |
//! | `history.rs` | whether the heads of all peers are of one history |
//! | `pick.rs` | which request goes to which peer next |
//! | `seek.rs` | the same for bytes that are to be found |
//! | `stir.rs` | how often what a peer says may make us look at all wishes |
//! | `data.rs` | answers, and blocks that arrive |
//! | `outcome.rs`, `ending.rs` | how a request of ours ends, and what follows |
//! | `refusal.rs` | why our core does not take an answer, and whose fault that is |
//! | `unstored.rs`, `backoff.rs` | blocks that our storage does not take, and when it is tried again |
//! | `serve.rs`, `upload.rs` | requests of others |
//! | `held.rs` | what peers make us hold, for one connection and all |
//! | `pace.rs` | how fast a peer delivers, and how much it is asked for |
//! | `patience.rs` | what happens when nothing happens |
//! | `peer.rs`, `inflight.rs`, `wishes.rs`, `wants.rs`, `remote_bitfield.rs` | the tables under them |
//! | `wire.rs` | the messages |
//!
//! Source: hypercore/lib/replicator.js

mod backoff;
mod connection;
mod data;
mod ending;
mod fork;
mod held;
mod history;
mod hub;
mod inflight;
mod outcome;
mod pace;
mod patience;
mod peer;
mod pick;
mod refusal;
pub mod remote_bitfield;
mod replica;
mod seek;
mod serve;
mod stir;
mod sync;
mod tags;
mod unstored;
mod upload;
mod violation;
pub mod wants;
pub mod wire;
mod wishes;

pub use fork::{Fork, Stored};
pub use hub::Hub;
pub use violation::Violation;

use crate::key::{DiscoveryKey, PublicKey};
use bytes::Bytes;
use std::time::Duration;

/// A connection, as its owner numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// A core that is attached to the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreId(pub u64);

/// A wish for a range of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RangeId(pub u64);

/// A wish to know where a byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeekId(pub u64);

/// What the secret stream of a connection agreed on.
#[derive(Debug, Clone)]
pub struct ConnInfo {
    pub handshake_hash: [u8; 64],
    /// We began the Noise handshake.
    pub initiator: bool,
    pub remote: PublicKey,
}

#[derive(Debug, Clone, Copy)]
pub struct AttachOptions {
    /// Follow the head, open a channel to each peer of its topics, and say so. Without it the core is only
    /// served to peers that ask.
    pub downloading: bool,
    /// Blocks of some hundred bytes, as a Hyperbee has: more requests may be on their way.
    pub small_blocks: bool,
}

/// Bounds of memory and patience.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes on their way from one peer of one core.
    pub window_bytes: usize,
    /// Requests on their way to one peer of one core; the reference sends 16 to 512.
    pub window_requests: usize,
    /// The same for cores with small blocks.
    pub small_window_requests: usize,
    /// Requests of one peer about one core that wait; more get "no data". The reference has no bound.
    pub upload_queue: usize,
    /// Blocks are read for a peer only while less than this is queued for it.
    pub upload_backlog: usize,
    /// Bytes that one connection may make us hold, and all of them: see `held.rs`.
    pub held_of_one: usize,
    pub held: usize,
    /// What each connection may hold whatever the others do.
    pub fair_share: usize,
    /// While more than this is queued for all connections together, each gets no more than the next.
    pub all_backlogs: usize,
    pub fair_backlog: usize,
    /// A connection with more queued than this does not read what it causes, and is closed.
    pub max_backlog: usize,
    /// How long a peer may take to open its side and send its first sync before nobody waits for it.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Twice what a stream may have under way. More would only lie queued at the peer, which, if it is a
            // JavaScript one, packs such a queue into frames of up to 8 MiB.
            window_bytes: 8 << 20,
            window_requests: 512,
            small_window_requests: 4096,
            upload_queue: 8192,
            upload_backlog: 2 << 20,
            held_of_one: held::MAX_HELD_OF_ONE,
            held: held::MAX_HELD,
            fair_share: held::FAIR_SHARE,
            all_backlogs: 128 << 20,
            fair_backlog: 128 << 10,
            max_backlog: 64 << 20,
            patience: Duration::from_secs(3),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubEvent {
    /// The bytes of a block, as stored and checked, for whoever would read them back; [`HubEvent::Block`] follows.
    Arrived {
        core: CoreId,
        index: u64,
        stored: Bytes,
    },
    /// A block was fetched and is stored.
    Block {
        core: CoreId,
        index: u64,
    },
    /// A peer's proof made the core longer (or, after [`HubEvent::Truncated`], put it on another fork).
    Upgraded {
        core: CoreId,
        length: u64,
        fork: u64,
    },
    /// A peer's fork cut the core: blocks from `length` on are gone.
    Truncated {
        core: CoreId,
        length: u64,
        fork: u64,
    },
    /// All blocks of a range are here; the wish is forgotten.
    RangeDone {
        core: CoreId,
        range: RangeId,
    },
    /// Where the byte is: block and offset in it. `None`: past the end, as far as the peers know.
    Seeked {
        core: CoreId,
        seek: SeekId,
        found: Option<(u64, u64)>,
    },
    /// No connected peer has this block. The wish stays; told once until some peer has it again.
    BlockUnavailable {
        core: CoreId,
        index: u64,
    },
    /// The writer has signed two histories of the first `length` blocks. Nothing more is fetched of the core.
    TwoHistories {
        core: CoreId,
        length: u64,
    },
    /// A peer opens a channel for a core that is not attached: [`Hub::handle_core_found`] answers.
    CoreAsked {
        discovery: DiscoveryKey,
    },
    PeerOpened {
        core: CoreId,
        conn: ConnId,
    },
    PeerClosed {
        core: CoreId,
        conn: ConnId,
    },
    /// A peer has said whether it knows more of the core than its key, for the first time or otherwise than before; or it
    /// is asked to open a channel, or has refused. [`Hub::company`] counts them.
    PeerTold {
        core: CoreId,
    },
    /// Every peer has said how long it is, and whatever it had to offer was applied or refused: the head
    /// is as current as the connected peers know. Told once whenever it becomes true, and once after
    /// each [`Hub::want_upgrade`].
    PeersSynced {
        core: CoreId,
    },
    /// A peer that knows the core, for it has its manifest or blocks, said how long it is: with nothing in it, or
    /// with something. Told when that is first known, and when it changes.
    Heard {
        core: CoreId,
        empty: bool,
    },
    /// The bytes of a block, as stored and checked, which somebody waits for and our storage would not take. The wish
    /// is fulfilled; the block is not here.
    Unstored {
        core: CoreId,
        index: u64,
        stored: Bytes,
    },
    /// Our own storage would not take what a peer sent. Told once until something was stored again. What somebody waits
    /// for is fetched all the same, ranges are tried again now and then.
    StorageFailed {
        core: CoreId,
        why: String,
        /// The disk is full: nothing is broken, and it passes.
        full: bool,
    },
    Violation {
        conn: ConnId,
        core: Option<CoreId>,
        what: Violation,
    },
    /// The connection has to be closed; the hub has forgotten it already.
    CloseConnection {
        conn: ConnId,
        why: String,
    },
}

/// Who has an open channel for a core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Company {
    /// Peers that know the core.
    pub told: usize,
    /// Peers that have not said so far what they have.
    pub silent: usize,
    /// Peers that know no more of it than its key: they wait as others do.
    pub blank: usize,
    /// Peers that have not answered our opening of its channel so far.
    pub coming: usize,
}

/// What is known of one peer of a core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    pub conn: ConnId,
    pub remote: PublicKey,
    /// It has opened its side and told its state.
    pub synced: bool,
    pub length: u64,
    pub fork: u64,
    /// Blocks it has from 0 without a hole.
    pub contiguous: u64,
    pub uploading: bool,
    pub downloading: bool,
    /// Requests on their way to it.
    pub inflight: usize,
    /// Bytes of blocks.
    pub bytes_down: u64,
    pub bytes_up: u64,
}
