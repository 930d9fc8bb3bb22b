//! Answers: what a peer sent for a request of ours.
//!
//! An answer is compared with its request before anything is hashed, the leaf is hashed before the core
//! is locked, and the core checks the rest. What is wrong costs the peer a strike, and the block is
//! asked elsewhere; what is merely late is dropped.
//!
//! Source: hypercore/lib/replicator.js:_handleData, _matchingRequest, _onnodata, _onreorgdata

use super::connection::Ctx;
use super::inflight::Flight;
use super::refusal::Refusal;
use super::replica::Replica;
use super::violation::Violation;
use super::wire::{Message, Reason};
use super::{ConnId, HubEvent, RangeId};
use crate::crypto::Hash;
use crate::hyper::core::Core;
use crate::hyper::core::message::Proof;
use std::ops::Range;
use std::time::Duration;

/// How long nothing is asked for after our own storage failed (a full disk, mostly).
const STORAGE_PAUSE: Duration = Duration::from_secs(1);

/// An answer whose request was found.
pub(super) struct Landing {
    id: u64,
    flight: Flight,
    pub proof: Proof,
}

impl Replica {
    /// Finds the request that an answer is for and takes it out of the table.
    pub fn match_data(
        &mut self,
        ctx: &mut Ctx,
        conn: ConnId,
        id: u64,
        proof: Proof,
    ) -> Option<Landing> {
        if id == 0 {
            return None; // pushes and conflict proofs: we ask for neither
        }
        let mut late = false;
        let id = match self.flights.get(id) {
            Some(flight) if flight.conn == conn => id,
            Some(_) => {
                ctx.strike(conn, Some(self.id), Violation::Unasked);
                return None;
            }
            None if !self.flights.was_used(id) => {
                ctx.strike(conn, Some(self.id), Violation::Unasked);
                return None;
            }
            // The answer to a request that was given up, while another one for the same is open. The
            // tree may have changed in between; the other one has an answer of its own to come then.
            None => {
                let block = proof.block.as_ref().filter(|_| proof.upgrade.is_none())?.index;
                let open = self.flights.of(block, conn)?;
                late = true;
                self.flights.get(open).filter(|flight| answers(flight, &proof, late))?;
                self.send_cancel(ctx, conn, open);
                open
            }
        };
        let flight = self.flights.remove(id)?;
        let (now, limits) = (ctx.now, ctx.limits);
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.pace.landed(&flight, now, limits);
        }
        if let Some(state) = ctx.conn(conn) {
            state.last_data = now;
        }
        if !answers(&flight, &proof, late) {
            ctx.strike(conn, Some(self.id), Violation::Mismatch);
            self.fail(id, &flight);
            return None;
        }
        Some(Landing { id, flight, proof })
    }

    /// Applies an answer. `leaf` is the hash of its block.
    pub fn on_data(
        &mut self,
        ctx: &mut Ctx,
        core: &mut Core,
        landing: Landing,
        leaf: Option<Hash>,
    ) {
        let Landing { id, flight, proof } = landing;
        let conn = flight.conn;
        if flight.history {
            self.on_history(ctx, core, &flight, &proof);
        } else if is_empty(&proof) {
            self.fail(id, &flight); // of an empty core, or of another fork: then with its manifest
        } else if proof.fork > core.head().fork {
            self.on_fork(ctx, core, id, flight, &proof);
        } else {
            self.on_proof(ctx, core, id, flight, &proof, leaf);
        }
        self.pump_peer(ctx, core, conn);
        self.check_synced(ctx, core);
    }

    fn on_proof(
        &mut self,
        ctx: &mut Ctx,
        core: &mut Core,
        id: u64,
        flight: Flight,
        proof: &Proof,
        leaf: Option<Hash>,
    ) {
        let conn = flight.conn;
        match core.apply_proof(proof, leaf).map_err(Refusal::from) {
            Ok(applied) => {
                self.settle(id, &flight);
                if let Some((_, length)) = applied.upgraded {
                    if let Some(peer) = self.peers.get_mut(&conn) {
                        peer.agrees_to = length;
                    }
                    let fork = core.head().fork;
                    self.announce_head(ctx, core);
                    ctx.emit(HubEvent::Upgraded { core: self.id, length, fork });
                }
                if let Some(block) = &proof.block {
                    self.backoff.stored();
                    if let Some(peer) = self.peers.get_mut(&conn) {
                        peer.bytes_down += block.value.len() as u64;
                    }
                    let (index, new) = (block.index, applied.new_block);
                    if new {
                        let stored = ctx.kept(&block.value);
                        ctx.emit(HubEvent::Arrived { core: self.id, index, stored });
                    }
                    self.block_arrived(ctx, core, index, conn, new);
                }
                if !is_complete(&flight, proof) {
                    self.fail(id, &flight);
                }
                if applied.upgraded.is_some() {
                    self.check_ranges(ctx, core);
                    self.pump(ctx, core);
                }
            }
            Err(Refusal::Invalid(why)) if !is_stale(&flight, core) => {
                self.fail(id, &flight);
                ctx.strike(conn, Some(self.id), Violation::Proof(why));
                // It lies, or it has another history that was signed as well.
                self.ask_history(ctx, core, conn, core.head().length);
            }
            Err(Refusal::Invalid(_) | Refusal::Stale) => self.put_back(id, &flight),
            Err(Refusal::Busy) => self.pause(ctx, id, &flight),
            Err(why @ Refusal::Unstored { .. }) => self.on_unstored(ctx, id, &flight, proof, why),
            Err(Refusal::Storage(why)) => self.on_storage_failure(ctx, id, &flight, why),
        }
    }

    /// The proof of a fork above ours.
    fn on_fork(&mut self, ctx: &mut Ctx, core: &mut Core, id: u64, flight: Flight, proof: &Proof) {
        match core.apply_reorg(proof).map_err(Refusal::from) {
            Ok(reorged) => {
                self.settle(id, &flight);
                let (fork, length) = (core.head().fork, core.head().length);
                let kept = reorged.ancestors.unwrap_or(0);
                self.tree_cut(ctx, core, kept);
                self.announce_head(ctx, core);
                ctx.emit(HubEvent::Truncated { core: self.id, length: kept, fork });
                ctx.emit(HubEvent::Upgraded { core: self.id, length, fork });
                self.check_ranges(ctx, core);
                self.pump(ctx, core);
            }
            Err(Refusal::Invalid(why)) => {
                self.fail(id, &flight);
                ctx.strike(flight.conn, Some(self.id), Violation::Proof(why));
            }
            Err(Refusal::Stale) => self.fail(id, &flight),
            Err(Refusal::Busy) => self.pause(ctx, id, &flight),
            Err(Refusal::Storage(why) | Refusal::Unstored { why, .. }) => {
                self.on_storage_failure(ctx, id, &flight, why)
            }
        }
    }

    /// Nothing is wrong with the peer, but asking again at once would spin.
    fn pause(&mut self, ctx: &Ctx, id: u64, flight: &Flight) {
        self.paused_until = Some(ctx.now + STORAGE_PAUSE);
        self.put_back(id, flight);
    }

    fn on_storage_failure(&mut self, ctx: &mut Ctx, id: u64, flight: &Flight, why: String) {
        self.pause(ctx, id, flight);
        ctx.emit(HubEvent::StorageFailed { core: self.id, why, full: false });
    }

    pub fn on_no_data(
        &mut self,
        ctx: &mut Ctx,
        core: &mut Core,
        conn: ConnId,
        id: u64,
        _reason: Reason,
    ) {
        if self.flights.get(id).is_none_or(|flight| flight.conn != conn) {
            return; // given up since
        }
        let Some(flight) = self.flights.remove(id) else { return };
        let (now, limits) = (ctx.now, ctx.limits);
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.pace.landed(&flight, now, limits);
        }
        if is_stale(&flight, core) {
            self.put_back(id, &flight);
        } else {
            self.fail(id, &flight);
        }
        self.pump(ctx, core);
        self.check_synced(ctx, core);
    }

    /// A request ended well: whatever marks it as on its way is taken back.
    pub fn settle(&mut self, id: u64, flight: &Flight) {
        if self.upgrade == Some(id) {
            self.upgrade = None;
        }
        if let Some(wish) = flight.seek.and_then(|seek| self.seeks.get_mut(&seek)) {
            wish.flight = None;
            if self.flights.get(id).is_none() {
                wish.asked.retain(|(asked, _)| *asked != id);
            }
            self.seeks_due = true;
        }
    }

    /// A request ended without an answer: what it asked for may be asked again, of anybody.
    pub fn put_back(&mut self, id: u64, flight: &Flight) {
        self.settle(id, flight);
        if let Some(block) = flight.block()
            && !self.flights.is_coming(block)
        {
            self.blocks.queue(block);
            self.ranges.values_mut().for_each(|range| range.put_back(block));
        }
    }

    /// A request ended badly: what it asked for may be asked again, of others.
    pub fn fail(&mut self, id: u64, flight: &Flight) {
        self.refuse(flight);
        self.put_back(id, flight);
    }

    /// Notes that a peer did not give what it offered.
    pub fn refuse(&mut self, flight: &Flight) {
        let Some(peer) = self.peers.get_mut(&flight.conn).filter(|_| !flight.history) else {
            return;
        };
        if let Some(upgrade) = flight.request.upgrade {
            // What it offered then; it may have moved on to another fork since.
            peer.refused = Some((flight.fork, upgrade.start + upgrade.length));
        }
        // A block that came along with a refused upgrade is not to blame.
        if let Some(block) = flight.block().filter(|_| flight.request.upgrade.is_none()) {
            peer.deny(block);
        }
        if let Some(hash) = flight.request.hash {
            peer.deny(hash.index / 2);
        }
    }

    /// A block is here: whoever waits for it is told, and nobody else is asked for it.
    fn block_arrived(
        &mut self,
        ctx: &mut Ctx,
        core: &mut Core,
        block: u64,
        source: ConnId,
        new: bool,
    ) {
        let wanted = self.blocks.remove(block);
        self.recheck = self.unprovable;
        for id in self.flights.copies(block).to_vec() {
            self.give_up(ctx, id);
        }
        if new || wanted {
            ctx.emit(HubEvent::Block { core: self.id, index: block });
        }
        if new {
            self.announce_block(ctx, core, block, source);
        }
        if self.ranges.values().any(|range| range.low == block) {
            self.check_ranges(ctx, core);
        }
    }

    /// Takes a request back.
    pub fn give_up(&mut self, ctx: &mut Ctx, id: u64) {
        let Some(flight) = self.flights.remove(id) else { return };
        if let Some(peer) = self.peers.get_mut(&flight.conn) {
            peer.pace.dropped(&flight);
        }
        self.settle(id, &flight);
        self.send_cancel(ctx, flight.conn, id);
    }

    /// Takes back requests for a block if nobody wants it any more.
    pub fn give_up_block(&mut self, ctx: &mut Ctx, block: u64) {
        let wanted = self.blocks.get(block).is_some()
            || self.ranges.values().any(|r| (r.low..r.end).contains(&block));
        if wanted {
            return;
        }
        for id in self.flights.copies(block).to_vec() {
            // One that brings the head as well is let be.
            if self.flights.get(id).is_some_and(|flight| flight.request.upgrade.is_none()) {
                self.give_up(ctx, id);
            }
        }
    }

    /// Takes back requests for blocks of a range that nobody wants any more.
    pub fn give_up_range(&mut self, ctx: &mut Ctx, blocks: Range<u64>) {
        let of_range = |flight: &Flight| flight.block().filter(|block| blocks.contains(block));
        let flying: Vec<u64> =
            self.flights.iter().filter_map(|(_, flight)| of_range(flight)).collect();
        flying.into_iter().for_each(|block| self.give_up_block(ctx, block));
    }

    fn send_cancel(&mut self, ctx: &mut Ctx, conn: ConnId, request: u64) {
        self.send(ctx, conn, &Message::Cancel { request });
    }

    /// Moves the starts of ranges up and ends those that are complete.
    pub fn check_ranges(&mut self, ctx: &mut Ctx, core: &Core) {
        let length = core.head().length;
        let mut done: Vec<RangeId> = Vec::new();
        for range in self.ranges.values_mut() {
            match core.next_missing(range.low..range.end.min(length)) {
                Some(missing) => range.low = missing,
                None if range.end <= length => done.push(range.id),
                None => range.low = range.low.max(length),
            }
        }
        for range in done {
            self.ranges.remove(&range);
            ctx.emit(HubEvent::RangeDone { core: self.id, range });
        }
    }

    /// Wishes for blocks that came another way are fulfilled.
    pub fn drop_fulfilled(&mut self, ctx: &mut Ctx, core: &Core) {
        let here: Vec<u64> = self.blocks.iter().map(|(b, _)| b).filter(|b| core.has(*b)).collect();
        for block in here {
            self.blocks.remove(block);
            for id in self.flights.copies(block).to_vec() {
                self.give_up(ctx, id);
            }
            ctx.emit(HubEvent::Block { core: self.id, index: block });
        }
    }
}

/// Whether an answer says nothing about the tree.
fn is_empty(proof: &Proof) -> bool {
    proof.block.is_none() && proof.hash.is_none() && proof.seek.is_none() && proof.upgrade.is_none()
}

/// Whether an answer has what was asked for; one that has not says "no data" for the rest.
fn is_complete(flight: &Flight, proof: &Proof) -> bool {
    let request = &flight.request;
    request.block.is_some() == proof.block.is_some()
        && request.hash.is_some() == proof.hash.is_some()
        && request.upgrade.is_some() == proof.upgrade.is_some()
}

/// Whether each part of an answer was asked for. An answer to an earlier request for the same, `late`, has
/// the nodes as well that came since.
fn answers(flight: &Flight, proof: &Proof, late: bool) -> bool {
    let request = &flight.request;
    let levels = |asked: u64, sent: usize| {
        request.upgrade.is_some() || asked == sent as u64 || late && asked < sent as u64
    };
    let block = proof.block.as_ref().is_none_or(|block| {
        request.block.is_some_and(|asked| {
            asked.index == block.index
                && (proof.seek.is_some() || levels(asked.nodes, block.nodes.len()))
        })
    });
    let hash = proof
        .hash
        .as_ref()
        .is_none_or(|hash| request.hash.is_some_and(|asked| asked.index == hash.index));
    let seek = proof
        .seek
        .as_ref()
        .is_none_or(|seek| request.seek.is_some_and(|asked| asked.bytes == seek.bytes));
    let upgrade = proof.upgrade.as_ref().is_none_or(|upgrade| {
        request.upgrade.is_some_and(|asked| {
            // A prologue makes a server begin at 0 and cut where the prologue ends.
            asked.start == upgrade.start || upgrade.start == 0
        })
    });
    proof.fork == flight.fork && block && hash && seek && upgrade
}

/// Whether our tree has changed in a way that can make a true answer useless.
fn is_stale(flight: &Flight, core: &Core) -> bool {
    let head = core.head();
    flight.fork != head.fork
        || (flight.request.upgrade.is_some() && flight.own_length != head.length)
        || flight.own_length > head.length
}
