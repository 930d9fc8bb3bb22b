//! Tells a store of drives, whose secret keys must never be shared, by what it looks like.
//!
//! Where it lies says nothing: it may have been copied, renamed, or be reached through a link. A folder is a store
//! if a database is in it that holds the records of one; such a database is one wherever it lies.

use super::errors::is_of_the_moment;
use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What a redb file begins with.
const DATABASE: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// A table and a record in it, as redb writes them into its file: what makes it a secret.
const PARTS: [&[u8]; 2] = [b"records", b"primary"];

/// The database of a store.
const DATABASE_NAME: &str = "store.redb";

/// Which file or directory it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    pub dev: u64,
    pub ino: u64,
}

impl FileId {
    pub fn of(meta: &std::fs::Metadata) -> Self {
        Self { dev: meta.dev(), ino: meta.ino() }
    }
}

/// Whether a folder holds a store. What cannot be looked at is none.
pub fn is_store(folder: &Path) -> bool {
    looks_like_store(folder).unwrap_or(false)
}

/// The same.
///
/// # Errors
/// When that cannot be told at the moment.
pub fn looks_like_store(folder: &Path) -> io::Result<bool> {
    let is_file = kind(folder, DATABASE_NAME)?.is_some_and(|kind| kind.is_file());
    if is_file && begins_as_database(&folder.join(DATABASE_NAME))? {
        return Ok(true);
    }
    // The cores, and the lock, the socket or a database with them: the database may have gone alone; blocks of drives are
    // nobody else's business either. First what few folders have.
    Ok(kind(folder, "cores")?.is_some_and(|kind| kind.is_dir())
        && (kind(folder, "lock")?.is_some_and(|kind| kind.is_file())
            || kind(folder, "socket")?.is_some_and(|kind| kind.is_socket())
            || is_file))
}

fn kind(folder: &Path, name: &str) -> io::Result<Option<FileType>> {
    known(std::fs::symlink_metadata(folder.join(name)).map(|meta| meta.file_type()))
}

/// None of what is not there, or can never be had.
fn known<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if is_of_the_moment(&error) => Err(error),
        found => Ok(found.ok()),
    }
}

fn begins_as_database(path: &Path) -> io::Result<bool> {
    let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let mut head = Vec::new();
    let read = opened.and_then(|file| file.take(DATABASE.len() as u64).read_to_end(&mut head));
    Ok(known(read)?.is_some() && head == DATABASE)
}

/// Whether what a file begins with is that of a database, of a store or another.
pub fn may_be_database(head: &[u8]) -> bool {
    head.starts_with(DATABASE)
}

/// Whether a file is the database of a store, under whatever name. `head` is what it begins with.
///
/// # Errors
/// When it cannot be read to its end: then nobody knows.
pub fn is_store_database(head: &[u8], file: &File) -> io::Result<bool> {
    if !may_be_database(head) {
        return Ok(false);
    }
    let mut found = [false; PARTS.len()];
    let overlap = PARTS.iter().map(|name| name.len()).max().unwrap_or(0);
    let (mut window, mut offset) = (Vec::new(), 0);
    let mut step = vec![0; 1 << 20];
    loop {
        for (found, name) in found.iter_mut().zip(PARTS) {
            *found |= window.windows(name.len()).any(|part| part == name);
        }
        if found.iter().all(|found| *found) {
            return Ok(true);
        }
        let keep = window.len().saturating_sub(overlap);
        window.drain(..keep);
        match file.read_at(&mut step, offset) {
            Ok(0) => return Ok(false),
            Ok(n) => {
                window.extend_from_slice(&step[..n]);
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::core::storage::{Records, open_disk};
    use std::fs;

    #[test]
    fn a_store_is_known_wherever_it_lies_and_its_database_under_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        fs::create_dir(&store).unwrap();
        let storage = open_disk(&store).unwrap();
        Records::new(storage.clone()).primary_key().unwrap();
        drop(storage);
        assert!(is_store(&store));

        let moved = dir.path().join("backup/of it");
        fs::create_dir_all(&moved).unwrap();
        fs::copy(store.join("store.redb"), moved.join("store.redb")).unwrap();
        assert!(is_store(&moved));

        let copy = dir.path().join("just a copy.bak");
        fs::copy(store.join("store.redb"), &copy).unwrap();
        let head = &fs::read(&copy).unwrap()[..64];
        assert!(is_store_database(head, &File::open(&copy).unwrap()).unwrap());
        // One that cannot be read may be a secret.
        assert!(is_store_database(head, &File::open(dir.path()).unwrap()).is_err());

        let other = dir.path().join("other");
        fs::create_dir_all(other.join("cores")).unwrap();
        fs::write(other.join("store.redb.txt"), "about store.redb").unwrap();
        assert!(!is_store(&other));
        fs::write(other.join("lock"), "1").unwrap();
        assert!(is_store(&other), "a store that lost its database");
        let text = File::open(other.join("store.redb.txt")).unwrap();
        assert!(!is_store_database(b"about sto", &text).unwrap());
    }
}
