//! Datagrams as UDX packets.
#![no_main]

use hdrive::swarm::udx::packet::{Packet, expand, stream_id};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(packet) = Packet::parse(bytes) else { return };
    assert_eq!(stream_id(bytes), Some(packet.header.stream));
    assert_eq!(packet.header.encode(), bytes[..20]);
    let (area, payload) = bytes[20..].split_at(packet.header.data_offset.into());
    assert_eq!(packet.payload, payload);
    // Without an area of their own, SACK blocks share the rest with the payload.
    assert!(packet.sack.is_empty() || packet.sack == area || packet.sack == &bytes[20..]);
    assert_eq!(packet.sack_blocks().count(), (packet.sack.len() / 8).min(256));
    let near = u64::from(packet.header.ack) << 16;
    assert_eq!(expand(packet.header.seq, near) as u32, packet.header.seq);
});
