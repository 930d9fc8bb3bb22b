//! A well-formed bee full of hostile names and entries: the index shows only names that stay inside, every
//! name it shows can be looked up and read or fails with an error, and a refresh finds what a load finds.
#![no_main]

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use hdrive::hyper::bee::Bee;
use hdrive::hyper::blobs::Blobs;
use hdrive::hyper::drive::Drive;
use hdrive::hyper::source::memory::MemoryLog;
use hdrive_fuzz::{now, number};
use libfuzzer_sys::fuzz_target;

const NAMES: &[&str] =
    &["a", "b", "..", ".", "", "/", "a/b", "\0", "c/d/e", "\u{7f}", "é", "a/../b"];

fn key(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let kinds: [&[u8]; 4] = [b"files\0", b"files\0", b"hdrive\0dirs\0", b"hdrive\0nodes\0"];
    let mut key = u.choose(&kinds)?.to_vec();
    for _ in 0..u.int_in_range(0..=3)? {
        if u.ratio(7, 8u8)? {
            key.push(b'/');
        }
        key.extend_from_slice(u.choose(NAMES)?.as_bytes());
    }
    if u.ratio(1, 16u8)? {
        key = u.arbitrary()?;
    }
    Ok(key)
}

fn value(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let blob = format!(
        r#"{{"blockOffset":{},"byteOffset":{},"blockLength":{},"byteLength":{}{}}}"#,
        number(u)?,
        number(u)?,
        number(u)?,
        number(u)?,
        if u.arbitrary()? { r#","blockMap":true"# } else { "" },
    );
    Ok(match u.int_in_range(0..=7u8)? {
        0 => format!(
            r#"{{"executable":false,"linkname":"{}","blob":null,"metadata":null}}"#,
            u.choose(NAMES)?
        ),
        1 => format!(
            r#"{{"executable":true,"linkname":null,"blob":null,"metadata":{}}}"#,
            number(u)?
        ),
        2 => return u.arbitrary(),
        3 => format!(r#"{{"type":"char","dev":[1,{}],"mode":{}}}"#, number(u)?, number(u)?),
        4 => format!(
            r#"{{"executable":true,"linkname":null,"blob":{blob},"metadata":{{"hdrive":{{"id":"{}"}}}}}}"#,
            u.int_in_range(1..=2u8)?
        ),
        _ => format!(r#"{{"executable":true,"linkname":null,"blob":{blob},"metadata":null}}"#),
    }
    .into_bytes())
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let log = MemoryLog::new();
    let contents = (0..u.int_in_range(0..=8)?).map(|_| u.arbitrary::<Vec<u8>>().map(Bytes::from));
    let contents = MemoryLog::from_blocks(contents.collect::<Result<Vec<_>>>()?);
    let bee = Bee::writable(log, None);
    let drive = Drive::new(bee.clone(), Blobs::new(contents));
    let mut before = None;
    for round in 0..2 {
        let mut batch = bee.batch().expect("writable");
        for _ in 0..u.int_in_range(0..=12)? {
            let key = key(u)?;
            if u.ratio(1, 6u8)? {
                batch.delete(key).expect("a sound bee");
            } else {
                batch.put(key, value(u)?).expect("a sound bee");
            }
        }
        batch.flush().expect("a sound bee");
        let index = now(drive.index()).expect("a sound bee");
        if round == 0 {
            before = Some(index);
        } else if let Some(before) = &before {
            let (after, _) = now(drive.refresh(before)).expect("a sound bee");
            assert_eq!((after.files(), after.left_out()), (index.files(), index.left_out()));
            assert_eq!(after.bytes(), index.bytes());
        }
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});
