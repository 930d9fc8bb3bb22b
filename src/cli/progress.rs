//! Progress of a long work, on stderr: a bar on a terminal, a line now and then elsewhere.

use super::words::bytes;
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A line of progress is printed this often where stderr is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Times a second that a bar is drawn.
const DRAWS: u8 = 10;
/// Columns of a terminal that does not tell.
const USUAL_WIDTH: usize = 80;
/// Columns of the bar itself.
const BAR: usize = 30;

/// A running progress display; gone when dropped.
pub struct Progress(Kind);

enum Kind {
    Silent,
    Bar(ProgressBar),
    Lines(Mutex<Lines>),
}

struct Lines {
    file: File,
    what: String,
    total: u64,
    done: u64,
    next: Instant,
}

impl Progress {
    pub fn silent() -> Self {
        Self(Kind::Silent)
    }

    /// Shows on `file` how far `what` is. A total of 0 means that nobody knows it yet.
    pub fn on(file: File, what: &str, total: u64) -> Self {
        if !file.is_terminal() {
            let next = Instant::now() + LINE_EVERY;
            return Self(Kind::Lines(Mutex::new(Lines {
                file,
                what: what.into(),
                total,
                done: 0,
                next,
            })));
        }
        let Ok(reader) = file.try_clone() else { return Self::silent() };
        let term = Term::read_write_pair(reader, file);
        let target = ProgressDrawTarget::term(term.clone(), DRAWS);
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let what = what.to_string();
        let line = move |state: &ProgressState, to: &mut dyn std::fmt::Write| {
            let total = state.len().filter(|total| *total > 0);
            let width = match term.size().1 {
                0 => USUAL_WIDTH,
                width => usize::from(width),
            };
            let rate = bytes(state.per_sec() as u64);
            let _ = to.write_str(&line(&what, state.pos(), total, &rate, state.eta(), width));
        };
        if let Ok(style) = ProgressStyle::with_template("{line}") {
            bar.set_style(style.with_key("line", line));
        }
        Self(Kind::Bar(bar))
    }

    /// `done` of the total so far, in bytes.
    pub fn set(&self, done: u64) {
        match &self.0 {
            Kind::Silent => {}
            // A worker that has not heard yet that its work is over would draw the bar once more.
            Kind::Bar(bar) if bar.is_finished() => {}
            Kind::Bar(bar) => bar.set_position(done),
            Kind::Lines(lines) => {
                let mut lines = lock(lines);
                lines.done = done;
                lines.tell_when_due();
            }
        }
    }

    /// As much as `done` was here before: it tells nothing of the pace.
    pub fn resume(&self, done: u64) {
        self.set(done);
        if let Kind::Bar(bar) = &self.0 {
            bar.reset_eta();
        }
    }

    /// Does `tell`, which prints, without the display in its way.
    pub fn aside<T>(&self, tell: impl FnOnce() -> T) -> T {
        match &self.0 {
            Kind::Bar(bar) => bar.suspend(tell),
            _ => tell(),
        }
    }

    /// The total changed: more became known.
    pub fn set_total(&self, total: u64) {
        match &self.0 {
            Kind::Silent => {}
            Kind::Bar(bar) => bar.set_length(total),
            Kind::Lines(lines) => lock(lines).total = total,
        }
    }

    /// Takes the display away.
    pub fn clear(&self) {
        if let Kind::Bar(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl Lines {
    fn tell_when_due(&mut self) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + LINE_EVERY;
        let (what, done) = (&self.what, bytes(self.done));
        let _ = match self.total {
            0 => writeln!(self.file, "{what}: {done}"),
            total => {
                let percent = percent(self.done, total);
                writeln!(self.file, "{what}: {done} of {} ({percent} %)", bytes(total))
            }
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The most telling line that fits into `width` columns: one that is longer would be left behind on the screen
/// each time it is drawn anew.
fn line(
    what: &str,
    done: u64,
    total: Option<u64>,
    rate: &str,
    left: Duration,
    width: usize,
) -> String {
    let here = bytes(done);
    let lines = match total {
        Some(total) => {
            let percent = percent(done, total);
            let filled = (percent as usize * BAR / 100).min(BAR);
            let bar = format!("{}{}", "=".repeat(filled), " ".repeat(BAR - filled));
            let all = bytes(total);
            vec![
                format!("{what} [{bar}] {here} of {all}, {rate}/s, {} s left", left.as_secs()),
                format!("{what} {here} of {all}, {rate}/s"),
                format!("{what} {percent} %, {rate}/s"),
                format!("{what} {percent} %"),
                format!("{percent} %"),
            ]
        }
        None => vec![format!("{what} {here}, {rate}/s"), format!("{what} {here}"), here],
    };
    lines.into_iter().find(|line| line.chars().count() < width).unwrap_or_default()
}

fn percent(done: u64, total: u64) -> u64 {
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    percent.min(100) as u64
}

fn lock(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress_fits_into_any_terminal() {
        for width in 0..200 {
            for total in [None, Some(3 << 20)] {
                let line = line("downloading", 1 << 20, total, "1.0 MiB", Duration::ZERO, width);
                assert!(line.chars().count() < width.max(1), "{width}: {line}");
                assert!(width < 10 || !line.is_empty(), "{width}");
            }
        }
        let at =
            |width| line("downloading", 1 << 20, Some(4 << 20), "1.0 MiB", Duration::ZERO, width);
        assert_eq!(at(20), "downloading 25 %");
        assert!(at(100).contains("[=======   "), "{}", at(100));
        assert_eq!(percent(u64::MAX, 1), 100);
    }
}
