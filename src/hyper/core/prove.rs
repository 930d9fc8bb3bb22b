//! Answering peers, and taking their answers.

use super::message::{Proof, Request};
use super::tree::{self, ProofError};
use super::verifier::Verifier;
use super::{ApplyError, Core, CoreError, MAX_BLOCKS, Result};
use crate::crypto::Hash;
use bytes::Bytes;

/// What a peer asks for, as far as it can be proven.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart where it is made; a box would cost an allocation per block served"
)]
pub enum Provable {
    /// Complete, the block's value included.
    Proof(Proof),
    /// The block, or a node that the proof needs, is not here.
    NotHere,
    /// No honest peer asks this.
    Invalid(&'static str),
}

/// What an answer changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The block that came along; it is here now.
    pub block: Option<u64>,
    /// That block was not here before.
    pub new_block: bool,
    /// Old and new length, if the answer brought a longer tree.
    pub upgraded: Option<(u64, u64)>,
    /// For a fork that was followed: how many blocks of the old tree are part of the new one.
    pub ancestors: Option<u64>,
}

impl Core {
    /// The proof for a peer's request, whose fork is the caller's to compare.
    pub fn create_proof(&self, request: &Request) -> Result<Provable> {
        if request.block.is_some_and(|block| self.head.length > 0 && !self.has(block.index)) {
            return Ok(Provable::NotHere);
        }
        let mut request = request.clone();
        let verifier = self.identity.verifier.as_ref();
        if let Some(prologue) = verifier.and_then(Verifier::prologue) {
            request.upgrade = request.upgrade.map(|asked| asked.around(prologue));
        }
        let mut proof = match tree::make_proof(&self.head, &self.view(), &request) {
            Ok(proof) => proof,
            Err(ProofError::Invalid(why)) => return Ok(Provable::Invalid(why)),
            Err(ProofError::Missing(_)) => return Ok(Provable::NotHere),
            Err(ProofError::Io(error)) => return Err(error.into()),
        };
        if let Some(block) = &mut proof.block {
            match self.stored_block(block.index)? {
                Some(value) => block.value = value,
                None => return Ok(Provable::NotHere),
            }
        }
        if request.manifest {
            proof.manifest = self.told_manifest().cloned();
        }
        Ok(Provable::Proof(proof))
    }

    /// Takes a peer's answer if it holds. That it is what was asked for is the caller's to check. `leaf` is the
    /// leaf hash of the block's value, if the caller has hashed it outside the lock.
    ///
    /// The block's bytes are written; its bit, the nodes and a new head wait for [`Core::flush`].
    ///
    /// # Errors
    /// Nothing has changed after an error.
    pub fn apply_proof(
        &mut self,
        proof: &Proof,
        leaf: Option<Hash>,
    ) -> std::result::Result<Applied, ApplyError> {
        self.check_following()?;
        let offered = self.offered_verifier(proof)?;
        let verifier = self.identity.verifier.as_ref().or(offered.as_ref());
        let verifier = verifier.ok_or(ApplyError::Manifest)?;
        let verified = tree::verify_proof(&self.head, &self.view(), proof, leaf, verifier)?;
        if let Some(head) = verified.head.as_ref().filter(|head| head.length > MAX_BLOCKS) {
            return Err(ApplyError::TooLong(head.length));
        }
        if verified.head.is_some() {
            self.check_tail()?;
            self.give_up_tail()?;
        }
        let mut applied = Applied::default();
        let block = verified.block.filter(|(block, _)| !self.has(*block));
        if let Some((block, size)) = block {
            let offset = match self.next_write {
                Some((next, offset)) if next == block => Some(offset),
                _ => verified.block_offset(&self.head, &self.view())?,
            };
            let offset = offset.ok_or(CoreError::MissingNodes(block))?;
            self.write_block(offset, proof).map_err(ApplyError::Unstored)?;
            self.next_write = Some((block + 1, offset + size));
            applied.new_block = true;
        }
        for node in &verified.nodes {
            self.nodes.put(node)?;
        }
        if let Some(head) = verified.head {
            self.take_verifier(offered);
            applied.upgraded = Some((self.head.length, head.length));
            self.outgrown();
            self.head = head;
            self.dirty.head = true;
        }
        if let Some((block, _)) = block {
            self.are_known(block..block + 1);
            self.bits.set(block, true);
        }
        self.dirty.fetched |= applied.new_block || applied.upgraded.is_some();
        applied.block = verified.block.map(|(block, _)| block);
        Ok(applied)
    }

    /// For a reader that knows the key only: who may sign by the answer's manifest, or by its absence.
    pub(super) fn offered_verifier(
        &self,
        proof: &Proof,
    ) -> std::result::Result<Option<Verifier>, ApplyError> {
        if self.identity.verifier.is_some() {
            return Ok(None);
        }
        let offered = Verifier::offered(&self.identity.key, proof.manifest.as_ref());
        offered.map(Some).ok_or(ApplyError::Manifest)
    }

    /// What was signed by it was taken, so it is the one.
    pub(super) fn take_verifier(&mut self, offered: Option<Verifier>) {
        if let Some(verifier) = offered {
            self.identity.verifier = Some(verifier);
            self.dirty.identity = true;
            self.derive();
        }
    }

    fn write_block(&self, offset: u64, proof: &Proof) -> Result<()> {
        let value = proof.block.as_ref().map(|block| &block.value);
        match value {
            Some(value) if !value.is_empty() => Ok(self.files.blocks.write_at(offset, value)?),
            _ => Ok(()),
        }
    }

    /// Plaintext of a value that came with an answer, so that it need not be read back.
    pub fn open_value(&self, block: u64, stored: Bytes) -> Result<Bytes> {
        super::place::open(self.cipher.as_deref(), block, stored)
    }
}
