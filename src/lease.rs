//! A right to write that ends when the work that has it is called off, wherever the work is by then.
//!
//! Work that reads files of people may hang in a disk for ever, and cannot be ended. What it may write with is kept
//! here, not by its thread: [`Lease::end`] takes that away, and what the work tries later fails. A write that is
//! under way is waited for. So nothing is written by the work once somebody else has its turn.

use crate::lock::lock;
use std::sync::{Arc, Mutex};

/// See the module. Clones are the same right.
#[derive(Clone)]
pub struct Lease(Arc<Mutex<Option<Held>>>);

/// What is given back at the end, the last first.
#[derive(Default)]
struct Held(Vec<Box<dyn Send>>);

impl Default for Lease {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(Held::default()))))
    }
}

impl Lease {
    /// Keeps something, which is dropped at the end. False, and it is dropped at once, if that has come.
    #[must_use]
    pub fn hold(&self, what: impl Send + 'static) -> bool {
        match &mut *lock(&self.0) {
            Some(held) => {
                held.0.push(Box::new(what));
                true
            }
            None => false,
        }
    }

    /// Does something that must not be done after the end; none if that has come. It must not ask for this right again.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        lock(&self.0).as_ref().map(|_| work())
    }

    /// From here on nothing is done, and everything is given back. Waits for what is being done.
    pub fn end(&self) {
        let held = lock(&self.0).take();
        drop(held);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    struct Told(u8, std::sync::mpsc::Sender<u8>);

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.1.send(self.0);
        }
    }

    #[test]
    fn nothing_is_done_after_the_end_and_the_end_waits_for_what_is_done() {
        let (told, ended) = channel();
        let lease = Lease::default();
        assert!(lease.hold(Told(1, told.clone())) && lease.hold(Told(2, told.clone())));
        let (begun, begins) = channel();
        let (let_go, wait) = channel::<()>();
        let other = lease.clone();
        let work = std::thread::spawn(move || {
            other.during(|| {
                begun.send(()).unwrap();
                let _ = wait.recv();
            })
        });
        begins.recv().unwrap();
        let other = lease.clone();
        let end = std::thread::spawn(move || other.end());
        assert!(ended.recv_timeout(Duration::from_millis(100)).is_err(), "it is being done");
        drop(let_go);
        assert!(work.join().unwrap().is_some());
        end.join().unwrap();
        assert_eq!(ended.try_iter().collect::<Vec<_>>(), [2, 1]);
        assert!(lease.during(|| ()).is_none());
        assert!(!lease.hold(Told(3, told)));
        assert_eq!(ended.try_recv(), Ok(3));
    }
}
