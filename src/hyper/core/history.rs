//! Whether what a peer has signed is the history that this core has.

use super::message::Proof;
use super::tree::{self, Roots};
use super::{ApplyError, Core};

impl Core {
    /// The roots at some length of the tree that a peer has signed, by its answer to an upgrade from 0.
    ///
    /// # Errors
    /// The answer does not hold.
    pub fn history_of(&self, proof: &Proof) -> Result<(u64, Roots), ApplyError> {
        let verifier = self.identity.verifier.as_ref().ok_or(ApplyError::Manifest)?;
        Ok(tree::verify_history(proof, verifier)?)
    }

    /// The same of the tree that is here; `None` past the length, and where a sparse copy does not have them.
    pub fn history_at(&self, length: u64) -> Option<Roots> {
        let roots = tree::truncated_roots(&self.head, &self.view(), length).ok()??;
        Some(roots.iter().map(|root| root.hash).collect())
    }
}
