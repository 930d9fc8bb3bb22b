//! A plaintext frame with room around it, so that sealing it copies nothing.

use super::Put;

/// One message for a peer, built once and encrypted where it lies.
///
/// The buffer starts with [`FrameBuf::HEADROOM`] spare bytes (the 3-byte length and the 1-byte tag of
/// a secret-stream frame); the cipher adds the 16-byte MAC behind. Writing goes through [`Put`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameBuf {
    buf: Vec<u8>,
}

impl FrameBuf {
    /// Spare bytes in front: uint24 length and the encrypted tag.
    pub const HEADROOM: usize = 4;
    /// Bytes that sealing appends.
    pub const TAILROOM: usize = 16;

    /// An empty frame with room for `payload` bytes and what sealing adds.
    pub fn with_capacity(payload: usize) -> Self {
        let mut buf = Vec::with_capacity(Self::HEADROOM + payload + Self::TAILROOM);
        buf.resize(Self::HEADROOM, 0);
        Self { buf }
    }

    /// Bytes of plaintext.
    pub fn len(&self) -> usize {
        self.buf.len() - Self::HEADROOM
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The plaintext.
    pub fn payload(&self) -> &[u8] {
        self.buf.get(Self::HEADROOM..).unwrap_or_default()
    }

    /// Appends `n` zero bytes and returns them, to be filled in place (a block read from disk).
    pub fn grow(&mut self, n: usize) -> &mut [u8] {
        let start = self.buf.len();
        self.buf.resize(start + n, 0);
        self.buf.get_mut(start..).unwrap_or_default()
    }

    /// Cuts the plaintext back to its first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.buf.truncate(Self::HEADROOM + len);
    }

    /// The whole buffer, head room included, for the cipher.
    pub fn into_inner(self) -> Vec<u8> {
        self.buf
    }
}

impl From<&[u8]> for FrameBuf {
    fn from(payload: &[u8]) -> Self {
        let mut frame = Self::with_capacity(payload.len());
        frame.put(payload);
        frame
    }
}

impl Put for FrameBuf {
    fn put(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }
}
