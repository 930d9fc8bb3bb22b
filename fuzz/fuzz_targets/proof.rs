//! Proofs from a peer. Made-up ones never verify into a longer tree; a true one with one thing changed is
//! refused, or leads to the same head and the same stored hashes.
#![no_main]

use arbitrary::{Result, Unstructured};
use hdrive::hyper::core::tree::{Head, make_proof, verify_proof, verify_reorg};
use hdrive_fuzz::{MAX_BLOCKS, Tree, block, disturb, proof, request};
use libfuzzer_sys::fuzz_target;

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let full = Tree::new(u.int_in_range(0..=MAX_BLOCKS)?);
    let mut here = Tree::new(u.int_in_range(0..=full.head.length)?);
    here.thin(u.arbitrary()?);

    let mut offered = proof(u, &full)?;
    if u.arbitrary()? {
        let Ok(true_proof) = make_proof(&full.head, &full, &request(u)?) else { return Ok(()) };
        offered = true_proof;
        if let Some(part) = &mut offered.block {
            part.value = block(part.index);
        }
        disturb(u, &mut offered)?;
    }

    if let Ok(verified) = verify_proof(&here.head, &here, &offered, None, &full.verifier) {
        for node in &verified.nodes {
            // Sizes of siblings may be shifted, their sum and all hashes may not.
            let known = full.nodes.get(&node.index);
            assert!(known.is_some_and(|known| known.hash == node.hash), "node {}", node.index);
        }
        if let Some(head) = &verified.head {
            assert_eq!(head.length, full.head.length);
            assert_eq!(head.tree_hash(), full.head.tree_hash());
        }
        if let Some((index, size)) = verified.block {
            assert_eq!(size, block(index).len() as u64);
        }
        let _ = verified.block_offset(&here.head, &here);
    }
    let _ = verify_reorg(&here.head, &here, &offered, &full.verifier);
    let forked = Head { fork: 0, ..here.head.clone() };
    let _ = verify_reorg(&forked, &here, &offered, &full.verifier);
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});
