//! Where a command's words go: the standard streams of the terminal that asked, which may belong to
//! another process than the one that runs the command (see `request.rs`).

use super::asker::Asker;
use super::daemon_log::Stamp;
use super::gate::Gate;
use super::progress::Progress;
use super::words::{printable, printable_json, told};
use super::writer::{Piece, Writer};
use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How often a wait for standard input looks whether it is still wanted.
const LOOK_MS: u16 = 100;

/// The three standard streams of whoever asked, and how they want to be talked to. What is said is queued; see `writer.rs`.
pub struct Output {
    stdin: File,
    writer: Arc<Writer>,
    face: Option<Arc<Asker>>,
    /// What stands before each line of one who is in the background.
    stamp: Option<Stamp>,
    /// Lines that are printed once: how many came, and how many of them another process has printed already.
    once: AtomicU32,
    once_before: u32,
    pub json: bool,
    pub quiet: bool,
}

impl Output {
    /// Of this process. `stamp` is that of one in the background.
    pub fn own(stamp: Option<Stamp>, json: bool, quiet: bool) -> io::Result<Self> {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self::on(stdin, Arc::clone(Writer::own()), None, stamp, json, quiet))
    }

    /// Takes over stdin, stdout and stderr of another process, in that order.
    pub fn of(
        [stdin, stdout, stderr]: [OwnedFd; 3],
        face: Option<Asker>,
        stamp: Option<Stamp>,
        json: bool,
        quiet: bool,
    ) -> Self {
        let face = face.map(Arc::new);
        let writer = Writer::new([Box::new(stdout), Box::new(stderr)], stamp, face.clone());
        Self::on(stdin, writer, face, stamp, json, quiet)
    }

    fn on(
        stdin: OwnedFd,
        writer: Arc<Writer>,
        face: Option<Arc<Asker>>,
        stamp: Option<Stamp>,
        json: bool,
        quiet: bool,
    ) -> Self {
        let (stdin, once) = (stdin.into(), AtomicU32::new(0));
        Self { stdin, writer, face, stamp, once, once_before: 0, json, quiet }
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
            self.writer.push(Piece::Mark(face.told));
        }
    }

    /// Tells the face something; see `request.rs`.
    pub fn say(&self, byte: u8) {
        self.face.iter().for_each(|face| face.say(byte));
    }

    /// One line on stdout. A reader that has gone is no error of ours; see [`Self::failure`].
    pub fn line(&self, text: impl std::fmt::Display) {
        self.put_line(&printable(&text.to_string()));
    }

    fn put_line(&self, line: &str) {
        let log = self.stamp.map(|stamp| stamp.before(line));
        self.writer.push(Piece::Result { bytes: format!("{line}\n").into(), log });
    }

    /// An error if a line is lost.
    pub fn failure(&self) -> Result<(), &io::Error> {
        self.writer.failure()
    }

    /// Resolves when there is room for more. Whoever prints many lines awaits it between them.
    pub async fn room(&self) {
        self.writer.room().await;
    }

    /// Resolves when all that was said is written.
    pub async fn written(&self) {
        self.writer.written().await;
    }

    /// Whether a part of what was printed on stdout is not written yet.
    pub fn owes(&self) -> bool {
        self.writer.owes()
    }

    /// Lets go of the streams of another process, and of what it has not taken.
    pub fn close(&self) {
        if !Arc::ptr_eq(&self.writer, Writer::own()) {
            self.writer.close();
        }
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

    /// Raw bytes on stdout (`cat`), when there is room. False if nobody reads them any more.
    pub async fn write(&self, bytes: Bytes) -> Result<bool, &io::Error> {
        self.room().await;
        self.failure()?;
        self.writer.push(Piece::Result { bytes, log: None });
        Ok(!self.writer.is_gone())
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
        self.tell(ERROR, text);
    }

    fn tell(&self, kind: &str, text: impl std::fmt::Display) {
        self.writer.push(piece(kind, &told(kind, text), self.stamp));
    }

    /// Standard input, for `put KEY/path -`. It ends with an error when `gate` is shut.
    pub fn stdin(&self, gate: Arc<Gate>) -> Input<'_> {
        self.face.iter().for_each(|face| face.begin());
        Input { file: &self.stdin, gate, face: self.face.as_deref() }
    }

    /// What tells when there is something to read there.
    pub fn arrival(&self) -> Arrival<'_> {
        Arrival::at(self.stdin.as_fd())
    }

    /// See [`Progress`].
    pub fn progress(&self, what: &str, total: u64) -> Progress {
        match self.quiet || self.json {
            true => Progress::silent(),
            false => Progress::on(&self.writer, what, total),
        }
    }
}

/// What is said of an end that is not the wanted one.
const ERROR: &str = "error";

/// A complete line on stderr, or in the log.
fn piece(kind: &str, line: &str, stamp: Option<Stamp>) -> Piece {
    match stamp {
        Some(stamp) => Piece::Log(stamp.before(line)),
        None if kind == ERROR => Piece::Error(format!("{line}\n").into()),
        None => Piece::Said(format!("{line}\n").into()),
    }
}

/// A [line for people](told) where there is no [`Output`]. Whoever has closed stderr does not want to know.
pub fn complain(kind: &str, text: impl std::fmt::Display) {
    Writer::own().push(piece(kind, &told(kind, text), Stamp::own()));
}

/// Several lines that are complete already.
pub fn complain_in_lines(text: &str) {
    let stamp = Stamp::own();
    text.lines().for_each(|line| Writer::own().push(piece(ERROR, &printable(line), stamp)));
}

/// One line on stdout where there is no [`Output`]; a reader that has gone is no error.
///
/// # Errors
/// One that was said before is lost; of the last of all [`settle`] tells.
pub fn say(text: impl std::fmt::Display) -> Result<(), &'static io::Error> {
    let writer = Writer::own();
    writer.push(Piece::Result { bytes: format!("{text}\n").into(), log: None });
    writer.failure()
}

/// Waits until all of that is written.
///
/// # Errors
/// A line on stdout is lost.
pub async fn written() -> Result<(), &'static io::Error> {
    Writer::own().written().await;
    Writer::own().failure()
}

/// The end of the process: all that was said is written, unless it was told to end.
///
/// # Errors
/// A line on stdout is lost.
pub fn settle() -> Result<(), &'static io::Error> {
    Writer::own().settle();
    Writer::own().failure()
}

/// Standard input of whoever asked. See [`Output::stdin`].
pub struct Input<'a> {
    file: &'a File,
    gate: Arc<Gate>,
    face: Option<&'a Asker>,
}

/// Tells when something comes on standard input, or its end; no thread waits for that.
pub struct Arrival<'a>(Option<AsyncFd<BorrowedFd<'a>>>);

impl<'a> Arrival<'a> {
    #[allow(deprecated, reason = "what replaces it is unsafe; what is borrowed stays open")]
    fn at(stdin: BorrowedFd<'a>) -> Self {
        // A file always has something; the kernel does not tell.
        Self(AsyncFd::with_interest(stdin, Interest::READABLE).ok())
    }

    pub async fn come(&self) {
        let Some(stdin) = &self.0 else { return };
        while let Ok(mut told) = stdin.readable().await {
            if !matches!(is_readable(*stdin.get_ref(), 0), Ok(false)) {
                return;
            }
            told.clear_ready();
        }
    }
}

/// Whether there is something to read, or the end of it, within so many milliseconds.
fn is_readable(file: BorrowedFd<'_>, limit_ms: u16) -> io::Result<bool> {
    let mut fds = [PollFd::new(file, PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(limit_ms)) {
        Ok(n) => Ok(n > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Input<'_> {
    /// Whether the next look at it does not wait.
    pub fn has_more(&self) -> bool {
        matches!(is_readable(self.file.as_fd(), 0), Ok(true))
    }

    fn go_on(&self) -> io::Result<()> {
        match self.gate.is_shut() {
            true => Err(io::Error::other("interrupted")),
            false => Ok(()),
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
            if !is_readable(self.file.as_fd(), LOOK_MS)? {
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
