//! One line of what is told: what was looked at, how it is, in words, and what to do about it.

use crate::cli::words::{printable, printable_json, without_numbers};
use serde_json::{Map, Value, json};
use std::io::IsTerminal;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// A mount works all the same, or with less.
    Note,
    /// A mount does not work with it, or what was asked for by an option does not.
    Bad,
    Unknown,
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub check: &'static str,
    pub verdict: Verdict,
    pub words: String,
    pub next: Option<String>,
    /// The same for programs.
    facts: Map<String, Value>,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, words: impl Into<String>) -> Self {
        let words = without_numbers(&words.into());
        Self { check, verdict, words, next: None, facts: Map::new() }
    }

    pub fn good(check: &'static str, words: impl Into<String>) -> Self {
        Self::new(check, Verdict::Good, words)
    }

    pub fn unknown(check: &'static str, words: impl Into<String>) -> Self {
        Self::new(check, Verdict::Unknown, words)
    }

    pub fn note(check: &'static str, words: impl Into<String>, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..Self::new(check, Verdict::Note, words) }
    }

    pub fn bad(check: &'static str, words: impl Into<String>, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..Self::new(check, Verdict::Bad, words) }
    }

    /// Adds the fields of an object.
    pub fn with(mut self, facts: Value) -> Self {
        if let Value::Object(facts) = facts {
            self.facts.extend(facts);
        }
        self
    }

    /// One JSON object.
    pub fn json(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Bad => "bad",
            Verdict::Unknown => "unknown",
        };
        let mut object = Map::new();
        let known = json!({
            "check": self.check, "verdict": verdict, "words": self.words, "next": self.next,
        });
        if let Value::Object(known) = known {
            object.extend(known);
        }
        object.extend(self.facts.clone());
        printable_json(&Value::Object(object).to_string())
    }

    /// For people; of several lines.
    pub fn shown(&self, screen: Screen) -> String {
        let (mark, colour) = match self.verdict {
            Verdict::Good => ("ok", 32),
            Verdict::Note => ("note", 33),
            Verdict::Bad => ("FAIL", 31),
            Verdict::Unknown => ("?", 36),
        };
        let width = screen.width.map(|width| width.saturating_sub(INDENT));
        let text = printable(&format!("{}: {}", self.check, self.words));
        let mut lines = wrapped(&text, width);
        if let Some(next) = &self.next {
            let width = width.map(|width| width.saturating_sub(NEXT.len()));
            let next = wrapped(&printable(next), width);
            lines.extend(next.iter().enumerate().map(|(i, line)| {
                let before = if i == 0 { NEXT } else { "   " };
                format!("{before}{line}")
            }));
        }
        let blank = " ".repeat(INDENT - mark.len());
        let mark = match screen.colours {
            true => format!("\u{1b}[{colour}m{mark}\u{1b}[0m"),
            false => mark.to_string(),
        };
        format!("{mark}{blank}{}", lines.join(&format!("\n{}", " ".repeat(INDENT))))
    }
}

/// Columns before the words, and what stands before a next step.
const INDENT: usize = 6;
const NEXT: &str = "-> ";
/// Words are not put together narrower, nor wider, than this.
const NARROW: usize = 30;
const WIDE: usize = 100;

/// What people read it on.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// None for what is no terminal: each line is whole there.
    width: Option<usize>,
    colours: bool,
}

impl Screen {
    pub fn stdout() -> Self {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return Self { width: None, colours: false };
        }
        let size = rustix::termios::tcgetwinsize(&stdout);
        let columns = size.map_or(0, |size| usize::from(size.ws_col));
        let columns = if columns == 0 { 80 } else { columns };
        let plain = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { width: Some(columns.clamp(NARROW, WIDE)), colours: !plain("NO_COLOR") && !dumb }
    }
}

/// Lines of whole words; one that is longer than a line has one of its own.
fn wrapped(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width else { return vec![text.to_string()] };
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

/// The last line: what all of it comes to. `less`: without the DHT.
pub fn summary(bad: &[&'static str], less: bool) -> Finding {
    let facts = json!({ "failed": bad });
    match bad {
        [] if less => {
            let words =
                "it works here with less: only peers of the local networks and of --peer are found";
            Finding::new("mount", Verdict::Note, words)
        }
        [] => Finding::good("mount", "all that it needs works here"),
        bad => {
            let words = format!("what it needs does not all work here: {}", bad.join(", "));
            Finding::new("mount", Verdict::Bad, words)
        }
    }
    .with(facts)
}

/// Takes what a task finds.
pub struct Report(UnboundedSender<Finding>);

impl Report {
    pub fn new() -> (Self, UnboundedReceiver<Finding>) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), receiver)
    }

    pub fn one(&self, finding: Finding) {
        // Nobody listens any more to who comes too late.
        let _ = self.0.send(finding);
    }

    pub fn all(&self, findings: Vec<Finding>) {
        findings.into_iter().for_each(|finding| self.one(finding));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_lines_of_the_width_of_their_screen_and_programs_whole_ones() {
        let finding = Finding::note("lan", "one two three four five", "see to it, and soon");
        let plain = Screen { width: None, colours: false };
        assert_eq!(
            finding.shown(plain),
            "note  lan: one two three four five\n      -> see to it, and soon"
        );
        let narrow = Screen { width: Some(20), colours: true };
        assert_eq!(
            finding.shown(narrow),
            "\u{1b}[33mnote\u{1b}[0m  lan: one two\n      three four\n      five\n      -> see to it,\n         and soon"
        );
    }

    #[test]
    fn nothing_that_was_typed_steers_a_terminal() {
        let finding = Finding::good("node", "a\u{1b}[31mb").with(json!({"name": "\u{9b}"}));
        let plain = Screen { width: Some(80), colours: false };
        assert!(finding.shown(plain).chars().all(|c| !c.is_control()));
        assert!(finding.json().chars().all(|c| !c.is_control()));
    }

    #[test]
    fn a_program_is_told_the_same() {
        let finding = Finding::bad("fuse", "no", "do").with(json!({"extra": 1}));
        let value: Value = serde_json::from_str(&finding.json()).unwrap();
        let wanted =
            json!({"check": "fuse", "verdict": "bad", "words": "no", "next": "do", "extra": 1});
        assert_eq!(value, wanted);
        assert_eq!(summary(&[], false).verdict, Verdict::Good);
        assert_eq!(summary(&[], true).verdict, Verdict::Note);
        assert_eq!(summary(&["fuse"], true).verdict, Verdict::Bad);
    }
}
