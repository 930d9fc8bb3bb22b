//! Which cores hope for peers of which topic, so that what discovery learns reaches their waiters.

use crate::hyper::session::CoreHandle;
use crate::key::{DiscoveryKey, Topic};
use crate::lock::lock;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

/// Topics that are joined, with the cores whose blocks their peers may have.
#[derive(Default)]
pub struct Discovery {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    topics: HashMap<Topic, Joined>,
    /// The other way round.
    of_core: HashMap<DiscoveryKey, Vec<Topic>>,
}

#[derive(Default)]
struct Joined {
    cores: Vec<CoreHandle>,
    settled: bool,
    alone: bool,
    /// Looked for once more.
    again: bool,
    announced: watch::Sender<bool>,
}

impl Discovery {
    /// `core` waits for peers of `topic`.
    pub fn watch(&self, topic: Topic, core: CoreHandle) {
        let mut known = self.lock();
        let Known { topics, of_core } = &mut *known;
        let joined = topics.entry(topic).or_default();
        if joined.settled || joined.alone {
            let Joined { settled, alone, again, .. } = *joined;
            core.set_reach(|reach| {
                (reach.discovered, reach.alone, reach.again) = (settled, alone, again);
            });
        }
        if !joined.cores.iter().any(|known| known.key() == core.key()) {
            of_core.entry(core.discovery_key()).or_default().push(topic);
            joined.cores.push(core);
        }
    }

    /// The topics whose peers have a core.
    pub fn topics_of(&self, core: &DiscoveryKey) -> Vec<Topic> {
        self.lock().of_core.get(core).cloned().unwrap_or_default()
    }

    /// Waits until `topic` is announced; false if that takes longer than `limit`.
    pub async fn announced(&self, topic: Topic, limit: Duration) -> bool {
        let mut announced = self.lock().topics.entry(topic).or_default().announced.subscribe();
        tokio::time::timeout(limit, announced.wait_for(|done| *done)).await.is_ok()
    }

    /// Nodes of the DHT hold our record.
    pub fn set_announced(&self, topic: Topic) {
        if let Some(joined) = self.lock().topics.get(&topic) {
            joined.announced.send_replace(true);
        }
    }

    /// The record is taken back.
    pub fn withdrawn(&self, topic: Topic) {
        if let Some(joined) = self.lock().topics.get(&topic) {
            joined.announced.send_replace(false);
        }
    }

    /// No open drive has this topic any more.
    pub fn forget(&self, topic: Topic) {
        let mut known = self.lock();
        let joined = known.topics.remove(&topic);
        // Of a core that is still open for another drive nothing is known until that drive is looked for.
        for core in joined.into_iter().flat_map(|joined| joined.cores) {
            if let Some(topics) = known.of_core.get_mut(&core.discovery_key()) {
                topics.retain(|of| *of != topic);
                if topics.is_empty() {
                    known.of_core.remove(&core.discovery_key());
                }
            }
            core.set_reach(|reach| {
                (reach.discovered, reach.alone, reach.again) = (false, false, false);
            });
        }
    }

    /// Peers are being looked for once more: that there was nobody is no longer certain.
    pub fn look_again(&self, topic: Topic) {
        let mut known = self.lock();
        let Some(joined) = known.topics.get_mut(&topic) else { return };
        joined.again = true;
        for core in &joined.cores {
            core.set_reach(|reach| reach.again = true);
        }
    }

    /// Peers were looked for, and all that were found have been tried.
    pub fn set_settled(&self, topic: Topic) {
        let mut known = self.lock();
        let Some(joined) = known.topics.get_mut(&topic) else { return };
        (joined.settled, joined.again) = (true, false);
        for core in &joined.cores {
            core.set_reach(|reach| (reach.discovered, reach.again) = (true, false));
        }
    }

    /// Nobody could be asked just before.
    pub fn set_alone(&self, topic: Topic) {
        let mut known = self.lock();
        let Some(joined) = known.topics.get_mut(&topic) else { return };
        (joined.alone, joined.again) = (true, false);
        for core in &joined.cores {
            core.set_reach(|reach| (reach.alone, reach.again) = (true, false));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }
}
