//! A bee whose writer lies: rings, links forward, absurd numbers, keys out of order. Every walk ends, in order
//! or in an error.
#![no_main]

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use hdrive::hyper::bee::{Bee, Header, RangeOptions};
use hdrive::hyper::source::memory::MemoryLog;
use hdrive_fuzz::now;
use libfuzzer_sys::fuzz_target;

/// Entries looked at before a walk is left alone.
const PATIENCE: usize = 2000;

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    let mut n = bytes.len();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out.extend_from_slice(bytes);
}

/// A node block whose links mostly lead backwards. Numbers stay below 128, one byte each.
fn node(u: &mut Unstructured<'_>, seq: u8) -> Result<Vec<u8>> {
    let link = |u: &mut Unstructured<'_>| match u.ratio(15, 16u8)? {
        true => u.int_in_range(0..=seq),
        false => u.int_in_range(0..=127),
    };
    let mut index = Vec::new();
    for _ in 0..u.int_in_range(0..=3)? {
        let keys = u.int_in_range(0..=6)?;
        let mut packed = Vec::new();
        for _ in 0..keys {
            packed.push(link(u)?);
        }
        let mut level = Vec::new();
        put_bytes(&mut level, 1, &packed);
        if u.arbitrary()? {
            let mut packed = Vec::new();
            for _ in 0..=keys {
                packed.push(link(u)?);
                packed.push(u.int_in_range(0..=3)?);
            }
            put_bytes(&mut level, 2, &packed);
        }
        put_bytes(&mut index, 1, &level);
    }
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &index);
    put_bytes(&mut out, 2, &[b'k', u.arbitrary()?]);
    if u.arbitrary()? {
        put_bytes(&mut out, 3, b"v");
    }
    Ok(out)
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut blocks: Vec<Bytes> = vec![Header::new(None).encode().into()];
    for seq in 1..=u.int_in_range(1..=20)? {
        let block = match u.ratio(1, 16u8)? {
            true => u.arbitrary()?,
            false => node(u, seq)?,
        };
        blocks.push(block.into());
    }
    let bee = Bee::new(MemoryLog::from_blocks(blocks));
    let key = [b'k', u.arbitrary()?];
    let got = now(bee.get(&key));
    assert_eq!(got.is_ok(), bee.get_local(&key).is_ok());

    let mut last: Option<Bytes> = None;
    let mut range = bee.range(RangeOptions::default());
    for _ in 0..PATIENCE {
        let Ok(Some(entry)) = now(range.next()) else { break };
        assert!(last.is_none_or(|last| last < entry.key), "out of order");
        last = Some(entry.key);
    }
    let old = bee.checkout(u.int_in_range(0..=30)?);
    let mut diff = bee.diff(&old);
    for _ in 0..PATIENCE {
        let Ok(Some(_)) = now(diff.next()) else { break };
    }
    let mut history = bee.history(u.int_in_range(0..=30)?);
    for _ in 0..PATIENCE {
        let Ok(Some(_)) = now(history.next()) else { break };
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});
