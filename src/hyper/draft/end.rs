//! The end of a draft that cannot be published, since the disk is full, say: what was closed was promised to nobody, and is
//! not to be lost for that.

use super::{Draft, DraftError, Which};
use crate::lock::{read, try_lock};
use crate::path::DrivePath;
use std::collections::BTreeSet;

/// Names that are told of those that are lost.
const MAX_LISTED: usize = 10;

impl Draft {
    /// Publishes all of it; where that fails, leaves in the store what the next start goes on from. Whoever worked on it has
    /// ended.
    ///
    /// # Errors
    /// [`DraftError::Kept`] if nothing is lost by it, [`DraftError::Lost`] if something is.
    pub fn end(&self) -> Result<Option<u64>, DraftError> {
        let cause = match self.publish(Which::All) {
            Ok(version) => return Ok(version),
            Err(error) => Box::new(error),
        };
        // Records may say only what fits to what others see; names take little room.
        let are_named = self.publish(Which::Names).is_ok();
        let lost = self.record_all(are_named);
        Err(match lost.is_empty() {
            true => DraftError::Kept(cause),
            false => DraftError::Lost { cause, lost },
        })
    }

    /// What would be lost by an end without notice now, as far as it can be told without waiting.
    pub fn unkept(&self) -> Vec<DrivePath> {
        let names = self.names();
        let published = read(&self.names).published.clone();
        let steps = published.steps_to(&names);
        let spool = try_lock(&self.spool);
        let is_kept = |file: u64, generation: u64| {
            spool.as_ref().is_some_and(|spool| spool.holds(file, generation))
        };
        let mut unkept = BTreeSet::new();
        for (path, leaf) in steps.leaves {
            let local = leaf.as_ref().and_then(|leaf| leaf.local());
            if !local.is_some_and(|local| is_kept(local.file.id(), local.file.generation())) {
                unkept.insert(path);
            }
        }
        unkept.extend(steps.nodes.into_iter().map(|(path, _)| path));
        unkept.extend(steps.records.into_iter().map(|(path, _)| path));
        unkept.into_iter().collect()
    }

    /// Makes durable what is not published, as far as that goes without publishing anything. What that fails for.
    pub fn keep(&self) -> Vec<DrivePath> {
        self.record_all(false)
    }

    /// See [`Self::record`].
    fn record_all(&self, over: bool) -> Vec<DrivePath> {
        let steps = read(&self.names).clone().steps();
        for (path, leaf) in steps.leaves {
            if let Some(local) = leaf.as_ref().and_then(|leaf| leaf.local())
                && let Err(error) = self.record(&path, &local.file, over)
            {
                tracing::error!(%path, %error, "it could not be kept");
            }
        }
        self.unkept()
    }
}

/// The names, as far as they are few.
pub fn listed(paths: &[DrivePath]) -> String {
    let some: Vec<&str> = paths.iter().take(MAX_LISTED).map(DrivePath::as_str).collect();
    match paths.len() - some.len() {
        0 => some.join(", "),
        more => format!("{} and {more} more", some.join(", ")),
    }
}
