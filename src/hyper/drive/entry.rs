//! What a drive says about one path: the value behind a key of its bee, as JSON.
//!
//! ```json
//! {"executable":false,"linkname":null,"blob":{…},"metadata":null}
//! ```
//!
//! Reading is lenient: fields may be missing, be in any order, or be unknown. What we do not know, and
//! `metadata` wherever we do not change it, is written back character by character.
//!
//! Times and mode bits are not part of the format. They ride in `metadata`, which other programs carry
//! along: `mtime` in milliseconds is read by some of them, mode bits lie in an object of our own and only
//! when `executable` does not say enough: `{"mtime":1700000000123,"hdrive":{"mode":416}}`.
//!
//! Source: hyperdrive/index.js

use crate::codec::json;
use crate::hyper::blobs::{BlobError, BlobId};

const MTIME: &str = "mtime";
const OWN: &str = "hdrive";
const MODE: &str = "mode";

/// The last millisecond a JavaScript date can name; stored times beyond are nonsense.
const MAX_TIME: f64 = 8.64e15;

/// Longest target of a symbolic link, in bytes, as the kernel allows.
const MAX_TARGET: usize = 4095;

/// Why an entry's value makes no sense. The name is shown, reading the file fails.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EntryError {
    #[error("its entry is not a JSON object")]
    NotAnObject,
    #[error("its link target cannot be read")]
    Target,
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub executable: bool,
    /// The target, if this is a symbolic link.
    pub linkname: Option<String>,
    /// None for a link, and for a file that never had content.
    pub blob: Option<BlobId>,
    /// JSON as it was written; none for null.
    metadata: Option<String>,
    /// Fields of other programs, name and JSON.
    others: Vec<(String, String)>,
}

impl Entry {
    /// A plain file, 0644, without a time.
    pub fn file(blob: BlobId) -> Self {
        Self { blob: Some(blob), ..Self::default() }
    }

    pub fn symlink(target: impl Into<String>) -> Self {
        Self { linkname: Some(target.into()), ..Self::default() }
    }

    pub fn decode(value: &[u8]) -> Result<Self, EntryError> {
        let text = std::str::from_utf8(value).map_err(|_| EntryError::NotAnObject)?;
        let mut entry = Self::default();
        let mut failed = None;
        let is_object = json::fields(text, |name, value| match name {
            "executable" => entry.executable = value == "true",
            "linkname" => match target(value) {
                Ok(target) => entry.linkname = target,
                Err(error) => failed = Some(error),
            },
            "blob" if value == "null" => entry.blob = None,
            "blob" => match BlobId::from_json(value) {
                Ok(id) => entry.blob = Some(id),
                Err(error) => failed = Some(error.into()),
            },
            "metadata" => entry.metadata = (value != "null").then(|| value.into()),
            _ => entry.others.push((name.into(), value.into())),
        });
        match failed {
            Some(error) => Err(error),
            None if is_object => Ok(entry),
            None => Err(EntryError::NotAnObject),
        }
    }

    /// As the reference writes it; fields of other programs follow the four known ones.
    pub fn encode(&self) -> Vec<u8> {
        let link = self.linkname.as_deref().map_or("null".into(), json::quote);
        let blob = self.blob.map_or("null".into(), |id| id.to_json());
        let metadata = self.metadata.as_deref().unwrap_or("null");
        let mut out = format!(
            "{{\"executable\":{},\"linkname\":{link},\"blob\":{blob},\"metadata\":{metadata}",
            self.executable
        );
        for (name, value) in &self.others {
            out.push_str(&format!(",{}:{value}", json::quote(name)));
        }
        out.push('}');
        out.into_bytes()
    }

    /// The metadata as JSON; none for null.
    #[cfg(test)]
    pub fn metadata(&self) -> Option<&str> {
        self.metadata.as_deref()
    }

    /// Replaces the metadata. `json` must be a JSON text.
    #[cfg(test)]
    pub fn set_metadata(&mut self, json: Option<String>) {
        self.metadata = json.filter(|json| json != "null");
    }

    /// Modification time in milliseconds since 1970.
    pub fn mtime_ms(&self) -> Option<i64> {
        let time = json::number(self.field(MTIME)?)?;
        (time.abs() <= MAX_TIME).then_some(time.floor() as i64)
    }

    pub fn set_mtime_ms(&mut self, time: i64) {
        self.set_field(MTIME, Some(&time.to_string()));
    }

    /// Permission bits. Stored bits count only as long as they agree with `executable`, which other
    /// programs change without knowing of them.
    pub fn mode(&self) -> u16 {
        let mut mode = None;
        if let Some(own) = self.field(OWN) {
            json::fields(own, |name, value| {
                if name == MODE {
                    mode = json::uint(value);
                }
            });
        }
        let default = default_mode(self.executable);
        match mode.map(|mode| mode as u16 & 0o777) {
            Some(mode) if (mode & 0o100 != 0) == self.executable => mode,
            _ if self.linkname.is_some() => 0o777,
            _ => default,
        }
    }

    /// Sets permission bits; bits beyond 0777 are dropped.
    pub fn set_mode(&mut self, mode: u16) {
        let mode = mode & 0o777;
        self.executable = mode & 0o100 != 0;
        let stored = (mode != default_mode(self.executable)).then(|| mode.to_string());
        let own = self.field(OWN).map(str::to_owned);
        if own.is_some() || stored.is_some() {
            let own = json::with_field(own.as_deref().unwrap_or("null"), MODE, stored.as_deref());
            self.set_field(OWN, own.as_deref());
        }
    }

    fn field(&self, wanted: &str) -> Option<&str> {
        let mut found = None;
        json::fields(self.metadata.as_deref()?, |name, value| {
            if name == wanted {
                found = Some(value);
            }
        });
        found
    }

    /// Metadata that is no object belongs to someone else and stays as it is.
    fn set_field(&mut self, name: &str, value: Option<&str>) {
        let metadata = self.metadata.as_deref().unwrap_or("null");
        if self.metadata.is_none() || json::fields(metadata, |_, _| {}) {
            self.metadata = json::with_field(metadata, name, value);
        }
    }
}

fn default_mode(executable: bool) -> u16 {
    if executable { 0o755 } else { 0o644 }
}

/// An empty target is no link, as in the reference.
fn target(value: &str) -> Result<Option<String>, EntryError> {
    if value == "null" || value == "false" {
        return Ok(None);
    }
    let target = json::string(value).ok_or(EntryError::Target)?;
    if target.len() > MAX_TARGET || target.contains('\0') {
        return Err(EntryError::Target);
    }
    Ok(Some(target).filter(|target| !target.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn metadata(text: &str) -> Entry {
        let mut entry = Entry::file(BlobId::default());
        entry.set_metadata(Some(text.into()));
        entry
    }

    #[test]
    fn an_entry_is_written_as_the_reference_does() {
        let blob = BlobId { block_length: 1, byte_length: 8, ..BlobId::default() };
        assert_eq!(
            Entry::file(blob).encode(),
            br#"{"executable":false,"linkname":null,"blob":{"blockOffset":0,"byteOffset":0,"blockLength":1,"byteLength":8},"metadata":null}"#
        );
        assert_eq!(
            Entry::symlink("a\"\u{1}é").encode(),
            "{\"executable\":false,\"linkname\":\"a\\\"\\u0001é\",\"blob\":null,\"metadata\":null}"
                .as_bytes()
        );
    }

    #[test]
    fn what_others_wrote_stays_as_it_was() {
        let text = r#"{"executable":true,"linkname":null,"blob":null,"metadata":{ "x": 1.0e5, "y":123456789012345678901 },"z":[ 1 ],"\u0001":{}}"#;
        let mut entry = Entry::decode(text.as_bytes()).unwrap();
        assert_eq!(entry.encode(), text.as_bytes());
        entry.set_mtime_ms(5);
        let text = String::from_utf8(entry.encode()).unwrap();
        assert!(text.contains(r#"{"x":1.0e5,"y":123456789012345678901,"mtime":5}"#), "{text}");
        assert!(text.ends_with(r#","z":[ 1 ],"\u0001":{}}"#), "{text}");
        let mut strange = metadata("[1]");
        strange.set_mtime_ms(5);
        strange.set_mode(0o600);
        assert_eq!(strange.metadata(), Some("[1]"));
    }

    #[test]
    fn mode_bits_are_stored_only_where_executable_says_too_little() {
        let mut entry = Entry::file(BlobId::default());
        assert_eq!(entry.mode(), 0o644);
        entry.set_mode(0o755);
        assert_eq!((entry.executable, entry.metadata()), (true, None));
        entry.set_mode(0o100640);
        assert_eq!((entry.executable, entry.mode()), (false, 0o640));
        entry.set_mtime_ms(-7);
        assert_eq!(entry.metadata(), Some(r#"{"hdrive":{"mode":416},"mtime":-7}"#));
        entry.executable = true;
        assert_eq!(entry.mode(), 0o755, "another program's chmod counts");
        entry.set_mode(0o644);
        assert_eq!(entry.metadata(), Some(r#"{"mtime":-7}"#));
        assert_eq!(Entry::symlink("x").mode(), 0o777);
    }

    #[test]
    fn times_are_milliseconds_and_nonsense_is_none() {
        for (text, want) in [
            (r#"{"mtime":1700000000123}"#, Some(1_700_000_000_123)),
            (r#"{"mtime":1.5e3}"#, Some(1500)),
            (r#"{"mtime":-0.5}"#, Some(-1)),
            (r#"{"mtime":1e300}"#, None),
            (r#"{"mtime":"now"}"#, None),
            ("7", None),
        ] {
            assert_eq!(metadata(text).mtime_ms(), want, "{text}");
        }
    }

    #[test]
    fn senseless_values_are_errors() {
        for text in
            ["", "null", "[]", r#"{"blob":1}"#, r#"{"linkname":3}"#, r#"{"linkname":"a\u0000b"}"#]
        {
            assert!(Entry::decode(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(Entry::decode(b"{}").unwrap(), Entry::default());
        assert!(Entry::decode(&[b'{', 0xff, b'}']).is_err());
    }

    proptest! {
        #[test]
        fn mode_and_time_round_trip(mode in 0u16..0o1000, time in -1i64 << 52..1i64 << 52) {
            let mut entry = Entry::file(BlobId::default());
            entry.set_mode(mode);
            entry.set_mtime_ms(time);
            let entry = Entry::decode(&entry.encode()).unwrap();
            prop_assert_eq!((entry.mode(), entry.mtime_ms()), (mode, Some(time)));
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Entry::decode(&bytes);
        }
    }
}
