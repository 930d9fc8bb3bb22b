//! The UDX packet: a 20-byte header, a skipped area, a payload.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | magic `0xff` |
//! | 1 | 1 | version 1 |
//! | 2 | 1 | flags |
//! | 3 | 1 | data offset: bytes to skip between header and payload |
//! | 4 | 4 | stream id of the receiver |
//! | 8 | 4 | receive window of the sender of this packet, bytes |
//! | 12 | 4 | seq: number of this packet, or the next one to be used |
//! | 16 | 4 | ack: next number expected |
//!
//! Everything is little endian. Inside the machine packet numbers are `u64`; [`expand`] finds the one
//! that is nearest to a known number, so that nothing else has to think about wrapping.
//!
//! Source: libudx/src/udx.c

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

/// Bytes of the header.
pub const HEADER: usize = 20;

/// Most SACK blocks that one acknowledgement carries, as in the reference (420 bytes in all).
pub const MAX_SACK_BLOCKS: usize = 50;

/// Most SACK blocks looked at in one packet. A peer of ours sends 50; a bigger list is a waste of time at best.
const MAX_SACK_BLOCKS_READ: usize = 256;

/// Where packet numbers start inside the machine: wire number 0 with room for older ones below it.
pub const FIRST_SEQ: u64 = 1 << 32;

/// Flag bits of a packet. Bits that are not named are ignored by every implementation.
pub mod flag {
    /// The payload is stream data; uses one number.
    pub const DATA: u8 = 0x01;
    /// The sender's half is finished; uses one number, shared with DATA if both are set.
    pub const END: u8 = 0x02;
    /// SACK blocks follow the header.
    pub const SACK: u8 = 0x04;
    /// The payload is an unordered message.
    pub const MESSAGE: u8 = 0x08;
    /// Abrupt close.
    pub const DESTROY: u8 = 0x10;
    /// Asks for an acknowledgement.
    pub const HEARTBEAT: u8 = 0x20;
    /// Ours alone, used only when both sides agreed on large datagrams: a datagram of the size to be tried
    /// (payload: zeros), or the answer to one (payload: its size as u32).
    pub const SIZE_PROBE: u8 = 0x40;
}

/// The header fields after magic and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub flags: u8,
    pub data_offset: u8,
    pub stream: u32,
    pub window: u32,
    pub seq: u32,
    pub ack: u32,
}

impl Header {
    /// The 20 bytes of the header.
    pub fn encode(&self) -> [u8; HEADER] {
        let [s0, s1, s2, s3] = self.stream.to_le_bytes();
        let [w0, w1, w2, w3] = self.window.to_le_bytes();
        let [n0, n1, n2, n3] = self.seq.to_le_bytes();
        let [a0, a1, a2, a3] = self.ack.to_le_bytes();
        [
            0xff,
            1,
            self.flags,
            self.data_offset,
            s0,
            s1,
            s2,
            s3,
            w0,
            w1,
            w2,
            w3,
            n0,
            n1,
            n2,
            n3,
            a0,
            a1,
            a2,
            a3,
        ]
    }

    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

/// The id of the stream a datagram is for, if it has the shape of a UDX packet.
pub fn stream_id(datagram: &[u8]) -> Option<u32> {
    match datagram.first_chunk::<HEADER>()? {
        [0xff, 1, _, _, a, b, c, d, ..] => Some(u32::from_le_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

/// Makes it a datagram for another stream.
pub fn set_stream_id(datagram: &mut [u8], stream: u32) {
    if let Some(id) = datagram.get_mut(4..8) {
        id.copy_from_slice(&stream.to_le_bytes());
    }
}

/// A parsed datagram.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    pub header: Header,
    /// SACK blocks, 8 bytes each; empty without the flag. They fill the skipped area. Without one they are the
    /// whole rest of the packet, which is the payload as well: the reference reads it twice, too.
    pub sack: &'a [u8],
    pub payload: &'a [u8],
    /// Bytes of the whole datagram.
    pub size: usize,
}

impl<'a> Packet<'a> {
    /// Reads a datagram; `None` if it is no UDX packet or its data offset points behind its end.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (head, rest) = datagram.split_first_chunk::<HEADER>()?;
        let &[
            0xff,
            1,
            flags,
            data_offset,
            s0,
            s1,
            s2,
            s3,
            w0,
            w1,
            w2,
            w3,
            n0,
            n1,
            n2,
            n3,
            a0,
            a1,
            a2,
            a3,
        ] = head
        else {
            return None;
        };
        let header = Header {
            flags,
            data_offset,
            stream: u32::from_le_bytes([s0, s1, s2, s3]),
            window: u32::from_le_bytes([w0, w1, w2, w3]),
            seq: u32::from_le_bytes([n0, n1, n2, n3]),
            ack: u32::from_le_bytes([a0, a1, a2, a3]),
        };
        let (area, payload) = rest.split_at_checked(data_offset.into())?;
        let sack = match header.has(flag::SACK) {
            false => &[],
            true if area.is_empty() || payload.is_empty() => rest,
            true => area,
        };
        Some(Self { header, sack, payload, size: datagram.len() })
    }

    /// The SACK blocks: half-open ranges of wire numbers, not checked against anything.
    pub fn sack_blocks(&self) -> impl Iterator<Item = (u32, u32)> + 'a {
        self.sack.chunks_exact(8).take(MAX_SACK_BLOCKS_READ).map_while(|block| {
            let &[a, b, c, d, e, f, g, h] = block.first_chunk::<8>()?;
            Some((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
        })
    }
}

/// The packet number nearest to `near` whose low 32 bits are `wire`.
pub fn expand(wire: u32, near: u64) -> u64 {
    near.wrapping_add_signed(i64::from(wire.wrapping_sub(near as u32) as i32))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn header_round_trip(flags: u8, offset in 0u8..8, stream: u32, window: u32, seq: u32, ack: u32) {
            let header = Header { flags, data_offset: offset, stream, window, seq, ack };
            let mut bytes = header.encode().to_vec();
            bytes.extend([0; 8]);
            let packet = Packet::parse(&bytes).unwrap();
            prop_assert_eq!(packet.header, header);
            prop_assert_eq!(packet.payload.len(), 8 - usize::from(offset));
            prop_assert_eq!(stream_id(&bytes), Some(stream));
        }

        #[test]
        fn expanding_inverts_cutting(near in FIRST_SEQ..u64::MAX / 4, step in -0x8000_0000i64..0x8000_0000) {
            let seq = near.wrapping_add_signed(step);
            prop_assert_eq!(expand(seq as u32, near), seq);
        }

        #[test]
        fn any_bytes_parse_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let [a, b, ..] = bytes.as_mut_slice() {
                (*a, *b) = (0xff, 1);
            }
            if let Some(packet) = Packet::parse(&bytes) {
                prop_assert!(packet.sack_blocks().count() <= 10);
            }
        }
    }

    #[test]
    fn sack_blocks_sit_in_the_skipped_area_or_fill_the_rest() {
        let mut header =
            Header { flags: flag::SACK, data_offset: 0, stream: 7, window: 1, seq: 0, ack: 0 };
        let block = [3, 0, 0, 0, 4, 0, 0, 0];
        let alone = [&header.encode()[..], &block].concat();
        assert_eq!(Packet::parse(&alone).unwrap().sack_blocks().collect::<Vec<_>>(), [(3, 4)]);
        header.flags |= flag::DATA;
        header.data_offset = 8;
        let with_data = [&header.encode()[..], &block, b"hi"].concat();
        let packet = Packet::parse(&with_data).unwrap();
        assert_eq!(packet.payload, b"hi");
        assert_eq!(packet.sack_blocks().collect::<Vec<_>>(), [(3, 4)]);
        header.data_offset = 0;
        let both = [&header.encode()[..], &block].concat();
        let packet = Packet::parse(&both).unwrap();
        assert_eq!((packet.payload, packet.sack), (&block[..], &block[..]));
    }
}
