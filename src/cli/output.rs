//! Where a command's words go: the standard streams of the terminal that asked, which may belong to
//! another process than the one that runs the command (see `owner.rs`).

use super::daemon_log::{Stamp, write_log, write_stamped};
use super::gate::Gate;
use super::progress::{Bar, Progress};
use super::words::{printable, printable_json, without_numbers};
use crate::lock::lock;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// How often a wait for standard input looks whether it is still wanted.
const LOOK_MS: u16 = 100;

/// The three standard streams of whoever asked, and how they want to be talked to.
pub struct Output {
    stdin: File,
    stdout: Mutex<File>,
    stderr: Mutex<File>,
    /// The first line that could not be written.
    lost: OnceLock<io::Error>,
    face: Option<Face>,
    /// What stands before each line of one who is in the background.
    stamp: Option<Stamp>,
    /// Lines that are printed once: how many came, and how many of them another process has printed already.
    once: AtomicU32,
    once_before: u32,
    /// The progress that is shown now, on the same terminal.
    bar: Mutex<Option<Bar>>,
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
            face: None,
            stamp: None,
            once: AtomicU32::new(0),
            once_before: 0,
            bar: Mutex::default(),
            json,
            quiet,
        }
    }

    /// The streams are those of another process.
    pub fn with_face(self, face: Face) -> Self {
        Self { face: Some(face), ..self }
    }

    /// Those of a process in the background.
    pub fn with_stamp(self, stamp: Option<Stamp>) -> Self {
        Self { stamp, ..self }
    }

    /// So many of the lines that are printed once are printed.
    pub fn after(self, told: u32) -> Self {
        Self { once_before: told, ..self }
    }

    /// Prints what a command says once, whichever process goes on with it later.
    pub fn once(&self, print: impl FnOnce(&Self)) {
        if self.once.fetch_add(1, Ordering::Relaxed) < self.once_before {
            return;
        }
        print(self);
        if let Some(face) = &self.face {
            self.say(face.told);
        }
    }

    /// Tells the face something; see `owner.rs`.
    pub fn say(&self, byte: u8) {
        if let Some(face) = &self.face {
            let _ = (&face.stream).write_all(&[byte]);
        }
    }

    /// One line on stdout, flushed. A reader that has gone is no error of ours; see [`Self::failure`].
    pub fn line(&self, text: impl std::fmt::Display) {
        self.put_line(&printable(&text.to_string()));
    }

    fn put_line(&self, line: &str) {
        match self.beside_bar(|| self.write(format!("{line}\n").as_bytes())) {
            // Whoever started it has gone its way; the log has it.
            Err(_) if self.stamp.is_some() => self.log(line),
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
        self.put_line(&printable_json(&value.to_string()));
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
        self.begin();
        let mut out = lock(&self.stdout);
        out.write_all(bytes)?;
        out.flush()
    }

    /// One line on stderr that is neither result nor error; silent with `--quiet`.
    pub fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            self.tell("note", text);
        }
    }

    /// One line on stderr about something that does not end the command; not silent with `--quiet`.
    pub fn warn(&self, text: impl std::fmt::Display) {
        self.tell("warning", text);
    }

    /// One line on stderr that says why the command failed.
    pub fn error(&self, text: impl std::fmt::Display) {
        self.tell("error", text);
    }

    fn tell(&self, kind: &str, text: impl std::fmt::Display) {
        self.beside_bar(|| {
            let line = told(kind, text);
            match self.stamp {
                Some(_) => self.log(&line),
                None => drop(writeln!(lock(&self.stderr), "{line}")),
            }
        });
    }

    fn log(&self, line: &str) {
        if let Some(stamp) = &self.stamp {
            let _ = write_log(&mut lock(&self.stderr), &stamp.before(line));
        }
    }

    /// Prints without a progress bar in the way.
    fn beside_bar<T>(&self, print: impl FnOnce() -> T) -> T {
        let bar = lock(&self.bar).clone();
        match bar {
            Some(bar) => bar.aside(print),
            None => print(),
        }
    }

    /// Standard input, for `put KEY/path -`. It ends with an error when `gate` is shut.
    pub fn stdin(&self, gate: Arc<Gate>) -> Input<'_> {
        self.begin();
        Input { file: &self.stdin, gate, face: self.face.as_ref() }
    }

    /// Lets the face know that it cannot start over from here on.
    fn begin(&self) {
        if let Some(face) = &self.face {
            face.begun.call_once(|| drop((&face.stream).write_all(&[face.mark])));
        }
    }

    /// See [`Progress`].
    pub fn progress(&self, what: &str, total: u64) -> Progress {
        let stderr = lock(&self.stderr).try_clone();
        let progress = match stderr {
            Ok(file) if !self.quiet && !self.json => Progress::on(file, what, total),
            _ => Progress::silent(),
        };
        *lock(&self.bar) = progress.bar();
        progress
    }
}

/// One line for people, as everything says it that is not a result: `error: …`, `warning: …`, `note: …`.
pub fn told(kind: &str, text: impl std::fmt::Display) -> String {
    format!("{kind}: {}", printable(&without_numbers(&text.to_string())))
}

/// The same where there is no [`Output`]. Whoever has closed stderr does not want to know.
pub fn complain(kind: &str, text: impl std::fmt::Display) {
    let line = told(kind, text);
    match Stamp::own() {
        Some(stamp) => write_stamped(&stamp.before(&line)),
        None => drop(writeln!(io::stderr(), "{line}")),
    }
}

/// Several lines that are complete already.
pub fn complain_in_lines(text: &str) {
    let stamp = Stamp::own();
    let lines = text.lines().map(|line| match &stamp {
        Some(stamp) => stamp.before(&printable(line)) + "\n",
        None => printable(line) + "\n",
    });
    let _ = io::stderr().write_all(lines.collect::<String>().as_bytes());
}

/// One line on stdout where there is no [`Output`]; a reader that has gone is no error.
pub fn say(text: impl std::fmt::Display) -> io::Result<()> {
    let mut out = io::stdout();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// The other process behind the streams; see `owner.rs`.
pub struct Face {
    begun: Once,
    /// The byte that says "begun", and where it goes.
    mark: u8,
    /// And the one that says that a line was told once.
    told: u8,
    stream: UnixStream,
    /// Becomes true when it has sent all of its standard input.
    ended: watch::Receiver<bool>,
}

impl Face {
    pub fn new(stream: UnixStream, [mark, told]: [u8; 2], ended: watch::Receiver<bool>) -> Self {
        Self { begun: Once::new(), mark, told, stream, ended }
    }
}

/// Standard input of whoever asked. See [`Output::stdin`].
pub struct Input<'a> {
    file: &'a File,
    gate: Arc<Gate>,
    face: Option<&'a Face>,
}

impl Input<'_> {
    fn go_on(&self) -> io::Result<()> {
        match self.gate.is_shut() {
            true => Err(io::Error::other("interrupted")),
            false => Ok(()),
        }
    }

    /// Whether there is something to read, or the end of it.
    fn is_ready(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(LOOK_MS)) {
            Ok(n) => Ok(n > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A pipe ends as well when the process behind it was killed: that is not the end of what it had to say.
    fn confirm_end(&self) -> io::Result<()> {
        let Some(face) = self.face else { return Ok(()) };
        loop {
            self.go_on()?;
            if *face.ended.borrow() {
                return Ok(());
            }
            if face.ended.has_changed().is_err() {
                return Err(io::Error::other("the command ended before all of it was here"));
            }
            std::thread::sleep(Duration::from_millis(LOOK_MS.into()) / 10);
        }
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            self.go_on()?;
            if !self.is_ready()? {
                continue;
            }
            match self.file.read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) if !buf.is_empty() => return self.confirm_end().map(|()| 0),
                read => return read,
            }
        }
    }
}
