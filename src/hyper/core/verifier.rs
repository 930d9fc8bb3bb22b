//! Checks and makes the signature of a tree.
//!
//! What is signed is the tree hash, length and fork behind a constant and a context:
//!
//! | core | context | signature |
//! |---|---|---|
//! | manifest v1 and up | core key | [`super::multisig`] |
//! | manifest v0 | signer's namespace | 64 bytes if one signer and no patch, else multisig |
//! | compat | none | 64 bytes |
//!
//! Source: hypercore/lib/verifier.js, hypercore/lib/caps.js

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::head::Head;
use super::manifest::{Manifest, Prologue, Signer, caps};
use super::multisig::{Multisig, Part};
use super::node::Node;
use super::tree::batch::Batch;
use crate::crypto::hash::namespace;
use crate::crypto::sign::{self, KeyPair, Signature};
use crate::hyper::flat_tree as flat;
use crate::key::CoreKey;
use std::collections::BTreeMap;

/// Who may sign a core, ready for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    key: CoreKey,
    compat: bool,
    manifest: Manifest,
    /// The namespace that every signable begins with.
    tree_namespace: [u8; 32],
}

impl Verifier {
    /// `None` if the manifest is not the key's, or one that the reference would not build: version below 2
    /// with linked keys or user data, or a quorum above the number of signers.
    pub fn new(key: &CoreKey, manifest: &Manifest) -> Option<Self> {
        let compat = manifest.is_compat(key);
        if !compat && manifest.key() != *key {
            return None;
        }
        let too_new =
            manifest.version < 2 && (!manifest.linked.is_empty() || manifest.user_data.is_some());
        if too_new || manifest.quorum > manifest.signers.len() as u64 {
            return None;
        }
        let tree_namespace = namespace("hypercore", caps::TREE);
        Some(Self { key: *key, compat, manifest: manifest.clone(), tree_namespace })
    }

    /// For a core without manifest: its key is the signer's public key.
    pub fn compat(key: &CoreKey) -> Self {
        let tree_namespace = namespace("hypercore", caps::TREE);
        Self { key: *key, compat: true, manifest: Manifest::single(key.0), tree_namespace }
    }

    /// The verifier for an answer to a reader that knows the key only: by the manifest that came along, or as
    /// compat core where none did.
    pub fn offered(key: &CoreKey, manifest: Option<&Manifest>) -> Option<Self> {
        match manifest {
            Some(manifest) => Self::new(key, manifest),
            None => Some(Self::compat(key)),
        }
    }

    pub fn is_compat(&self) -> bool {
        self.compat
    }

    /// The manifest; for a compat core the one that readers derive from the key.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Blocks that are fixed by the manifest, if any.
    pub fn prologue(&self) -> Option<&Prologue> {
        self.manifest.prologue.as_ref().filter(|_| !self.compat)
    }

    /// Version 0 rules hold for compat cores, whatever their manifest says.
    fn version(&self) -> u64 {
        if self.compat { 0 } else { self.manifest.version }
    }

    /// Whether signatures are 64 plain bytes.
    fn plain(&self) -> bool {
        let single = !self.manifest.allow_patch && self.manifest.signers.len() == 1;
        self.compat || (self.version() == 0 && single)
    }

    /// Whether the head is signed as the manifest asks for.
    pub fn verify(&self, head: &Head) -> bool {
        if self.version() > 0
            && let Some(prologue) = self.prologue()
            && head.length <= prologue.length
        {
            return head.length == prologue.length && head.tree_hash() == prologue.hash;
        }
        if self.plain() {
            let (Some(signer), Ok(signature)) =
                (self.manifest.signers.first(), Signature::try_from(head.signature.as_slice()))
            else {
                return false;
            };
            return self.verify_one(signer, head, &signature);
        }
        self.verify_multi(head).unwrap_or(false)
    }

    fn verify_one(&self, signer: &Signer, head: &Head, signature: &Signature) -> bool {
        sign::verify(&signer.public_key, &self.signable(signer, head), signature)
    }

    /// `None` and `Some(false)` both mean no.
    fn verify_multi(&self, head: &Head) -> Option<bool> {
        let signers = &self.manifest.signers;
        let quorum = usize::try_from(self.manifest.quorum).ok()?;
        if head.signature.is_empty() || quorum == 0 {
            return None;
        }
        let multisig = Multisig::decode(&head.signature, self.version(), signers.len()).ok()?;
        let nodes: BTreeMap<u64, Node> = multisig.nodes.iter().map(|n| (n.index, *n)).collect();
        let mut used = vec![false; signers.len()];
        // Parts behind the quorum are not looked at, as in the reference.
        for part in multisig.parts.get(..quorum)? {
            let index = usize::try_from(part.signer).ok()?;
            let signer = signers.get(index)?;
            if std::mem::replace(used.get_mut(index)?, true) {
                return None;
            }
            let signed = match part.patch > 0 && self.manifest.allow_patch {
                true => &patched(head, part, &nodes)?,
                false => head,
            };
            if !self.verify_one(signer, signed, &part.signature) {
                return None;
            }
        }
        Some(true)
    }

    /// Signs a head; its own signature is ignored. `None` if the key is not a signer's, or if more than one
    /// signer must sign.
    pub fn sign(&self, head: &Head, pair: &KeyPair) -> Option<Vec<u8>> {
        let public = pair.public();
        let (i, signer) =
            self.manifest.signers.iter().enumerate().find(|(_, s)| s.public_key == public)?;
        let signature = pair.sign(&self.signable(signer, head));
        if self.plain() {
            return Some(signature.to_vec());
        }
        (self.manifest.quorum == 1).then(|| Multisig::one(i as u64, &signature, self.version()))
    }

    /// Whether [`Self::sign`] has a signature to give with this pair.
    pub fn can_sign(&self, pair: &KeyPair) -> bool {
        let public = pair.public();
        let known = self.manifest.signers.iter().any(|signer| signer.public_key == public);
        known && (self.plain() || self.manifest.quorum == 1)
    }

    fn signable(&self, signer: &Signer, head: &Head) -> Vec<u8> {
        let mut out = Vec::with_capacity(112);
        out.extend_from_slice(&self.tree_namespace);
        match self.version() {
            _ if self.compat => {}
            0 => out.extend_from_slice(&signer.namespace),
            _ => out.extend_from_slice(&self.key.0),
        }
        out.extend_from_slice(&head.tree_hash());
        out.extend_from_slice(&head.length.to_le_bytes());
        out.extend_from_slice(&head.fork.to_le_bytes());
        out
    }
}

/// The longer tree that a signer signed.
fn patched(head: &Head, part: &Part, nodes: &BTreeMap<u64, Node>) -> Option<Head> {
    let length = head.length.checked_add(part.patch).filter(|&n| n <= flat::MAX_LENGTH)?;
    let mut batch = Batch::new(head);
    batch.grow_with(length, nodes)?;
    Some(batch.finish().0)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::hyper::core::tree::testing::{
        bytes, bytes32, head, key_pair, manifest, nodes, vectors,
    };
    use crate::key::unhex;

    /// Lone-signer signature, key and manifest of each kind of core.
    fn kinds() -> [(&'static str, Manifest, CoreKey); 3] {
        let public = key_pair(0).public();
        let v1 = Manifest::single(public);
        let v0 = Manifest { version: 0, ..v1.clone() };
        [
            ("signature_v1_single_default", v1.clone(), v1.key()),
            ("signature_v0_single", v0.clone(), v0.key()),
            ("signature_compat", v1, CoreKey(public)),
        ]
    }

    #[test]
    fn vectors_of_trees_sign_and_verify() {
        for tree in &vectors()["trees"].as_array().unwrap()[1..] {
            for (name, manifest, key) in kinds() {
                let verifier = Verifier::new(&key, &manifest).unwrap();
                let mut head = Head {
                    fork: 0,
                    length: tree["length"].as_u64().unwrap(),
                    roots: nodes(&tree["roots"]),
                    signature: Vec::new(),
                };
                assert!(!verifier.verify(&head));
                let signature = verifier.sign(&head, &key_pair(0)).unwrap();
                assert_eq!(signature, bytes(&tree[name]), "{name}");
                assert_eq!(verifier.sign(&head, &key_pair(1)), None);
                head.signature = signature;
                assert!(verifier.verify(&head), "{name}");
                for changed in [
                    Head { fork: 1, ..head.clone() },
                    Head { length: head.length + 1, ..head.clone() },
                    Head { roots: Vec::new(), ..head.clone() },
                ] {
                    assert!(!verifier.verify(&changed), "{name}");
                }
            }
        }
    }

    #[test]
    fn vectors_of_signables() {
        let v = vectors()["signables"].clone();
        let tree_hash = bytes32(&v["tree_hash"]);
        for (name, (_, manifest, key)) in
            ["v1_and_up_ctx_is_key", "v0_ctx_is_signer_namespace", "compat_key_is_public_key"]
                .into_iter()
                .zip(kinds())
        {
            let verifier = Verifier::new(&key, &manifest).unwrap();
            let head = Head { length: 10, fork: 2, ..Head::default() };
            let mut want = bytes(&v[name]["signable"]);
            let at = want.windows(32).position(|w| w == tree_hash).unwrap();
            want[at..at + 32].copy_from_slice(&head.tree_hash());
            assert_eq!(verifier.signable(&manifest.signers[0], &head), want, "{name}");
        }
    }

    #[test]
    fn vectors_of_multisig() {
        let v = vectors();
        for (name, case) in v["multisig"].as_object().unwrap() {
            if !case.is_object() {
                continue;
            }
            let manifest = match case["manifest"].as_str() {
                Some(name) => manifest(&v["manifests"][name]["manifest"]),
                None => {
                    let encoded = bytes(&case["manifest_encoded"]);
                    Manifest::decode(&mut crate::codec::Reader::new(&encoded)).unwrap()
                }
            };
            let verifier = Verifier::new(&manifest.key(), &manifest).unwrap();
            let signature = case["signature"].as_str().map_or(Vec::new(), |s| unhex(s).unwrap());
            let verifies = |length, signature: &[u8]| {
                verifier.verify(&Head { signature: signature.to_vec(), ..head(length) })
            };
            assert_eq!(verifies(8, &signature), case["verifies"] == true, "{name}");
            assert!(!verifies(9, &signature), "{name}");
            for i in 0..signature.len() {
                let mut flipped = signature.clone();
                flipped[i] ^= 1;
                // Elsewhere there are fields that nothing looks at, as a patch that is not allowed.
                assert!(!verifies(8, &flipped) || name != "v1", "{name} byte {i}");
                let _ = verifies(8, &signature[..i]);
            }
        }
    }

    #[test]
    fn a_prologue_needs_no_signature_and_admits_nothing_shorter() {
        let mut manifest = Manifest::single(key_pair(0).public());
        manifest.prologue = Some(Prologue { hash: head(8).tree_hash(), length: 8 });
        let verifier = Verifier::new(&manifest.key(), &manifest).unwrap();
        assert!(verifier.verify(&head(8)));
        let mut short = head(7);
        short.signature = verifier.sign(&short, &key_pair(0)).unwrap();
        assert!(!verifier.verify(&short));
        let mut long = head(9);
        assert!(!verifier.verify(&long));
        long.signature = verifier.sign(&long, &key_pair(0)).unwrap();
        assert!(verifier.verify(&long));
    }

    #[test]
    fn a_manifest_must_be_the_keys() {
        let manifest = Manifest::single(key_pair(0).public());
        assert!(Verifier::new(&CoreKey([7; 32]), &manifest).is_none());
        assert!(Verifier::offered(&CoreKey([7; 32]), Some(&manifest)).is_none());
        let greedy = Manifest { quorum: 2, ..manifest.clone() };
        assert!(Verifier::new(&greedy.key(), &greedy).is_none());
        let modern = Manifest { user_data: Some(vec![1]), ..manifest };
        assert!(Verifier::new(&modern.key(), &modern).is_none());
        let compat = Verifier::offered(&CoreKey(key_pair(0).public()), None).unwrap();
        assert!(compat.is_compat());
    }

    #[test]
    fn one_of_several_signers_is_enough_for_a_quorum_of_one() {
        for version in [0, 1, 2] {
            let mut manifest = Manifest::single(key_pair(0).public());
            manifest.version = version;
            manifest.signers.push(Signer::new(key_pair(1).public()));
            let verifier = Verifier::new(&manifest.key(), &manifest).unwrap();
            let mut head = head(5);
            head.signature = verifier.sign(&head, &key_pair(1)).unwrap();
            assert!(verifier.verify(&head));
            manifest.quorum = 2;
            let verifier = Verifier::new(&manifest.key(), &manifest).unwrap();
            assert_eq!(verifier.sign(&head, &key_pair(1)), None);
            assert!(!verifier.verify(&head));
        }
    }
}
