//! Frames of a peer, while we open, accept, refuse and close channels: nothing panics, and what is to be sent
//! stays in proportion to what came.
#![no_main]

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use hdrive::mux::{Mux, MuxEvent, Protocol};
use libfuzzer_sys::fuzz_target;

static PROTOCOLS: &[Protocol] = &[Protocol { name: "p", aliases: &["q"] }];

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut mux = Mux::new(PROTOCOLS);
    let (mut received, mut own) = (0, 0);
    while !u.is_empty() {
        match u.int_in_range(0..=7u8)? {
            0 => drop(mux.open("p", &[u.int_in_range(0..=3)?], b"hi")),
            1 => mux.close(u.int_in_range(0..=8)?),
            2 => {
                mux.send(u.int_in_range(0..=8)?, 1, |out| out.extend_from_slice(b"body"));
            }
            _ => {
                let frame: Vec<u8> = u.arbitrary()?;
                received += frame.len();
                if mux.handle_frame(Bytes::from(frame)).is_err() {
                    return Ok(());
                }
                loop {
                    match mux.poll_event() {
                        Err(_) => return Ok(()),
                        Ok(None) => break,
                        Ok(Some(MuxEvent::Asked { .. })) => {
                            if u.arbitrary().unwrap_or(false) {
                                mux.accept(b"yes");
                            } else {
                                mux.refuse();
                            }
                        }
                        Ok(Some(_)) => {}
                    }
                }
            }
        }
        own += 64;
        assert!(mux.queued() <= own + 64 * received);
    }
    while mux.poll_transmit().is_some() {}
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});
