//! Signature records of several signers: nobody but enough of the signers makes a head valid.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use hdrive::codec::Put;
use hdrive::crypto::hash;
use hdrive::hyper::core::manifest::{Manifest, Signer};
use hdrive::hyper::core::tree::{Head, Node};
use hdrive::hyper::core::verifier::Verifier;
use hdrive_fuzz::{Tree, key_pair, nodes, number};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeSet;

const SIGNERS: u8 = 4;

/// One part of a record: who it says signed, who did, over a tree longer by how much.
#[derive(Debug)]
struct Part {
    signer: u64,
    by: u8,
    patch: u64,
}

fn parts(u: &mut Unstructured<'_>) -> Result<Vec<Part>> {
    let count = u.int_in_range(0..=6)?;
    let part = |u: &mut Unstructured<'_>| {
        let signer = number(u)?;
        let by = if u.ratio(3, 4u8)? { signer as u8 } else { u.arbitrary()? };
        Ok(Part { signer, by, patch: number(u)? })
    };
    (0..count).map(|_| part(u)).collect()
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let tree = Tree::new(u.int_in_range(1..=16)?);
    let longer = Tree::new(64);
    let manifest = Manifest {
        version: u.int_in_range(0..=3)?,
        allow_patch: u.arbitrary()?,
        quorum: u.int_in_range(0..=u64::from(SIGNERS) + 1)?,
        signers: (0..SIGNERS).map(|i| Signer::new(key_pair(i).public())).collect(),
        ..Manifest::single([0; 32])
    };
    let Some(verifier) = Verifier::new(&manifest.key(), &manifest) else { return Ok(()) };
    let mut head = tree.head.clone();
    if u.arbitrary()? {
        head.signature = Vec::arbitrary(u)?;
        assert!(!verifier.verify(&head));
        return Ok(());
    }

    // A record as version 1 and up write it, with true signatures over true and made-up trees.
    let parts = parts(u)?;
    let mut record = Vec::new();
    record.put_uint(parts.len() as u64);
    for part in &parts {
        let signed = match part.patch {
            0 => tree.head.clone(),
            patch => Tree::new((tree.head.length + patch % 64).min(64)).head,
        };
        let signature = sign(&manifest, &signed, part.by);
        record.put_uint(part.signer);
        record.put(&signature);
        record.put_uint(part.patch);
    }
    let extra: Vec<Node> = nodes(u, &longer)?;
    record.put_uint(extra.len() as u64);
    extra.iter().for_each(|node| node.put(&mut record));
    head.signature = record;
    if verifier.verify(&head) && manifest.version > 0 {
        let signers: BTreeSet<u64> =
            parts.iter().filter(|p| p.signer == u64::from(p.by)).map(|p| p.signer).collect();
        assert!(signers.len() as u64 >= manifest.quorum, "{parts:?}");
    }
    Ok(())
}

/// The signature of signer number `by` (or of a stranger) over a head, as version 1 and up sign it.
fn sign(manifest: &Manifest, head: &Head, by: u8) -> [u8; 64] {
    let mut text = Vec::new();
    text.extend_from_slice(&hash::namespace("hypercore", 0));
    text.extend_from_slice(&manifest.key().0);
    text.extend_from_slice(&head.tree_hash());
    text.extend_from_slice(&head.length.to_le_bytes());
    text.extend_from_slice(&head.fork.to_le_bytes());
    key_pair(by).sign(&text)
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});
