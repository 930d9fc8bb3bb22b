//! compact-encoding, the byte format under every message of the stack.
//!
//! [`Reader`] walks a borrowed slice and never panics: every method checks what is left and answers
//! [`UnexpectedEnd`] or [`DecodeError::Invalid`]. [`Put`] appends to a `Vec<u8>`. Integers are little
//! endian; a `uint` is one byte up to 0xfc, else a marker byte (fd, fe, ff) and 2, 4 or 8 bytes.
//! Decoders take non-minimal integers, encoders write minimal ones, as the reference does.
//!
//! Source: compact-encoding/index.js

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

pub mod base64;
mod frame;
pub mod json;
pub mod net;

pub use frame::FrameBuf;

/// The largest integer the reference accepts: 2^53 - 1.
pub const MAX_INT: u64 = (1 << 53) - 1;

/// The largest item count of an `array`, as in the reference.
pub const MAX_ARRAY: u64 = 0x10_0000;

/// Why bytes could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message is shorter than its own fields claim.
    #[error("message ends too early")]
    UnexpectedEnd,
    /// A field holds a value that the format does not allow; the text names the field.
    #[error("invalid {0}")]
    Invalid(&'static str),
}

pub type Result<T> = std::result::Result<T, DecodeError>;

/// Reads fields off the front of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    buf: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(buf: &'a [u8]) -> Self {
        Self { buf }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.buf.len()
    }

    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.buf.split_at_checked(n).ok_or(DecodeError::UnexpectedEnd)?;
        self.buf = tail;
        Ok(head)
    }

    /// Everything that is left (`raw`).
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.buf)
    }

    /// The next `N` bytes as an array (`fixed32`, `fixed64`, …).
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.buf.split_first_chunk::<N>().ok_or(DecodeError::UnexpectedEnd)?;
        self.buf = tail;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.fixed()?))
    }

    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.fixed()?))
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.fixed()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.fixed()?))
    }

    /// A variable integer, at most [`MAX_INT`].
    pub fn uint(&mut self) -> Result<u64> {
        let n = match self.u8()? {
            0xfd => self.u16()?.into(),
            0xfe => self.u32()?.into(),
            0xff => self.u64()?,
            n => n.into(),
        };
        if n > MAX_INT { Err(DecodeError::Invalid("integer above 2^53")) } else { Ok(n) }
    }

    /// A `uint` that must fit in memory terms.
    pub fn len(&mut self) -> Result<usize> {
        usize::try_from(self.uint()?).map_err(|_| DecodeError::Invalid("length"))
    }

    /// A length and that many bytes; empty stands for null as well.
    pub fn buffer(&mut self) -> Result<&'a [u8]> {
        let n = self.len()?;
        self.take(n)
    }

    /// A length and that many bytes of UTF-8.
    pub fn string(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.buffer()?).map_err(|_| DecodeError::Invalid("UTF-8"))
    }

    /// One byte, true for exactly 1.
    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.u8()? == 1)
    }

    /// The item count of an array whose items take at least `min_item` bytes each, so that a caller may
    /// allocate by it: a count that the rest of the message cannot hold is refused.
    pub fn count(&mut self, min_item: usize) -> Result<usize> {
        let n = self.uint()?;
        if n > MAX_ARRAY {
            return Err(DecodeError::Invalid("array count"));
        }
        let n = n as usize;
        if n.saturating_mul(min_item.max(1)) > self.remaining() {
            return Err(DecodeError::UnexpectedEnd);
        }
        Ok(n)
    }
}

/// Appends fields to a buffer.
pub trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, n: u8) {
        self.put(&[n]);
    }
    fn put_u16(&mut self, n: u16) {
        self.put(&n.to_le_bytes());
    }
    fn put_u32(&mut self, n: u32) {
        self.put(&n.to_le_bytes());
    }
    fn put_u64(&mut self, n: u64) {
        self.put(&n.to_le_bytes());
    }

    /// A variable integer in its shortest form.
    fn put_uint(&mut self, n: u64) {
        match n {
            0..=0xfc => self.put_u8(n as u8),
            0xfd..=0xffff => {
                self.put_u8(0xfd);
                self.put_u16(n as u16);
            }
            0x1_0000..=0xffff_ffff => {
                self.put_u8(0xfe);
                self.put_u32(n as u32);
            }
            _ => {
                self.put_u8(0xff);
                self.put_u64(n);
            }
        }
    }

    /// A length and the bytes.
    fn put_buffer(&mut self, bytes: &[u8]) {
        self.put_uint(bytes.len() as u64);
        self.put(bytes);
    }

    fn put_string(&mut self, text: &str) {
        self.put_buffer(text.as_bytes());
    }

    fn put_bool(&mut self, b: bool) {
        self.put_u8(b.into());
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Bytes that [`Put::put_uint`] takes for `n`.
pub const fn uint_len(n: u64) -> usize {
    match n {
        0..=0xfc => 1,
        0xfd..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn uint_round_trip(n in 0..=MAX_INT) {
            let mut out = Vec::new();
            out.put_uint(n);
            prop_assert_eq!(out.len(), uint_len(n));
            let mut r = Reader::new(&out);
            prop_assert_eq!(r.uint(), Ok(n));
            prop_assert!(r.is_empty());
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut r = Reader::new(&bytes);
            while r.uint().is_ok() && r.buffer().is_ok() && r.count(34).is_ok() {}
        }
    }

    #[test]
    fn long_form_of_a_small_integer_is_accepted() {
        assert_eq!(Reader::new(&[0xfd, 5, 0]).uint(), Ok(5));
    }

    #[test]
    fn integers_above_two_to_the_53_are_refused() {
        let mut out = vec![0xff];
        out.put_u64(1 << 53);
        assert!(Reader::new(&out).uint().is_err());
    }

    #[test]
    fn a_count_that_the_message_cannot_hold_is_refused_before_allocation() {
        assert_eq!(Reader::new(&[200, 1, 2]).count(34), Err(DecodeError::UnexpectedEnd));
    }
}
