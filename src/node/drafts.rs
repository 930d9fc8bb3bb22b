//! Drives of ours that programs work on: one draft for each, whoever has it mounted, and when it is published.
//!
//! What is closed is published a moment later, together with whatever else is; what is written on and on, when it has
//! been left alone for a while. A publication that fails is tried again, less and less often; nothing is lost by it.

use super::claims::Writing;
use super::{DriveUse, Node, NodeError, on_disk};
use crate::hyper::draft::{Draft, DraftError, Which};
use crate::key::CoreKey;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// What is done within this is published together: a program that saves a file does several things at once.
const TOGETHER: Duration = Duration::from_millis(30);
/// While a lot is done, a publication is followed by the next after so many times its own length, up to [`MAX_APART`].
const APART: u32 = 4;
const MAX_APART: Duration = Duration::from_secs(1);
/// After one that failed the next comes after this, then after twice as long, up to [`MAX_RETRY`].
const RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(30);
/// How long the names of a drive are waited for, all of which should be here.
const NAMES: Duration = Duration::from_secs(30);

/// Drafts of drives that are being worked on.
#[derive(Default)]
pub(super) struct Drafts(Mutex<Open>);

#[derive(Default)]
struct Open {
    drafts: BTreeMap<CoreKey, Weak<Drafting>>,
    /// What earlier processes left was looked at.
    cleaned: bool,
}

/// Why the last publication failed; none if it did not.
pub type Trouble = Option<Arc<DraftError>>;

/// A drive that is being worked on; see the module.
pub struct Drafting {
    draft: Arc<Draft>,
    publisher: Arc<Publisher>,
    task: JoinHandle<()>,
    trouble: watch::Receiver<Trouble>,
    _writing: Writing,
}

struct Publisher {
    draft: Arc<Draft>,
    drive: Arc<DriveUse>,
    node: Arc<Node>,
}

impl Deref for Drafting {
    type Target = Arc<Draft>;

    fn deref(&self) -> &Arc<Draft> {
        &self.draft
    }
}

impl Drop for Drafting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    /// Lets the caller work on a drive of this store, together with all others who do. None if a share makes the drive
    /// what a folder is. `quiet` is how long a file that is open must be left alone to be published; whoever comes first
    /// says it.
    pub async fn draft(
        self: &Arc<Self>,
        drive: Arc<DriveUse>,
        quiet: Duration,
    ) -> Result<Option<Arc<Drafting>>, NodeError> {
        let key = drive.key();
        let Some(writing) = self.claim_changing(key) else { return Ok(None) };
        let open = &mut *self.drafts.0.lock().await;
        if !open.cleaned {
            let storage = self.store.storage().clone();
            on_disk(move || Ok(Draft::clean(&storage)?)).await?;
            open.cleaned = true;
        }
        let drafts = &mut open.drafts;
        drafts.retain(|_, drafting| drafting.strong_count() > 0);
        if let Some(drafting) = drafts.get(&key).and_then(Weak::upgrade) {
            return Ok(Some(drafting));
        }
        let names = drive.current(NAMES).await?;
        let (cores, storage) = (drive.drive().await?, self.store.storage().clone());
        let bell = Arc::new(Notify::new());
        let rings = bell.clone();
        let draft = on_disk(move || {
            let names = (*names).clone();
            Ok(Draft::open(key, cores, storage, names, move || rings.notify_one())?)
        })
        .await?;
        let (follows, live) = (Arc::downgrade(&draft), Arc::downgrade(&drive));
        drive.subscribe(move |paths| {
            let (Some(draft), Some(live)) = (follows.upgrade(), live.upgrade()) else {
                return false;
            };
            if let Some(index) = live.index().filter(|_| !paths.is_empty()) {
                draft.absorb(&index, paths);
            }
            true
        });
        let publisher = Arc::new(Publisher { draft: draft.clone(), drive, node: self.clone() });
        let (tell, trouble) = watch::channel(None);
        bell.notify_one();
        let task = tokio::spawn(publish_on(publisher.clone(), bell, quiet, tell));
        let drafting = Drafting { draft, publisher, task, trouble, _writing: writing };
        let drafting = Arc::new(drafting);
        drafts.insert(key, Arc::downgrade(&drafting));
        Ok(Some(drafting))
    }
}

impl Drafting {
    /// Why the last publication failed, as that changes.
    pub fn trouble(&self) -> watch::Receiver<Trouble> {
        self.trouble.clone()
    }

    /// Publishes everything: whoever worked on it has ended.
    ///
    /// # Errors
    /// What could not be published is in the store all the same, and published when the drive is worked on next, but for
    /// what [`DraftError::Lost`] names.
    pub async fn end(&self) -> Result<(), NodeError> {
        self.publisher.publish(|draft| draft.end()).await
    }
}

impl Publisher {
    /// Publishes in one way or the other, in turn with others who write the drive.
    async fn publish(
        &self,
        publish: impl FnOnce(&Draft) -> Result<Option<u64>, DraftError> + Send + 'static,
    ) -> Result<(), NodeError> {
        let _turn = self.node.turn_to_write(self.drive.key()).await;
        let draft = self.draft.clone();
        if on_disk(move || Ok(publish(&draft)?)).await?.is_some() {
            self.node.note_version(&self.drive);
        }
        Ok(())
    }
}

/// Publishes what is due for as long as it is not aborted.
async fn publish_on(
    publisher: Arc<Publisher>,
    bell: Arc<Notify>,
    quiet: Duration,
    tell: watch::Sender<Trouble>,
) {
    let (mut look, mut retry) = (Instant::now() + quiet, RETRY);
    loop {
        let which = tokio::select! {
            () = bell.notified() => Which::Closed,
            () = sleep_until(look) => Which::Quiet,
        };
        match which {
            Which::Quiet => look = Instant::now() + quiet,
            _ => sleep(TOGETHER).await,
        }
        let begun = Instant::now();
        match publisher.publish(move |draft| draft.publish(which)).await {
            Ok(()) => {
                retry = RETRY;
                tell.send_if_modified(|trouble| trouble.take().is_some());
                sleep((begun.elapsed() * APART).min(MAX_APART)).await;
            }
            Err(error) => {
                tracing::warn!(drive = %crate::key::short(&publisher.drive.key().0), %error, "not published");
                if let NodeError::Draft(error) = error {
                    tell.send_replace(Some(error));
                }
                sleep(retry).await;
                retry = (retry * 2).min(MAX_RETRY);
                bell.notify_one();
            }
        }
    }
}
