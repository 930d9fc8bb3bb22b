//! Messages of hypercore/alpha: what decodes is written as something that decodes to the same.
#![no_main]

use bytes::Bytes;
use hdrive::hyper::replication::wire::{Handshake, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(handshake) = Handshake::decode(bytes) {
        assert_eq!(Handshake::decode(&handshake.encode()), Ok(handshake));
    }
    let Some((kind, body)) = bytes.split_first() else { return };
    let kind = u64::from(kind % 11);
    let Ok(Some(message)) = Message::decode(kind, &Bytes::copy_from_slice(body)) else { return };
    assert_eq!(message.kind(), kind);
    let mut out = Vec::new();
    message.encode(&mut out);
    assert!(out.len() <= message.size_hint(), "{} > {}", out.len(), message.size_hint());
    assert_eq!(Message::decode(kind, &out.into()), Ok(Some(message)));
});
