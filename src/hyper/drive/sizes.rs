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

/// What a map told of its content.
type Told = (BlobId, Result<u64, BlobError>);

/// The maps that are looked for. Dropped, it stops.
pub(super) struct Sizes {
    /// Every map that is asked for, waits or failed, so that none is asked for twice, and the files that have it.
    known: HashMap<BlobId, Vec<DrivePath>>,
    waiting: VecDeque<BlobId>,
    asked: JoinSet<Told>,
    /// Answers that are not handed on yet.
    answers: Vec<Told>,
    /// Those that did not come, and when they are asked for again.
    failed: Vec<BlobId>,
    again: Instant,
    pause: Duration,
    /// Maps that the last [`Sizes::look`] brought, until they have come or failed.
    fresh: HashSet<BlobId>,
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
        let mut wanted: HashMap<BlobId, Vec<DrivePath>> = HashMap::new();
        for (path, id) in index.unsized_maps() {
            wanted.entry(id).or_default().push(path.clone());
        }
        let before = std::mem::replace(&mut self.known, wanted);
        self.waiting.retain(|id| self.known.contains_key(id));
        self.failed.retain(|id| self.known.contains_key(id));
        self.fresh.clear();
        for id in self.known.keys().filter(|id| !before.contains_key(id)) {
            self.fresh.insert(*id);
            self.waiting.push_front(*id);
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
                answers.into_iter().flat_map(|answer| self.sort(answer)).collect();
            self.ask(blobs);
            if !learnt.is_empty() || self.is_settled() {
                return learnt;
            }
        }
    }

    /// The answer for each file that has the map; none if nobody had it.
    fn sort(&mut self, (id, size): Told) -> Vec<Learnt> {
        self.fresh.remove(&id);
        let Some(paths) = self.known.remove(&id) else { return Vec::new() };
        if let Err(BlobError::Source(error)) = &size {
            tracing::debug!(map = id.block_offset, files = paths.len(), %error, "size not known yet");
            if self.failed.is_empty() {
                self.again = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(MAX_PAUSE);
            }
            self.failed.push(id);
            self.known.insert(id, paths);
            return Vec::new();
        }
        paths.into_iter().map(|path| (path, id, size.clone())).collect()
    }

    fn ask(&mut self, blobs: &Blobs) {
        while self.asked.len() < SIDE_BY_SIDE
            && let Some(id) = self.waiting.pop_front()
        {
            let blobs = blobs.clone();
            let crowded = self.waiting.len() + self.asked.len() >= SIDE_BY_SIDE;
            self.asked.spawn(async move {
                let size = blobs.map_size(&id);
                let size = match crowded {
                    true => timeout(TURN, size)
                        .await
                        .unwrap_or_else(|_| Err(SourceError::TimedOut(id.block_offset).into())),
                    false => size.await,
                };
                (id, size)
            });
        }
    }
}
