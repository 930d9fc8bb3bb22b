//! Where a command's words go: the standard streams of the terminal that asked, which may belong to
//! another process than the one that runs the command (see `owner.rs`).

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The three standard streams of whoever asked, and how they want to be talked to.
pub struct Output {
    stdin: File,
    stdout: Mutex<File>,
    stderr: Mutex<File>,
    /// The first line that could not be written.
    lost: OnceLock<io::Error>,
    pub json: bool,
    pub quiet: bool,
}

impl Output {
    /// Takes over stdin, stdout and stderr, in that order.
    pub fn new([stdin, stdout, stderr]: [OwnedFd; 3], json: bool, quiet: bool) -> Self {
        Self {
            stdin: stdin.into(),
            stdout: Mutex::new(stdout.into()),
            stderr: Mutex::new(stderr.into()),
            lost: OnceLock::new(),
            json,
            quiet,
        }
    }

    /// One line on stdout, flushed. A reader that has gone is no error of ours; see [`Self::failure`].
    pub fn line(&self, text: impl std::fmt::Display) {
        match self.write(format!("{text}\n").as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let _ = self.lost.set(error);
            }
            _ => {}
        }
    }

    /// An error if a line is lost.
    pub fn failure(&self) -> Result<(), &io::Error> {
        self.lost.get().map_or(Ok(()), Err)
    }

    /// One JSON object as a line.
    pub fn object(&self, value: &serde_json::Value) {
        self.line(value);
    }

    /// `name: value` for people, `{"name": value}` for programs.
    pub fn pair(&self, name: &str, value: impl std::fmt::Display) {
        if self.json {
            self.object(&serde_json::json!({ name: value.to_string() }));
        } else {
            self.line(format_args!("{name}: {value}"));
        }
    }

    /// Raw bytes on stdout (`cat`).
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = self.stdout.lock().unwrap_or_else(|e| e.into_inner());
        out.write_all(bytes)?;
        out.flush()
    }

    /// One line on stderr that is neither result nor error; silent with `--quiet`.
    pub fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            self.error(text);
        }
    }

    /// One line on stderr.
    pub fn error(&self, text: impl std::fmt::Display) {
        let mut err = self.stderr.lock().unwrap_or_else(|e| e.into_inner());
        let _ = writeln!(err, "hdrive: {text}");
    }

    /// Standard input, for `put KEY/path -`.
    pub fn stdin(&self) -> impl Read + '_ {
        &self.stdin
    }

    /// Progress of a long work, on stderr: a bar on a terminal, a line now and then otherwise.
    pub fn progress(&self, what: &str, total: u64) -> Progress {
        let terminal = self.stderr.lock().unwrap_or_else(|e| e.into_inner()).try_clone();
        let Ok(file) = terminal else { return Progress::silent() };
        if self.quiet || self.json {
            return Progress::silent();
        }
        if !file.is_terminal() {
            return Progress(Kind::Lines(Mutex::new(Lines {
                file,
                what: what.into(),
                total,
                done: 0,
                next: Instant::now() + LINE_EVERY,
            })));
        }
        let Ok(reader) = file.try_clone() else { return Progress::silent() };
        let term = Term::read_write_pair(reader, file);
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::term(term, 10));
        let style = "{msg} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_string());
        Progress(Kind::Bar(bar))
    }
}

/// A line of progress is printed this often where stderr is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

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
    fn silent() -> Self {
        Self(Kind::Silent)
    }

    /// `done` of the total so far, in bytes.
    pub fn set(&self, done: u64) {
        match &self.0 {
            Kind::Silent => {}
            Kind::Bar(bar) => bar.set_position(done),
            Kind::Lines(lines) => {
                let mut lines = lines.lock().unwrap_or_else(|e| e.into_inner());
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
            Kind::Lines(lines) => lines.lock().unwrap_or_else(|e| e.into_inner()).total = total,
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
        let percent = (self.done * 100).checked_div(self.total).unwrap_or(100);
        let (done, total) = (bytes(self.done), bytes(self.total));
        let _ = writeln!(self.file, "{}: {done} of {total} ({percent} %)", self.what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Kind::Bar(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
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
