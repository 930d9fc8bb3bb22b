//! A peer's half of a secret stream: true frames come out as they went in, however the bytes are cut; after a
//! changed byte nothing comes out any more.
#![no_main]

use arbitrary::{Result, Unstructured};
use hdrive::codec::FrameBuf;
use hdrive::key::PublicKey;
use hdrive::swarm::secret_stream::frame::{Opener, Sealer};
use hdrive::swarm::secret_stream::noise::SessionKeys;
use libfuzzer_sys::fuzz_target;

fn keys(initiator: bool) -> SessionKeys {
    let (tx, rx) = if initiator { ([1; 32], [2; 32]) } else { ([2; 32], [1; 32]) };
    SessionKeys { tx, rx, hash: [3; 64], remote: PublicKey([4; 32]), initiator }
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut sealer = Sealer::new(&keys(true), [5; 24]);
    let mut stream = sealer.header().to_vec();
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for _ in 0..u.int_in_range(0..=6)? {
        let message = vec![messages.len() as u8; u.int_in_range(0..=3000)?];
        let mut frame = FrameBuf::with_capacity(message.len());
        frame.grow(message.len()).copy_from_slice(&message);
        stream.extend_from_slice(&sealer.seal(frame).expect("small"));
        messages.push(message);
    }
    messages.retain(|message| !message.is_empty());
    let changed = match u.arbitrary()? {
        true => {
            let at = u.choose_index(stream.len())?;
            let by = u8::max(1, u.arbitrary()?);
            stream[at] ^= by;
            if u.arbitrary()? {
                stream.extend_from_slice(&u.arbitrary::<Vec<u8>>()?);
            }
            Some(at)
        }
        false => None,
    };
    let mut opener = Opener::new(&keys(false));
    let mut rest = stream.as_slice();
    let mut came = Vec::new();
    while !rest.is_empty() {
        let n = u.int_in_range(1..=rest.len().min(2000))?;
        let (now, later) = rest.split_at(n);
        opener.feed(now);
        rest = later;
        while let Ok(Some(message)) = opener.next() {
            came.push(message.to_vec());
        }
    }
    assert!(messages.starts_with(&came));
    assert!(changed.is_some() || came == messages);
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});
