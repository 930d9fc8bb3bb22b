//! Which cores hope for peers of which topic, so that what discovery learns reaches their waiters.

use crate::hyper::session::CoreHandle;
use crate::key::Topic;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Topics that are joined, with the cores whose blocks their peers may have.
#[derive(Default)]
pub struct Discovery {
    topics: Mutex<HashMap<Topic, Joined>>,
}

#[derive(Default)]
struct Joined {
    cores: Vec<CoreHandle>,
    round_done: bool,
    announced: watch::Sender<bool>,
}

impl Discovery {
    /// `core` waits for peers of `topic`.
    pub fn watch(&self, topic: Topic, core: CoreHandle) {
        let mut topics = self.lock();
        let joined = topics.entry(topic).or_default();
        if joined.round_done {
            core.set_reach(|reach| reach.discovered = true);
        }
        if !joined.cores.iter().any(|known| known.key() == core.key()) {
            joined.cores.push(core);
        }
    }

    /// Waits until `topic` is announced; false if that takes longer than `limit`.
    pub async fn announced(&self, topic: Topic, limit: Duration) -> bool {
        let mut announced = self.lock().entry(topic).or_default().announced.subscribe();
        tokio::time::timeout(limit, announced.wait_for(|done| *done)).await.is_ok()
    }

    /// A round of looking for peers has ended.
    pub fn round_done(&self, topic: Topic, announced: bool) {
        let mut topics = self.lock();
        let joined = topics.entry(topic).or_default();
        joined.round_done = true;
        if announced {
            joined.announced.send_replace(true);
        }
        for core in &joined.cores {
            core.set_reach(|reach| reach.discovered = true);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, Joined>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
