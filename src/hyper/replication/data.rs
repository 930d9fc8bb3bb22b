//! Answers: what a peer sent for a request of ours.
//!
//! Only the block of an answer to a request that is open is hashed, and that before the core is locked; the answer is
//! compared with its request, and the core checks the rest. What is wrong costs the peer a strike, and the block
//! is asked elsewhere. What is merely late is dropped, unless its peer has been asked for the same again.
//!
//! Source: hypercore/lib/replicator.js:_handleData, _matchingRequest, _onnodata, _onreorgdata

use super::connection::Ctx;
use super::fork::Fork;
use super::inflight::Flight;
use super::outcome::Outcome;
use super::refusal::Refusal;
use super::replica::Replica;
use super::violation::Violation;
use super::wire::{Message, Reason};
use super::{ConnId, HubEvent, RangeId};
use crate::crypto::Hash;
use crate::hyper::core::message::Proof;
use crate::hyper::core::{Applied, Core, CoreError};
use std::time::Duration;

/// How long nothing is asked for after our own storage failed (a full disk, mostly).
const STORAGE_PAUSE: Duration = Duration::from_secs(1);

/// An answer whose request was found.
pub(super) struct Landing {
    id: u64,
    conn: ConnId,
    pub proof: Proof,
}

impl Replica {
    /// Finds the request that an answer is for.
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
            // The answer to a request that was taken back, while another one for the same is open. The
            // tree may have changed in between; the other one has an answer of its own to come then.
            None => {
                let block = proof.block.as_ref().filter(|_| proof.upgrade.is_none())?.index;
                let open = self.flights.of(block, conn)?;
                late = true;
                self.flights.get(open).filter(|flight| answers(flight, &proof, late))?;
                self.send(ctx, conn, &Message::Cancel { request: open });
                open
            }
        };
        let now = ctx.now;
        if let Some(state) = ctx.conn(conn) {
            state.last_data = now;
        }
        if !answers(self.flights.get(id)?, &proof, late) {
            ctx.strike(conn, Some(self.id), Violation::Mismatch);
            self.end(ctx, id, Outcome::Refused);
            return None;
        }
        Some(Landing { id, conn, proof })
    }

    /// Applies an answer. `leaf` is the hash of its block.
    pub fn on_data(
        &mut self,
        ctx: &mut Ctx,
        core: &mut Core,
        landing: Landing,
        leaf: Option<Hash>,
    ) {
        let Landing { id, conn, proof } = landing;
        if self.flights.get(id).is_some_and(|flight| flight.history) {
            if let Some(flight) = self.end(ctx, id, Outcome::Answered) {
                self.on_history(ctx, core, &flight, &proof);
            }
        } else if self.following {
            // It is of a tree that is about to go.
            self.end(ctx, id, Outcome::Useless);
        } else if is_empty(&proof) {
            // Of an empty core, or of another fork: then with its manifest.
            self.end(ctx, id, Outcome::Refused);
        } else if proof.fork > core.head().fork {
            self.on_fork(ctx, core, id, &proof);
        } else {
            self.on_proof(ctx, core, id, &proof, leaf);
        }
        self.pump_peer(ctx, core, conn);
        self.check_synced(ctx, core);
    }

    fn on_proof(
        &mut self,
        ctx: &mut Ctx,
        core: &mut Core,
        id: u64,
        proof: &Proof,
        leaf: Option<Hash>,
    ) {
        let Some(flight) = self.flights.get(id) else { return };
        let conn = flight.conn;
        match core.apply_proof(proof, leaf).map_err(Refusal::from) {
            Ok(applied) => {
                let complete = is_complete(flight, proof);
                let how = if complete { Outcome::Answered } else { Outcome::Refused };
                self.end(ctx, id, how);
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
                if applied.upgraded.is_some() {
                    self.check_ranges(ctx, core);
                    self.pump(ctx, core);
                }
            }
            Err(Refusal::Invalid(why)) if !is_stale(flight, core) => {
                self.end(ctx, id, Outcome::Refused);
                ctx.strike(conn, Some(self.id), Violation::Proof(why));
                // It lies, or it has another history that was signed as well.
                self.ask_history(ctx, core, conn, core.head().length);
            }
            Err(Refusal::Invalid(_) | Refusal::Stale) => {
                self.end(ctx, id, Outcome::Useless);
            }
            Err(Refusal::Busy) => self.pause(ctx, id),
            Err(why @ Refusal::Unstored { .. }) => self.on_unstored(ctx, id, proof, why),
            Err(Refusal::Storage(why)) => self.on_storage_failure(ctx, id, why),
        }
    }

    /// The proof of a fork above ours.
    fn on_fork(&mut self, ctx: &mut Ctx, core: &mut Core, id: u64, proof: &Proof) {
        match core.begin_follow(proof).map_err(Refusal::from) {
            Ok(following) => {
                self.end(ctx, id, Outcome::Answered);
                self.following = true;
                ctx.forks.push_back(Fork { core: self.core.clone(), following });
            }
            Err(Refusal::Invalid(why)) => {
                if let Some(flight) = self.end(ctx, id, Outcome::Refused) {
                    ctx.strike(flight.conn, Some(self.id), Violation::Proof(why));
                }
            }
            Err(Refusal::Stale) => {
                self.end(ctx, id, Outcome::Refused);
            }
            Err(Refusal::Busy) => self.pause(ctx, id),
            Err(Refusal::Storage(why) | Refusal::Unstored { why, .. }) => {
                self.on_storage_failure(ctx, id, why)
            }
        }
    }

    /// A fork was stored, or could not be.
    pub fn on_stored(
        &mut self,
        ctx: &mut Ctx,
        core: &mut Core,
        stored: Result<Applied, CoreError>,
    ) {
        self.following = false;
        match stored {
            Ok(applied) => {
                let (fork, length) = (core.head().fork, core.head().length);
                let kept = applied.ancestors.unwrap_or(0);
                self.tree_cut(ctx, core, kept);
                self.announce_head(ctx, core);
                ctx.emit(HubEvent::Truncated { core: self.id, length: kept, fork });
                ctx.emit(HubEvent::Upgraded { core: self.id, length, fork });
                self.check_ranges(ctx, core);
            }
            Err(error) => self.tell_storage_failure(ctx, error.to_string()),
        }
        self.pump(ctx, core);
        self.check_synced(ctx, core);
    }

    /// Nothing is wrong with the peer, but asking again at once would spin.
    fn pause(&mut self, ctx: &mut Ctx, id: u64) {
        self.paused_until = Some(ctx.now + STORAGE_PAUSE);
        self.end(ctx, id, Outcome::Useless);
    }

    fn on_storage_failure(&mut self, ctx: &mut Ctx, id: u64, why: String) {
        self.end(ctx, id, Outcome::Useless);
        self.tell_storage_failure(ctx, why);
    }

    fn tell_storage_failure(&mut self, ctx: &mut Ctx, why: String) {
        self.paused_until = Some(ctx.now + STORAGE_PAUSE);
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
        let Some(flight) = self.flights.get(id).filter(|flight| flight.conn == conn) else {
            return; // taken back since
        };
        let stale = is_stale(flight, core);
        self.end(ctx, id, if stale { Outcome::Useless } else { Outcome::Refused });
        self.pump(ctx, core);
        self.check_synced(ctx, core);
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
        self.recall_copies(ctx, block);
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
            self.recall_copies(ctx, block);
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
        // The upgrade that it was asked for behind has not come.
        || flight.block().is_some_and(|block| block >= head.length)
}
