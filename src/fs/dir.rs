//! Open directories: a snapshot of the names, with cookies that stay valid.
//!
//! A listing is taken when the directory is opened and anew when it is read from the start after a change;
//! in between it stands still, so no name is skipped or told twice. The cookie of a name is its position
//! in the snapshot plus [`FIRST`].

use super::inode::Ino;
use super::lock;
use super::volume::Entry;
use std::sync::{Arc, Mutex};

/// Names and entries of one directory, in name order.
pub type Listing = Arc<Vec<(String, Entry)>>;

/// Cookies 1 and 2 follow `.` and `..`; the first name starts here.
pub const FIRST: u64 = 2;

/// An open directory.
pub struct OpenDir {
    pub ino: Ino,
    snapshot: Mutex<(u64, Listing)>,
}

impl OpenDir {
    /// `epoch` is the count of changes before the listing was asked for.
    pub fn new(ino: Ino, epoch: u64, listing: Listing) -> Self {
        Self { ino, snapshot: Mutex::new((epoch, listing)) }
    }

    /// The snapshot and the epoch it was taken in.
    pub fn snapshot(&self) -> (u64, Listing) {
        lock(&self.snapshot).clone()
    }

    pub fn replace(&self, epoch: u64, listing: Listing) {
        *lock(&self.snapshot) = (epoch, listing);
    }
}

/// What comes after cookie `offset`.
pub fn rest(listing: &[(String, Entry)], offset: u64) -> (u64, &[(String, Entry)]) {
    let position = usize::try_from(offset.saturating_sub(FIRST)).unwrap_or(usize::MAX);
    (offset.max(FIRST), listing.get(position..).unwrap_or_default())
}
