//! What a signed tree says about its first blocks, to be compared with what another one says.
//!
//! Source: hypercore/lib/merkle-tree.js:verifyFullyRemote; hypercore/lib/core.js:checkConflict

use super::Head;
use super::batch::Batch;
use super::verify::{VerifyError, grow, sign_off};
use crate::crypto::Hash;
use crate::hyper::core::message::Proof;
use crate::hyper::core::verifier::Verifier;
use crate::hyper::flat_tree as flat;

/// Hashes of the roots of the first blocks of a tree. Each stands for all that is below it, sizes included.
pub type Roots = Vec<Hash>;

/// Checks the answer to `request { upgrade { start: 0, length } }` from nothing: the roots at `length` of the tree that
/// was signed, which may be longer.
pub fn verify_history(proof: &Proof, verifier: &Verifier) -> Result<(u64, Roots), VerifyError> {
    let alone = proof.block.is_none() && proof.hash.is_none() && proof.seek.is_none();
    let upgrade = match &proof.upgrade {
        Some(upgrade) if alone && upgrade.start == 0 => upgrade,
        _ => return Err(VerifyError::Invalid("a history begins at the start")),
    };
    let empty = Head { fork: proof.fork, ..Head::default() };
    let mut batch = Batch::new(&empty);
    grow(&mut batch, upgrade, None, verifier.prologue())?;
    sign_off(batch, upgrade, verifier)?;
    let roots = flat::full_roots(upgrade.length);
    let indexes = upgrade.nodes.iter().map(|node| node.index);
    if !roots.eq(indexes) {
        return Err(VerifyError::Invalid("more than the roots"));
    }
    Ok((upgrade.length, upgrade.nodes.iter().map(|node| node.hash).collect()))
}
