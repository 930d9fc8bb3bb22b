//! What a drive says about one path: the value behind a key of its bee, as JSON.
//!
//! ```json
//! {"executable":false,"linkname":null,"blob":{…},"metadata":null}
//! ```
//!
//! Reading is lenient: fields may be missing, be in any order, or be unknown. What we do not know, and
//! `metadata` wherever we do not change it, is written back character by character.
//!
//! Times, mode bits and more are not part of the format. They ride in `metadata`, which other programs carry along:
//! `mtime` in milliseconds is read by some of them, the rest lies in an object of our own ([`super::attributes`]), mode
//! bits only when `executable` does not say enough: `{"mtime":1700000000123,"hdrive":{"mode":416}}`.
//!
//! Source: hyperdrive/index.js

use super::attributes::{self, MODE_BITS, MTIME, Own, Stat, Time, XATTRS};
use super::xattrs::{Extended, Xattrs};
use crate::codec::json;
use crate::hyper::blobs::{BlobError, BlobId};

/// The object of our own in the metadata.
const OWN: &str = "hdrive";

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
        self.stat().mtime.ms()
    }

    pub fn set_mtime_ms(&mut self, time: i64) {
        self.set_stat(&Stat { mtime: Time::new(time, 0), ..self.stat() });
    }

    /// Permission bits. Stored bits count only as long as they agree with `executable`, which other
    /// programs change without knowing of them.
    pub fn mode(&self) -> u16 {
        self.stat().mode
    }

    /// Sets permission bits, setuid, setgid and sticky; bits beyond are dropped. A link has none.
    pub fn set_mode(&mut self, mode: u16) {
        self.set_stat(&Stat { mode, ..self.stat() });
    }

    /// Mode, time, id and owner.
    pub fn stat(&self) -> Stat {
        self.described().0
    }

    /// The same, and whether there may be extended attributes.
    pub(super) fn described(&self) -> (Stat, bool) {
        let (mut mtime, mut own) = (None, Own::default());
        if let Some(metadata) = &self.metadata {
            json::fields(metadata, |name, value| match name {
                MTIME => mtime = attributes::milliseconds(value),
                OWN => own = Own::read(value),
                _ => {}
            });
        }
        let mode = match own.mode {
            _ if self.linkname.is_some() => LINK_MODE,
            Some(mode) if (mode & 0o100 != 0) == self.executable => mode,
            _ => default_mode(self.executable),
        };
        (own.stat(mtime, mode), own.has_xattrs)
    }

    /// Sets mode, time, id and owner.
    pub fn set_stat(&mut self, stat: &Stat) {
        let old = self.stat().mtime.ms();
        let mut mode = None;
        if self.linkname.is_none() {
            self.executable = stat.mode & 0o100 != 0;
            let default = default_mode(self.executable);
            mode = Some(stat.mode & MODE_BITS).filter(|mode| *mode != default);
        }
        self.set_own(attributes::fields_of(stat, mode));
        if stat.mtime.ms() != old {
            self.set_field(MTIME, stat.mtime.ms().map(|ms| ms.to_string()));
        }
    }

    pub fn xattrs(&self) -> Xattrs {
        let own = self.field(OWN);
        let own = own.and_then(|own| json::field(own, XATTRS));
        own.map(Xattrs::from_json).unwrap_or_default()
    }

    pub fn set_xattrs(&mut self, xattrs: &Xattrs) {
        self.set_own([(XATTRS, xattrs.to_json())]);
    }

    /// Says what an index knows. Extended attributes that are stored are those that stand here.
    pub fn describe(&mut self, stat: &Stat, xattrs: Option<&Extended>) {
        self.set_stat(stat);
        if let Some(xattrs) = Extended::to_write(xattrs) {
            self.set_xattrs(xattrs);
        }
    }

    fn field(&self, wanted: &str) -> Option<&str> {
        json::field(self.metadata.as_deref()?, wanted)
    }

    fn set_own(&mut self, fields: impl IntoIterator<Item = (&'static str, Option<String>)>) {
        let own = attributes::with_fields(self.field(OWN), fields);
        self.set_field(OWN, own);
    }

    /// Metadata that is no object belongs to someone else and stays as it is.
    fn set_field(&mut self, name: &'static str, value: Option<String>) {
        let metadata = self.metadata.as_deref();
        if metadata.is_none_or(|metadata| json::fields(metadata, |_, _| {})) {
            self.metadata = attributes::with_fields(metadata, [(name, value)]);
        }
    }
}

/// The mode of every link.
const LINK_MODE: u16 = 0o777;

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
    use crate::hyper::drive::Owner;
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

    #[test]
    fn what_is_said_beside_the_content_is_written_where_others_leave_it() {
        let mut entry = metadata(r#"{ "mtime":1700000000123, "x":1 }"#);
        let (mtime, ms) = (Time::new(1_700_000_000_123, 456), 1_700_000_000_123);
        entry.set_stat(&Stat {
            id: u64::MAX,
            mtime,
            mode: 0o4711,
            owner: Owner::new(Some(7), None),
        });
        let mut xattrs = Xattrs::default();
        xattrs.set("user.a\"", b"\0\xff".to_vec()).unwrap();
        entry.set_xattrs(&xattrs);
        let want = r#"{"mtime":1700000000123,"x":1,"hdrive":{"mode":2505,"ns":[1700000000123,456],"id":"18446744073709551615","owner":[7,null],"xattrs":{"user.a\"":"AP8="}}}"#;
        assert_eq!(entry.metadata(), Some(want));
        assert_eq!(
            (entry.executable, entry.mtime_ms(), entry.described().1),
            (true, Some(ms), true)
        );
        assert_eq!(
            (entry.stat().mtime, entry.stat().mode, entry.xattrs()),
            (mtime, 0o4711, xattrs)
        );
        entry.set_stat(&Stat { mtime, mode: 0o755, ..Stat::default() });
        entry.set_xattrs(&Xattrs::default());
        let want = r#"{"mtime":1700000000123,"x":1,"hdrive":{"ns":[1700000000123,456]}}"#;
        assert_eq!(entry.metadata(), Some(want));
        entry.set_mtime_ms(ms);
        assert_eq!(entry.metadata(), Some(r#"{"mtime":1700000000123,"x":1}"#));
    }

    #[test]
    fn nanoseconds_count_only_with_the_millisecond_they_were_written_with() {
        // What a program does that knows of `mtime` alone.
        for (mtime, ns) in [("5", 7), ("5.5", 7), ("5e0", 7), ("6", 0), ("4.9", 0)] {
            let text = format!(r#"{{"mtime":{mtime},"hdrive":{{"ns":[5,7]}}}}"#);
            assert_eq!(metadata(&text).stat().mtime.ns(), ns, "{text}");
        }
        assert_eq!(metadata(r#"{"hdrive":{"ns":[5,7]}}"#).stat().mtime, Time::NONE);
    }

    #[test]
    fn a_link_keeps_its_mode_and_has_a_time_and_an_id() {
        let mut link = Entry::symlink("x");
        link.set_stat(&Stat { id: 7, mtime: Time::new(1, 2), mode: 0o100, ..Stat::default() });
        assert_eq!(link.metadata(), Some(r#"{"hdrive":{"ns":[1,2],"id":"7"},"mtime":1}"#));
        let want = Stat { id: 7, mtime: Time::new(1, 2), mode: 0o777, ..Stat::default() };
        assert_eq!((link.stat(), link.executable), (want, false));
    }

    #[test]
    fn what_is_not_changed_is_not_written_anew() {
        for text in [
            r#"{ "mtime" : 1.5e3, "hdrive":{ "mode": 416, "y" : 1 }}"#,
            r#"{ "mtime" : "now" }"#,
            r#"{ "hdrive" : { "z" : [ ] } }"#,
            "{}",
            "[ 1 ]",
        ] {
            let mut entry = metadata(text);
            entry.set_stat(&entry.stat());
            entry.set_xattrs(&entry.xattrs());
            assert_eq!(entry.metadata(), Some(text));
        }
    }

    proptest! {
        #[test]
        fn mode_time_and_id_round_trip(
            mode in 0..=MODE_BITS, ms in -1i64 << 52..1i64 << 52, ns in 0..1_000_000u32, id: u64,
            uid: Option<u32>, gid: Option<u32>,
        ) {
            let owner = Owner::new(uid, gid);
            let stat = Stat { id, mtime: Time::new(ms, ns), mode, owner };
            let mut entry = Entry::file(BlobId::default());
            entry.set_stat(&stat);
            let entry = Entry::decode(&entry.encode()).unwrap();
            prop_assert_eq!((entry.stat(), entry.mtime_ms()), (stat, Some(ms)));
        }

        #[test]
        fn whatever_stands_in_the_metadata_the_rest_of_it_stays(
            own in r#"(null|7|\[\]|\{("(mode|ns|id|owner|xattrs|x)":(null|0|-?[1-9][0-9]{0,20}|"[0-9a=]{0,4}"|\[(1(,[1-9]){0,2})?\]|\{"a":"YQ=="\}),){0,4}"end":0\})"#,
            mode in 0..=MODE_BITS,
        ) {
            let text = format!(r#"{{"a":[ 1.0 ],"hdrive":{own},"z":{{}}}}"#);
            let mut entry = metadata(&text);
            let before = entry.xattrs();
            let stat = Stat { mode, ..entry.stat() };
            entry.set_stat(&stat);
            prop_assert_eq!((entry.stat(), entry.xattrs()), (stat, before));
            let text = entry.metadata().unwrap();
            prop_assert!(text.starts_with(r#"{"a":[ 1.0 ],"#) && text.contains(r#""z":{}"#), "{}", text);
            prop_assert!(!own.contains("\"end\"") || text.contains(r#""end":0"#));
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Entry::decode(&bytes);
        }
    }
}
