//! The loop of a live drive: what it waits for, and what it does when that has come.

use super::{LiveDrive, LiveError};
use crate::hyper::drive::sizes::{Learnt, Sizes};
use crate::hyper::drive::{Drive, DriveError, DriveIndex};
use crate::hyper::session::Reach;
use crate::hyper::source::BlockLog;
use crate::path::DrivePath;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// After a failed load the next try comes after this, then after twice as long, up to [`MAX_RETRY`]; at once with a
/// new version or new peers.
const RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(60);

/// A new index is held back this long for sizes that are only a round trip away.
const SIZES_COMING: Duration = Duration::from_millis(250);

/// When a load that failed is tried again.
#[derive(Default)]
struct Retry {
    pause: Duration,
    at: Option<Instant>,
}

impl Retry {
    fn failed(&mut self, now: Instant) {
        self.pause = (self.pause * 2).clamp(RETRY, MAX_RETRY);
        self.at = Some(now + self.pause);
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl LiveDrive {
    /// Keeps the index current until the drive is closed; returns when all of it is known if the version is fixed.
    pub async fn follow(&self) {
        let mut versions = self.db.versions();
        let mut reach = self.db.reach();
        let mut sizes = Sizes::default();
        let mut retry = Retry::default();
        let mut peers = *reach.borrow_and_update();
        let mut look = true;
        loop {
            if look {
                // Only `changed` marks a version as seen: one that comes while something else is awaited is not missed.
                let length = versions.borrow().length;
                self.known.send_modify(|known| known.tried = None);
                match self.step(length, &peers, &mut sizes).await {
                    Ok(()) => {
                        retry.clear();
                        self.known.send_modify(|known| {
                            known.problem = None;
                            known.tried = Some(length);
                        });
                    }
                    Err(error) => {
                        tracing::info!(drive = %crate::key::short(&self.key().0), %error, "not loaded");
                        match error.is_final() {
                            true => retry.clear(),
                            false => retry.failed(Instant::now()),
                        }
                        self.known.send_modify(|known| {
                            known.problem = Some(error);
                            known.tried = Some(length);
                        });
                    }
                }
            }
            if self.is_whole() {
                return;
            }
            let blobs = self.opened.get().map(|(drive, _)| drive.blobs().clone());
            look = tokio::select! {
                changed = versions.changed() => match changed {
                    Ok(()) => { retry.clear(); true }
                    Err(_) => return,
                },
                changed = reach.changed() => match changed {
                    Ok(()) => {
                        let now = *reach.borrow_and_update();
                        let more = now.peers > peers.peers || now.syncs > peers.syncs;
                        peers = now;
                        if more && let Some(blobs) = &blobs {
                            sizes.peers_changed(blobs);
                        }
                        // A load that failed may succeed; one that has not begun may have something to show.
                        let waits = retry.at.is_some() || self.index().is_none();
                        if more && waits {
                            retry.clear();
                        }
                        waits && (more || now.empty)
                    }
                    Err(_) => return,
                },
                learnt = next_sizes(&mut sizes, blobs.as_ref()) => {
                    self.learn(learnt);
                    false
                }
                () = self.nudge.notified() => { retry.clear(); true }
                () = sleep_until(retry.at.unwrap_or_else(Instant::now)), if retry.at.is_some() => true,
            };
        }
    }

    /// Whether nothing can change any more: a fixed version of which everything is known.
    pub fn is_whole(&self) -> bool {
        self.at.is_some()
            && self.index().is_some_and(|index| index.version() > 0 && index.unsized_files() == 0)
    }

    /// Shows what can be shown of the drive now.
    async fn step(&self, length: u64, peers: &Reach, sizes: &mut Sizes) -> Result<(), LiveError> {
        let old = self.index().filter(|index| index.version() > 0);
        if length == 0 {
            let empty = peers.empty || self.db.writable();
            if empty && self.index().is_none() {
                self.publish(DriveIndex::default(), &[DrivePath::root()]);
            }
            return Ok(());
        }
        // A version that nobody here has may be with a peer; one that the peers lack too is of the future, and so is
        // one of a drive of ours that is not here.
        let comes = self.at.is_some_and(|at| length < at)
            && !self.db.writable()
            && !(peers.peers > 0 && peers.synced);
        if comes || self.at.is_some() && old.is_some() {
            return Ok(());
        }
        let drive = self.drive().await?;
        let (index, changed) = match (&old, self.at) {
            (Some(old), None) => drive.refresh(old).await?,
            (_, Some(version)) => {
                let whole = drive.bee().whole_version(version).await.map_err(DriveError::from)?;
                first(drive.checkout(whole).index().await?)
            }
            (None, None) => first(drive.index().await?),
        };
        sizes.look(&index, drive.blobs());
        let index = settled(index, sizes, &drive).await;
        self.publish(index, &changed);
        Ok(())
    }

    fn learn(&self, learnt: Vec<Learnt>) {
        let Some(index) = self.index() else { return };
        let (index, changed) = index.with_sizes(learnt);
        if changed.is_empty() {
            return;
        }
        self.publish(index, &changed);
    }

    fn publish(&self, index: DriveIndex, changed: &[DrivePath]) {
        self.known.send_modify(|known| known.index = Some(Arc::new(index)));
        if !changed.is_empty() {
            let mut listeners = crate::lock::lock(&self.listeners);
            listeners.retain(|listens| listens(changed));
        }
    }
}

/// The index with the sizes that come at once.
async fn settled(mut index: DriveIndex, sizes: &mut Sizes, drive: &Drive) -> DriveIndex {
    let coming = async {
        while !sizes.is_settled() {
            let learnt = sizes.next(drive.blobs()).await;
            (index, _) = index.with_sizes(learnt);
        }
    };
    let _ = timeout(SIZES_COMING, coming).await;
    index
}

/// [`Sizes::next`] once the core of the contents is known.
async fn next_sizes(sizes: &mut Sizes, blobs: Option<&crate::hyper::blobs::Blobs>) -> Vec<Learnt> {
    match blobs {
        Some(blobs) => sizes.next(blobs).await,
        None => std::future::pending().await,
    }
}

/// After the first load everything at the root is news, the root itself included.
fn first(index: DriveIndex) -> (DriveIndex, Vec<DrivePath>) {
    let root = DrivePath::root();
    let names = index
        .list(&root)
        .map(|dir| dir.iter().filter_map(|(name, _)| root.join(name).ok()).collect::<Vec<_>>());
    let mut changed = names.unwrap_or_default();
    changed.push(root);
    (index, changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::cache::BlockCache;
    use crate::hyper::core::storage::memory;
    use crate::hyper::drive::Entry;
    use crate::hyper::session::Patience;
    use crate::hyper::store::{Namespace, Store};

    /// A drive of our own that nothing keeps current yet.
    fn unfollowed(patience: Patience) -> Arc<LiveDrive> {
        let (wishes, _) = tokio::sync::mpsc::unbounded_channel();
        let (cache, storage) = (Arc::new(BlockCache::new(1 << 20)), memory());
        let store = Arc::new(Store::open(storage, cache, wishes, patience).unwrap());
        let db = store.named(&Namespace::ROOT, "db", None).unwrap();
        Arc::new(LiveDrive::open(store, db.key(), None, None, |_| {}).unwrap())
    }

    /// A drive of our own, kept current by a task.
    fn own_drive() -> Arc<LiveDrive> {
        let live = unfollowed(Patience::default());
        let follower = live.clone();
        tokio::spawn(async move { follower.follow().await });
        live
    }

    #[tokio::test]
    async fn no_version_is_missed_that_comes_with_news_of_peers() {
        let live = own_drive();
        assert_eq!(live.current(Duration::from_secs(5)).await.unwrap().files(), 0);
        let drive = live.drive().await.unwrap();
        for i in 1..=20 {
            live.db().set_reach(|reach| reach.syncs += 1);
            let mut batch = drive.batch().unwrap();
            batch.put(&DrivePath::from_user(&i.to_string()).unwrap(), &Entry::default()).unwrap();
            let version = batch.flush().unwrap();
            live.db().set_reach(|reach| reach.syncs += 1);
            let index = live.current(Duration::from_secs(5)).await.unwrap();
            assert_eq!((index.version(), index.files()), (version, i));
        }
    }

    #[tokio::test]
    async fn what_is_here_may_load_slowly_though_nobody_else_has_it() {
        let lonely = Duration::from_millis(5);
        let live = unfollowed(Patience { lonely, ..Patience::default() });
        let drive = live.drive().await.unwrap();
        let mut batch = drive.batch().unwrap();
        batch.put(&DrivePath::from_user("/file").unwrap(), &Entry::default()).unwrap();
        let version = batch.flush().unwrap();
        live.db().set_reach(|reach| reach.discovered = true);
        let waiting = live.clone();
        let wait = tokio::spawn(async move { waiting.current(Duration::from_secs(5)).await });
        tokio::time::sleep(lonely * 20).await;
        let follower = live.clone();
        tokio::spawn(async move { follower.follow().await });
        assert_eq!(wait.await.unwrap().unwrap().version(), version);
    }

    #[test]
    fn a_load_that_fails_is_tried_again_less_and_less_often() {
        let (mut retry, now) = (Retry::default(), Instant::now());
        let pauses: Vec<Duration> = (0..10)
            .map(|_| {
                retry.failed(now);
                retry.at.unwrap() - now
            })
            .collect();
        assert_eq!(pauses[..3], [RETRY, RETRY * 2, RETRY * 4]);
        assert_eq!(pauses[9], MAX_RETRY);
        retry.clear();
        retry.failed(now);
        assert_eq!(retry.at, Some(now + RETRY), "news begins anew");
    }
}
