//! Writes one piece to the streams of a command, whoever reads them: waiting for that, or not at all.

use super::{Piece, Stream, Wait, Writer};
use crate::cli::daemon_log::write_log;
use crate::lock::lock;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;

/// How often a wait for a reader looks whether it is still wanted.
const LOOK_MS: u16 = 100;
/// So much a pipe takes at once if it takes anything.
const AT_ONCE: usize = 4 << 10;
/// And a terminal, which may be paused later: who writes a few bytes hardly fills it.
const IN_PART: usize = 256;
/// To the beginning of the line, and nothing in it.
pub(super) const ERASE: &[u8] = b"\r\x1b[K";

impl Writer {
    /// How many bytes of it are done with: all, if it waits for whoever reads.
    pub(super) fn write_piece(&self, piece: &Piece, wait: Wait) -> usize {
        let mut bar = lock(&self.bar);
        if bar.is_some() && !matches!(piece, Piece::Mark(_)) {
            let _ = self.write(&self.stderr, ERASE, wait);
        }
        let written = match piece {
            Piece::Result { bytes, log } => self.write_result(bytes, log.as_deref(), wait),
            Piece::Said(bytes) | Piece::Error(bytes) => {
                self.write(&self.stderr, bytes, wait).unwrap_or(bytes.len())
            }
            Piece::Log(line) => {
                self.write_to_log(line);
                line.len()
            }
            Piece::Mark(byte) => {
                self.face.iter().for_each(|face| face.say(*byte));
                0
            }
            Piece::Clear => {
                *bar = None;
                0
            }
        };
        if let Some(bar) = bar.as_ref().filter(|_| !matches!(piece, Piece::Mark(_))) {
            let _ = self.write(&self.stderr, bar, wait);
        }
        written
    }

    pub(super) fn show(&self, line: Vec<u8>, wait: Wait) {
        let _ = self.write(&self.stderr, &[ERASE, &line].concat(), wait);
        *lock(&self.bar) = Some(line);
    }

    fn write_result(&self, bytes: &[u8], log: Option<&str>, wait: Wait) -> usize {
        let written = self.await_reader(&self.stdout, wait).and_then(|is_there| {
            if !is_there {
                return Ok(0);
            }
            self.face.iter().for_each(|face| face.begin());
            self.write(&self.stdout, bytes, wait)
        });
        match (written, log) {
            (Ok(written), _) => return written,
            (Err(_), _) if lock(&self.queue).closed => {}
            // Whoever started it has gone its way; the log has it.
            (Err(_), Some(line)) => self.write_to_log(line),
            (Err(error), None) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone.store(true, Ordering::SeqCst);
            }
            (Err(error), None) => drop(self.lost.set(error)),
        }
        bytes.len()
    }

    fn write_to_log(&self, line: &str) {
        if let Ok(file) = self.stderr.as_fd().try_clone_to_owned() {
            let _ = write_log(&mut file.into(), line);
        }
    }

    /// How many bytes were taken: all, if it waits.
    fn write(&self, to: &Stream, bytes: &[u8], wait: Wait) -> io::Result<usize> {
        let mut written = 0;
        while let Some(left @ [_, ..]) = bytes.get(written..) {
            if !self.await_reader(to, wait)? {
                break;
            }
            let taken = match wait {
                Wait::ForReader => rustix::io::write(to, left),
                Wait::Never => write_at_once(to, left),
            };
            match taken {
                Err(Errno::AGAIN) if wait == Wait::Never => break,
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(written)
    }

    /// Whether something can be written: it waits until then. A long piece may hang nevertheless, and this thread with it;
    /// nobody waits for that.
    fn await_reader(&self, to: &Stream, wait: Wait) -> io::Result<bool> {
        loop {
            if lock(&self.queue).closed {
                return Err(io::Error::other("interrupted"));
            }
            let mut fds = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
            let limit = if wait == Wait::Never { 0 } else { LOOK_MS };
            match poll(&mut fds, PollTimeout::from(limit)) {
                Ok(0) if wait == Wait::Never => return Ok(false),
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                // What is wrong is told by the attempt.
                _ => return Ok(true),
            }
        }
    }
}

/// Writes what is taken now. A terminal, or a socket, says that it can be written to when it takes a part only, and keeps
/// whoever writes more.
fn write_at_once(to: &Stream, bytes: &[u8]) -> rustix::io::Result<usize> {
    match FileType::from_raw_mode(rustix::fs::fstat(to)?.st_mode) {
        FileType::Socket => send(to, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
        FileType::CharacterDevice => match opened_anew(to) {
            Some(own) => rustix::io::write(own, bytes),
            None => rustix::io::write(to, &bytes[..bytes.len().min(IN_PART)]),
        },
        _ => rustix::io::write(to, &bytes[..bytes.len().min(AT_ONCE)]),
    }
}

/// The same device as a file of our own, which does not keep who writes: what other processes have open as well is to go on
/// as it does. None where it is not ours to open (after `su`), or would be another one: `/dev/tty` is the terminal of whoever
/// opens it.
pub(super) fn opened_anew(to: &Stream) -> Option<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = format!("/proc/self/fd/{}", to.as_fd().as_raw_fd());
    let device = rustix::fs::fstat(to).ok()?.st_rdev;
    // `/dev/tty`.
    if device == rustix::fs::makedev(5, 0) {
        return None;
    }
    let own = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    (rustix::fs::fstat(&own).ok()?.st_rdev == device).then_some(own)
}
