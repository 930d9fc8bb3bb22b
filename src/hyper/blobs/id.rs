//! A blob id: where in a blobs core a file's content lies, as written inside the file's drive entry.
//!
//! ```json
//! {"blockOffset":4,"byteOffset":28,"blockLength":46,"byteLength":3000000}
//! ```
//!
//! With `"blockMap":true` behind it the blocks hold a list of blocks ([`super::BlockMap`]) instead of data.
//!
//! Source: hyperblobs/index.js

use super::BlobError;
use crate::codec::{MAX_INT, json};

/// The largest block the reference appends, in bytes; used to tell absurd ids.
pub const MAX_BLOCK: u64 = 15 << 20;

/// See the module. Bytes are plaintext bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct BlobId {
    /// The first block.
    pub block_offset: u64,
    /// The byte of the core at which that block starts.
    pub byte_offset: u64,
    pub block_length: u64,
    pub byte_length: u64,
    /// The blocks hold a block map. Length and offset then describe the map, not the content.
    pub block_map: bool,
}

impl BlobId {
    /// Reads an id as JSON, in any order, with any other fields. An id whose numbers no blob can have is
    /// an error.
    pub fn from_json(text: &str) -> Result<Self, BlobError> {
        let mut id = Self::default();
        let mut ok = true;
        let is_object = json::fields(text, |name, value| {
            let place = match name {
                "blockOffset" => &mut id.block_offset,
                "byteOffset" => &mut id.byte_offset,
                "blockLength" => &mut id.block_length,
                "byteLength" => &mut id.byte_length,
                "blockMap" => {
                    id.block_map = value == "true";
                    return;
                }
                _ => return,
            };
            match json::uint(value) {
                Some(n) => *place = n,
                None => ok = false,
            }
        });
        if !is_object || !ok {
            return Err(BlobError::Damaged("its blob id cannot be read"));
        }
        id.check()?;
        Ok(id)
    }

    /// As the reference writes it.
    pub fn to_json(&self) -> String {
        let Self { block_offset, byte_offset, block_length, byte_length, block_map } = self;
        let map = if *block_map { ",\"blockMap\":true" } else { "" };
        format!(
            "{{\"blockOffset\":{block_offset},\"byteOffset\":{byte_offset},\
             \"blockLength\":{block_length},\"byteLength\":{byte_length}{map}}}"
        )
    }

    /// One past the last block.
    pub fn block_end(&self) -> u64 {
        self.block_offset.saturating_add(self.block_length)
    }

    /// # Errors
    /// Numbers that no blob can have.
    pub(in crate::hyper) fn check(&self) -> Result<(), BlobError> {
        let bytes_end = self.byte_offset.saturating_add(self.byte_length);
        if self.block_end() > MAX_INT || bytes_end > MAX_INT {
            return Err(BlobError::Damaged("its blob id is out of bounds"));
        }
        if self.byte_length > self.block_length.saturating_mul(MAX_BLOCK) {
            return Err(BlobError::Damaged("its blob id has more bytes than its blocks can hold"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_round_trips(a in 0..1u64 << 50, b in 0..1u64 << 50, n in 0..1u64 << 20, map: bool) {
            let id = BlobId {
                block_offset: a, byte_offset: b, block_length: n, byte_length: n * 60_000, block_map: map,
            };
            prop_assert_eq!(BlobId::from_json(&id.to_json()).unwrap(), id);
        }
    }

    #[test]
    fn order_and_extra_fields_do_not_matter_but_absurd_numbers_do() {
        let text = r#"{"byteLength":3,"x":[1],"blockLength":1.0,"blockOffset":2,"byteOffset":9}"#;
        let id = BlobId::from_json(text).unwrap();
        assert_eq!(
            (id.block_offset, id.byte_offset, id.byte_length, id.block_map),
            (2, 9, 3, false)
        );
        for text in [
            "null",
            "[]",
            r#"{"byteLength":-1}"#,
            r#"{"byteLength":1,"blockLength":0}"#,
            r#"{"byteLength":99999999999,"blockLength":1}"#,
            r#"{"blockOffset":9007199254740991,"blockLength":1}"#,
            r#"{"blockOffset":"1"}"#,
        ] {
            assert!(BlobId::from_json(text).is_err(), "{text}");
        }
    }
}
