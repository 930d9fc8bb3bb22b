//! What happens when the local storage does not take what comes: a full disk, mostly.
//!
//! Who waits for a block gets it from memory. What is fetched ahead of need, or to be kept, is let be, but for one block
//! now and then by which it is noticed that there is room again.

use super::HubEvent;
use super::connection::Ctx;
use super::inflight::Flight;
use super::refusal::Refusal;
use super::replica::Replica;
use crate::hyper::core::message::Proof;

impl Replica {
    /// A block that was checked could not be stored.
    pub fn on_unstored(
        &mut self,
        ctx: &mut Ctx,
        id: u64,
        flight: &Flight,
        proof: &Proof,
        why: Refusal,
    ) {
        let Refusal::Unstored { why, full } = why else { return };
        if self.backoff.failed(ctx.now) {
            ctx.emit(HubEvent::StorageFailed { core: self.id, why, full });
        }
        self.settle(id, flight);
        let Some(block) = &proof.block else { return };
        let waited_for = self.blocks.get(block.index).is_some_and(|wish| wish.priority);
        // One that came with a longer tree is past the end for its reader still; the tree is asked for again, alone.
        if !waited_for || proof.upgrade.is_some() {
            return self.put_back(id, flight);
        }
        self.blocks.remove(block.index);
        for copy in self.flights.copies(block.index).to_vec() {
            self.give_up(ctx, copy);
        }
        let stored = ctx.kept(&block.value);
        ctx.emit(HubEvent::Unstored { core: self.id, index: block.index, stored });
    }
}
