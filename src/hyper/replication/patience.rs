//! What happens when nothing happens: overdue requests, blocks that nobody has, peers that say nothing.
//!
//! Requests have no time-out on the wire and streams lose nothing, so an answer that does not come means
//! a peer that is stuck, gone, or unwilling. Its work is offered to others while its own request stands, and long after
//! that the request is taken back, so that the peer may be tried once more.

use super::connection::Ctx;
use super::inflight::Flight;
use super::outcome::Outcome;
use super::pick::WAITED_TOO_LONG;
use super::replica::Replica;
use super::{ConnId, HubEvent};
use crate::hyper::core::Core;
use std::time::{Duration, Instant};

/// How often a core with something under way is looked after.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Answers to later requests after which one that did not come was passed over.
const PASSED_OVER: u64 = 64;
/// An overdue request is taken back after this, so that the same peer may be asked once more.
const GIVE_UP: Duration = Duration::from_secs(15);
/// How long a want may stay without an answer before the peer counts as not having the block.
const WANT_PATIENCE: Duration = Duration::from_millis(1000);

impl Replica {
    /// Whether [`Replica::tick`] has anything to wait for.
    pub fn needs_tick(&self) -> bool {
        !self.flights.is_empty()
            || self.blocks.has_unreported()
            || self.unfinished
            || self.recheck
            || self.to_stir.is_some()
            || self.paused_until.is_some()
            || (self.backoff.is_active() && !self.ranges.is_empty())
            || (!self.synced_told && (self.upgrade_wanted || !self.peers.is_empty()))
    }

    pub fn tick(&mut self, ctx: &mut Ctx, core: &mut Core) {
        self.unfinished = false;
        self.stir_rest(ctx.now);
        self.paused_until = self.paused_until.filter(|until| ctx.now < *until);
        if std::mem::take(&mut self.recheck) {
            self.tell_provable(ctx, core);
        }
        self.overdue(ctx);
        self.waited_for(ctx, core);
        self.pump(ctx, core);
        self.report_unavailable(ctx, core);
        self.check_synced(ctx, core);
    }

    /// Marks requests whose answer is overdue, and takes back those that are hopeless.
    fn overdue(&mut self, ctx: &mut Ctx) {
        let now = ctx.now;
        let late: Vec<(u64, bool)> = self
            .flights
            .iter()
            .filter_map(|(id, flight)| {
                if flight.late {
                    let hopeless = now >= flight.sent + GIVE_UP && self.is_silent(ctx, flight, now);
                    return hopeless.then_some((id, true));
                }
                self.is_overdue(ctx, flight, now).then_some((id, false))
            })
            .collect();
        for (id, hopeless) in late {
            let Some(flight) = self.flights.get(id) else { continue };
            let (conn, silent) = (flight.conn, self.is_silent(ctx, flight, now));
            if let Some(peer) = self.peers.get_mut(&conn) {
                // Until it answers, or until it may be tried once more.
                peer.pace.stalled = silent && !hopeless;
            }
            self.end(ctx, id, if hopeless { Outcome::Hopeless } else { Outcome::Overdue });
        }
    }

    fn is_overdue(&self, ctx: &Ctx, flight: &Flight, now: Instant) -> bool {
        let Some(peer) = self.peers.get(&flight.conn) else { return true };
        let age = now.saturating_duration_since(flight.sent);
        age >= peer.pace.timeout(self.is_single())
            && (peer.pace.answers > flight.due + PASSED_OVER || self.is_silent(ctx, flight, now))
    }

    /// Whether the peer has sent nothing for as long as is usual, or its connection nothing for very long.
    fn is_silent(&self, ctx: &Ctx, flight: &Flight, now: Instant) -> bool {
        let Some(peer) = self.peers.get(&flight.conn) else { return true };
        let own = peer.pace.last_progress.max(flight.sent);
        // Data of other cores shares the stream; it is an excuse for a while.
        let shared = ctx.conns.get(&flight.conn).map_or(own, |conn| conn.last_data);
        let any = own.max(shared.min(own + GIVE_UP));
        now >= any + peer.pace.timeout(self.is_single())
    }

    /// Blocks that a reader waits for and that take long are asked of a second peer.
    fn waited_for(&mut self, ctx: &mut Ctx, core: &mut Core) {
        if self.peers.len() < 2 {
            return;
        }
        let now = ctx.now;
        let slow = |flight: &Flight| {
            let block = flight.block()?;
            let wish = self.blocks.get(block)?;
            let old = now >= flight.sent.max(wish.since) + WAITED_TOO_LONG;
            (wish.priority && old && self.flights.copies(block).len() == 1).then_some(block)
        };
        let slow: Vec<u64> = self.flights.iter().filter_map(|(_, flight)| slow(flight)).collect();
        for block in slow {
            self.ask_another(ctx, core, block);
        }
    }

    fn report_unavailable(&mut self, ctx: &mut Ctx, core: &Core) {
        for block in self.blocks.unreported() {
            if self.peers.keys().any(|conn| self.may_still_have(ctx, core, *conn, block)) {
                continue;
            }
            self.blocks.report(block);
            ctx.emit(HubEvent::BlockUnavailable { core: self.id, index: block });
        }
    }

    /// Whether it is too early to say that a peer does not have a block.
    fn may_still_have(&self, ctx: &Ctx, core: &Core, conn: ConnId, block: u64) -> bool {
        let Some(peer) = self.peers.get(&conn) else { return false };
        let Some(remote) = &peer.remote else {
            return ctx.now < peer.since + ctx.limits.patience;
        };
        if peer.asked_for().is_none() || peer.denied.contains(&block) {
            return false;
        }
        if self.flights.of(block, conn).is_some() {
            return true; // asked, and overdue
        }
        if peer.bits.has(block) {
            // It has the block, only our trees do not agree yet.
            let head = core.head();
            let behind = block >= head.length || remote.fork > head.fork;
            return behind && peer.refused != Some((remote.fork, remote.length));
        }
        let due = peer.wants.due(block);
        due.is_some_and(|asked| ctx.now < asked + WANT_PATIENCE)
    }
}
