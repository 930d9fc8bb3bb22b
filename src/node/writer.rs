//! Before this store adds to a drive of its own: is it the newest copy that there is of it?
//!
//! A store that was copied, restored, or left open by a machine that stopped may be older than what was published
//! from it, and what it appends then forks the drive for all its readers. Its cores take no append while there is
//! such a doubt (`hyper::core::writer`), so that nobody can forget to ask; [`Node::may_write`] asks.
//!
//! | doubt | peers have no more than we | a peer has more | nobody is found |
//! |---|---|---|---|
//! | the machine stopped while the store was open | written | refused once, brought up to date | written |
//! | a copy, or restored from one | written | refused once, brought up to date | refused |
//! | a peer proved a longer log meanwhile | written | refused once, brought up to date | written |
//!
//! Whatever the doubt: if a peer proves that two histories of the drive were signed, it is refused, then and later,
//! until somebody says that this one goes on (`--trust-store`). The names are asked about first, and the contents only
//! where they agree, so that these never become another history's.
//!
//! "Refused once": what the command had in mind was made from an old state. Its next run finds the newest one.

use super::drives::Purpose;
use super::{Node, NodeError};
use crate::hyper::core::storage::{Doubt, Durability};
use crate::hyper::core::{Core, WriterDoubt};
use crate::hyper::drive::{Leaf, LiveDrive};
use crate::hyper::session::CoreHandle;
use crate::hyper::source::BlockSource;
use crate::path::DrivePath;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The longest that peers are looked for and asked.
const PATIENCE: Duration = Duration::from_secs(10);

impl Node {
    /// Resolves when this store may add to a drive of its own, at once where nothing speaks against it. Call it
    /// before an append; `tell` gets a line for the person who waits.
    ///
    /// # Errors
    /// [`NodeError::Outdated`] and [`NodeError::Unasked`] say what to do; nothing has been written.
    pub async fn may_write(
        self: &Arc<Self>,
        drive: &LiveDrive,
        tell: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), NodeError> {
        drive.drive().await?;
        let cores: Vec<CoreHandle> =
            [Some(drive.db()), drive.blobs()].into_iter().flatten().cloned().collect();
        let Some(doubt) = gravest(&cores) else { return Ok(()) };
        tell(match doubt {
            WriterDoubt::Store(Doubt::Copied) => {
                "this store is a copy or was restored from one: asking peers whether there is a newer one"
            }
            WriterDoubt::Store(Doubt::Crashed) => {
                "this store was not closed in order: asking peers whether they have more"
            }
            WriterDoubt::Outgrown => "a peer had more of this drive: asking for the newest version",
            WriterDoubt::TwoHistories => {
                return Err(NodeError::TwoHistories { key: drive.key() });
            }
        });
        let before: Vec<_> = cores.iter().map(|core| state(&core.core())).collect();
        // Held while peers are asked: looking for them ends with the last use.
        let _looking = self.open_drive((drive.key(), None), None, Purpose::Read).await?;
        self.online().await?;
        let until = Instant::now() + PATIENCE;
        let mut asked = true;
        for core in &cores {
            asked &= ask(core, until).await;
            if gravest(&cores) == Some(WriterDoubt::TwoHistories) {
                core.core().flush(Durability::Durable)?;
                return Err(NodeError::TwoHistories { key: drive.key() });
            }
        }
        let mut grown = false;
        for (core, before) in cores.iter().zip(before) {
            let mut core = core.core();
            grown |= core.take_outgrown() && doubt != WriterDoubt::Outgrown;
            grown |= state(&core) != before;
        }
        if grown || lacks_contents(drive).await? {
            return Err(NodeError::Outdated { key: drive.key() });
        }
        if !asked && doubt == WriterDoubt::Store(Doubt::Copied) {
            return Err(NodeError::Unasked { key: drive.key() });
        }
        if !asked {
            tell("no peer was found; going on from what is here");
        }
        cores.iter().try_for_each(|core| core.core().trust())?;
        Ok(())
    }
}

/// Whether the names speak of contents past the end of those that are here: a machine stopped, or peers went, when only
/// the names had been brought up to date.
async fn lacks_contents(drive: &LiveDrive) -> Result<bool, NodeError> {
    let index = drive.current(PATIENCE).await?;
    let here = drive.blobs().map_or(0, CoreHandle::length);
    let mut end = 0;
    index.for_each_below(&DrivePath::root(), |leaf| {
        if let Leaf::File(file) = leaf
            && let Some(blob) = file.blob().filter(|blob| blob.byte_length > 0)
        {
            end = blob.block_offset.saturating_add(blob.block_length).max(end);
        }
    });
    Ok(end > here)
}

fn gravest(cores: &[CoreHandle]) -> Option<WriterDoubt> {
    let doubts = cores.iter().filter_map(|core| core.core().doubt());
    doubts.max()
}

fn state(core: &Core) -> (u64, u64) {
    (core.fork(), core.length())
}

/// Waits until everybody who was found in time has told what he has of a core. Whether anybody did.
async fn ask(core: &CoreHandle, until: Instant) -> bool {
    let left = || until.saturating_duration_since(Instant::now());
    let asked = core.update(left()).await;
    // The first who answers need not be the one who has most.
    let mut reach = core.reach();
    if timeout_at(until, reach.wait_for(|reach| reach.discovered && !reach.again)).await.is_err() {
        return asked;
    }
    core.update(left()).await || asked
}
