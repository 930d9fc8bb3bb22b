//! What the handles of cores wish for while there is no network yet, folded into what of it still stands.
//!
//! A process that only writes its own drives may never go online, and lives for as long as commands join it. A list of
//! all that its cores ever wished would grow with that; what stands does not: a core that nobody uses any more is let
//! go, a wish that was taken back is gone, and what attaching a core to the hub makes true anyway is not kept. What
//! stands is bounded for each core and in total, and whoever waits for more is told.

use crate::hyper::session::{CoreHandle, Wish};
use crate::key::DiscoveryKey;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use tokio::sync::{mpsc, oneshot};

/// Wishes that stand of one core: what its handle hints ahead of need, and as much again that somebody waits for.
const MAX_OF_CORE: usize = 32_768;

/// Wishes that stand of all cores, some tens of bytes each.
const MAX_WISHES: usize = 131_072;

/// See the module. Cores need no bound here: an open drive has two, and a command that opened it.
#[derive(Default)]
pub(super) struct Backlog {
    cores: BTreeMap<DiscoveryKey, Standing>,
    wishes: usize,
}

/// Of one core.
struct Standing {
    handle: CoreHandle,
    downloading: bool,
    small_blocks: bool,
    /// Whether each is urgent.
    blocks: BTreeMap<u64, bool>,
    /// By number: the blocks, and whether in their order.
    ranges: BTreeMap<u64, (Range<u64>, bool)>,
    seeks: BTreeSet<u64>,
    update: bool,
    /// Something was refused, and that was told.
    told: bool,
}

impl Standing {
    fn len(&self) -> usize {
        self.blocks.len() + self.ranges.len() + self.seeks.len()
    }
}

impl Backlog {
    /// Takes a wish in.
    pub(super) fn fold(&mut self, wish: Wish) {
        let core = match &wish {
            Wish::Attach { handle, .. } => handle.discovery_key(),
            Wish::Detach { core }
            | Wish::Block { core, .. }
            | Wish::ForgetBlock { core, .. }
            | Wish::Range { core, .. }
            | Wish::ForgetRange { core, .. }
            | Wish::Seek { core, .. }
            | Wish::ForgetSeek { core, .. }
            | Wish::Update { core }
            | Wish::Changed { core }
            | Wish::Cleared { core, .. } => *core,
        };
        if let Wish::Attach { handle, downloading, small_blocks } = wish {
            let standing = self.cores.entry(core).or_insert_with(|| Standing {
                handle: handle.clone(),
                downloading,
                small_blocks,
                blocks: BTreeMap::new(),
                ranges: BTreeMap::new(),
                seeks: BTreeSet::new(),
                update: false,
                told: false,
            });
            (standing.handle, standing.downloading, standing.small_blocks) =
                (handle, downloading, small_blocks);
            return;
        }
        // As with the hub, what is not attached has no wishes.
        let Some(standing) = self.cores.get_mut(&core) else { return };
        let before = standing.len();
        let room = before < MAX_OF_CORE && self.wishes < MAX_WISHES;
        match wish {
            Wish::Detach { .. } => {
                self.wishes -= before;
                self.cores.remove(&core);
                return;
            }
            Wish::ForgetBlock { index, .. } => drop(standing.blocks.remove(&index)),
            Wish::ForgetRange { id, .. } => drop(standing.ranges.remove(&id)),
            Wish::ForgetSeek { bytes, .. } => drop(standing.seeks.remove(&bytes)),
            Wish::Block { index, urgent, .. } if room => {
                *standing.blocks.entry(index).or_default() |= urgent;
            }
            Wish::Range { id, range, linear, .. } if room => {
                standing.ranges.insert(id, (range, linear));
            }
            Wish::Seek { bytes, .. } if room => drop(standing.seeks.insert(bytes)),
            Wish::Update { .. } => standing.update = true,
            // The hub looks at the core when it is attached.
            Wish::Attach { .. } | Wish::Changed { .. } | Wish::Cleared { .. } => {}
            refused => {
                if !std::mem::replace(&mut standing.told, true) {
                    let core = crate::key::short(&standing.handle.key().0);
                    tracing::warn!(
                        %core,
                        "too much is asked for while there is no network: what comes on top is refused"
                    );
                }
                standing.handle.on_refused(&refused);
            }
        }
        self.wishes = self.wishes + standing.len() - before;
    }

    /// What stands, for the hub.
    pub(super) fn into_wishes(self) -> Vec<Wish> {
        let mut wishes = Vec::with_capacity(self.wishes + 2 * self.cores.len());
        for (core, standing) in self.cores {
            let Standing { handle, downloading, small_blocks, .. } = standing;
            wishes.push(Wish::Attach { handle, downloading, small_blocks });
            let block = |(index, urgent)| Wish::Block { core, index, urgent };
            wishes.extend(standing.blocks.into_iter().map(block));
            let range = |(id, (range, linear))| Wish::Range { core, id, range, linear };
            wishes.extend(standing.ranges.into_iter().map(range));
            wishes.extend(standing.seeks.into_iter().map(|bytes| Wish::Seek { core, bytes }));
            wishes.extend(standing.update.then_some(Wish::Update { core }));
        }
        wishes
    }
}

/// Wishes from here on, and what stands of those before.
pub(super) type Gathered = (mpsc::UnboundedReceiver<Wish>, Backlog);

/// Takes wishes until it is told to stop.
pub(super) async fn gather(
    mut wishes: mpsc::UnboundedReceiver<Wish>,
    mut stop: oneshot::Receiver<()>,
) -> Gathered {
    let mut backlog = Backlog::default();
    loop {
        tokio::select! {
            biased;
            _ = &mut stop => return (wishes, backlog),
            wish = wishes.recv() => match wish {
                Some(wish) => backlog.fold(wish),
                None => return (wishes, backlog),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::cache::BlockCache;
    use crate::hyper::core::storage::memory;
    use crate::hyper::session::Patience;
    use crate::hyper::source::{BlockSource, SourceError};
    use crate::hyper::store::Store;
    use crate::key::CoreKey;
    use std::sync::Arc;
    use std::time::Duration;

    struct Lab {
        store: Store,
        wishes: mpsc::UnboundedReceiver<Wish>,
        backlog: Backlog,
    }

    impl Lab {
        fn new() -> Self {
            let (wish, wishes) = mpsc::unbounded_channel();
            let cache = Arc::new(BlockCache::new(1 << 20));
            let patience = Patience { read: Duration::from_secs(3600), ..Patience::default() };
            let store = Store::open(memory(), cache, wish, patience).unwrap();
            Self { store, wishes, backlog: Backlog::default() }
        }

        fn attached(&mut self, n: u8) -> CoreHandle {
            let core = self.store.by_key(CoreKey([n; 32]), None).unwrap();
            core.attach(true, false);
            self.fold();
            core
        }

        fn fold(&mut self) {
            while let Ok(wish) = self.wishes.try_recv() {
                self.backlog.fold(wish);
            }
        }
    }

    #[tokio::test]
    async fn what_is_over_leaves_nothing() {
        let mut lab = Lab::new();
        let core = lab.attached(1);
        for n in 0..10_000 {
            // Waits end, others come; whoever appends tells it each time.
            let mut wait = core.download(n..n + 1, true);
            assert!(futures(&mut wait).await.is_none());
            drop(wait);
            core.announce_change();
            lab.fold();
        }
        assert!(lab.backlog.wishes <= 1 && lab.backlog.cores.len() == 1);
        lab.backlog.fold(Wish::Detach { core: core.discovery_key() });
        assert_eq!((lab.backlog.wishes, lab.backlog.cores.len()), (0, 0));
        lab.store.flush().unwrap();
        drop(core);
        lab.store.close_unused();
        assert!(lab.store.handles().is_empty(), "a list of wishes would hold it");
    }

    #[tokio::test]
    async fn what_stands_is_bounded_for_each_and_in_total_and_whoever_waits_is_told() {
        let mut lab = Lab::new();
        let first = lab.attached(1);
        let id = first.discovery_key();
        let wish = |core, index| Wish::Block { core, index, urgent: false };
        (0..MAX_OF_CORE as u64 + 10).for_each(|index| lab.backlog.fold(wish(id, index)));
        assert_eq!(lab.backlog.wishes, MAX_OF_CORE);
        let mut wait = first.download(0..9, true);
        assert!(futures(&mut wait).await.is_none());
        lab.fold();
        assert!(matches!(futures(&mut wait).await, Some(Err(SourceError::Refused))));
        // Others have their own room, up to what all may have.
        for n in 2..10 {
            let core = lab.attached(n).discovery_key();
            (0..MAX_OF_CORE as u64).for_each(|index| lab.backlog.fold(wish(core, index)));
        }
        assert_eq!(lab.backlog.wishes, MAX_WISHES);
        let last = lab.attached(10);
        let mut wait = last.block(0);
        assert!(futures(&mut wait).await.is_none());
        lab.fold();
        // One that is taken back makes room.
        lab.backlog.fold(Wish::ForgetBlock { core: id, index: 0 });
        lab.backlog.fold(wish(last.discovery_key(), 7));
        assert_eq!(lab.backlog.wishes, MAX_WISHES);
        assert_eq!(lab.backlog.into_wishes().len(), MAX_WISHES + 10);
    }

    /// What a future gives at once.
    async fn futures<T>(future: &mut crate::hyper::source::BoxFuture<'_, T>) -> Option<T> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match future.as_mut().poll(cx) {
                std::task::Poll::Ready(done) => Some(done),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
