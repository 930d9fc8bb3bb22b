//! What stands behind the key of a folder or a special node: a JSON object, an empty one where nothing is to be said.
//!
//! `{"mode":448,"mtime":1700000000123,"ns":[1700000000123,456],"id":"7","xattrs":{…}}`, all of it optional; a special node
//! has its `type` besides, `fifo`, `socket`, `char` or `block`, and a device its numbers as `dev`: `[major,minor]`.
//! No other program writes them; fields that a later version of this one does are kept as they are.

use super::attributes::{self, MODE_BITS, MTIME, Own, Stat, XATTRS};
use super::xattrs::{Extended, Xattrs};
use crate::codec::json;
use std::sync::Arc;

/// The mode of a folder of which nothing is said.
pub const DIR_MODE: u16 = 0o755;
/// The mode of a special node of which none is said.
const NODE_MODE: u16 = 0o644;

const TYPE: &str = "type";
const DEV: &str = "dev";

/// What a special node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialKind {
    Fifo,
    Socket,
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
}

/// A special node: a name that stands for no bytes of the drive.
#[derive(Debug, Clone, PartialEq)]
pub struct Special {
    /// The bee block of its record.
    pub seq: u64,
    pub kind: SpecialKind,
    pub stat: Stat,
    /// None if it has none.
    pub xattrs: Option<Arc<Extended>>,
}

/// What a drive says of a folder for its own sake.
#[derive(Debug, Clone, PartialEq)]
pub struct Attributes {
    /// The bee block of its record, 0 if there is none yet.
    pub seq: u64,
    pub stat: Stat,
    pub xattrs: Option<Arc<Extended>>,
}

impl Default for Attributes {
    fn default() -> Self {
        let stat = Stat { mode: DIR_MODE, ..Stat::default() };
        Self { seq: 0, stat, xattrs: None }
    }
}

impl Attributes {
    /// None where they say nothing that does not go without saying.
    pub(super) fn boxed(self) -> Option<Box<Self>> {
        let nothing = Self { seq: self.seq, ..Self::default() };
        (self != nothing).then(|| Box::new(self))
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// A JSON object; none for an empty one.
    object: Option<String>,
}

impl Record {
    /// Takes everything; what is no object says nothing.
    pub fn decode(value: &[u8]) -> Self {
        let mut filled = false;
        let text = std::str::from_utf8(value).ok();
        let object = text.filter(|text| json::fields(text, |_, _| filled = true));
        Self { object: object.filter(|_| filled).map(str::to_owned) }
    }

    pub fn encode(&self) -> Vec<u8> {
        self.object.as_deref().unwrap_or("{}").into()
    }

    /// The record of a special node.
    pub fn special(kind: SpecialKind) -> Self {
        let (name, dev) = match kind {
            SpecialKind::Fifo => ("fifo", None),
            SpecialKind::Socket => ("socket", None),
            SpecialKind::Char { major, minor } => ("char", Some([major, minor])),
            SpecialKind::Block { major, minor } => ("block", Some([major, minor])),
        };
        let mut record = Self::default();
        let dev = dev.map(|[major, minor]| format!("[{major},{minor}]"));
        record.set([(TYPE, Some(json::quote(name))), (DEV, dev)]);
        record
    }

    /// What a special node is; none of a folder's, and of what makes no sense.
    pub fn kind(&self) -> Option<SpecialKind> {
        let object = self.object.as_deref()?;
        let dev = || serde_json::from_str::<(u32, u32)>(json::field(object, DEV)?).ok();
        Some(match &*json::string(json::field(object, TYPE)?)? {
            "fifo" => SpecialKind::Fifo,
            "socket" => SpecialKind::Socket,
            "char" => dev().map(|(major, minor)| SpecialKind::Char { major, minor })?,
            "block" => dev().map(|(major, minor)| SpecialKind::Block { major, minor })?,
            _ => return None,
        })
    }

    /// Mode, time, id and owner.
    pub fn stat(&self) -> Stat {
        self.described().0
    }

    fn described(&self) -> (Stat, bool) {
        let (mut mtime, mut own) = (None, Own::default());
        json::fields(self.object.as_deref().unwrap_or("{}"), |name, value| match name {
            MTIME => mtime = attributes::milliseconds(value),
            _ => own.take(name, value),
        });
        let mode = own.mode.unwrap_or(self.default_mode());
        (own.stat(mtime, mode), own.has_xattrs)
    }

    fn default_mode(&self) -> u16 {
        if self.kind().is_some() { NODE_MODE } else { DIR_MODE }
    }

    pub fn set_stat(&mut self, stat: &Stat) {
        let mode = Some(stat.mode & MODE_BITS).filter(|mode| *mode != self.default_mode());
        let old = self.stat().mtime.ms();
        self.set(attributes::fields_of(stat, mode));
        if stat.mtime.ms() != old {
            self.set([(MTIME, stat.mtime.ms().map(|ms| ms.to_string()))]);
        }
    }

    pub fn xattrs(&self) -> Xattrs {
        let xattrs = self.object.as_deref().and_then(|object| json::field(object, XATTRS));
        xattrs.map(Xattrs::from_json).unwrap_or_default()
    }

    pub fn set_xattrs(&mut self, xattrs: &Xattrs) {
        self.set([(XATTRS, xattrs.to_json())]);
    }

    /// Says what an index knows. Extended attributes that are stored are those that stand here.
    pub fn describe(&mut self, stat: &Stat, xattrs: Option<&Extended>) {
        self.set_stat(stat);
        if let Some(xattrs) = Extended::to_write(xattrs) {
            self.set_xattrs(xattrs);
        }
    }

    fn set(&mut self, fields: impl IntoIterator<Item = (&'static str, Option<String>)>) {
        self.object = attributes::with_fields(self.object.as_deref(), fields);
    }

    /// What it says of a folder, record in block `seq`; none if that is nothing.
    pub(super) fn folder(&self, seq: u64) -> Option<Box<Attributes>> {
        let (stat, has_xattrs) = self.described();
        Attributes { seq, stat, xattrs: has_xattrs.then(Extended::stored) }.boxed()
    }

    /// The special node that it tells of, record in block `seq`.
    pub(super) fn node(&self, seq: u64) -> Option<Box<Special>> {
        let (kind, (stat, has_xattrs)) = (self.kind()?, self.described());
        Some(Box::new(Special { seq, kind, stat, xattrs: has_xattrs.then(Extended::stored) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::drive::{Owner, Time};
    use proptest::prelude::*;

    fn text(record: &Record) -> String {
        String::from_utf8(record.encode()).unwrap()
    }

    #[test]
    fn records_say_what_does_not_go_without_saying() {
        let mut record = Record::default();
        assert_eq!((text(&record), record.folder(1), record.node(1)), ("{}".into(), None, None));
        record.set_stat(&Stat { id: 7, mtime: Time::new(5, 6), mode: 0o1777, ..Stat::default() });
        let mut xattrs = Xattrs::default();
        xattrs.set("a", vec![0]).unwrap();
        record.set_xattrs(&xattrs);
        let want = r#"{"mode":1023,"ns":[5,6],"id":"7","mtime":5,"xattrs":{"a":"AA=="}}"#;
        assert_eq!(text(&record), want);
        let folder = record.folder(9).unwrap();
        assert_eq!((folder.seq, folder.stat), (9, record.stat()));
        assert_eq!(folder.xattrs.as_deref(), Some(&Extended::Stored));
        record.describe(&Attributes::default().stat, Some(&Extended::Stored));
        assert_eq!(text(&record), r#"{"xattrs":{"a":"AA=="}}"#);
        record.describe(&Attributes::default().stat, None);
        assert_eq!(record, Record::default());
        let mut device = Record::special(SpecialKind::Block { major: 8, minor: u32::MAX });
        device.set_stat(&Stat { mode: 0o755, ..Stat::default() });
        assert_eq!(text(&device), r#"{"type":"block","dev":[8,4294967295],"mode":493}"#);
        assert!(device.node(1).is_some());
        assert_eq!(text(&Record::special(SpecialKind::Fifo)), r#"{"type":"fifo"}"#);
    }

    #[test]
    fn what_makes_no_sense_says_nothing_and_later_fields_are_kept() {
        for value in [&b""[..], b"7", b"[]", b"null", b"{", b"{\"a\":\xff}", b"{}", b" { } "] {
            let record = Record::decode(value);
            assert_eq!(
                (record.folder(1), record.node(1), record.encode()),
                (None, None, b"{}".into())
            );
        }
        for value in [
            r#"{"type":"door"}"#,
            r#"{"type":7}"#,
            r#"{"type":"char"}"#,
            r#"{"type":"block","dev":[1]}"#,
            r#"{"type":"block","dev":[1,-1]}"#,
        ] {
            assert_eq!(Record::decode(value.as_bytes()).node(1), None, "{value}");
        }
        let mut record = Record::decode(br#"{ "type":"socket", "new":[ 1 ] }"#);
        record.set_stat(&record.stat());
        assert_eq!(record.encode(), br#"{ "type":"socket", "new":[ 1 ] }"#);
        record.set_stat(&Stat { id: 1, ..record.stat() });
        assert_eq!(record.encode(), br#"{"type":"socket","new":[ 1 ],"id":"1"}"#);
    }

    proptest! {
        #[test]
        fn records_round_trip(
            kind in proptest::option::of(0..4u8), major: u32, minor: u32, id: u64,
            mode in 0..=MODE_BITS, ms in -1i64 << 52..1i64 << 52, ns in 0..1_000_000u32,
            uid: Option<u32>, gid: Option<u32>,
        ) {
            let kind = kind.map(|kind| match kind {
                0 => SpecialKind::Fifo,
                1 => SpecialKind::Socket,
                2 => SpecialKind::Char { major, minor },
                _ => SpecialKind::Block { major, minor },
            });
            let mut record = kind.map_or_else(Record::default, Record::special);
            let owner = Owner::new(uid, gid);
            let stat = Stat { id, mtime: Time::new(ms, ns), mode, owner };
            record.set_stat(&stat);
            let read = Record::decode(&record.encode());
            prop_assert_eq!((read.kind(), read.stat()), (kind, stat));
            prop_assert_eq!(read, record);
        }

        #[test]
        fn any_value_is_taken(value in r#"\{("(type|dev|mode|ns|id|owner|xattrs|mtime)":[-"\[{}\],a-d0-9.]{0,9},?){0,5}\}"#) {
            let mut record = Record::decode(value.as_bytes());
            let (stat, xattrs) = (record.stat(), record.xattrs());
            let _ = (record.folder(0), record.node(0));
            record.set_stat(&stat);
            record.set_xattrs(&xattrs);
            prop_assert_eq!(Record::decode(&record.encode()).stat(), stat);
        }
    }
}
