//! Extended attributes: named bytes that programs hang on files.
//!
//! They are written as a JSON object of names and values in base64. A value is bytes, and some are binary (ACLs are), so
//! a string of its characters would need a second form for those, or six characters for a zero byte; base64 is one form,
//! never longer than four thirds, and JavaScript reads it. What cannot be read of an object that others wrote is left out.

use crate::codec::{base64, json};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// The longest name, in bytes, as the kernel allows.
pub const MAX_XATTR_NAME: usize = 255;
/// The longest value, in bytes, as the kernel allows.
pub const MAX_XATTR_VALUE: usize = 64 << 10;
/// Names and values of one file together, in bytes: they lie in its entry, which every reader of the drive loads.
pub const MAX_XATTRS: usize = 64 << 10;

/// Why an attribute cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XattrError {
    #[error("the attribute's name is empty, holds a NUL, or is longer than 255 bytes")]
    Name,
    #[error("the attribute's value is longer than 64 KiB")]
    Value,
    #[error("the attributes of one file are more than 64 KiB")]
    Full,
}

/// See the module. Never more than the constants say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Xattrs {
    values: BTreeMap<String, Vec<u8>>,
    /// Of all names and values.
    bytes: usize,
}

impl Xattrs {
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.values.get(name).map(Vec::as_slice)
    }

    /// Names with their values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.values.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Sets one and returns what it was.
    ///
    /// # Errors
    /// When it goes beyond a bound; then nothing is changed.
    pub fn set(&mut self, name: &str, value: Vec<u8>) -> Result<Option<Vec<u8>>, XattrError> {
        if name.is_empty() || name.len() > MAX_XATTR_NAME || name.contains('\0') {
            return Err(XattrError::Name);
        }
        if value.len() > MAX_XATTR_VALUE {
            return Err(XattrError::Value);
        }
        let old = self.get(name).map_or(0, |old| name.len() + old.len());
        let bytes = self.bytes - old + name.len() + value.len();
        if bytes > MAX_XATTRS {
            return Err(XattrError::Full);
        }
        self.bytes = bytes;
        Ok(self.values.insert(name.into(), value))
    }

    /// Takes one out and returns what it was.
    pub fn remove(&mut self, name: &str) -> Option<Vec<u8>> {
        let old = self.values.remove(name)?;
        self.bytes -= name.len() + old.len();
        Some(old)
    }

    /// What can be read of a JSON text; of a name that is there twice the last.
    pub(super) fn from_json(text: &str) -> Self {
        let mut found = Self::default();
        json::fields(text, |name, value| {
            if let Some(bytes) = json::string(value).and_then(|text| base64::decode(&text)) {
                // What goes beyond a bound is left out.
                let _ = found.set(name, bytes);
            }
        });
        found
    }

    /// None if there are none.
    pub(super) fn to_json(&self) -> Option<String> {
        let field = |(name, value)| format!("{}:\"{}\"", json::quote(name), base64::encode(value));
        let fields: Vec<String> = self.iter().map(field).collect();
        (!fields.is_empty()).then(|| format!("{{{}}}", fields.join(",")))
    }
}

/// What an index knows of the extended attributes of a name that has some. They are read where the drive says them when
/// they are asked for: in memory they could be as much as its owner likes.
#[derive(Debug, PartialEq, Eq)]
pub enum Extended {
    /// The drive's block of this name says them; perhaps none that can be read.
    Stored,
    /// They were set here.
    Set(Xattrs),
}

impl Extended {
    /// All names that have some share one note of that.
    pub(in crate::hyper) fn stored() -> Arc<Self> {
        static STORED: LazyLock<Arc<Extended>> = LazyLock::new(|| Arc::new(Extended::Stored));
        Arc::clone(&STORED)
    }

    /// What has to be written of what a name has, if that is not what is stored.
    pub(super) fn to_write(xattrs: Option<&Self>) -> Option<&Xattrs> {
        static NONE: Xattrs = Xattrs { values: BTreeMap::new(), bytes: 0 };
        match xattrs {
            None => Some(&NONE),
            Some(Self::Set(xattrs)) => Some(xattrs),
            Some(Self::Stored) => None,
        }
    }

    /// Whether they are to be written yet.
    pub fn is_unwritten(&self) -> bool {
        matches!(self, Self::Set(_))
    }

    /// For a name that is to have these.
    pub fn set(xattrs: Xattrs) -> Option<Arc<Self>> {
        (!xattrs.is_empty()).then(|| Arc::new(Self::Set(xattrs)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_bounded() {
        let mut xattrs = Xattrs::default();
        assert_eq!(xattrs.set("", vec![]), Err(XattrError::Name));
        assert_eq!(xattrs.set("a\0", vec![]), Err(XattrError::Name));
        assert_eq!(xattrs.set(&"n".repeat(256), vec![]), Err(XattrError::Name));
        assert_eq!(xattrs.set("a", vec![0; MAX_XATTR_VALUE + 1]), Err(XattrError::Value));
        assert_eq!(xattrs.set("a", vec![0; MAX_XATTRS]), Err(XattrError::Full));
        assert_eq!(xattrs.set("a", vec![0; MAX_XATTRS - 1]), Ok(None));
        assert_eq!(xattrs.set("b", vec![]), Err(XattrError::Full));
        assert_eq!(xattrs.set("a", vec![1]), Ok(Some(vec![0; MAX_XATTRS - 1])));
        assert_eq!(xattrs.set("b", vec![]), Ok(None));
        assert_eq!(xattrs.remove("a"), Some(vec![1]));
        assert_eq!(xattrs.iter().collect::<Vec<_>>(), [("b", &[][..])]);
    }

    #[test]
    fn nonsense_is_left_out() {
        let long = format!(r#"{{"{}":"","a":"YQ=="}}"#, "n".repeat(256));
        for text in
            [&*long, r#"{"a":"YQ==","b":7,"c":"?","d":null,"":"YQ=="}"#, r#"{"a":"?","a":"YQ=="}"#]
        {
            let xattrs = Xattrs::from_json(text);
            assert_eq!(xattrs.iter().collect::<Vec<_>>(), [("a", &b"a"[..])], "{text}");
        }
        for text in ["null", "7", "[]", r#""a""#, "{}", r#"{"a":{}}"#] {
            assert!(Xattrs::from_json(text).is_empty(), "{text}");
        }
        let many: Vec<String> = (0..9999).map(|i| format!(r#""{i:09}":"""#)).collect();
        let many = Xattrs::from_json(&format!("{{{}}}", many.join(",")));
        assert_eq!(many.iter().count(), MAX_XATTRS / 9);
    }

    proptest! {
        #[test]
        fn attributes_round_trip(
            wanted in proptest::collection::btree_map(
                "\\PC{1,20}", proptest::collection::vec(any::<u8>(), 0..40), 0..5)
        ) {
            let mut xattrs = Xattrs::default();
            for (name, value) in &wanted {
                prop_assert_eq!(xattrs.set(name, value.clone()), Ok(None));
            }
            let read = xattrs.to_json().map(|text| Xattrs::from_json(&text)).unwrap_or_default();
            prop_assert_eq!(read, xattrs);
        }
    }
}
