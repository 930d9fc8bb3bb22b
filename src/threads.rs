//! Threads, and processes, of this program: where the system gives no more of them, its limit is named.

use crate::lock::lock;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

/// What keeps the system from giving another thread or process, for people.
pub const LIMIT: &str =
    "this user or its container has as many threads and processes as it may (ulimit -u, pids.max)";

/// What raises that limit.
pub const RAISE: &str = "`ulimit -u 4096` before it, or more; TasksMax= in a unit of systemd, --pids-limit of a container";

/// Starts a thread.
///
/// # Errors
/// One whose words are enough for people: see [`told`].
pub fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.into()).spawn(work).map_err(|error| told("a thread", error))
}

/// An error of starting `what`, in words that name the limit where that is what is in the way.
pub fn told(what: &str, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            io::Error::new(error.kind(), format!("cannot start {what}; {LIMIT}"))
        }
        kind => io::Error::new(kind, format!("cannot start {what}: {error}")),
    }
}

/// How many threads can be made now, up to `most`; fewer with the reason. All of them have ended when this returns.
pub fn count(most: usize) -> (usize, io::Result<()>) {
    let end = Arc::new(Mutex::new(()));
    let held = lock(&end);
    let mut made = Vec::with_capacity(most);
    let mut all = Ok(());
    while made.len() < most && all.is_ok() {
        let end = Arc::clone(&end);
        match spawn("hdrive-trial", move || drop(lock(&end))) {
            Ok(thread) => made.push(thread),
            Err(error) => all = Err(error),
        }
    }
    drop(held);
    let count = made.len();
    made.into_iter().for_each(|thread| drop(thread.join()));
    (count, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_of_a_thread_is_named() {
        let lack = io::Error::from_raw_os_error(nix::libc::EAGAIN);
        let text = told("a thread", lack).to_string();
        assert!(text.contains("pids.max") && !text.contains("temporarily"), "{text}");
        let other = io::Error::from_raw_os_error(nix::libc::ENOENT);
        let text = told("fusermount3", other).to_string();
        assert!(text.contains("fusermount3: No such") && !text.contains("pids"), "{text}");
        assert!(matches!(count(3), (3, Ok(()))));
    }
}
