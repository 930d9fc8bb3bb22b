//! A thread beside the hub's for work that waits for the disk, so that the hub's need not.
//!
//! One thing at a time, in the order of asking. The hub bounds how much is asked for, and does not wait for ever.

use crate::threads;
use std::io;
use std::sync::mpsc::{Sender, channel};
use tokio::sync::mpsc;

pub struct Aside<Q, A> {
    asked: Sender<Q>,
    done: mpsc::UnboundedReceiver<A>,
}

impl<Q: Send + 'static, A: Send + 'static> Aside<Q, A> {
    /// Starts the thread; it ends when this is dropped, after what it is about to do.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(name: &str, mut work: impl FnMut(Q) -> A + Send + 'static) -> io::Result<Self> {
        let (asked, next) = channel::<Q>();
        let (tell, done) = mpsc::unbounded_channel();
        let work = move || {
            for asked in next {
                if tell.is_closed() || tell.send(work(asked)).is_err() {
                    return;
                }
            }
        };
        threads::spawn(name, work)?;
        Ok(Self { asked, done })
    }

    /// Asks for something; without the thread it is given back.
    pub fn ask(&self, what: Q) -> Result<(), Q> {
        self.asked.send(what).map_err(|back| back.0)
    }

    /// The next thing that was done. Waits for ever if there is no thread.
    pub async fn done(&mut self) -> A {
        match self.done.recv().await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn asking_does_not_wait_for_the_disk() {
        let (go, wait) = channel::<()>();
        let mut aside = Aside::start("test", move |n: u8| {
            let _ = wait.recv();
            n
        })
        .unwrap();
        [1, 2].into_iter().for_each(|n| aside.ask(n).unwrap());
        assert!(aside.done.try_recv().is_err(), "the disk has not answered");
        for n in [1, 2] {
            go.send(()).unwrap();
            assert_eq!(aside.done().await, n);
        }
    }
}
