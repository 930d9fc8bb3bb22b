//! The cores of open drives, each with how many drives use it: what the hub holds, and what peers are served.

use super::lock;
use crate::hyper::session::{CoreHandle, Wish};
use crate::key::DiscoveryKey;
use std::collections::HashMap;
use std::sync::Mutex;
use tokio::sync::mpsc;

pub struct Cores {
    used: Mutex<HashMap<DiscoveryKey, usize>>,
    wishes: mpsc::UnboundedSender<Wish>,
}

impl Cores {
    pub fn new(wishes: mpsc::UnboundedSender<Wish>) -> Self {
        Self { used: Mutex::default(), wishes }
    }

    /// One more drive uses the core. To be called before it is attached to the hub.
    pub fn take(&self, core: &CoreHandle) {
        *lock(&self.used).entry(core.discovery_key()).or_default() += 1;
    }

    /// One drive less uses each of these; those that nobody uses leave the hub.
    pub fn give_back(&self, cores: Vec<CoreHandle>) {
        let mut used = lock(&self.used);
        for core in cores {
            let id = core.discovery_key();
            let Some(count) = used.get_mut(&id) else { continue };
            *count -= 1;
            if *count == 0 {
                used.remove(&id);
                // Under the lock, so that who attaches it anew comes later.
                let _ = self.wishes.send(Wish::Detach { core: id });
            }
        }
    }

    /// Whether an open drive uses the core: no other is served.
    pub fn is_used(&self, core: &DiscoveryKey) -> bool {
        lock(&self.used).contains_key(core)
    }
}
