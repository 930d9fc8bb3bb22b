//! Amounts as people write them: sizes, times, numbers of versions.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Which versions of a drive stay readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// So many of the newest.
    Newest(u64),
    /// Those that were current at some time since then.
    Since(Duration),
}

/// `3` versions, or a time like `7d`.
pub(super) fn kept(text: &str) -> Result<Kept, String> {
    match text.parse() {
        Ok(0) => Err("the current version always stays: 1 is the least".into()),
        Ok(count) => Ok(Kept::Newest(count)),
        Err(_) if !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) => {
            Err(format!("'{text}' is more versions than a drive can have"))
        }
        Err(_) => duration(text).map(Kept::Since),
    }
}

/// `30`, `30s`, `500ms`, `2m`, `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("'{text}' is not a time like 30s"))?;
    let seconds = match unit {
        "" | "s" => number,
        "ms" => number / 1000.0,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        "w" => number * 604_800.0,
        _ => return Err(format!("'{unit}' is not a unit of time: use ms, s, m, h, d or w")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("'{text}' is too long a time"))
}

/// A [`duration`] that something can be waited for.
pub(super) fn some_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("nothing would ever be waited for: pass a time like 30s".into()),
        time => Ok(time),
    }
}

/// How long a file can rest: more often than the first nobody need look, and after the second nobody waits for it.
const REST: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(86_400);

/// A [`duration`] that a file is left alone for.
pub(super) fn rest(text: &str) -> Result<Duration, String> {
    let rest = duration(text)?;
    match REST.contains(&rest) {
        true => Ok(rest),
        false => Err(format!("'{text}' is not between 0.1 seconds and a day")),
    }
}

/// A [`size`] that something fits into.
pub(super) fn some_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        0 => Err("nothing would fit into it: pass a size like 64M".into()),
        size => Ok(size),
    }
}

/// A relay that passes on less a second, a dozen datagrams, is of use to nobody.
const LEAST_RATE: u64 = 16 << 10;

/// A [`size`] a second at which a peer gets on.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    match size(text)? {
        ..LEAST_RATE => Err("no peer gets on with so little: pass 16K or more".into()),
        size => Ok(size),
    }
}

/// `4096`, `64K`, `64M`, `2G`; powers of 1024, with or without `iB` or `B`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("'{text}' is not a size like 64M"))?;
    let shift = match unit.to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("'{unit}' is not a unit of size: use K, M, G or T")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert!(size("12parsec").is_err());
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("fast").is_err());
        let many = kept(&"9".repeat(20)).unwrap_err();
        assert!(many.contains("versions"), "{many}");
        let long = duration(&format!("{}d", "9".repeat(40))).unwrap_err();
        assert!(long.contains("too long a time"), "{long}");
        assert!(some_duration("0").is_err() && some_duration("0.0s").is_err());
        assert_eq!(rest("0.1"), Ok(Duration::from_millis(100)));
        assert!(rest("1d").is_ok() && rest("0.05").is_err() && rest("25h").is_err());
        assert!(some_size("0").is_err() && some_size("0K").is_err());
        assert!(rate("1").is_err() && rate("16K") == Ok(16 << 10));
        assert_eq!(kept("3"), Ok(Kept::Newest(3)));
        assert_eq!(kept("7d"), Ok(Kept::Since(Duration::from_secs(604_800))));
        assert!(kept("0").is_err() && kept("all").is_err());
    }
}
