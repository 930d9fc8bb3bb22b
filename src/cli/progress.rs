//! Progress of a long work, on stderr: a bar on a terminal, a line now and then elsewhere.
//!
//! The bar is one line that is written over: the cursor stays behind it, so that what the terminal adds by
//! itself (`^C`) goes away with it.

use super::words::bytes;
use super::writer::{Piece, Writer};
use crate::lock::lock;
use rustix::termios::{isatty, tcgetwinsize};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A line of progress is printed this often where stderr is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// A bar is drawn this often, and not before a work has taken this long.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// The pace is that of about the last so many seconds.
const PACE: f64 = 3.0;
/// Columns of a terminal that does not tell.
const USUAL_WIDTH: usize = 80;
/// Columns of the bar itself.
const BAR: usize = 30;

/// A running progress display; gone when dropped.
pub struct Progress(Kind);

enum Kind {
    Silent,
    Bar(Mutex<Drawn>),
    Lines(Mutex<Lines>),
}

/// A bar on a terminal.
struct Drawn {
    writer: Arc<Writer>,
    what: String,
    total: u64,
    done: u64,
    /// When it was drawn last, and how much was done then.
    drawn: (Instant, u64),
    /// Bytes a second.
    pace: Option<f64>,
    shown: bool,
    over: bool,
}

struct Lines {
    writer: Arc<Writer>,
    what: String,
    total: u64,
    done: u64,
    next: Instant,
}

impl Progress {
    pub fn silent() -> Self {
        Self(Kind::Silent)
    }

    /// Shows on stderr how far `what` is. A total of 0 means that nobody knows it yet.
    pub fn on(writer: &Arc<Writer>, what: &str, total: u64) -> Self {
        let (writer, what) = (Arc::clone(writer), what.into());
        if !isatty(writer.stderr().as_fd()) {
            let next = Instant::now() + LINE_EVERY;
            return Self(Kind::Lines(Mutex::new(Lines { writer, what, total, done: 0, next })));
        }
        let drawn = (Instant::now(), 0);
        let drawn =
            Drawn { writer, what, total, done: 0, drawn, pace: None, shown: false, over: false };
        Self(Kind::Bar(Mutex::new(drawn)))
    }

    /// `done` of the total so far, in bytes.
    pub fn set(&self, done: u64) {
        match &self.0 {
            Kind::Silent => {}
            Kind::Bar(bar) => {
                let mut bar = lock(bar);
                bar.done = done;
                bar.draw_when_due();
            }
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
            let mut bar = lock(bar);
            (bar.drawn, bar.pace) = ((Instant::now(), done), None);
        }
    }

    /// The total changed: more became known.
    pub fn set_total(&self, total: u64) {
        match &self.0 {
            Kind::Silent => {}
            Kind::Bar(bar) => lock(bar).total = total,
            Kind::Lines(lines) => lock(lines).total = total,
        }
    }

    /// Takes the display away.
    pub fn clear(&self) {
        if let Kind::Bar(bar) = &self.0 {
            let mut bar = lock(bar);
            bar.erase();
            // A worker that has not heard yet that its work is over must not draw it once more.
            bar.over = true;
        }
    }
}

impl Drawn {
    fn draw_when_due(&mut self) {
        let (at, before) = self.drawn;
        let passed = at.elapsed();
        if self.over || passed < DRAW_EVERY {
            return;
        }
        let now = self.done.saturating_sub(before) as f64 / passed.as_secs_f64();
        // What is known of the pace weighs less the longer ago it was learnt.
        let old = (-passed.as_secs_f64() / PACE).exp();
        self.pace = Some(self.pace.map_or(now, |pace| pace * old + now * (1.0 - old)));
        self.drawn = (Instant::now(), self.done);
        self.draw();
    }

    fn draw(&mut self) {
        let size = tcgetwinsize(self.writer.stderr().as_fd());
        let width = size.map_or(0, |size| size.ws_col);
        let width = if width == 0 { USUAL_WIDTH } else { usize::from(width) };
        let total = Some(self.total).filter(|total| *total > 0);
        let line = line(&self.what, self.done, total, self.pace.unwrap_or(0.0) as u64, width);
        self.writer.draw(line);
        self.shown = true;
    }

    fn erase(&mut self) {
        if std::mem::take(&mut self.shown) {
            self.writer.clear();
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
        let line = match self.total {
            0 => format!("{what}: {done}\n"),
            total => {
                let percent = percent(self.done, total);
                format!("{what}: {done} of {} ({percent} %)\n", bytes(total))
            }
        };
        self.writer.push(Piece::Said(line.into()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The most telling line that fits into `width` columns: one that is longer would be left behind on the screen
/// each time it is drawn anew.
fn line(what: &str, done: u64, total: Option<u64>, pace: u64, width: usize) -> String {
    let (here, rate) = (bytes(done), bytes(pace));
    let lines = match total {
        Some(total) => {
            let percent = percent(done, total);
            let filled = (percent as usize * BAR / 100).min(BAR);
            let bar = format!("{}{}", "=".repeat(filled), " ".repeat(BAR - filled));
            let all = bytes(total);
            let left = total.saturating_sub(done).checked_div(pace);
            let left = left.map_or(String::new(), |seconds| format!(", {seconds} s left"));
            vec![
                format!("{what} [{bar}] {here} of {all}, {rate}/s{left}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress_fits_into_any_terminal() {
        for width in 0..200 {
            for total in [None, Some(3 << 20)] {
                let line = line("downloading", 1 << 20, total, 1 << 20, width);
                assert!(line.chars().count() < width.max(1), "{width}: {line}");
                assert!(width < 10 || !line.is_empty(), "{width}");
            }
        }
        let at = |width| line("downloading", 1 << 20, Some(4 << 20), 1 << 20, width);
        assert_eq!(at(20), "downloading 25 %");
        assert!(at(100).contains("[=======   ") && at(100).ends_with("3 s left"), "{}", at(100));
        assert_eq!(percent(u64::MAX, 1), 100);
    }
}
