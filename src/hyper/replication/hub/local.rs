//! What local users wish for, and what they change.

use super::Hub;
use crate::hyper::replication::outcome::Outcome;
use crate::hyper::replication::replica::SeekWish;
use crate::hyper::replication::wishes::RangeWish;
use crate::hyper::replication::{CoreId, HubEvent, RangeId, SeekId};
use std::ops::Range;
use std::time::Instant;

impl Hub {
    /// Somebody waits for a block. Each call is taken back by one [`Hub::unwant_block`], or ends with
    /// [`HubEvent::Block`].
    pub fn want_block(&mut self, id: CoreId, index: u64, priority: bool, now: Instant) {
        self.with(id, now, |replica, ctx, core| {
            if core.has(index) {
                return ctx.emit(HubEvent::Block { core: id, index });
            }
            replica.wish(ctx, |replica| replica.blocks.add(index, priority, now));
            replica.pump(ctx, core);
        });
        self.finish(now);
    }

    /// One waiter less. When it was the last, requests for the block are cancelled, unless a range
    /// wants it too.
    pub fn unwant_block(&mut self, id: CoreId, index: u64, now: Instant) {
        self.with(id, now, |replica, ctx, core| {
            if replica.blocks.withdraw(index) {
                replica.recall_block(ctx, index);
                replica.pump(ctx, core);
            }
        });
        self.finish(now);
    }

    /// Fetches a range; `linear` in order, else wherever a peer has something. Linear ranges go before the
    /// others, older ones before newer ones. An end past the length is fetched as it comes to exist.
    pub fn want_range(
        &mut self,
        id: CoreId,
        blocks: Range<u64>,
        linear: bool,
        now: Instant,
    ) -> RangeId {
        let range = RangeId(self.next_id);
        self.next_id += 1;
        self.ranges.insert(range, id);
        self.with(id, now, |replica, ctx, core| {
            let wish = RangeWish::new(range, blocks.start, blocks.end, linear);
            replica.wish(ctx, |replica| replica.ranges.insert(range, wish));
            replica.check_ranges(ctx, core);
            replica.pump(ctx, core);
        });
        self.finish(now);
        range
    }

    pub fn unwant_range(&mut self, range: RangeId, now: Instant) {
        let Some(id) = self.ranges.remove(&range) else { return };
        self.with(id, now, |replica, ctx, core| {
            if let Some(wish) = replica.ranges.remove(&range) {
                replica.recall_range(ctx, wish.low..wish.end);
                replica.pump(ctx, core);
            }
        });
        self.finish(now);
    }

    /// Asks for the newest head; [`HubEvent::PeersSynced`] follows, at once if all is known already.
    pub fn want_upgrade(&mut self, id: CoreId, now: Instant) {
        self.with(id, now, |replica, ctx, core| {
            replica.wish(ctx, |replica| {
                replica.upgrade_wanted = true;
                replica.synced_told = false;
            });
            replica.pump(ctx, core);
            replica.check_synced(ctx, core);
        });
        self.finish(now);
    }

    /// Finds the block that holds byte `bytes` of the plaintext.
    pub fn want_seek(&mut self, id: CoreId, bytes: u64, now: Instant) -> SeekId {
        let seek = SeekId(self.next_id);
        self.next_id += 1;
        self.seeks.insert(seek, id);
        self.with(id, now, |replica, ctx, core| {
            let wish = SeekWish { bytes, flight: None, asked: Vec::new(), past_end: false };
            replica.wish(ctx, |replica| {
                replica.seeks.insert(seek, wish);
                replica.seeks_due = true;
                replica.synced_told = false;
            });
            replica.pump(ctx, core);
            replica.check_synced(ctx, core);
        });
        self.finish(now);
        seek
    }

    pub fn unwant_seek(&mut self, seek: SeekId, now: Instant) {
        let Some(id) = self.seeks.remove(&seek) else { return };
        self.with(id, now, |replica, ctx, _| {
            let asked = replica.seeks.remove(&seek).map(|wish| wish.asked);
            for (flight, _) in asked.unwrap_or_default() {
                replica.end(ctx, flight, Outcome::Recalled);
            }
        });
        self.finish(now);
    }

    /// The core was appended to or truncated here.
    pub fn core_changed(&mut self, id: CoreId, now: Instant) {
        self.with(id, now, |replica, ctx, core| replica.core_changed(ctx, core));
        self.finish(now);
    }

    /// Blocks were removed from the store.
    pub fn core_cleared(&mut self, id: CoreId, blocks: Range<u64>, now: Instant) {
        self.with(id, now, |replica, ctx, core| replica.cleared(ctx, core, blocks));
        self.finish(now);
    }
}
