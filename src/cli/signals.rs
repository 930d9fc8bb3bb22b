//! Signals that end a command: Ctrl-C, SIGTERM, and SIGHUP unless whoever started it wants it ignored (`nohup`).

use crate::lock::lock;
use std::io;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A command that was called off waits no longer than this for a disk, or a terminal: it is to be gone within a second.
pub const LAST_WAIT: Duration = Duration::from_millis(700);

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Ctrl-C: one command.
    Command,
    /// SIGTERM or SIGHUP: the process.
    Process,
}

/// How often each was asked for since the start.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    command: u64,
    process: u64,
}

/// What was asked for, kept by a thread of its own: a command may live through several runtimes (the owner of its
/// store ends, it becomes the owner itself), and what is asked between two of them must not be lost.
static ASKED: OnceLock<watch::Receiver<Asked>> = OnceLock::new();
/// What [`Signals::next`] has given out of that.
static HEEDED: Mutex<Asked> = Mutex::new(Asked { command: 0, process: 0 });

/// See the module. From the first making on, none of them ends the process by itself. One at a time is waited on.
pub struct Signals(watch::Receiver<Asked>);

impl Signals {
    /// # Errors
    /// The system's, which hands out no more signals or threads.
    pub fn new() -> io::Result<Self> {
        if ASKED.get().is_none() {
            let _ = ASKED.set(listen()?);
        }
        ASKED.get().cloned().map(Self).ok_or_else(|| io::Error::other("no signals"))
    }

    pub async fn next(&mut self) -> End {
        loop {
            if let Some(end) = heed(*self.0.borrow_and_update()) {
                return end;
            }
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Whether something was asked for that [`Signals::next`] has not given out yet.
pub fn asked() -> bool {
    let Some(asked) = ASKED.get().map(|asked| *asked.borrow()) else { return false };
    let heeded = lock(&HEEDED);
    asked.process > heeded.process || asked.command > heeded.command
}

/// Whether anything was ever asked for.
pub fn came() -> bool {
    ASKED.get().is_some_and(|asked| {
        let asked = *asked.borrow();
        asked.process + asked.command > 0
    })
}

fn heed(asked: Asked) -> Option<End> {
    let mut heeded = lock(&HEEDED);
    if asked.process > heeded.process {
        heeded.process += 1;
        return Some(End::Process);
    }
    if asked.command > heeded.command {
        heeded.command += 1;
        return Some(End::Command);
    }
    None
}

fn listen() -> io::Result<watch::Receiver<Asked>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (tell, asked) = watch::channel(Asked::default());
    let inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = (!hangup_is_ignored()).then(|| signal(SignalKind::hangup())).transpose()?;
    drop(inside);
    let work = async move {
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = interrupt.recv() => tell.send_modify(|asked| asked.command += 1),
                _ = terminate.recv() => tell.send_modify(|asked| asked.process += 1),
                _ = hung_up => tell.send_modify(|asked| asked.process += 1),
            }
        }
    };
    crate::threads::spawn("signals", move || runtime.block_on(work))?;
    Ok(asked)
}

/// Whether this process was started with SIGHUP ignored. A handler would undo that.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignores(&status, SignalKind::hangup().as_raw_value())
}

/// Reads the mask of ignored signals in `/proc/PID/status`.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n";
        assert!(ignores(status, 1) && ignores(status, 13));
        assert!(!ignores(status, 2) && !ignores("", 1));
    }
}
