//! A moment of a drive as `--at` takes it: a version, or a time.

use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moment {
    Version(u64),
    /// The last millisecond of it, since 1970.
    Time(i64),
}

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

impl FromStr for Moment {
    type Err = &'static str;

    /// `42`, `2024-06-30`, `2024-06-30 17:05`, `2024-06-30T17:05:09Z`: in UTC, and up to the end of the day, minute or
    /// second that is named, so that a time as `ls -l` shows it includes what it was shown for.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a version is a number, a time is YYYY-MM-DD, YYYY-MM-DD HH:MM or YYYY-MM-DDTHH:MM:SSZ in UTC";
        match text.parse() {
            Ok(0) => return Err("the first version is 1: before it there is nothing"),
            Ok(version) => return Ok(Self::Version(version)),
            Err(_) => {}
        }
        parse(text).map(Self::Time).ok_or(WRONG)
    }
}

fn parse(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let [year, month, day] = numbers(date, '-')?[..] else { return None };
    let start = days(year, month, day)?.checked_mul(DAY)?;
    let Some(time) = time else { return start.checked_add(DAY - 1) };
    let (hour, minute, second, unit) = match numbers(time, ':')?[..] {
        [hour, minute] => (hour, minute, 0, MINUTE),
        [hour, minute, second] => (hour, minute, second, 1000),
        _ => return None,
    };
    let possible = hour < 24 && minute < 60 && second < 60;
    let inside = ((hour * 60 + minute) * 60 + second) * 1000;
    possible.then_some(start.checked_add(inside + unit - 1)?)
}

/// Numbers of two or more digits between `mark`s.
fn numbers(text: &str, mark: char) -> Option<Vec<i64>> {
    let number = |part: &str| {
        let digits =
            (2..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        if digits { part.parse().ok() } else { None }
    };
    text.split(mark).map(number).collect()
}

/// Days from 1970 to a date of the proleptic calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Counted from 1 March, so that the leap day ends a year.
    let shifted = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    Some(
        365 * shifted + shifted.div_euclid(4) - shifted.div_euclid(100)
            + shifted.div_euclid(400)
            + day_of_year
            - 719_468,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_times_are_told_apart() {
        let time = |text: &str| match text.parse() {
            Ok(Moment::Time(time)) => Some(time),
            _ => None,
        };
        assert_eq!("42".parse(), Ok(Moment::Version(42)));
        assert_eq!(time("1970-01-01"), Some(DAY - 1));
        assert_eq!(time("2023-11-14T22:13:20Z"), Some(1_700_000_000_999));
        assert_eq!(time("2023-11-14 22:13"), Some(1_700_000_039_999));
        assert_eq!(time("2000-02-29 00:00:00"), Some(951_782_400_999));
        for text in [
            "",
            "now",
            "0",
            "-1",
            "2023-02-29",
            "2023-13-01",
            "2023-1-1",
            "2023-11-14 24:00",
            "2023-11",
            "+5x",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_as_it_is_shown_includes_what_it_was_shown_for() {
        for ms in [0, 951_782_399_999, 1_700_000_000_123, 4_102_444_800_000] {
            let shown = super::super::words::date(ms);
            let Ok(Moment::Time(time)) = shown.parse() else { panic!("{shown}") };
            assert!(ms <= time && time < ms + MINUTE, "{shown}");
        }
    }
}
