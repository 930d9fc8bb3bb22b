//! Words for people: counts, sizes, dates, and text of others that may be shown on a terminal.

use std::fmt::Write;

/// `1 file`, `2 files`.
pub fn count(n: u64, what: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {what}{s}")
}

/// A size for people: `1.5 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `2024-06-30 17:05` in UTC.
pub fn date(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 1 March of the year 0 in the proleptic calendar: the leap day ends a year.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", rest / 3600, rest / 60 % 60)
}

/// One line for people, as everything says it that is not a result: `error: …`, `warning: …`, `note: …`.
pub fn told(kind: &str, text: impl std::fmt::Display) -> String {
    format!("{kind}: {}", printable(&without_numbers(&text.to_string())))
}

/// A text as it may be shown: names come from whoever writes a drive, and what steers a terminal, begins a line
/// or turns the direction of writing is escaped.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match steers(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// The same for JSON that is complete already.
pub fn printable_json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match steers(c) {
            true => drop(write!(shown, "\\u{:04x}", u32::from(c))),
            false => shown.push(c),
        }
    }
    shown
}

fn steers(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    // U+2028 and U+2029 end a line for some.
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

/// `No such file or directory` without the `(os error 2)` behind it.
pub fn without_numbers(text: &str) -> String {
    const MARK: &str = " (os error ";
    let mut left = text;
    let mut plain = String::with_capacity(text.len());
    while let Some(at) = left.find(MARK) {
        let (before, mark) = left.split_at(at);
        plain.push_str(before);
        let digits = &mark[MARK.len()..];
        let behind = digits.trim_start_matches(|c: char| c.is_ascii_digit());
        left = match behind.strip_prefix(')') {
            Some(rest) => rest,
            None => {
                plain.push_str(MARK);
                digits
            }
        };
    }
    plain.push_str(left);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_read_well() {
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(1_700_000_000_123), "2023-11-14 22:13");
        assert_eq!(date(951_782_400_000), "2000-02-29 00:00");
        assert_eq!(date(-1), "1969-12-31 23:59");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!((count(0, "file"), count(1, "file")), ("0 files".into(), "1 file".into()));
        assert_eq!(count(2, "peer"), "2 peers");
    }

    #[test]
    fn nothing_of_a_name_steers_a_terminal() {
        assert_eq!(
            printable("a\u{1b}[31m\n\u{9b}1m\u{202e}x"),
            "a\\u{1b}[31m\\n\\u{9b}1m\\u{202e}x"
        );
        assert_eq!(printable("ü 漢 🙂"), "ü 漢 🙂");
        let json = printable_json(&serde_json::json!({"name": "a\u{1b}\u{9b}\u{7f}"}).to_string());
        assert!(json.chars().all(|c| !c.is_control()), "{json}");
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["name"], "a\u{1b}\u{9b}\u{7f}");
    }

    #[test]
    fn numbers_of_errors_are_not_for_people() {
        let error = std::io::Error::from_raw_os_error(2);
        assert_eq!(without_numbers(&format!("x: {error}; y")), "x: No such file or directory; y");
        for kept in ["", "a (os error x)", "(os error 2", "b (os error 2"] {
            assert_eq!(without_numbers(kept), kept);
        }
    }
}
