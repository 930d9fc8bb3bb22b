//! Sizes of files that have a block map: only the map tells them, and it may be anywhere, or nowhere.
//!
//! The names are shown before; sizes follow. Maps are asked for side by side. One that does not come is asked for
//! again, later and later, and at once when there are new peers to ask.
#![expect(clippy::disallowed_methods, reason = "its pauses are those of peers, in real time")]

use super::DriveIndex;
use crate::hyper::blobs::{BlobError, BlobId, Blobs};
use crate::hyper::source::SourceError;
use crate::path::DrivePath;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Maps that are waited for at a time.
const SIDE_BY_SIDE: usize = 256;
/// A map may keep its place that long while others wait for one.
const TURN: Duration = Duration::from_secs(5);
/// What comes within this is told together.
const GATHER: Duration = Duration::from_millis(20);
/// Maps that did not come are asked for again after this, then after twice as long, up to [`MAX_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// What a map told: the file, the map's blob, and the bytes of the file.
pub(super) type Learnt = (DrivePath, BlobId, Result<u64, BlobError>);

/// The maps that are looked for. Dropped, it stops.
pub(super) struct Sizes {
    /// Every map that is asked for, waits or failed, so that none is asked for twice.
    known: HashMap<DrivePath, BlobId>,
    waiting: VecDeque<(DrivePath, BlobId)>,
    asked: JoinSet<Learnt>,
    /// Answers that are not handed on yet.
    answers: Vec<Learnt>,
    /// Those that did not come, and when they are asked for again.
    failed: Vec<(DrivePath, BlobId)>,
    again: Instant,
    pause: Duration,
    /// Files that the last [`Sizes::look`] brought, until their map has come or failed.
    fresh: HashSet<DrivePath>,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            waiting: VecDeque::new(),
            asked: JoinSet::new(),
            answers: Vec::new(),
            failed: Vec::new(),
            again: Instant::now(),
            pause: PAUSE,
            fresh: HashSet::new(),
        }
    }
}

impl Sizes {
    /// Looks for what this index lacks, and no more for what an older one lacked.
    pub fn look(&mut self, index: &DriveIndex, blobs: &Blobs) {
        if index.unsized_files() == 0 && self.known.is_empty() {
            return;
        }
        let wanted: HashMap<&DrivePath, BlobId> = index.unsized_maps().collect();
        let is_wanted = |path: &DrivePath, id: &BlobId| wanted.get(path) == Some(id);
        self.waiting.retain(|(path, id)| is_wanted(path, id));
        self.failed.retain(|(path, id)| is_wanted(path, id));
        self.known.retain(|path, id| is_wanted(path, id));
        self.fresh.clear();
        for (path, id) in wanted {
            if self.known.insert(path.clone(), id) != Some(id) {
                self.fresh.insert(path.clone());
                self.waiting.push_front((path.clone(), id));
            }
        }
        self.ask(blobs);
    }

    /// There is somebody new to ask.
    pub fn peers_changed(&mut self, blobs: &Blobs) {
        self.pause = PAUSE;
        self.waiting.extend(self.failed.drain(..));
        self.ask(blobs);
    }

    /// Whether nothing that the last [`Sizes::look`] brought is still on its way.
    pub fn is_settled(&self) -> bool {
        self.fresh.is_empty()
    }

    /// The next sizes; waits for ever if there is nothing to wait for. Dropping the wait loses nothing.
    pub async fn next(&mut self, blobs: &Blobs) -> Vec<Learnt> {
        loop {
            if self.answers.is_empty() {
                let retry = !self.failed.is_empty();
                tokio::select! {
                    Some(answer) = self.asked.join_next() => self.answers.extend(answer),
                    () = sleep_until(self.again), if retry => {
                        self.waiting.extend(self.failed.drain(..));
                        self.ask(blobs);
                        continue;
                    }
                    else => std::future::pending().await,
                }
            }
            sleep(GATHER).await;
            while let Some(answer) = self.asked.try_join_next() {
                self.answers.extend(answer);
            }
            let answers = std::mem::take(&mut self.answers);
            let learnt: Vec<Learnt> =
                answers.into_iter().filter_map(|answer| self.sort(answer)).collect();
            self.ask(blobs);
            if !learnt.is_empty() || self.is_settled() {
                return learnt;
            }
        }
    }

    /// The answer, unless nobody had the map.
    fn sort(&mut self, (path, id, size): Learnt) -> Option<Learnt> {
        self.fresh.remove(&path);
        if self.known.get(&path) != Some(&id) {
            return None;
        }
        if let Err(BlobError::Source(error)) = &size {
            tracing::debug!(%path, %error, "size not known yet");
            if self.failed.is_empty() {
                self.again = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(MAX_PAUSE);
            }
            self.failed.push((path, id));
            return None;
        }
        self.known.remove(&path);
        Some((path, id, size))
    }

    fn ask(&mut self, blobs: &Blobs) {
        while self.asked.len() < SIDE_BY_SIDE
            && let Some((path, id)) = self.waiting.pop_front()
        {
            let blobs = blobs.clone();
            let crowded = self.waiting.len() + self.asked.len() >= SIDE_BY_SIDE;
            self.asked.spawn(async move {
                let size = async { Ok(blobs.map(&id).await?.size()) };
                let size = match crowded {
                    true => timeout(TURN, size)
                        .await
                        .unwrap_or_else(|_| Err(SourceError::TimedOut(id.block_offset).into())),
                    false => size.await,
                };
                (path, id, size)
            });
        }
    }
}
