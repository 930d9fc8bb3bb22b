//! The end of a request of ours. All that marks it as on its way is taken back here, and nowhere else.

use super::connection::Ctx;
use super::inflight::Flight;
use super::outcome::Outcome;
use super::peer::Peer;
use super::replica::Replica;
use super::wire::Message;
use std::ops::Range;

impl Replica {
    /// Ends a request.
    pub fn end(&mut self, ctx: &mut Ctx, id: u64, how: Outcome) -> Option<Flight> {
        let flight = match how {
            Outcome::Overdue => {
                let flight = self.flights.get_mut(id)?;
                flight.late = true;
                flight.clone()
            }
            _ => self.flights.remove(id)?,
        };
        if self.upgrade == Some(id) {
            self.upgrade = None;
        }
        if let Some(wish) = flight.seek.and_then(|seek| self.seeks.get_mut(&seek)) {
            wish.flight = None;
            if how != Outcome::Overdue {
                wish.asked.retain(|(asked, _)| *asked != id);
            }
            self.seeks_due = true;
        }
        if let Some(peer) = self.peers.get_mut(&flight.conn) {
            match how {
                Outcome::Answered | Outcome::Useless => {
                    peer.pace.landed(&flight, ctx.now, ctx.limits);
                }
                Outcome::Refused => {
                    peer.pace.landed(&flight, ctx.now, ctx.limits);
                    blame(peer, &flight);
                }
                Outcome::Overdue if flight.request.upgrade.is_some() => blame(peer, &flight),
                Outcome::Hopeless => {
                    peer.pace.dropped(&flight);
                    peer.refused = None;
                }
                Outcome::Recalled => peer.pace.dropped(&flight),
                Outcome::Overdue | Outcome::Lost => {}
            }
        }
        if matches!(how, Outcome::Hopeless | Outcome::Recalled) {
            self.send(ctx, flight.conn, &Message::Cancel { request: id });
        }
        let done = matches!(how, Outcome::Answered | Outcome::Recalled);
        if let Some(block) = flight.block().filter(|block| !done && !self.flights.is_coming(*block))
        {
            self.blocks.queue(block);
            self.ranges.values_mut().for_each(|range| range.put_back(block));
        }
        Some(flight)
    }

    /// Takes back the requests for a block that came from elsewhere.
    pub fn recall_copies(&mut self, ctx: &mut Ctx, block: u64) {
        for id in self.flights.copies(block).to_vec() {
            self.end(ctx, id, Outcome::Recalled);
        }
    }

    /// Takes back requests for a block if nobody wants it any more.
    pub fn recall_block(&mut self, ctx: &mut Ctx, block: u64) {
        let wanted = self.blocks.get(block).is_some()
            || self.ranges.values().any(|r| (r.low..r.end).contains(&block));
        if wanted {
            return;
        }
        for id in self.flights.copies(block).to_vec() {
            // One that brings the head as well is let be.
            if self.flights.get(id).is_some_and(|flight| flight.request.upgrade.is_none()) {
                self.end(ctx, id, Outcome::Recalled);
            }
        }
    }

    /// Takes back requests for blocks of a range that nobody wants any more.
    pub fn recall_range(&mut self, ctx: &mut Ctx, blocks: Range<u64>) {
        let of_range = |flight: &Flight| flight.block().filter(|block| blocks.contains(block));
        let flying: Vec<u64> =
            self.flights.iter().filter_map(|(_, flight)| of_range(flight)).collect();
        flying.into_iter().for_each(|block| self.recall_block(ctx, block));
    }
}

/// Notes that a peer did not give what it offered.
fn blame(peer: &mut Peer, flight: &Flight) {
    if flight.history {
        return;
    }
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
