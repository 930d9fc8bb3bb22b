//! Requests that wait: ended when their caller is killed or the mount goes down.
//!
//! The kernel would send an interrupt, but the library below answers those with ENOSYS, and a caller in
//! LOOKUP, GETATTR or a direct read then cannot even be killed until it is answered. So a thread looks at
//! the callers of requests that wait longer than [`PATIENCE`]: the kernel marks every fatal signal, Ctrl-C
//! too, as a pending SIGKILL in `/proc/<thread>/status`. Such a request is answered with EINTR. A caller
//! that handles the signal goes on waiting, up to the deadline that every request has.

use super::errno::FsError;
use super::lock;
use super::volume::VolumeError;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A request that is answered within this is never looked at.
const PATIENCE: Duration = Duration::from_millis(40);
/// Time between two looks. With [`PATIENCE`] a killed caller is gone within 0.1 s.
const INTERVAL: Duration = Duration::from_millis(40);
/// Bit of SIGKILL in a mask of signals.
const SIGKILL_BIT: u64 = 1 << (9 - 1);

/// The requests of one mount that wait.
pub struct Pending {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    closed: bool,
}

struct Waiting {
    /// Thread that waits, as this process sees it; 0 if it cannot see it.
    pid: u32,
    since: Instant,
    end: oneshot::Sender<FsError>,
}

/// One waiting request; it is no longer looked after once this is dropped.
pub struct Ticket {
    pending: Arc<Pending>,
    id: u64,
    ended: oneshot::Receiver<FsError>,
}

impl Pending {
    /// Starts the watching thread, which ends with [`Pending::close`].
    pub fn start() -> std::io::Result<Arc<Self>> {
        let pending = Arc::new(Self { state: Mutex::default(), wake: Condvar::new() });
        let watched = pending.clone();
        crate::threads::spawn("hdrive-pending", move || watched.watch())?;
        Ok(pending)
    }

    /// Looks after a request of thread `pid` from now on.
    pub fn register(self: &Arc<Self>, pid: u32) -> Ticket {
        let (end, ended) = oneshot::channel();
        let mut state = lock(&self.state);
        let id = state.next;
        state.next += 1;
        if state.closed {
            let _ = end.send(VolumeError::Closed.into());
        } else {
            state.waiting.insert(id, Waiting { pid, since: Instant::now(), end });
            if state.waiting.len() == 1 {
                self.wake.notify_one();
            }
        }
        drop(state);
        Ticket { pending: self.clone(), id, ended }
    }

    /// Ends every wait, now and later, with [`VolumeError::Closed`].
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        for waiting in std::mem::take(&mut state.waiting).into_values() {
            let _ = waiting.end.send(VolumeError::Closed.into());
        }
        self.wake.notify_one();
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        lock(&self.state).waiting.len()
    }

    fn watch(&self) {
        loop {
            let mut state = lock(&self.state);
            while state.waiting.is_empty() && !state.closed {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed {
                return;
            }
            drop(state);
            std::thread::sleep(INTERVAL);
            self.end_killed();
        }
    }

    fn end_killed(&self) {
        let old: Vec<(u64, u32)> = lock(&self.state)
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.pid != 0 && waiting.since.elapsed() >= PATIENCE)
            .map(|(id, waiting)| (*id, waiting.pid))
            .collect();
        // One caller may wait for many requests of its read-ahead.
        let mut dying: HashMap<u32, bool> = HashMap::new();
        for (id, pid) in old {
            if !*dying.entry(pid).or_insert_with(|| is_dying(pid)) {
                continue;
            }
            if let Some(waiting) = lock(&self.state).waiting.remove(&id) {
                tracing::debug!(pid, waited = ?waiting.since.elapsed(), "caller was killed");
                let _ = waiting.end.send(FsError::Interrupted);
            }
        }
    }
}

impl Ticket {
    /// Waits until the request is to be ended, and tells with what.
    pub async fn ended(&mut self) -> FsError {
        (&mut self.ended).await.unwrap_or(FsError::Interrupted)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.pending.state).waiting.remove(&self.id);
    }
}

/// Whether thread `pid` is gone or about to be.
fn is_dying(pid: u32) -> bool {
    is_dying_in("/proc", pid)
}

/// The same by what is seen in `proc`. A thread that is not there may be hidden (`hidepid`): asked with a signal that
/// does nothing, the kernel tells whether there is one, ours or not. Whether a hidden one was killed, it does
/// not tell; then the deadline ends the wait.
fn is_dying_in(proc: &str, pid: u32) -> bool {
    match std::fs::read_to_string(format!("{proc}/{pid}/status")) {
        Ok(status) => status_is_dying(&status),
        Err(_) => {
            let pid = i32::try_from(pid).map(nix::unistd::Pid::from_raw);
            pid.is_ok_and(|pid| nix::sys::signal::kill(pid, None) == Err(nix::errno::Errno::ESRCH))
        }
    }
}

fn status_is_dying(status: &str) -> bool {
    status.lines().any(|line| match line.split_once(':') {
        Some(("State", value)) => value.trim_start().starts_with(['Z', 'X']),
        Some(("SigPnd" | "ShdPnd", value)) => {
            u64::from_str_radix(value.trim(), 16).is_ok_and(|mask| mask & SIGKILL_BIT != 0)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_kill_is_seen_in_either_mask() {
        let status = |state: &str, thread: &str, process: &str| {
            format!(
                "Name:\tcat\nState:\t{state}\nSigPnd:\t{thread}\nShdPnd:\t{process}\nSigBlk:\t0\n"
            )
        };
        let none = "0000000000000000";
        assert!(!status_is_dying(&status("D (disk sleep)", none, none)));
        assert!(status_is_dying(&status("D (disk sleep)", "0000000000000100", none)));
        assert!(status_is_dying(&status("D (disk sleep)", none, "0000000000000102")));
        assert!(status_is_dying(&status("Z (zombie)", none, none)));
        // SIGINT and SIGTERM with handlers: the caller wants to go on.
        assert!(!status_is_dying(&status("S (sleeping)", "0000000000004002", none)));
    }

    #[test]
    fn the_living_are_left_alone_and_the_dead_are_not() {
        assert!(!is_dying(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(is_dying(pid));
    }

    #[test]
    fn who_is_hidden_is_not_taken_for_dead() {
        let nowhere = tempfile::tempdir().unwrap();
        let proc = nowhere.path().to_str().unwrap();
        assert!(!is_dying_in(proc, std::process::id()));
        // Process 1 is another user's, unless the tests run as root.
        assert!(!is_dying_in(proc, 1));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(is_dying_in(proc, pid));
    }

    #[tokio::test]
    async fn closing_ends_every_wait() {
        let pending = Pending::start().unwrap();
        let mut before = pending.register(std::process::id());
        assert_eq!(pending.len(), 1);
        pending.close();
        let mut after = pending.register(0);
        for ticket in [&mut before, &mut after] {
            assert!(matches!(ticket.ended().await, FsError::Volume(VolumeError::Closed)));
        }
        drop((before, after));
        assert_eq!(pending.len(), 0);
    }

    #[tokio::test]
    async fn the_wait_of_a_dead_caller_ends() {
        let pending = Pending::start().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let mut ticket = pending.register(pid);
        let started = Instant::now();
        assert!(matches!(ticket.ended().await, FsError::Interrupted));
        assert!(started.elapsed() >= PATIENCE);
        pending.close();
    }
}
