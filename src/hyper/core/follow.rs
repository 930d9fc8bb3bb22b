//! Following a peer to a higher fork, which its writer has signed.
//!
//! That the old blocks are gone must be durable before anything is overwritten, and the device takes its time. So the
//! proof is looked at first ([`Core::begin_follow`]), and the rest ([`Following::store`]) is for a thread that may wait;
//! it holds the core only for moments.
//!
//! From the one to the end of the other the core answers by the old head, takes no other change, and frees nothing
//! ([`CoreError::Busy`]). A fork that nobody stores leaves it so until it is opened anew, by whichever head the store
//! has then.

use super::change::Removal;
use super::message::Proof;
use super::tree::{self, Reorg};
use super::verifier::Verifier;
use super::{Applied, ApplyError, Core, CoreError, MAX_BLOCKS, Result, SharedCore};
use crate::lock::lock;

/// A fork that is proven and not yet stored.
pub struct Following {
    reorg: Reorg,
    offered: Option<Verifier>,
    /// Where the bytes of what is common end, if that can be told.
    end: Option<u64>,
    /// What is not common, once the core does not show it any more.
    removal: Option<Removal>,
}

impl Following {
    /// Stores the fork. Durable.
    ///
    /// # Errors
    /// What the core was before it is still, if it could not be stored.
    pub fn store(mut self, core: &SharedCore) -> Result<Applied> {
        let storage = lock(core).storage.clone();
        // Done now, for it may wait for the device, and whoever writes nodes does it if it is not done.
        let begun = storage.begin_session().map_err(CoreError::from);
        let removed = begun.and_then(|_| self.remove(&mut lock(core)));
        let stored = removed.and_then(|()| self.commit());
        lock(core).finish_follow(self, stored)
    }

    /// Takes away what is not common.
    pub(super) fn remove(&mut self, core: &mut Core) -> Result<()> {
        let range = self.reorg.ancestors..u64::MAX;
        self.removal = Some(core.begin_removal(&[range], Some(&self.reorg.head))?);
        Ok(())
    }

    /// Waits until the device has the new head and not what was taken away.
    pub(super) fn commit(&mut self) -> Result<()> {
        self.removal.as_mut().map_or(Ok(()), Removal::commit)
    }
}

impl Core {
    /// Checks the answer to a request of `upgrade { start: 0, .. }` at a higher fork, proven from nothing. A block that
    /// came along is not taken.
    ///
    /// # Errors
    /// Nothing has changed after an error.
    pub fn begin_follow(&mut self, proof: &Proof) -> std::result::Result<Following, ApplyError> {
        self.check_tail()?;
        let offered = self.offered_verifier(proof)?;
        let verifier = self.identity.verifier.as_ref().or(offered.as_ref());
        let verifier = verifier.ok_or(ApplyError::Manifest)?;
        let reorg = tree::verify_reorg(&self.head, &self.view(), proof, verifier)?;
        if reorg.head.length > MAX_BLOCKS {
            return Err(ApplyError::TooLong(reorg.head.length));
        }
        let end = self.raw_offset(reorg.ancestors)?;
        self.following = true;
        Ok(Following { reorg, offered, end, removal: None })
    }

    /// Takes the new head, if it was stored.
    pub(super) fn finish_follow(
        &mut self,
        following: Following,
        stored: Result<()>,
    ) -> Result<Applied> {
        let Following { reorg, offered, end, removal } = following;
        self.following = false;
        match removal {
            Some(removal) => self.end_removal(removal, stored)?,
            None => stored?,
        }
        let old = self.head.length;
        self.cut(reorg.head, reorg.ancestors, end)?;
        for node in &reorg.nodes {
            self.nodes.put(node)?;
        }
        // A kept block must be readable from now on, also by whoever opens the core after us.
        self.nodes.flush()?;
        self.outgrown();
        self.take_verifier(offered);
        Ok(Applied {
            upgraded: Some((old, self.head.length)),
            ancestors: Some(reorg.ancestors),
            ..Applied::default()
        })
    }

    /// # Errors
    /// [`CoreError::Busy`] while a fork is being stored.
    pub(super) fn check_following(&self) -> Result<()> {
        if self.following { Err(CoreError::Busy) } else { Ok(()) }
    }
}
