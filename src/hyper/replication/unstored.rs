//! What happens when the local storage does not take what comes: a full disk, mostly.
//!
//! Who waits for a block gets it from memory. What is fetched ahead of need, or to be kept, is let be, but for one block
//! now and then by which it is noticed that there is room again.

use super::HubEvent;
use super::connection::Ctx;
use super::outcome::Outcome;
use super::refusal::Refusal;
use super::replica::Replica;
use crate::hyper::core::message::Proof;

impl Replica {
    /// A block that was checked could not be stored.
    pub fn on_unstored(&mut self, ctx: &mut Ctx, id: u64, proof: &Proof, why: Refusal) {
        let Refusal::Unstored { why, full } = why else { return };
        if self.backoff.failed(ctx.now) {
            ctx.emit(HubEvent::StorageFailed { core: self.id, why, full });
        }
        let waited_for = |block: u64| self.blocks.get(block).is_some_and(|wish| wish.priority);
        // One that came with a longer tree is past the end for its reader still; the tree is asked for again, alone.
        let handed_on = proof.upgrade.is_none();
        let block = proof.block.as_ref().filter(|block| handed_on && waited_for(block.index));
        let Some(block) = block else {
            self.end(ctx, id, Outcome::Useless);
            return;
        };
        self.end(ctx, id, Outcome::Answered);
        self.blocks.remove(block.index);
        self.recall_copies(ctx, block.index);
        let stored = ctx.kept(&block.value);
        ctx.emit(HubEvent::Unstored { core: self.id, index: block.index, stored });
    }
}
