//! Drives of ours that programs work on: one draft for each, whoever has it mounted, and when it is published.
//!
//! What is closed is published a moment later, together with whatever else is; what is written on and on, when it has
//! been left alone for a while, and a log that grows every time that is looked for. A file that never rests is published
//! after [`LONG`] as it is at one moment. A publication that fails is tried again, less and less often; nothing is lost by
//! it.
//!
//! Commands write the drive as well: [`Node::settle_draft`] before they look at it, and [`Node::show_in_draft`] after.

use super::claims::Writing;
use super::{DriveUse, Node, NodeError, on_disk};
use crate::hyper::draft::{Draft, DraftError, Which};
use crate::key::CoreKey;
use crate::path::DrivePath;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// What is done within this is published together: a program that saves a file does several things at once.
const TOGETHER: Duration = Duration::from_millis(30);
/// While a lot is done, a publication is followed by the next after so many times its own length, up to [`MAX_APART`].
const APART: u32 = 4;
const MAX_APART: Duration = Duration::from_secs(1);
/// A file that is written all the time is published once it has been for this, and for twice as long at most.
const LONG: Duration = Duration::from_secs(5);
/// Who does not say it lets open files rest for so long: see [`Node::draft`].
pub const QUIET: Duration = Duration::from_secs(2);
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

/// What was saved is not published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// When that was tried first.
    pub since: SystemTime,
    pub why: String,
}

/// A drive that is being worked on; see the module.
pub struct Drafting {
    draft: Arc<Draft>,
    publisher: Arc<Publisher>,
    task: JoinHandle<()>,
    trouble: watch::Receiver<Option<Trouble>>,
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
        let runtime = tokio::runtime::Handle::current();
        drive.subscribe(move |paths| {
            let (Some(draft), Some(live)) = (follows.upgrade(), live.upgrade()) else {
                return false;
            };
            if let Some(index) = live.index().filter(|_| !paths.is_empty()) {
                draft.learn(&index, paths);
                runtime.spawn_blocking(move || draft.absorb());
            }
            true
        });
        // What came before somebody listened.
        let follows = draft.clone();
        on_disk(move || {
            follows.absorb();
            Ok(())
        })
        .await?;
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

/// For commands that write a drive which is, or was, worked on.
impl Node {
    /// Publishes what programs have saved in a drive, so that a command goes on from it; and what an earlier end left, which
    /// is older than what the command is about to do. Files that are open stay what they are for others.
    pub async fn settle_draft(self: &Arc<Self>, drive: &Arc<DriveUse>) -> Result<(), NodeError> {
        let key = drive.key();
        if self.open_draft(key).await.is_some() {
            return self.publish_saved(key).await;
        }
        if !self.has_left(key).await? {
            return Ok(());
        }
        match self.draft(drive.clone(), QUIET).await? {
            Some(drafting) => {
                drafting.publisher.publish_now(|draft| draft.publish(Which::All)).await
            }
            None => Ok(()),
        }
    }

    /// Whether there is something that is not published of a drive: an earlier end left it, or it is worked on.
    pub async fn has_left(&self, key: CoreKey) -> Result<bool, NodeError> {
        let storage = self.store.storage().clone();
        on_disk(move || Ok(Draft::has_records(&storage, &key)?)).await
    }

    /// Whether somebody works on a drive.
    pub async fn is_worked_on(&self, key: CoreKey) -> bool {
        self.open_draft(key).await.is_some()
    }

    /// Publishes what programs have saved in a drive that is worked on now. Whoever asks may have a turn of his own.
    pub async fn publish_saved(&self, key: CoreKey) -> Result<(), NodeError> {
        match self.open_draft(key).await {
            Some(drafting) => {
                let saved = |draft: &Draft| {
                    draft.gather();
                    draft.publish(Which::Closed)
                };
                drafting.publisher.publish_now(saved).await
            }
            None => Ok(()),
        }
    }

    /// Lets those who work on a drive see what a command did to these paths. Those of them that are another content there,
    /// which is not published yet and comes after what the command did.
    pub async fn show_in_draft(
        &self,
        key: CoreKey,
        paths: Vec<DrivePath>,
    ) -> Result<Vec<DrivePath>, NodeError> {
        let Some(drafting) = self.open_draft(key).await else { return Ok(Vec::new()) };
        let draft = drafting.draft.clone();
        on_disk(move || {
            draft.absorb();
            Ok(paths.into_iter().filter(|path| draft.is_written(path)).collect())
        })
        .await
    }

    /// Why what was saved in a drive is not published, if it is not.
    pub async fn draft_trouble(&self, key: CoreKey) -> Option<Trouble> {
        self.open_draft(key).await?.trouble.borrow().clone()
    }

    async fn open_draft(&self, key: CoreKey) -> Option<Arc<Drafting>> {
        self.drafts.0.lock().await.drafts.get(&key).and_then(Weak::upgrade)
    }
}

impl Drafting {
    /// Why what was saved is not published, as that changes.
    pub fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.trouble.clone()
    }

    /// Makes what is not published durable, so that the next one who works on the drive publishes it; where publishing
    /// takes too long. What that could not be done for.
    pub async fn keep(&self) -> Result<Vec<DrivePath>, NodeError> {
        let draft = self.draft.clone();
        on_disk(move || Ok(draft.keep())).await
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
        self.publish_now(publish).await
    }

    /// The same for whoever has that turn.
    async fn publish_now(
        &self,
        publish: impl FnOnce(&Draft) -> Result<Option<u64>, DraftError> + Send + 'static,
    ) -> Result<(), NodeError> {
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
    tell: watch::Sender<Option<Trouble>>,
) {
    let (mut look, mut long, mut retry) = (Instant::now() + quiet, Instant::now() + LONG, RETRY);
    loop {
        let which = tokio::select! {
            () = bell.notified() => Which::Closed,
            () = sleep_until(look) => match Instant::now() < long {
                true => Which::Quiet,
                false => Which::Long,
            },
        };
        match which {
            Which::Closed => sleep(TOGETHER).await,
            Which::Quiet => look = Instant::now() + quiet,
            _ => (look, long) = (Instant::now() + quiet, Instant::now() + LONG),
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
                let why = error.to_string();
                tell.send_if_modified(|trouble| {
                    let before = trouble.take();
                    let since = before.as_ref().map_or_else(SystemTime::now, |before| before.since);
                    *trouble = Some(Trouble { since, why });
                    *trouble != before
                });
                sleep(retry).await;
                retry = (retry * 2).min(MAX_RETRY);
                bell.notify_one();
            }
        }
    }
}
