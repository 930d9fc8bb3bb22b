//! One key, two histories: a writer that goes on from an old copy of its store signs other blocks under the same
//! numbers.
//!
//! Each of the two is true by itself, and a reader that takes the names from one and the contents from the other shows
//! what was never written. So every peer proves its head once, even where it has nothing new for us: it is asked for
//! the roots of the first blocks of what it has, signed. If we do not have the roots at that length, another peer that
//! has more is asked for the same. Two answers that differ are the writer's own word against the writer's: from then
//! on nothing is taken any more, and whoever reads is told.
//!
//! Source: hypercore/lib/core.js:checkConflict

use super::connection::Ctx;
use super::inflight::Flight;
use super::outcome::Outcome;
use super::refusal::Refusal;
use super::replica::Replica;
use super::violation::Violation;
use super::{ConnId, HubEvent};
use crate::hyper::core::Core;
use crate::hyper::core::message::{Proof, Request, UpgradeRequest};
use std::time::Duration;

/// A peer whose head moves is asked again this often at most.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// Lengths of which the roots are remembered.
const MAX_HISTORIES: usize = 64;

impl Replica {
    /// Asks the peers whose heads say something that is not known to be so here.
    pub fn ask_histories(&mut self, ctx: &mut Ctx, core: &Core) {
        if !self.is_downloading() {
            return;
        }
        let (fork, length) = (core.head().fork, core.head().length);
        let unknown = self.peers.values().filter_map(|peer| {
            let remote = peer.asked_for().filter(|remote| remote.fork == fork)?;
            let due = peer.history_asked.is_none_or(|at| ctx.now >= at + ASK_EVERY);
            let shared = remote.length.min(length);
            (due && peer.agrees_to < shared).then_some((peer.conn, shared))
        });
        for (conn, shared) in unknown.collect::<Vec<_>>() {
            self.ask_history(ctx, core, conn, shared);
        }
    }

    /// Asks a peer for the roots of its first `length` blocks.
    pub fn ask_history(&mut self, ctx: &mut Ctx, core: &Core, conn: ConnId, length: u64) {
        let fork = core.head().fork;
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let remote = peer.asked_for().filter(|remote| remote.fork == fork);
        let length = length.min(remote.map_or(0, |remote| remote.length));
        if length == 0 || self.split || core.manifest().is_none() {
            return;
        }
        peer.history_asked = Some(ctx.now);
        let upgrade = Some(UpgradeRequest { start: 0, length });
        let request = Request { upgrade, ..Request::default() };
        let id = self.take_off(ctx, core, conn, request, fork, None);
        if let Some(flight) = id.and_then(|id| self.flights.get_mut(id)) {
            flight.history = true;
        }
    }

    pub fn on_history(&mut self, ctx: &mut Ctx, core: &Core, flight: &Flight, proof: &Proof) {
        if proof.upgrade.is_none() || flight.fork != core.head().fork {
            return; // it cannot tell, or we are elsewhere now
        }
        let (length, roots) = match core.history_of(proof).map_err(Refusal::from) {
            Ok(told) => told,
            Err(Refusal::Invalid(why)) => {
                return ctx.strike(flight.conn, Some(self.id), Violation::Proof(why));
            }
            Err(_) => return,
        };
        let ours = core.history_at(length);
        match ours.as_ref().or_else(|| self.histories.get(&length)) {
            Some(known) if *known != roots => return self.split_at(ctx, length),
            Some(_) => {}
            None => self.compare_with_another(ctx, core, flight.conn, length),
        }
        if ours.is_none() && self.histories.len() < MAX_HISTORIES {
            self.histories.insert(length, roots);
        }
        if let Some(peer) = self.peers.get_mut(&flight.conn) {
            peer.agrees_to = peer.agrees_to.max(length);
        }
    }

    /// Our tree is longer and does not say what it was at `length`: whoever has as much as we is to say it.
    fn compare_with_another(&mut self, ctx: &mut Ctx, core: &Core, conn: ConnId, length: u64) {
        let (fork, own) = (core.head().fork, core.head().length);
        let has_ours = self.peers.values().find(|peer| {
            let remote = peer.asked_for().filter(|remote| remote.fork == fork);
            peer.conn != conn && peer.agrees_to >= own && remote.is_some_and(|r| r.length >= own)
        });
        if let Some(other) = has_ours.map(|peer| peer.conn) {
            self.ask_history(ctx, core, other, length);
        }
    }

    fn split_at(&mut self, ctx: &mut Ctx, length: u64) {
        self.split = true;
        self.upgrade_wanted = false;
        let flying: Vec<u64> = self.flights.iter().map(|(id, _)| id).collect();
        for id in flying {
            self.end(ctx, id, Outcome::Recalled);
        }
        ctx.emit(HubEvent::TwoHistories { core: self.id, length });
    }
}
