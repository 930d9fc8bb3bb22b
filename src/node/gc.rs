//! Gives back the contents that no kept version of a drive names.
//!
//! A version names what [`Named`] finds. Kept are the newest versions that were asked for, each fixed version that is
//! open, each content that is open, and what a command that reads found when it began. Everything written since the
//! oldest of those but the fixed ones is kept with it. The names themselves all stay, since newer trees lean on older
//! blocks. What cannot be told for certain (names or block maps that are not here) keeps everything.
//!
//! Several drives may keep their contents in one core: all of them are asked, and one that cannot be read keeps
//! everything, as does a core of the store that cannot be opened and may be such a drive. Of a core that proves whose
//! it is only that drive is asked, and those in use. Which cores are a drive's contents at all is told by
//! `super::contents`.

use super::chronicle::{self, Seen};
use super::contents::{Sharers, Survey, header};
use super::drive_names::names_in;
use super::drives::DriveId;
use super::{Clearing, Node, NodeError, on_disk};
use crate::hyper::bee::BeeError;
use crate::hyper::blobs::BlobError;
use crate::hyper::core::CoreError;
use crate::hyper::draft::Draft;
use crate::hyper::drive::{BlockSet, Drive, DriveError, Named};
use crate::hyper::session::CoreHandle;
use crate::hyper::source::local::Local;
use crate::hyper::source::{BlockSource, SourceError};
use crate::key::CoreKey;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Left to others after each step of freeing; who waits for a lock gets it only while it is free for a moment.
const BETWEEN_STEPS: Duration = Duration::from_micros(200);

/// Which versions of a drive stay readable here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// So many of the newest; the present one counts.
    Newest(u64),
    /// Those that were the present one at some time since then.
    Since(Duration),
}

/// What can be given back of one drive.
#[derive(Debug, Clone, Default)]
pub struct Garbage {
    /// Runs of blocks of the contents, all of which are here.
    pub blocks: Vec<Range<u64>>,
    /// Their bytes, and those of all contents that are here.
    pub bytes: u64,
    pub bytes_here: u64,
    /// The oldest version that stays readable.
    pub oldest: u64,
    pub newest: u64,
    /// Other drives that have their contents in the same core and keep some of it.
    pub held_by: Vec<CoreKey>,
    /// What was in use when that was found out.
    in_use: BTreeSet<DriveId>,
}

impl Garbage {
    pub fn block_count(&self) -> u64 {
        self.blocks.iter().map(|run| run.end - run.start).sum()
    }
}

/// Why nothing of a drive can be given back.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    #[error("not all of its names are here, so what it needs is not known")]
    NamesMissing,
    #[error("a list of blocks that a file is made of is not here, so what it needs is not known")]
    MapMissing,
    #[error(
        "drive {by} says that its contents are among these, and what it needs is not known ({why}): if you do not need \
         that drive, `hdrive forget {by}`"
    )]
    HeldBy { by: CoreKey, why: Box<GcError> },
    #[error(
        "something in this store cannot be opened and may be a drive with its contents among these: {0}"
    )]
    Closed(NodeError),
    #[error("versions of it are being opened all the time: try again later")]
    Busy,
    #[error(transparent)]
    Drive(DriveError),
    #[error(transparent)]
    Core(#[from] CoreError),
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl From<DriveError> for GcError {
    fn from(error: DriveError) -> Self {
        match error {
            DriveError::Bee(BeeError::Source(SourceError::TimedOut(_) | SourceError::Lost(_))) => {
                Self::NamesMissing
            }
            DriveError::Blob(BlobError::Source(
                SourceError::TimedOut(_) | SourceError::Lost(_),
            )) => Self::MapMissing,
            error => Self::Drive(error),
        }
    }
}

impl From<BeeError> for GcError {
    fn from(error: BeeError) -> Self {
        DriveError::from(error).into()
    }
}

/// Both cores of a drive, as far as they are here. Nothing of it is looked for.
pub struct StoredDrive {
    pub db: CoreHandle,
    pub blobs: Option<CoreHandle>,
}

/// What a store holds.
#[derive(Default)]
pub struct StoredDrives {
    pub keys: Vec<CoreKey>,
    /// Why some of it cannot be opened, be it of a drive or not.
    pub closed: Vec<NodeError>,
}

/// What a drive needs of its contents.
struct Needs {
    blocks: BlockSet,
    oldest: u64,
    newest: u64,
    /// Somebody uses it, so that contents may be here before the names that they belong to.
    followed: bool,
}

impl Node {
    /// A drive of this store, or none if the store holds nothing of it.
    pub async fn stored_drive(&self, key: CoreKey) -> Result<Option<StoredDrive>, NodeError> {
        let Some(db) = self.stored(key.discovery_key()).await? else { return Ok(None) };
        let blobs = self.contents_of(&db).await?;
        Ok(Some(StoredDrive { db, blobs }))
    }

    /// Keys of the drives that the store holds something of, its own first. What cannot be opened is told beside them.
    pub async fn stored_drives(&self) -> Result<StoredDrives, NodeError> {
        let store = self.store.clone();
        let listed = on_disk(move || Ok((names_in(&store)?, store.records().cores()?)));
        let (names, cores) = listed.await?;
        let keys: Vec<CoreKey> = names.into_iter().map(|(_, key)| key).collect();
        let own: BTreeSet<_> = keys.iter().map(CoreKey::discovery_key).collect();
        let mut found = StoredDrives { keys, closed: Vec::new() };
        for id in cores {
            if own.contains(&id) {
                continue;
            }
            match self.stored(id).await {
                Ok(Some(core)) if header(&core).await.is_some() => found.keys.push(core.key()),
                Ok(_) => {}
                Err(error) => found.closed.push(error),
            }
        }
        Ok(found)
    }

    /// What of a drive's contents no kept version names, of this drive or another that has them in the same core. What
    /// lies at the end is about to be named by whoever writes the drive, unless it is given to this one `alone`.
    ///
    /// # Errors
    /// Where that cannot be told; then nothing may be given back.
    pub async fn garbage(
        &self,
        stored: &StoredDrive,
        keep: Keep,
        survey: &mut Survey,
        alone: Option<&Clearing>,
    ) -> Result<Garbage, GcError> {
        let Some(blobs) = &stored.blobs else { return Ok(Garbage::default()) };
        let in_use = self.drives.in_use();
        // What is appended from here on is none of our business.
        let end = blobs.length();
        names_of_the_same_moment(&stored.db).await;
        let Needs { mut blocks, oldest, newest, followed } =
            self.needs(&stored.db, blobs, keep).await?;
        // Who writes one of our own has a turn, and nobody has while it is cleared: see `super::claims`.
        let written = alone.is_none() || !stored.db.core().writable();
        let mut growing = followed && written;
        let mut held_by = Vec::new();
        for other in self.others(&stored.db, blobs, survey).await? {
            let by = other.key();
            let needs = self.needs(&other, blobs, keep).await;
            let needs = needs.map_err(|why| GcError::HeldBy { by, why: Box::new(why) })?;
            let before = here(blobs, &blocks, end);
            needs.blocks.runs().for_each(|run| blocks.insert(run));
            if here(blobs, &blocks, end) != before {
                held_by.push(by);
            }
            growing |= needs.followed;
        }
        let mut unnamed = blocks.gaps(0..end);
        if growing {
            // The last blocks may be contents that somebody is about to name.
            let ever = blocks.end();
            unnamed.retain(|run| run.start < ever);
        }
        let mut garbage = Garbage { oldest, newest, held_by, in_use, ..Garbage::default() };
        let core = blobs.core();
        garbage.bytes_here = bytes(&core, &present(&core, 0..end))?;
        garbage.blocks = unnamed.into_iter().flat_map(|run| present(&core, run)).collect();
        garbage.bytes = bytes(&core, &garbage.blocks)?;
        Ok(garbage)
    }

    /// The other drives that something of these contents may have to be kept for.
    async fn others(
        &self,
        db: &CoreHandle,
        blobs: &CoreHandle,
        survey: &mut Survey,
    ) -> Result<Vec<CoreHandle>, GcError> {
        let sharers = self.drives_in(&blobs.discovery_key(), survey).await?;
        let Sharers { mut drives, owner, closed } = sharers;
        drives.retain(|other| other.key() != db.key());
        match (owner, closed) {
            (Some(owner), _) => {
                let open = self.open_drives();
                let in_use =
                    |key| open.iter().any(|state| state.drive.key() == key && state.uses > 0);
                drives.retain(|other| other.key() == owner || in_use(other.key()));
            }
            (None, Some(error)) => return Err(GcError::Closed(error)),
            (None, None) => {}
        }
        Ok(drives)
    }

    /// What the kept versions of a drive name.
    async fn needs(
        &self,
        db: &CoreHandle,
        blobs: &CoreHandle,
        keep: Keep,
    ) -> Result<Needs, GcError> {
        if db.length() == 0 && !db.core().writable() {
            return Err(GcError::NamesMissing);
        }
        let drive = Drive::reader(Arc::new(Local(db.clone())), Arc::new(Local(blobs.clone())));
        let newest = drive.version();
        let key = db.key();
        let uses: Vec<_> =
            self.open_drives().into_iter().filter(|state| state.drive.key() == key).collect();
        let followed = uses.iter().any(|state| state.uses > 0);
        let mut oldest = self.oldest_kept(db, &drive, keep).await?;
        let mut named = Named::default();
        for state in &uses {
            match state.version {
                Some(version) if state.uses > 0 => {
                    named.version(&drive.checkout(version.clamp(1, newest))).await?;
                }
                Some(_) => {}
                None => {
                    let shown = state.drive.index().map(|index| index.version());
                    oldest = shown.into_iter().chain(state.since).fold(oldest, u64::min);
                }
            }
            named.contents(&drive, &state.drive.open_contents()).await?;
        }
        let oldest = oldest.clamp(1, newest);
        // What was synced before a crash is published when somebody works on the drive again.
        let bases = Draft::bases(self.store.storage(), &key).map_err(CoreError::from)?;
        named.contents(&drive, &bases).await?;
        named.version(&drive.checkout(oldest)).await?;
        named.since(&drive, oldest).await?;
        Ok(Needs { blocks: named.blocks, oldest, newest, followed })
    }

    /// The oldest version that `keep` asks for.
    async fn oldest_kept(
        &self,
        db: &CoreHandle,
        drive: &Drive,
        keep: Keep,
    ) -> Result<u64, GcError> {
        match keep {
            Keep::Newest(0 | 1) => Ok(drive.version()),
            Keep::Newest(count) => {
                let mut newest = std::collections::VecDeque::new();
                let mut versions = drive.bee().versions();
                while let Some(step) = versions.next().await? {
                    newest.push_back(step.version);
                    if newest.len() as u64 > count {
                        newest.pop_front();
                    }
                }
                Ok(newest.front().copied().unwrap_or(1))
            }
            Keep::Since(age) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let since = now.saturating_sub(age).as_secs();
                let seen = chronicle::seen(&self.store, &db.key()).map_err(CoreError::from)?;
                Ok(present_at(&seen, since))
            }
        }
    }

    /// Gives the blocks back, and what an earlier run that was killed left; tells peers that they are not here any
    /// more. The turn is had until that is done, whether or not somebody waits for it: else who writes next could
    /// name what is about to go. It comes back, and nothing has happened, if something has come to be used since the look,
    /// a fixed version perhaps that needs some of them.
    ///
    /// # Errors
    /// Where the space of some could not be freed all the others are.
    pub async fn give_back(
        &self,
        blobs: CoreHandle,
        garbage: &Garbage,
        turn: Clearing,
    ) -> Result<Option<Clearing>, NodeError> {
        let (blocks, in_use) = (garbage.blocks.clone(), garbage.in_use.clone());
        let drives = self.drives.clone();
        let work = move || {
            match drives.if_only(&in_use, || blobs.core().forget_blocks(&blocks)) {
                None => return Ok(Some(turn)),
                Some(forgotten) => forgotten?,
            };
            // They are gone, whatever becomes of their space.
            blocks.into_iter().for_each(|run| blobs.announce_cleared(run));
            free(&blobs)?;
            Ok(None)
        };
        on_disk(work).await
    }
}

impl Node {
    /// Deletes files of cores that the store knows nothing of. Returns their bytes; with `only_look` they stay.
    /// None where the store may be an older copy: then they all stay.
    pub async fn remove_strays(&self, only_look: bool) -> Result<Option<u64>, NodeError> {
        let store = self.store.clone();
        on_disk(move || Ok(store.remove_strays(only_look)?)).await
    }
}

/// Names are told of after the contents that were committed with them: what is told of a core is what is in it.
async fn names_of_the_same_moment(db: &CoreHandle) {
    let committed = db.core().length();
    while db.length() < committed {
        tokio::time::sleep(BETWEEN_STEPS).await;
    }
}

/// Frees step by step, so that who reads or writes the core gets at it in between.
fn free(core: &CoreHandle) -> Result<(), CoreError> {
    let (mut next, mut failed) = (Some(0), None);
    while let Some(from) = next {
        let step = core.core().free_missing(from)?;
        next = step.next;
        failed = failed.or(step.failed);
        std::thread::sleep(BETWEEN_STEPS);
    }
    failed.map_or(Ok(()), Err)
}

/// The version that was the present one at `time`; the first if that is not known. A clock that was set back may have
/// noted an older time for a later version: then what follows the first that is newer is kept with it.
fn present_at(seen: &[Seen], time: u64) -> u64 {
    let newer = seen.iter().position(|note| note.at > time).unwrap_or(seen.len());
    newer.checked_sub(1).map_or(1, |last| seen[last].version)
}

/// How many blocks of a core before `end` are here and not in the set.
fn here(core: &CoreHandle, set: &BlockSet, end: u64) -> u64 {
    let core = core.core();
    let runs = set.gaps(0..end).into_iter().flat_map(|run| present(&core, run));
    runs.map(|run| run.end - run.start).sum()
}

/// Runs of blocks of `range` that are here.
fn present(core: &crate::hyper::core::Core, range: Range<u64>) -> Vec<Range<u64>> {
    let mut runs = Vec::new();
    let mut from = range.start;
    while let Some(start) = core.next_present(from..range.end) {
        let end = core.next_missing(start..range.end).unwrap_or(range.end);
        runs.push(start..end);
        from = end;
    }
    runs
}

fn bytes(core: &crate::hyper::core::Core, runs: &[Range<u64>]) -> Result<u64, CoreError> {
    let mut sum = 0u64;
    for run in runs {
        let (start, end) = (core.block_offset(run.start)?, core.block_offset(run.end)?);
        sum += end.unwrap_or_default().saturating_sub(start.unwrap_or_default());
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_time_is_the_last_before_it() {
        let seen = [(2, 100), (5, 200), (9, 300)].map(|(version, at)| Seen { version, at });
        let at = |time| present_at(&seen, time);
        assert_eq!([at(99), at(100), at(250), at(300), at(999)], [1, 2, 5, 9, 9]);
        assert_eq!(present_at(&[], 100), 1, "nothing is known: everything stays");
        // The machine started without a clock when version 9 was written.
        let back =
            [(2, 100), (5, 200), (9, 3), (12, 300)].map(|(version, at)| Seen { version, at });
        let at = |time| present_at(&back, time);
        assert_eq!([at(99), at(150), at(250), at(300)], [1, 2, 9, 12]);
    }
}
