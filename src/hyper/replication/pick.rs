//! Which request goes to which peer next.
//!
//! First what unlocks the rest (forks, upgrades, the manifest), then what somebody waits for, then
//! ranges, and with time to spare, blocks that wait at a busier peer.
//!
//! Source: hypercore/lib/replicator.js:_updatePeer, _updatePeerNonPrimary, _canRequest

use super::connection::Ctx;
use super::inflight::Flight;
use super::outcome::Outcome;
use super::peer::Peer;
use super::replica::Replica;
use super::wire::{Message, RequestMessage, SEGMENT};
use super::wishes::RangeWish;
use super::{ConnId, HubEvent, SeekId};
use crate::hyper::core::Core;
use crate::hyper::core::message::{NodeRequest, Request, UpgradeRequest};
use crate::hyper::core::tree::max_missing_nodes;
use std::time::Duration;

/// Blocks past our length looked at for one to come with an upgrade.
const MAX_LOOKS: usize = 1024;
/// New blocks of a tree of names, all of which are asked for with the upgrade: a few kilobytes.
const MAX_BEHIND: u64 = 32;
/// Steps through one range for one peer in one go; the next tick goes on from there. A step jumps over a
/// run of blocks that are here or that the peer does not have.
const MAX_STEPS: usize = 16_384;
/// Windows of a range that are wanted ahead of the first block that a peer is not known to have.
const WINDOWS_AHEAD: u64 = 8;
/// A peer without work takes some of another that is busy for so much longer. Less is not worth it: a server has
/// much of what it was asked for on its way already, which would then come twice.
const WORTH_TAKING: Duration = Duration::from_millis(500);
/// Requests looked at, from the last on, to find one that may be taken over.
const MAX_TAKE_LOOKS: usize = 1024;
/// A block that a reader waits for is repeated elsewhere when it takes longer than this.
pub(super) const WAITED_TOO_LONG: Duration = Duration::from_millis(500);
/// Waited-for blocks whose peers are all busy, after which no more are looked at: what follows is most likely
/// theirs too, and is looked at when one of them has room.
const MAX_BUSY: usize = 16;
/// What a block is taken to have while nothing is known: the block of a drive's content.
const GUESSED_BLOCK: usize = 64 * 1024;
/// What an answer has besides the block.
const OVERHEAD: usize = 512;

impl Replica {
    /// Sends whatever can be asked for now.
    pub fn pump(&mut self, ctx: &mut Ctx, core: &mut Core) {
        if self.is_paused(ctx) {
            return;
        }
        self.pump_tree(ctx, core);
        self.pump_blocks(ctx, core);
        self.pump_ranges(ctx, core, None);
    }

    /// The same after one peer got room: only that one is looked at for ranges.
    pub fn pump_peer(&mut self, ctx: &mut Ctx, core: &mut Core, conn: ConnId) {
        if self.is_paused(ctx) {
            return;
        }
        self.pump_tree(ctx, core);
        self.pump_blocks(ctx, core);
        self.pump_ranges(ctx, core, Some(conn));
    }

    /// Nothing is to be asked now: our storage failed, a fork is being stored, there are two histories, or more is known at
    /// the end of this frame.
    fn is_paused(&mut self, ctx: &Ctx) -> bool {
        self.deferred.pump |= ctx.defer;
        ctx.defer
            || self.split
            || self.following
            || self.paused_until.is_some_and(|until| ctx.now < until)
    }

    /// Forks, upgrades, the manifest; seeks when something has changed for them.
    fn pump_tree(&mut self, ctx: &mut Ctx, core: &Core) {
        if self.upgrade.is_none() {
            self.ask_upgrade(ctx, core);
        }
        if std::mem::take(&mut self.seeks_due) && !self.seeks.is_empty() {
            self.pump_seeks(ctx, core);
        }
    }

    fn ask_upgrade(&mut self, ctx: &mut Ctx, core: &Core) {
        let head = core.head();
        if !self.wants_upgrade(core) {
            return;
        }
        // The highest fork first, then the longest tree: it spares asking again.
        let best = self
            .peers
            .values()
            .filter_map(|peer| offer(peer, head.fork, head.length).map(|rank| (rank, peer.conn)))
            .max();
        let Some((_, conn)) = best else { return };
        let Some(remote) = self.peers.get(&conn).and_then(|peer| peer.remote) else { return };
        let manifest = core.manifest().is_none() && remote.has_manifest;
        let start = if remote.fork > head.fork { 0 } else { head.length };
        let upgrade = UpgradeRequest { start, length: remote.length - start };
        let mut request = Request { upgrade: Some(upgrade), manifest, ..Request::default() };
        if remote.fork == head.fork {
            request.block = self.block_to_go_with(conn, head.length, remote.length);
            request.priority = u64::from(request.block.is_some());
        }
        if let Some(block) = request.block {
            self.blocks.unqueue(block.index);
        }
        let (with, priority) = (request.block.map(|block| block.index), request.priority);
        self.upgrade = self.take_off(ctx, core, conn, request, remote.fork, None);
        if self.upgrade.is_some() && remote.fork == head.fork && self.options.small_blocks {
            self.ask_behind(ctx, core, conn, (with, priority), remote.length);
        }
    }

    /// Asks for blocks that most likely are the next to be read, behind the upgrade that makes room for them: of names, the
    /// last block, from which all others are found, and all that are new where they are few; the first one has the header.
    fn ask_behind(
        &mut self,
        ctx: &mut Ctx,
        core: &Core,
        conn: ConnId,
        (with, priority): (Option<u64>, u64),
        length: u64,
    ) {
        if self.backoff.is_active() {
            return;
        }
        let own = core.length();
        let few = if length - own <= MAX_BEHIND { own..length } else { length - 1..length };
        let header = (own == 0 && few.start > 0).then_some(0);
        for index in header.into_iter().chain(few).filter(|index| Some(*index) != with) {
            let has = self.peers.get(&conn).is_some_and(|peer| peer.has(index));
            if !has || !self.flights.may_ask(index, conn) {
                continue;
            }
            self.blocks.unqueue(index);
            let block = NodeRequest { index, nodes: max_missing_nodes(index, length) };
            // Of the same rank: it must not overtake the upgrade.
            let request = Request { block: Some(block), priority, ..Request::default() };
            self.take_off(ctx, core, conn, request, core.head().fork, None);
        }
    }

    /// A waited-for block past our length that can come with the upgrade and save a round trip.
    fn block_to_go_with(&self, conn: ConnId, from: u64, to: u64) -> Option<NodeRequest> {
        let peer = self.peers.get(&conn).filter(|_| !self.backoff.is_active())?;
        let fits = |block: &u64| peer.has(*block) && self.flights.may_ask(*block, conn);
        let index = self.blocks.between(from, to).take(MAX_LOOKS).find(fits)?;
        Some(NodeRequest { index, nodes: 0 })
    }

    /// Blocks that somebody waits for, each from the least busy peer that has it.
    fn pump_blocks(&mut self, ctx: &mut Ctx, core: &Core) {
        let mut full = 0;
        let mut place = None;
        while let Some((at, block)) = self.blocks.queued_after(place) {
            place = Some(at);
            if core.has(block) {
                self.blocks.remove(block);
                ctx.emit(HubEvent::Block { core: self.id, index: block });
                continue;
            }
            if self.backoff.is_active() && !self.blocks.get(block).is_some_and(|w| w.priority) {
                // Behind all that somebody waits for. It is looked at again when something was stored.
                return;
            }
            if self.flights.is_coming(block) {
                // A range has asked for it. If it takes too long another peer will be asked.
                self.blocks.unqueue(block);
                continue;
            }
            match self.best_peer(ctx, core, block) {
                Best::Peer(conn) => {
                    let priority = self.blocks.get(block).is_some_and(|wish| wish.priority);
                    self.ask_block(ctx, core, conn, block, priority);
                }
                Best::Busy => {
                    full += 1;
                    if full > MAX_BUSY {
                        return;
                    }
                }
                Best::Nobody => {
                    self.want(ctx, block);
                    self.blocks.park(block);
                }
            }
        }
    }

    fn best_peer(&self, ctx: &Ctx, core: &Core, block: u64) -> Best {
        let priority = self.blocks.get(block).is_some_and(|wish| wish.priority);
        let single = self.is_single();
        let mut best = Best::Nobody;
        let mut load = None;
        for peer in self.peers.values() {
            if !self.may_ask_block(core, peer, block) {
                continue;
            }
            if !peer.pace.has_room(ctx.limits, self.options.small_blocks, priority, single) {
                if matches!(best, Best::Nobody) {
                    best = Best::Busy;
                }
            } else if load.is_none_or(|l| peer.pace.load() < l) {
                load = Some(peer.pace.load());
                best = Best::Peer(peer.conn);
            }
        }
        best
    }

    /// Whether a peer can be asked for a block by itself: it has it, and our trees agree there.
    fn may_ask_block(&self, core: &Core, peer: &Peer, block: u64) -> bool {
        let head = core.head();
        let Some(remote) = peer.asked_for() else { return false };
        remote.fork == head.fork
            && block < remote.length
            && block < head.length
            && peer.has(block)
            && self.flights.may_ask(block, peer.conn)
            && (remote.length >= head.length || core.can_prove_from(remote.length))
    }

    /// Blocks of ranges, for one peer or all.
    fn pump_ranges(&mut self, ctx: &mut Ctx, core: &Core, only: Option<ConnId>) {
        if self.ranges.is_empty() && self.flights.is_empty() {
            return;
        }
        let conns = only.map_or_else(|| self.conns(), |conn| vec![conn]);
        for conn in conns {
            let mut found = !self.ranges.is_empty();
            while found && self.has_room(ctx, conn) && self.backoff.may_fetch(ctx.now) {
                found = self.ask_range_block(ctx, core, conn);
            }
            if self.backoff.is_active() {
                continue;
            }
            while !found && self.peers.len() > 1 && self.take_over(ctx, core, conn) {}
        }
    }

    fn has_room(&self, ctx: &Ctx, conn: ConnId) -> bool {
        let (small, single) = (self.options.small_blocks, self.is_single());
        let room = |peer: &Peer| peer.pace.has_room(ctx.limits, small, false, single);
        self.peers.get(&conn).is_some_and(room)
    }

    /// Asks a peer for the next block of some range that it has.
    fn ask_range_block(&mut self, ctx: &mut Ctx, core: &Core, conn: ConnId) -> bool {
        let head = core.head();
        let Some(peer) = self.peers.get(&conn) else { return false };
        let Some(remote) = peer.asked_for().filter(|remote| remote.fork == head.fork) else {
            return false;
        };
        if remote.length < head.length && !core.can_prove_from(remote.length) {
            return false;
        }
        let end = remote.length.min(head.length);
        let mut found = None;
        let mut wants = Vec::new();
        // Ranges in order are read as they come; the others are nobody's hurry.
        'search: for linear in [true, false] {
            for range in self.ranges.values_mut().filter(|range| range.linear == linear) {
                match next_of_range(range, core, peer, &self.flights, end) {
                    Step::Found(block) => {
                        found = Some(block);
                        break 'search;
                    }
                    Step::Unknown(block) => wants.push((block, range.end.min(end))),
                    Step::Unfinished => self.unfinished = true,
                    Step::Nothing => {}
                }
            }
        }
        for (block, end) in wants {
            let windows = (0..WINDOWS_AHEAD).map(|i| (block / SEGMENT + i) * SEGMENT);
            for start in windows.take_while(|start| *start < end) {
                self.want_from(ctx, conn, start.max(block));
            }
        }
        let Some(block) = found else { return false };
        self.blocks.unqueue(block);
        let priority = self.blocks.get(block).is_some_and(|wish| wish.priority);
        self.ask_block(ctx, core, conn, block, priority);
        true
    }

    /// Takes over a block that a busier peer was asked for last, if that one would need much longer for it. False if
    /// there is none.
    fn take_over(&mut self, ctx: &mut Ctx, core: &Core, conn: ConnId) -> bool {
        let Some(peer) = self.peers.get(&conn) else { return false };
        let busy = peer.pace.busy_for() + WORTH_TAKING;
        let others = self.peers.values().filter(|other| other.conn != conn);
        let Some((time, other)) = others.map(|other| (other.pace.busy_for(), other.conn)).max()
        else {
            return false;
        };
        if time <= busy || !self.has_room(ctx, conn) {
            return false;
        }
        let fits = |flight: &Flight| {
            let block = flight.block().filter(|_| flight.request.upgrade.is_none())?;
            let fits = flight.conn == other && self.may_ask_block(core, peer, block);
            fits.then_some(block)
        };
        // The last that was asked for is the farthest from being sent: taken back in time, it comes only once.
        let found = {
            let mut last = self.flights.iter().rev().take(MAX_TAKE_LOOKS);
            last.find_map(|(id, flight)| Some((id, fits(flight)?)))
        };
        let Some((id, block)) = found else { return false };
        let priority = self.blocks.get(block).is_some_and(|wish| wish.priority);
        self.end(ctx, id, Outcome::Recalled);
        self.ask_block(ctx, core, conn, block, priority);
        true
    }

    /// Asks the least busy other peer for a block that is already on its way.
    pub fn ask_another(&mut self, ctx: &mut Ctx, core: &Core, block: u64) {
        if let Best::Peer(conn) = self.best_peer(ctx, core, block) {
            let priority = self.blocks.get(block).is_some_and(|wish| wish.priority);
            self.ask_block(ctx, core, conn, block, priority);
        }
    }

    fn ask_block(&mut self, ctx: &mut Ctx, core: &Core, conn: ConnId, index: u64, priority: bool) {
        let all = |_| max_missing_nodes(index, core.length());
        let nodes = core.missing_nodes(index).unwrap_or_else(all);
        let block = NodeRequest { index, nodes };
        let request =
            Request { block: Some(block), priority: u64::from(priority), ..Request::default() };
        self.blocks.unqueue(index);
        self.take_off(ctx, core, conn, request, core.head().fork, None);
    }

    /// Sends a request and notes it.
    pub fn take_off(
        &mut self,
        ctx: &mut Ctx,
        core: &Core,
        conn: ConnId,
        request: Request,
        fork: u64,
        seek: Option<SeekId>,
    ) -> Option<u64> {
        let peer = self.peers.get_mut(&conn)?;
        let head = core.head();
        let block = match head.length {
            0 => GUESSED_BLOCK,
            length => (head.byte_length() / length) as usize,
        };
        let bytes = OVERHEAD + if request.block.is_some() { block } else { 0 };
        let due = peer.pace.answers + peer.pace.flights as u64;
        let flight = Flight {
            conn,
            request: request.clone(),
            fork,
            own_length: head.length,
            sent: ctx.now,
            bytes,
            due,
            late: false,
            seek,
            history: false,
        };
        peer.pace.took_off(bytes, ctx.now);
        let channel = peer.channel;
        let id = self.flights.insert(flight);
        ctx.send(conn, channel, &Message::Request(RequestMessage { id, fork, request }));
        Some(id)
    }

    /// No peer is known to have a block: asks all to tell about its surroundings.
    pub fn want(&mut self, ctx: &mut Ctx, block: u64) {
        for conn in self.conns() {
            self.want_from(ctx, conn, block);
        }
    }

    fn want_from(&mut self, ctx: &mut Ctx, conn: ConnId, block: u64) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if peer.asked_for().is_none() || peer.bits.has(block) {
            return;
        }
        let Some((unwant, want)) = peer.wants.add(block, ctx.now) else { return };
        let channel = peer.channel;
        if let Some(unwant) = unwant {
            ctx.send(conn, channel, &Message::Unwant(unwant));
        }
        ctx.send(conn, channel, &Message::Want(want));
    }
}

enum Best {
    Peer(ConnId),
    /// Some have it, but enough is on its way from them.
    Busy,
    Nobody,
}

/// What an upgrade from this peer would bring, if it may be asked: fork and length.
fn offer(peer: &Peer, fork: u64, length: u64) -> Option<(u64, u64)> {
    let remote = peer.asked_for()?;
    let offered = (remote.fork, remote.length);
    if remote.length == 0 || peer.refused == Some(offered) {
        return None;
    }
    let longer =
        remote.fork == fork && remote.length > length && remote.can_upgrade && peer.acked == length;
    (longer || remote.fork > fork).then_some(offered)
}

enum Step {
    Found(u64),
    /// The first missing block that this peer is not known to have.
    Unknown(u64),
    /// There is more to look at.
    Unfinished,
    Nothing,
}

/// Goes on through a range to the next block to ask this peer for.
fn next_of_range(
    range: &mut RangeWish,
    core: &Core,
    peer: &Peer,
    flights: &super::inflight::Flights,
    end: u64,
) -> Step {
    let end = range.end.min(end);
    let mut scan = range.scan(peer.conn, end);
    scan.at = scan.at.max(range.low);
    let mut unknown = None;
    let mut found = None;
    let mut finished = false;
    for _ in 0..MAX_STEPS {
        let Some(missing) = core.next_missing(scan.at..end) else {
            scan.at = scan.at.max(end);
            match scan.wrap.take() {
                Some(_) => scan.at = range.low,
                None => {
                    finished = true;
                    break;
                }
            }
            continue;
        };
        let Some(held) = peer.bits.next_set(missing, end) else {
            unknown.get_or_insert(missing);
            scan.at = scan.at.max(end);
            continue;
        };
        if held > missing {
            unknown.get_or_insert(missing);
            scan.at = held;
            continue;
        }
        scan.at = held + 1;
        let skip = peer.denied.contains(&held)
            || flights.is_coming(held)
            || !flights.may_ask(held, peer.conn);
        if !skip {
            found = Some(held);
            break;
        }
    }
    range.set_scan(peer.conn, scan);
    match (found, unknown) {
        (Some(block), _) => Step::Found(block),
        (None, Some(block)) => Step::Unknown(block),
        (None, None) if finished => Step::Nothing,
        (None, None) => Step::Unfinished,
    }
}
