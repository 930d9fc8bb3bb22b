//! Words for people: counts, sizes, and text of others that may be shown on a terminal.

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
