//! Requests of a peer against whole and thin trees: a refusal, or a proof that the same tree accepts.
#![no_main]

use arbitrary::{Result, Unstructured};
use hdrive::hyper::core::tree::{Head, make_proof, verify_proof};
use hdrive::hyper::flat_tree::MAX_LENGTH;
use hdrive_fuzz::{MAX_BLOCKS, Tree, block, number, request};
use libfuzzer_sys::fuzz_target;

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let full = Tree::new(u.int_in_range(0..=MAX_BLOCKS)?);
    let mut thin = Tree::new(full.head.length);
    thin.thin(u.arbitrary()?);
    let asked = request(u)?;
    let _ = make_proof(&thin.head, &thin, &asked);
    // A head of absurd length; longer ones than this are refused before they become a head.
    let odd = Head { length: number(u)?.min(MAX_LENGTH), ..full.head.clone() };
    let _ = make_proof(&odd, &full, &asked);

    let Ok(mut proof) = make_proof(&full.head, &full, &asked) else { return Ok(()) };
    if let Some(part) = &mut proof.block {
        if part.index >= full.head.length {
            return Ok(());
        }
        part.value = block(part.index);
    }
    // Verified by one who has everything below, only what is new can matter.
    if let Some(upgrade) = &proof.upgrade {
        let start = upgrade.start;
        let before = Tree::new(start.min(full.head.length));
        let verified = verify_proof(&before.head, &before, &proof, None, &full.verifier);
        if asked.seek.is_none()
            && let Ok(verified) = verified
        {
            let head = verified.head.unwrap_or(before.head);
            assert_eq!(head.tree_hash(), full.head.tree_hash());
        }
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});
