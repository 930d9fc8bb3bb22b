//! One core and its peers: channels, announcements, wishes.

use super::backoff::Backoff;
use super::connection::{Conn, Ctx};
use super::held::CHANNEL;
use super::inflight::Flights;
use super::outcome::Outcome;
use super::peer::Peer;
use super::violation::Violation;
use super::wire::{self, Handshake, Message};
use super::wishes::{BlockWishes, RangeWish};
use super::{AttachOptions, Company, ConnId, CoreId, HubEvent, PeerInfo, RangeId, SeekId};
use crate::crypto::Hash;
use crate::hyper::core::tree::Roots;
use crate::hyper::core::{Core, SharedCore};
use crate::key::{CoreKey, DiscoveryKey, Topic};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Instant;

/// Blocks from the end within which each one is announced to everybody, as in the reference.
const LAST_BLOCKS: u64 = 256;

/// What of the core was announced last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Announced {
    pub fork: u64,
    pub length: u64,
    pub contiguous: u64,
}

impl Announced {
    fn of(core: &Core) -> Self {
        let head = core.head();
        Self { fork: head.fork, length: head.length, contiguous: core.contiguous_length() }
    }
}

/// A byte to be found, and the request that looks for it.
#[derive(Debug)]
pub(super) struct SeekWish {
    pub bytes: u64,
    pub flight: Option<u64>,
    /// Requests for it that have no answer yet, overdue ones included, and who has them.
    pub asked: Vec<(u64, ConnId)>,
    /// It lies past the end of the tree, as far as that reaches now.
    pub past_end: bool,
}

#[derive(Debug, Default)]
pub(super) struct Deferred {
    pub pump: bool,
    pub synced: bool,
}

pub(super) struct Replica {
    pub id: CoreId,
    pub key: CoreKey,
    pub discovery: DiscoveryKey,
    pub core: SharedCore,
    pub options: AttachOptions,
    /// A peer asked for it and nobody here did: it goes when the last peer goes.
    pub passive: bool,
    /// Under which its peers are found: nobody else is told of it.
    pub topics: BTreeSet<Topic>,
    pub peers: BTreeMap<ConnId, Peer>,
    pub flights: Flights,
    pub blocks: BlockWishes,
    pub ranges: BTreeMap<RangeId, RangeWish>,
    pub seeks: BTreeMap<SeekId, SeekWish>,
    pub announced: Announced,
    /// The upgrade, or proof of a fork, that is on its way.
    pub upgrade: Option<u64>,
    /// Somebody asked for the newest head since all peers were last in sync.
    pub upgrade_wanted: bool,
    /// That all peers are in sync was told.
    pub synced_told: bool,
    /// Whether the core is empty, as far as peers that know it have said.
    pub heard_empty: Option<bool>,
    /// A range was not looked through to its end.
    pub unfinished: bool,
    /// A peer is shorter and we may not have the nodes to prove it the rest.
    pub unprovable: bool,
    /// Blocks came since that was looked at.
    pub recheck: bool,
    /// When many parked wishes were last looked at because of what a peer said, and where to look soon.
    pub stirred: Option<Instant>,
    pub to_stir: Option<(u64, u64)>,
    /// Something has changed for seeks that wait.
    pub seeks_due: bool,
    /// Roots at some lengths, as peers have proven them.
    pub histories: BTreeMap<u64, Roots>,
    /// The writer has signed two histories: nothing more is taken of either.
    pub split: bool,
    /// What our storage does not take.
    pub backoff: Backoff,
    /// Our storage failed; nothing is asked for until then.
    pub paused_until: Option<Instant>,
    /// A fork is being stored; until then nothing is asked for and nothing taken.
    pub following: bool,
    /// What the messages of the current frame have made due, to be done after the last of them.
    pub deferred: Deferred,
}

impl Replica {
    pub fn new(id: CoreId, core: SharedCore, options: AttachOptions, passive: bool) -> Self {
        let (key, announced) = {
            let core = crate::lock::lock(&core);
            (*core.key(), Announced::of(&core))
        };
        Self {
            id,
            key,
            discovery: key.discovery_key(),
            core,
            options,
            passive,
            topics: BTreeSet::from([Topic::from(key.discovery_key())]),
            peers: BTreeMap::new(),
            flights: Flights::default(),
            blocks: BlockWishes::default(),
            ranges: BTreeMap::new(),
            seeks: BTreeMap::new(),
            announced,
            upgrade: None,
            upgrade_wanted: false,
            synced_told: false,
            heard_empty: None,
            unfinished: false,
            unprovable: false,
            recheck: false,
            stirred: None,
            to_stir: None,
            seeks_due: false,
            histories: BTreeMap::new(),
            split: false,
            backoff: Backoff::default(),
            paused_until: None,
            following: false,
            deferred: Deferred::default(),
        }
    }

    /// Whether peers should take us for somebody who wants something.
    pub fn is_downloading(&self) -> bool {
        self.options.downloading || self.has_wishes()
    }

    pub fn has_wishes(&self) -> bool {
        !self.blocks.is_empty()
            || !self.ranges.is_empty()
            || !self.seeks.is_empty()
            || self.upgrade_wanted
    }

    /// Adds a wish. The first one may be what makes us somebody who downloads.
    pub fn wish<T>(&mut self, ctx: &mut Ctx, add: impl FnOnce(&mut Self) -> T) {
        let before = self.is_downloading();
        add(self);
        if !before {
            self.open_on_all(ctx);
        }
    }

    fn capability(&self, hash: &[u8; 64], initiator: bool) -> Hash {
        wire::capability(hash, &self.key, initiator)
    }

    fn handshake(&self, ctx: &mut Ctx, conn: ConnId) -> Option<Vec<u8>> {
        let info = &ctx.conn(conn)?.info;
        let capability = self.capability(&info.handshake_hash, info.initiator);
        Some(Handshake { seeks: true, capability }.encode())
    }

    /// Opens a channel to each peer of its topics, and to who named it; others may find out that it is here.
    pub fn open_on_all(&mut self, ctx: &mut Ctx) {
        let may = |conn: &Conn| conn.may_hear_of(&self.discovery, &self.topics);
        let conns = ctx.conns.iter().filter(|(_, conn)| may(conn)).map(|(conn, _)| *conn);
        conns.collect::<Vec<_>>().into_iter().for_each(|conn| self.open_on(ctx, conn));
        ctx.shown.insert(self.id);
    }

    /// Opens a channel for this core, if there is none.
    pub fn open_on(&mut self, ctx: &mut Ctx, conn: ConnId) {
        if self.peers.contains_key(&conn) {
            return;
        }
        let Some(handshake) = self.handshake(ctx, conn) else { return };
        let (id, discovery, now) = (self.id, self.discovery, ctx.now);
        let Some(state) = ctx.writing(conn) else { return };
        if let Some(channel) = state.mux.open(wire::PROTOCOL, &discovery.0, &handshake) {
            state.channels.insert(channel, id);
            self.peers.insert(conn, Peer::new(conn, channel, now));
            self.count_held(ctx, conn);
            self.synced_told = false;
            ctx.emit(HubEvent::PeerTold { core: id });
        }
    }

    /// The remote opened a channel for this core, just now or, as its id `remote`, a while ago, and we join in.
    pub fn accept_on(
        &mut self,
        ctx: &mut Ctx,
        core: &mut Core,
        conn: ConnId,
        remote: Option<u64>,
        handshake: &[u8],
    ) {
        let Some(ours) = self.handshake(ctx, conn) else { return };
        let (id, now) = (self.id, ctx.now);
        let room = ctx.room(conn) >= CHANNEL;
        let Some(state) = ctx.writing(conn) else { return };
        let channel = match remote {
            None if !room => {
                state.mux.refuse();
                None
            }
            Some(remote) if !room => {
                state.mux.refuse_deferred(remote, &self.discovery.0);
                None
            }
            None => state.mux.accept(&ours),
            Some(remote) => state.mux.accept_deferred(remote, &self.discovery.0, &ours),
        };
        let Some(channel) = channel else { return };
        state.channels.insert(channel, id);
        self.peers.insert(conn, Peer::new(conn, channel, now));
        self.count_held(ctx, conn);
        self.on_opened(ctx, core, conn, handshake);
    }

    /// Both sides have opened the channel.
    pub fn on_opened(&mut self, ctx: &mut Ctx, core: &mut Core, conn: ConnId, handshake: &[u8]) {
        let Some(info) = ctx.conn(conn).map(|c| c.info.clone()) else { return };
        let expected = self.capability(&info.handshake_hash, !info.initiator);
        let handshake = match Handshake::decode(handshake) {
            Ok(handshake) if handshake.capability == expected => handshake,
            _ => return ctx.strike(conn, Some(self.id), Violation::Capability),
        };
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.open = true;
        peer.since = ctx.now;
        peer.pace.last_progress = ctx.now;
        peer.seeks = handshake.seeks;
        self.synced_told = false;
        ctx.emit(HubEvent::PeerOpened { core: self.id, conn });
        // It knows the key: it may hear of what else belongs to it.
        ctx.met.push((conn, Topic::from(self.discovery)));
        self.send_sync(ctx, core, conn);
        let contiguous = core.contiguous_length();
        if contiguous > 0 {
            self.send_range(ctx, conn, 0, contiguous);
            if contiguous == core.head().length
                && let Some(peer) = self.peers.get_mut(&conn)
            {
                peer.told_full = contiguous;
            }
        }
    }

    /// The channel is gone: what was asked there is asked elsewhere.
    pub fn on_closed(&mut self, ctx: &mut Ctx, core: &mut Core, conn: ConnId) {
        let Some(mut peer) = self.peers.remove(&conn) else { return };
        let (held, _) = peer.count_held();
        if let Some(state) = ctx.conns.get_mut(&conn) {
            state.held.change(ctx.held, held, 0);
            if peer.in_turn {
                state.serving.retain(|core| *core != self.id);
            }
            if state.tags.lose(self.id) {
                ctx.untold.push(conn);
            }
        }
        for id in self.flights.of_conn(conn) {
            self.end(ctx, id, Outcome::Lost);
        }
        self.ranges.values_mut().for_each(|range| range.forget(conn));
        self.seeks_due = true;
        ctx.emit(match peer.open {
            true => HubEvent::PeerClosed { core: self.id, conn },
            false => HubEvent::PeerTold { core: self.id },
        });
        self.synced_told = false;
        self.pump(ctx, core);
        self.check_synced(ctx, core);
    }

    /// Counts what a peer makes us hold.
    pub fn count_held(&mut self, ctx: &mut Ctx, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let (before, now) = peer.count_held();
        if let Some(state) = ctx.conns.get_mut(&conn) {
            state.held.change(ctx.held, before, now);
        }
    }

    /// Closes our side of a channel.
    pub fn close_on(&mut self, ctx: &mut Ctx, core: &mut Core, conn: ConnId) {
        let Some(channel) = self.peers.get(&conn).map(|peer| peer.channel) else { return };
        if let Some(state) = ctx.writing(conn) {
            state.mux.close(channel);
            state.channels.remove(&channel);
        }
        self.on_closed(ctx, core, conn);
    }

    /// Whether the remote may close and find its channel reopened: it had said that it wants nothing
    /// but would give.
    pub fn should_reopen(&self, conn: ConnId) -> bool {
        let said = self.peers.get(&conn).and_then(|peer| peer.remote);
        self.is_downloading() && said.is_some_and(|r| !r.downloading && r.uploading)
    }

    /// Whether no more than one peer has anything to send.
    pub fn is_single(&self) -> bool {
        let useful = |peer: &&Peer| peer.asked_for().is_some_and(|remote| remote.length > 0);
        self.peers.values().filter(useful).nth(1).is_none()
    }

    pub fn is_open_on(&self, conn: ConnId) -> bool {
        self.peers.get(&conn).is_some_and(|peer| peer.open)
    }

    pub fn conns(&self) -> Vec<ConnId> {
        self.peers.keys().copied().collect()
    }

    pub fn company(&self) -> Company {
        let coming = self.peers.values().filter(|peer| !peer.open).count();
        let mut company = Company { coming, ..Company::default() };
        for peer in self.peers.values().filter(|peer| peer.open) {
            match peer.remote.map(|said| said.knows_core()) {
                Some(true) => company.told += 1,
                Some(false) => company.blank += 1,
                None => company.silent += 1,
            }
        }
        company
    }

    pub fn open_conns(&self) -> Vec<ConnId> {
        self.peers.values().filter(|peer| peer.open).map(|peer| peer.conn).collect()
    }

    pub fn send(&mut self, ctx: &mut Ctx, conn: ConnId, message: &Message) {
        if let Some(peer) = self.peers.get(&conn) {
            ctx.send(conn, peer.channel, message);
        }
    }

    pub fn send_range(&mut self, ctx: &mut Ctx, conn: ConnId, start: u64, length: u64) {
        self.send(ctx, conn, &Message::Range { drop: false, start, length });
    }

    pub fn sync_all(&mut self, ctx: &mut Ctx, core: &Core) {
        for conn in self.open_conns() {
            self.send_sync(ctx, core, conn);
        }
    }

    /// A local user appended, truncated, or cleared: tells peers.
    pub fn core_changed(&mut self, ctx: &mut Ctx, core: &mut Core) {
        let before = self.announced;
        let head = core.head();
        if head.fork != before.fork || head.length < before.length {
            self.tree_cut(ctx, core, before.length.min(head.length));
        }
        self.announce_head(ctx, core);
        self.check_ranges(ctx, core);
        self.drop_fulfilled(ctx, core);
        self.pump(ctx, core);
        self.check_synced(ctx, core);
    }

    /// The tree was cut to `kept` blocks before it became what it is now.
    pub fn tree_cut(&mut self, ctx: &mut Ctx, core: &Core, kept: u64) {
        let before = self.announced;
        self.histories.clear();
        for conn in self.open_conns() {
            if kept < before.length {
                let length = before.length - kept;
                self.send(ctx, conn, &Message::Range { drop: true, start: kept, length });
            }
            if let Some(peer) = self.peers.get_mut(&conn) {
                peer.told_full = peer.told_full.min(kept);
                peer.agrees_to = peer.agrees_to.min(kept);
                peer.acked = 0;
                peer.refused = None;
            }
        }
        self.ranges.values_mut().for_each(|range| range.reset(kept));
        self.blocks.unpark(0, u64::MAX);
        self.seeks_due = true;
        self.announced.length = kept.min(before.length);
        self.announced.contiguous = before.contiguous.min(kept);
        self.announced.fork = core.head().fork;
    }

    /// The head grew or changed: ranges first, then the new length, as the reference does.
    pub fn announce_head(&mut self, ctx: &mut Ctx, core: &Core) {
        let before = self.announced;
        let now = Announced::of(core);
        for conn in self.open_conns() {
            if now.contiguous > before.contiguous {
                self.send_range(ctx, conn, 0, now.contiguous);
            } else if now.length > before.length {
                self.announce_run(ctx, core, conn, before.length, now.length);
            }
            if now.contiguous == now.length
                && let Some(peer) = self.peers.get_mut(&conn)
            {
                peer.told_full = now.length;
            }
        }
        self.announced = now;
        self.seeks_due = true;
        if now.length > before.length {
            self.blocks.unpark(before.length, u64::MAX);
        }
        self.sync_all(ctx, core);
    }

    /// Announces what is held of `start..end` from its first block on.
    fn announce_run(&mut self, ctx: &mut Ctx, core: &Core, conn: ConnId, start: u64, end: u64) {
        let held = core.next_missing(start..end).unwrap_or(end);
        if held > start {
            self.send_range(ctx, conn, start, held - start);
        }
    }

    /// Blocks were removed from the local store (not from the tree).
    pub fn cleared(&mut self, ctx: &mut Ctx, core: &mut Core, blocks: Range<u64>) {
        let length = blocks.end.saturating_sub(blocks.start);
        // Who knew of blocks above only by the contiguous start forgets those too (the reference does).
        let known = self.announced.contiguous.min(core.head().length);
        for conn in self.open_conns() {
            self.send(ctx, conn, &Message::Range { drop: true, start: blocks.start, length });
            if let Some(peer) = self.peers.get_mut(&conn) {
                peer.told_full = peer.told_full.min(blocks.start);
            }
            let mut from = blocks.end;
            while let Some(start) = core.next_present(from..known) {
                from = core.next_missing(start..known).unwrap_or(known);
                self.send_range(ctx, conn, start, from - start);
            }
        }
        self.ranges.values_mut().for_each(|range| range.reset(blocks.start));
        self.announced.contiguous = core.contiguous_length();
        self.pump(ctx, core);
    }

    /// A block was fetched from `source`: tells those who care.
    pub fn announce_block(&mut self, ctx: &mut Ctx, core: &Core, block: u64, source: ConnId) {
        let length = core.head().length;
        let contiguous = core.contiguous_length();
        let full = contiguous == length;
        self.announced.contiguous = contiguous;
        if self.peers.len() < 2 && !full {
            return; // only the one who sent it
        }
        for conn in self.open_conns() {
            let Some(peer) = self.peers.get_mut(&conn) else { continue };
            if full {
                if peer.told_full < length {
                    peer.told_full = length;
                    self.send_range(ctx, conn, 0, length);
                }
                continue;
            }
            let near = block + LAST_BLOCKS >= length || peer.remote_wants.touches(block, 1);
            if near && conn != source && !peer.bits.has(block) {
                self.send_range(ctx, conn, block, 1);
            }
        }
    }

    pub fn info(&self, conns: &BTreeMap<ConnId, super::connection::Conn>) -> Vec<PeerInfo> {
        let info = |peer: &Peer| {
            let remote = peer.remote.unwrap_or_default();
            Some(PeerInfo {
                conn: peer.conn,
                remote: conns.get(&peer.conn)?.info.remote,
                synced: peer.remote.is_some(),
                length: remote.length,
                fork: remote.fork,
                contiguous: peer.bits.contiguous(),
                uploading: remote.uploading,
                downloading: remote.downloading,
                inflight: peer.pace.flights,
                bytes_down: peer.bytes_down,
                bytes_up: peer.bytes_up,
            })
        };
        self.peers.values().filter_map(info).collect()
    }
}
