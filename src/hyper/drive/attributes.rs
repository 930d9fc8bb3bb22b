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
//! | `xattrs` | see [`super::Xattrs`] |
//!
//! `mtime`, in milliseconds, stands where other programs look for it, and they change it without knowing of `ns`: that
//! counts only as long as both say the same time.

use crate::codec::json;

pub(super) const MTIME: &str = "mtime";
pub(super) const MODE: &str = "mode";
pub(super) const NS: &str = "ns";
pub(super) const ID: &str = "id";
pub(super) const XATTRS: &str = "xattrs";

/// Permission bits, setuid, setgid and sticky.
pub const MODE_BITS: u16 = 0o7777;

/// The last millisecond a JavaScript date can name; stored times beyond are nonsense.
const MAX_TIME: i64 = 8_640_000_000_000_000;
/// No time has that.
const NO_TIME: i64 = i64::MIN;
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

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stat {
    /// What tells whether two names mean the same file, and whether one is the file it was under another name. The drive's
    /// writer chooses it; 0 is none.
    pub id: u64,
    pub mtime: Time,
    /// Of [`MODE_BITS`].
    pub mode: u16,
}

/// What an object of our own says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Own {
    pub mode: Option<u16>,
    /// Of which millisecond, and how many.
    ns: Option<(i64, u32)>,
    pub id: u64,
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
            XATTRS => self.has_xattrs = value.starts_with('{') && value != "{}",
            _ => {}
        }
    }

    /// The time, where `mtime` is what all programs see of it.
    pub fn time(&self, mtime: Option<i64>) -> Time {
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
pub(super) fn fields_of(stat: &Stat, mode: Option<u16>) -> [(&'static str, Option<String>); 3] {
    let ns = stat.mtime.ms().filter(|_| stat.mtime.ns() != 0);
    [
        (MODE, mode.map(|mode| (mode & MODE_BITS).to_string())),
        (NS, ns.map(|ms| format!("[{ms},{}]", stat.mtime.ns()))),
        (ID, (stat.id != 0).then(|| format!("\"{}\"", stat.id))),
    ]
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
        assert_eq!((size_of::<Time>(), size_of::<Stat>()), (12, 24));
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
            r#"{"mode":"x","ns":[1],"id":7,"xattrs":[]}"#,
            r#"{"mode":-1,"ns":[1,-1],"id":"-7","xattrs":{}}"#,
            r#"{"mode":1.5,"ns":{"0":1},"id":"18446744073709551616","xattrs":null}"#,
            "7",
            "",
        ] {
            let own = Own::read(text);
            let seen = (own.mode, own.time(Some(1)), own.id, own.has_xattrs);
            assert_eq!(seen, (None, Time::new(1, 0), 0, false), "{text}");
        }
        assert_eq!(Own::read(r#"{"ns":[1,1000000]}"#).time(Some(1)), Time::new(1, 0));
        assert_eq!(Own::read(r#"{"ns":[1,999999]}"#).time(Some(1)), Time::new(1, 999_999));
        assert_eq!(Own::read(r#"{"ns":[1,9]}"#).time(Some(2)), Time::new(2, 0));
    }
}
