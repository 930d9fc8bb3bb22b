//! Deleting cores: the records go in one transaction, and a note in it says whose files are to go after them.
//!
//! A store that finds such notes when it is opened deletes the files then. So a core is there whole, or it is gone and
//! its bytes soon are, wherever the process was killed. A core that is made anew begins without what an earlier one of
//! its key left: nodes in a tree file are trusted without another look.
//!
//! | [`Table::Meta`] | |
//! |---|---|
//! | `removed/` + discovery key\[32\] | nothing |

use super::redo::Redo;
use super::{FileKind, Medium, Result, Table, Writes};
use crate::key::DiscoveryKey;

const REMOVED: &[u8] = b"removed/";

fn note_key(core: &DiscoveryKey) -> Vec<u8> {
    [REMOVED, core.as_bytes()].concat()
}

/// Adds to the deletion of a core's records that its files are to go.
pub(super) fn note(core: &DiscoveryKey, writes: &mut Writes) {
    writes.put(Table::Meta, note_key(core), Vec::new());
}

/// Deletes files of cores without records, what would write them again, and the notes of them.
pub(super) fn remove(medium: &dyn Medium, redo: &mut Redo, cores: &[DiscoveryKey]) -> Result<()> {
    let mut writes = Writes::default();
    for core in cores {
        medium.remove_file(core, FileKind::Blocks)?;
        medium.remove_file(core, FileKind::Tree)?;
        let _ = redo.forget(core, &mut writes);
        if medium.get(Table::Meta, &note_key(core))?.is_some() {
            writes.delete(Table::Meta, note_key(core));
        }
    }
    if writes.is_empty() { Ok(()) } else { medium.apply(&writes) }
}

/// Ends what an earlier process was killed at. What cannot be deleted waits for another opening.
pub(super) fn finish(medium: &dyn Medium) -> Result<()> {
    let found = medium.scan(Table::Meta, REMOVED)?;
    let key = |(key, _): &(Vec<u8>, Vec<u8>)| key.last_chunk().map(|key| DiscoveryKey(*key));
    let cores: Vec<DiscoveryKey> = found.iter().filter_map(key).collect();
    for core in cores {
        if let Err(error) = remove(medium, &mut Redo::default(), &[core]) {
            tracing::warn!("bytes of a drive that was forgotten stay in the store: {error}");
        }
    }
    Ok(())
}
