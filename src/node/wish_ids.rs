//! What a wish is called on both sides of the pump: by the hub, for all cores, and by the handle of its core.

use crate::hyper::replication::CoreId;
use std::collections::HashMap;
use std::hash::Hash;

/// The wishes of one kind.
pub struct WishIds<K> {
    handles: HashMap<K, (CoreId, u64)>,
    hubs: HashMap<(CoreId, u64), K>,
}

impl<K> Default for WishIds<K> {
    fn default() -> Self {
        Self { handles: HashMap::new(), hubs: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> WishIds<K> {
    /// The hub calls `name` what the handle of `core` calls `handles`.
    pub fn insert(&mut self, core: CoreId, handles: u64, name: K) {
        self.handles.insert(name, (core, handles));
        self.hubs.insert((core, handles), name);
    }

    /// The hub is done with a wish; what the handle calls it.
    pub fn take(&mut self, name: K) -> Option<u64> {
        let wish = self.handles.remove(&name)?;
        self.hubs.remove(&wish);
        Some(wish.1)
    }

    /// The handle is done with a wish; what the hub calls it.
    pub fn take_back(&mut self, core: CoreId, handles: u64) -> Option<K> {
        let name = self.hubs.remove(&(core, handles))?;
        self.handles.remove(&name);
        Some(name)
    }

    /// Nothing is wished for of a core any more.
    pub fn forget(&mut self, core: CoreId) {
        self.handles.retain(|_, (of, _)| *of != core);
        self.hubs.retain(|(of, _), _| *of != core);
    }
}
