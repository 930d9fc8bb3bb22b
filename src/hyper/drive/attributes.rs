//! What a drive says of a name beside its kind and content: permission bits, a time, an id.
//!
//! The format of drives has none of it. It lies in JSON objects of our own, where other programs carry it along: of a file
//! or link in the `hdrive` object of its entry's metadata, of a folder or special node in its record
//! ([`super::Record`]), all of it optional:
//!
//! | field | value |
//! |---|---|
//! | `mode` | permission bits with setuid, setgid and sticky, where they are not what goes without saying |
//! | `ns` | `[ms, ns]`: nanoseconds below the millisecond of `mtime`, and the `mtime` they were written with |
//! | `id` | a number as a string, for JavaScript's numbers end at 2^53 |
//! | `owner` | `[uid, gid]`, either of them null: to whom it belongs where the drive is written |
//! | `xattrs` | see [`super::Xattrs`] |
//!
//! `mtime`, in milliseconds, stands where other programs look for it, and they change it without knowing of `ns`: that
//! counts only as long as both say the same time.

use crate::codec::json;

pub(super) const MTIME: &str = "mtime";
pub(super) const MODE: &str = "mode";
pub(super) const NS: &str = "ns";
pub(super) const ID: &str = "id";
pub(super) const OWNER: &str = "owner";
pub(super) const XATTRS: &str = "xattrs";

/// Permission bits, setuid, setgid and sticky.
pub const MODE_BITS: u16 = 0o7777;

/// The last millisecond a JavaScript date can name; stored times beyond are nonsense.
const MAX_TIME: i64 = 8_640_000_000_000_000;
/// No time has that.
const NO_TIME: i64 = i64::MIN;
/// The number that chown(2) takes for none, so that nobody has it.
const NOBODY: u32 = u32::MAX;
/// Nanoseconds of a millisecond.
const NS_PER_MS: u32 = 1_000_000;

/// A modification time, or none. In 12 bytes, as an index holds millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct Time {
    ms: i64,
    ns: u32,
}

impl Time {
    pub const NONE: Self = Self { ms: NO_TIME, ns: 0 };

    /// Milliseconds since 1970, and nanoseconds below (less than a million). The nearest that a JavaScript date can name.
    pub fn new(ms: i64, ns: u32) -> Self {
        Self { ms: ms.clamp(-MAX_TIME, MAX_TIME), ns: ns % NS_PER_MS }
    }

    /// Seconds since 1970, and nanoseconds after them (less than a billion).
    pub fn of_seconds(seconds: i64, ns: u32) -> Self {
        Self::new(seconds.saturating_mul(1000).saturating_add((ns / NS_PER_MS).into()), ns)
    }

    /// Nanoseconds since 1970.
    pub fn of_nanos(nanos: i128) -> Self {
        let ns = nanos.rem_euclid(NS_PER_MS.into()) as u32;
        let ms = nanos.div_euclid(NS_PER_MS.into());
        Self::new(i64::try_from(ms).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX }), ns)
    }

    /// Nanoseconds since 1970.
    pub fn nanos(self) -> Option<i128> {
        let ms = i128::from(self.ms()?);
        Some(ms * i128::from(NS_PER_MS) + i128::from(self.ns))
    }

    /// Milliseconds since 1970, rounded down.
    pub fn ms(self) -> Option<i64> {
        (self.ms != NO_TIME).then_some(self.ms)
    }

    /// Nanoseconds after those.
    pub fn ns(self) -> u32 {
        self.ns
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::NONE
    }
}

/// To whom something belongs, by the numbers of the machine that writes the drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// To whoever has the drive mounted.
    pub const NONE: Self = Self { uid: NOBODY, gid: NOBODY };

    /// `None` is whoever has the drive mounted.
    pub fn new(uid: Option<u32>, gid: Option<u32>) -> Self {
        Self { uid: uid.unwrap_or(NOBODY), gid: gid.unwrap_or(NOBODY) }
    }

    pub fn uid(self) -> Option<u32> {
        (self.uid != NOBODY).then_some(self.uid)
    }

    pub fn gid(self) -> Option<u32> {
        (self.gid != NOBODY).then_some(self.gid)
    }
}

impl Default for Owner {
    fn default() -> Self {
        Self::NONE
    }
}

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stat {
    /// What tells whether two names mean the same file, and whether one is the file it was under another name. The drive's
    /// writer chooses it; 0 is none.
    pub id: u64,
    pub mtime: Time,
    /// Of [`MODE_BITS`].
    pub mode: u16,
    pub owner: Owner,
}

/// What an object of our own says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Own {
    pub mode: Option<u16>,
    /// Of which millisecond, and how many.
    ns: Option<(i64, u32)>,
    pub id: u64,
    owner: Owner,
    /// Whether there may be some.
    pub has_xattrs: bool,
}

impl Own {
    pub fn read(object: &str) -> Self {
        let mut own = Self::default();
        json::fields(object, |name, value| own.take(name, value));
        own
    }

    /// Notes a field, if it is one of ours.
    pub fn take(&mut self, name: &str, value: &str) {
        match name {
            MODE => self.mode = json::uint(value).map(|mode| mode as u16 & MODE_BITS),
            NS => self.ns = serde_json::from_str(value).ok(),
            ID => self.id = json::string(value).and_then(|id| id.parse().ok()).unwrap_or(0),
            OWNER => {
                let owner = serde_json::from_str(value).ok();
                self.owner = owner.map_or(Owner::NONE, |(uid, gid)| Owner::new(uid, gid));
            }
            XATTRS => self.has_xattrs = value.starts_with('{') && value != "{}",
            _ => {}
        }
    }

    /// All of it, where `mtime` is what all programs see of the time.
    pub fn stat(&self, mtime: Option<i64>, mode: u16) -> Stat {
        Stat { id: self.id, mtime: self.time(mtime), mode, owner: self.owner }
    }

    fn time(&self, mtime: Option<i64>) -> Time {
        match (mtime, self.ns) {
            (None, _) => Time::NONE,
            (Some(ms), Some((of, ns))) if of == ms && ns < NS_PER_MS => Time::new(ms, ns),
            (Some(ms), _) => Time::new(ms, 0),
        }
    }
}

/// Milliseconds since 1970 as other programs write them.
pub(super) fn milliseconds(value: &str) -> Option<i64> {
    let time = json::number(value)?;
    (time.abs() <= MAX_TIME as f64).then_some(time.floor() as i64)
}

/// The fields of `stat` as they are written; none where nothing need be said. `mode` if it does not go without saying.
pub(super) fn fields_of(stat: &Stat, mode: Option<u16>) -> [(&'static str, Option<String>); 4] {
    let ns = stat.mtime.ms().filter(|_| stat.mtime.ns() != 0);
    [
        (MODE, mode.map(|mode| (mode & MODE_BITS).to_string())),
        (NS, ns.map(|ms| format!("[{ms},{}]", stat.mtime.ns()))),
        (ID, (stat.id != 0).then(|| format!("\"{}\"", stat.id))),
        (OWNER, (stat.owner != Owner::NONE).then(|| owner_json(stat.owner))),
    ]
}

fn owner_json(owner: Owner) -> String {
    let number = |id: Option<u32>| id.map_or("null".to_owned(), |id| id.to_string());
    format!("[{},{}]", number(owner.uid()), number(owner.gid()))
}

/// An object with these fields set, or taken out; none when nothing is in it any more. All else stays as it was, and all of
/// it where nothing changes.
pub(super) fn with_fields(
    object: Option<&str>,
    fields: impl IntoIterator<Item = (&'static str, Option<String>)>,
) -> Option<String> {
    let mut object = object.map(str::to_owned);
    for (name, value) in fields {
        let text = object.as_deref().unwrap_or("null");
        if json::field(text, name) != value.as_deref() {
            object = json::with_field(text, name, value.as_deref());
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_small_and_bounded() {
        assert_eq!((size_of::<Time>(), size_of::<Stat>()), (12, 32));
        let parts = |time: Time| (time.ms(), time.ns());
        assert_eq!(parts(Time::NONE), (None, 0));
        assert_eq!(parts(Time::of_seconds(-1, 999_999_999)), (Some(-1), 999_999));
        assert_eq!(parts(Time::of_seconds(1, 2_000_003)), (Some(1002), 3));
        assert_eq!(parts(Time::of_seconds(i64::MAX, 0)), (Some(MAX_TIME), 0));
        assert_eq!(parts(Time::new(i64::MIN, 0)), (Some(-MAX_TIME), 0));
    }

    #[test]
    fn what_makes_no_sense_is_not_there() {
        for text in [
            r#"{"mode":"x","ns":[1],"id":7,"xattrs":[],"owner":[1]}"#,
            r#"{"mode":-1,"ns":[1,-1],"id":"-7","xattrs":{},"owner":[-1,0]}"#,
            r#"{"mode":1.5,"ns":{"0":1},"id":"18446744073709551616","xattrs":null}"#,
            "7",
            "",
        ] {
            let own = Own::read(text);
            let seen = (own.mode, own.stat(Some(1), 0), own.has_xattrs);
            let want = Stat { mtime: Time::new(1, 0), ..Stat::default() };
            assert_eq!(seen, (None, want, false), "{text}");
        }
        assert_eq!(Own::read(r#"{"ns":[1,1000000]}"#).time(Some(1)), Time::new(1, 0));
        assert_eq!(Own::read(r#"{"ns":[1,999999]}"#).time(Some(1)), Time::new(1, 999_999));
        assert_eq!(Own::read(r#"{"ns":[1,9]}"#).time(Some(2)), Time::new(2, 0));
    }
}
