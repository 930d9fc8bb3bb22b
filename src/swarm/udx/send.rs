//! Bytes written to a stream, kept until the peer has them.
//!
//! A write is a `Bytes` at an absolute offset of the stream; a packet is an offset and a length. Nothing is copied
//! until a packet is laid out in the datagram buffer, and a retransmission reads the same bytes again.

use std::collections::VecDeque;

use bytes::Bytes;

/// What a write costs beside its bytes: its buffer's own, its place here, and that of the packet that carries it.
const WRITE_COST: usize = 256;

#[derive(Debug)]
struct Chunk {
    start: u64,
    bytes: Bytes,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// The write queue of a stream.
#[derive(Debug, Default)]
pub struct SendBuffer {
    chunks: VecDeque<Chunk>,
    /// Offset behind the last byte written.
    end: u64,
    /// Offset of the first byte that was never put into a packet.
    next: u64,
    /// Index of the chunk that holds `next` (one behind the last if there is none).
    cursor: usize,
}

impl SendBuffer {
    pub fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let start = self.end;
        self.end += bytes.len() as u64;
        self.chunks.push_back(Chunk { start, bytes });
    }

    /// What is kept because the peer does not have it, sent or not, with what that costs.
    pub fn kept(&self) -> usize {
        let start = self.chunks.front().map_or(self.end, |front| front.start);
        (self.end - start) as usize + WRITE_COST * self.chunks.len()
    }

    /// Bytes that no packet carries yet.
    pub fn unsent(&self) -> usize {
        (self.end - self.next) as usize
    }

    /// Offset of the first of them.
    pub fn next_offset(&self) -> u64 {
        self.next
    }

    /// Cuts the next `len` bytes for a packet; returns their offset. `len` must not exceed [`Self::unsent`].
    pub fn cut(&mut self, len: usize) -> u64 {
        let offset = self.next;
        self.next = (self.next + len as u64).min(self.end);
        offset
    }

    /// Appends `len` bytes at `offset` to `out`. The bytes must not have been released.
    pub fn copy(&mut self, offset: u64, len: usize, out: &mut Vec<u8>) {
        let mut i = self.find(offset);
        let mut left = len;
        let mut offset = offset;
        while left > 0
            && let Some(chunk) = self.chunks.get(i)
        {
            let rest = &chunk.bytes[(offset - chunk.start) as usize..];
            let part = &rest[..rest.len().min(left)];
            out.extend_from_slice(part);
            left -= part.len();
            offset += part.len() as u64;
            i += usize::from(part.len() == rest.len());
        }
        debug_assert_eq!(left, 0);
        // The packet after this one most likely goes on here.
        self.cursor = i;
    }

    fn find(&self, offset: u64) -> usize {
        match self.chunks.get(self.cursor) {
            Some(chunk) if chunk.start <= offset && offset < chunk.end() => self.cursor,
            _ => self.chunks.partition_point(|chunk| chunk.end() <= offset),
        }
    }

    /// Drops what lies wholly below `offset`: the peer has it.
    pub fn release(&mut self, offset: u64) {
        while let Some(front) = self.chunks.front()
            && front.end() <= offset
        {
            self.chunks.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.next = self.end;
        self.cursor = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packets_read_back_what_was_written(writes in proptest::collection::vec(0usize..300, 1..30), cut in 1usize..200, again: u64) {
            let mut buffer = SendBuffer::default();
            let mut model = Vec::new();
            for (i, len) in writes.iter().enumerate() {
                let bytes: Vec<u8> = (0..*len).map(|j| (i * 31 + j) as u8).collect();
                model.extend_from_slice(&bytes);
                buffer.push(bytes.into());
            }
            let mut out = Vec::new();
            let mut cuts = Vec::new();
            while buffer.unsent() > 0 {
                let len = buffer.unsent().min(cut);
                let offset = buffer.cut(len);
                buffer.copy(offset, len, &mut out);
                cuts.push((offset, len));
            }
            prop_assert_eq!(&out, &model);
            if !cuts.is_empty() {
                let k = again as usize % cuts.len();
                buffer.release(cuts[k].0);
                for &(offset, len) in cuts[k..].iter().rev() {
                    let mut part = Vec::new();
                    buffer.copy(offset, len, &mut part);
                    prop_assert_eq!(&part[..], &model[offset as usize..offset as usize + len]);
                }
            }
            buffer.release(model.len() as u64);
            prop_assert!(buffer.chunks.is_empty());
            prop_assert_eq!(buffer.kept(), 0);
        }
    }
}
