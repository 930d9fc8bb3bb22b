//! What others ask of us: requests, wants, and what they say about their blocks.
//!
//! Source: hypercore/lib/replicator.js:onrequest, _handleRequests, _onwant, onrange, onbitfield

use super::ConnId;
use super::connection::Ctx;
use super::held::{ENTRY, JOB};
use super::replica::Replica;
use super::upload::Job;
use super::violation::{MAX_INVALID_REQUESTS, MAX_LENGTH, Violation};
use super::wire::{Message, Reason, RequestMessage, SEGMENT, Want};
use crate::hyper::core::message::Proof;
use crate::hyper::core::{Core, Provable};

/// How far beyond its last sync a peer may announce blocks: an append is announced before the sync that
/// tells its length.
const AHEAD_OF_SYNC: u64 = SEGMENT;

impl Replica {
    pub fn on_request(&mut self, ctx: &mut Ctx, conn: ConnId, message: RequestMessage) {
        let (max, room) = (ctx.limits.upload_queue, ctx.room(conn));
        let Some(peer) = self.peers.get_mut(&conn).filter(|peer| peer.open) else { return };
        let request = message.id;
        if room >= JOB && peer.uploads.push(message, max) {
            self.count_held(ctx, conn);
            return self.start_serving(ctx, conn);
        }
        self.send(ctx, conn, &Message::NoData { request, reason: Reason::NotAvailable });
    }

    pub fn on_cancel(&mut self, conn: ConnId, request: u64) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.uploads.cancel(request);
        }
    }

    pub fn on_want(&mut self, ctx: &mut Ctx, conn: ConnId, want: Want) {
        let room = ctx.room(conn);
        let Some(peer) = self.peers.get_mut(&conn).filter(|peer| peer.open) else { return };
        if room >= JOB + ENTRY && peer.remote_wants.add(want) {
            peer.uploads.push_want(want);
            self.count_held(ctx, conn);
            self.start_serving(ctx, conn);
        }
    }

    pub fn on_unwant(&mut self, conn: ConnId, want: Want) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.remote_wants.remove(want);
        }
    }

    fn start_serving(&mut self, ctx: &mut Ctx, conn: ConnId) {
        let (Some(peer), Some(state)) = (self.peers.get_mut(&conn), ctx.conn(conn)) else { return };
        if !std::mem::replace(&mut peer.in_turn, true) {
            state.serving.push_back(self.id);
        }
    }

    /// Answers the next waiting request of a peer. False if none is left.
    pub fn serve_one(&mut self, ctx: &mut Ctx, core: &mut Core, conn: ConnId) -> bool {
        let job = self.peers.get_mut(&conn).and_then(|peer| peer.uploads.pop());
        match job {
            None => {}
            Some(Job::Request(message)) => self.answer(ctx, core, conn, message),
            Some(Job::Want(want)) => self.tell(ctx, core, conn, want),
        }
        for block in core.heed() {
            self.cleared(ctx, core, block..block + 1);
        }
        self.count_held(ctx, conn);
        let Some(peer) = self.peers.get_mut(&conn) else { return false };
        peer.in_turn = !peer.uploads.is_empty();
        peer.in_turn
    }

    fn answer(&mut self, ctx: &mut Ctx, core: &Core, conn: ConnId, message: RequestMessage) {
        let RequestMessage { id, fork, request } = message;
        let manifest = core.told_manifest().filter(|_| request.manifest);
        let answer = match fork == core.fork() {
            true => core.create_proof(&request),
            false => Ok(Provable::NotHere),
        };
        let proof = match answer {
            Ok(Provable::Proof(proof)) => Some(proof),
            Ok(Provable::Invalid(why)) => {
                tracing::debug!(core = ?self.discovery, "a request makes no sense: {why}");
                return self.on_invalid_request(ctx, conn, id);
            }
            Ok(Provable::NotHere) => None,
            Err(error) => {
                tracing::debug!(core = ?self.discovery, "not answered");
                tracing::warn!("what a peer asked for cannot be read: {error}");
                None
            }
        };
        if proof.is_none() && manifest.is_none() {
            let reason = Reason::NotAvailable;
            return self.send(ctx, conn, &Message::NoData { request: id, reason });
        }
        let mut proof = proof.unwrap_or_default();
        proof.manifest = manifest.cloned();
        self.send_data(ctx, conn, id, Proof { fork, ..proof });
    }

    fn send_data(&mut self, ctx: &mut Ctx, conn: ConnId, request: u64, proof: Proof) {
        if let (Some(peer), Some(block)) = (self.peers.get_mut(&conn), &proof.block) {
            peer.bytes_up += block.value.len() as u64;
        }
        // One that had nothing, or nothing but ours, has our history from now on.
        if let (Some(peer), Some(upgrade)) = (self.peers.get_mut(&conn), &proof.upgrade)
            && upgrade.start <= peer.agrees_to
        {
            peer.agrees_to = peer.agrees_to.max(upgrade.start.saturating_add(upgrade.length));
        }
        self.send(ctx, conn, &Message::Data { request, proof });
    }

    fn on_invalid_request(&mut self, ctx: &mut Ctx, conn: ConnId, request: u64) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.invalid_requests += 1;
        let count = peer.invalid_requests;
        if count >= MAX_INVALID_REQUESTS {
            return ctx.strike(conn, Some(self.id), Violation::InvalidRequests(count));
        }
        self.send(ctx, conn, &Message::NoData { request, reason: Reason::InvalidRequest });
    }

    /// Tells a peer what we have of a window.
    fn tell(&mut self, ctx: &mut Ctx, core: &Core, conn: ConnId, want: Want) {
        let (length, contiguous) = (core.head().length, core.contiguous_length());
        let end = want.start.saturating_add(want.length);
        if end < contiguous || contiguous == length || (want.any && want.start < contiguous) {
            return self.send_range(ctx, conn, 0, contiguous);
        }
        let end = end.min(length);
        if want.any {
            if let Some(block) = core.next_present(want.start..end) {
                self.send_range(ctx, conn, block, 1);
            }
            return;
        }
        let start = want.start & !31;
        if start >= end {
            return;
        }
        // A regular window never spans two segments; one that is not aligned may.
        let mut at = start;
        while at < end {
            let stop = end.min((at / SEGMENT + 1) * SEGMENT);
            let words = core.bits(at, stop - at);
            self.send(ctx, conn, &Message::Bitfield { start: at, words });
            at = stop;
        }
    }

    pub fn on_range(
        &mut self,
        ctx: &mut Ctx,
        core: &mut Core,
        conn: ConnId,
        (drop, start, length): (bool, u64, u64),
    ) {
        let (bound, room) = (self.bound(core, conn), ctx.room(conn));
        let Some(peer) = self.peers.get_mut(&conn).filter(|peer| peer.open) else { return };
        peer.bits.set_room(room);
        if drop {
            peer.bits.drop_range(start, length);
            return self.count_held(ctx, conn);
        }
        if start == 0 {
            peer.wants.all_answered();
        }
        let end = start.saturating_add(length).min(bound);
        if start >= end {
            return;
        }
        peer.bits.set_range(start, end - start);
        self.count_held(ctx, conn);
        self.has_more(ctx, core, conn, start, end);
    }

    pub fn on_bitfield(
        &mut self,
        ctx: &mut Ctx,
        core: &mut Core,
        conn: ConnId,
        start: u64,
        words: &[u32],
    ) {
        let (bound, room) = (self.bound(core, conn), ctx.room(conn));
        let Some(peer) = self.peers.get_mut(&conn).filter(|peer| peer.open) else { return };
        peer.wants.answered(start);
        if start >= bound {
            return;
        }
        peer.bits.set_room(room);
        peer.bits.overwrite(start, words);
        self.count_held(ctx, conn);
        let end = start + 32 * words.len() as u64;
        self.has_more(ctx, core, conn, start, end);
    }

    /// What a peer announces beyond this is not kept.
    fn bound(&self, core: &Core, conn: ConnId) -> u64 {
        let claimed = self.peers.get(&conn).and_then(|peer| peer.remote).map_or(0, |r| r.length);
        (claimed.max(core.head().length) + AHEAD_OF_SYNC).min(MAX_LENGTH)
    }

    /// A peer has blocks of `start..end` that it may not have had before.
    fn has_more(&mut self, ctx: &mut Ctx, core: &mut Core, conn: ConnId, start: u64, end: u64) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if end - start == 1 {
            peer.denied.remove(&start);
        } else if !peer.denied.is_empty() {
            peer.denied.retain(|block| !(start..end).contains(block));
        }
        self.stir(ctx.now, start, end);
        self.ranges.values_mut().for_each(|range| range.look_again(conn, start));
        self.pump_peer(ctx, core, conn);
    }
}
