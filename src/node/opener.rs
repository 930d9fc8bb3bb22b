//! A thread that opens cores which peers ask for, so that the hub's need not wait for the disk.
//!
//! One core at a time, in the order of asking. The hub bounds how many are asked for, and does not wait for ever.

use crate::hyper::core::SharedCore;
use crate::key::DiscoveryKey;
use std::sync::mpsc::{Sender, channel};
use tokio::sync::mpsc;

/// What became of a core that was asked for.
pub type Found = (DiscoveryKey, Option<SharedCore>);

pub struct Opener {
    asked: Sender<DiscoveryKey>,
    found: mpsc::UnboundedReceiver<Found>,
}

impl Opener {
    /// Starts the thread; it ends when this is dropped, after the core that it is about to open.
    pub fn start(
        mut find: impl FnMut(&DiscoveryKey) -> Option<SharedCore> + Send + 'static,
    ) -> Self {
        let (asked, next) = channel::<DiscoveryKey>();
        let (tell, found) = mpsc::unbounded_channel();
        let work = move || {
            for id in next {
                if tell.send((id, find(&id))).is_err() {
                    return;
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("opener".into()).spawn(work) {
            tracing::error!("what peers ask for cannot be opened: {error}");
        }
        Self { asked, found }
    }

    pub fn ask(&self, id: DiscoveryKey) {
        // Without the thread nothing is found, and the hub refuses it in time.
        let _ = self.asked.send(id);
    }

    /// The next core that was looked for. Waits for ever if there is no thread.
    pub async fn found(&mut self) -> Found {
        match self.found.recv().await {
            Some(found) => found,
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
        let mut opener = Opener::start(move |_| {
            let _ = wait.recv();
            None
        });
        let ids = [DiscoveryKey([1; 32]), DiscoveryKey([2; 32])];
        ids.into_iter().for_each(|id| opener.ask(id));
        assert!(opener.found.try_recv().is_err(), "the disk has not answered");
        for id in ids {
            go.send(()).unwrap();
            assert!(matches!(opener.found().await, (found, None) if found == id));
        }
    }
}
