//! A store holds secret keys: it is its owner's alone, whatever the directory was before and whoever made it.

use super::{Result, StorageError};
use nix::unistd::{Uid, User};
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Names in a store's directory. Where it holds others as well, it is somebody's folder, whose own mode is left.
pub const NAMES: [&str; 10] = [
    "store.redb",
    "store.redb.new",
    "cores",
    "lock",
    "socket",
    "witness",
    "witness.new",
    "relay-key",
    "relay-lock",
    "relay-socket",
];

/// What others than the owner may do.
const OTHERS: u32 = 0o077;

pub(super) const FILE: u32 = 0o600;
const DIRECTORY: u32 = 0o700;

/// Makes the directory of a store, or takes what others may do with it and with what is in it. Files of cores
/// are looked at where their directory was open to others, since nobody else got at them elsewhere.
///
/// # Errors
/// [`StorageError::NotOurs`] if another user owns the directory or a file in it.
pub fn keep_private(dir: &Path) -> Result<()> {
    let failed = |e| StorageError::io("make", format!("the store {}", dir.display()), e);
    create_dirs(dir).map_err(failed)?;
    let meta = fs::metadata(dir).map_err(failed)?;
    ours(dir, dir, &meta)?;
    let mut mine = Vec::new();
    let mut shared = false;
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        match NAMES.iter().any(|name| entry.file_name() == *name) {
            true => mine.push(entry.path()),
            false => shared = true,
        }
    }
    if !shared {
        close(dir, &meta, DIRECTORY).map_err(failed)?;
    }
    for path in mine {
        // A socket whose owner ends just now.
        let Ok(meta) = fs::metadata(&path) else { continue };
        ours(dir, &path, &meta)?;
        match meta.is_dir() {
            true => close_cores(&path, &meta),
            false => close(&path, &meta, FILE).map(drop),
        }
        .map_err(failed)?;
    }
    Ok(())
}

/// Makes directories that only their owner may enter.
pub(super) fn create_dirs(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY).create(dir)
}

fn close_cores(cores: &Path, meta: &Metadata) -> io::Result<()> {
    let was_open = close(cores, meta, DIRECTORY)?;
    for dir in fs::read_dir(cores)? {
        let dir = dir?;
        let meta = dir.metadata()?;
        if !meta.is_dir() || !(close(&dir.path(), &meta, DIRECTORY)? || was_open) {
            continue;
        }
        for file in fs::read_dir(dir.path())? {
            let file = file?;
            close(&file.path(), &file.metadata()?, FILE)?;
        }
    }
    Ok(())
}

/// Takes the rights of others. Whether there were any.
fn close(path: &Path, meta: &Metadata, mode: u32) -> io::Result<bool> {
    let open = meta.mode() & OTHERS != 0;
    if open {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(open)
}

fn ours(store: &Path, path: &Path, meta: &Metadata) -> Result<()> {
    let (owner, me) = (Uid::from_raw(meta.uid()), Uid::effective());
    if owner == me {
        return Ok(());
    }
    let name = |uid| match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => format!("number {uid}"),
    };
    let what = if path == store { String::new() } else { format!(" ({})", path.display()) };
    Err(StorageError::NotOurs {
        store: store.display().to_string(),
        what,
        owner: name(owner),
        me: name(me),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Durability, Table, Writes, open_disk};
    use super::*;
    use crate::key::DiscoveryKey;
    use crate::required::available;
    use std::path::PathBuf;

    fn all_below(dir: &Path) -> Vec<(PathBuf, u32)> {
        let mut found = vec![(dir.to_path_buf(), fs::metadata(dir).unwrap().mode() & 0o777)];
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => found.extend(all_below(&path)),
                false => found.push((path.clone(), fs::metadata(&path).unwrap().mode() & 0o777)),
            }
        }
        found
    }

    fn assert_private(dir: &Path) {
        for (path, mode) in all_below(dir) {
            let want = if path.is_dir() { DIRECTORY } else { FILE };
            assert_eq!(mode, want, "{}", path.display());
        }
    }

    fn write(dir: &Path) {
        let store = open_disk(dir).unwrap();
        let files = store.files(&DiscoveryKey([7; 32]));
        files.blocks.write_at(0, b"secret").unwrap();
        files.tree.write_at(0, b"secret").unwrap();
        let mut writes = Writes::default();
        writes.put(Table::Records, *b"a", b"secret".to_vec());
        store.commit(writes, &[&files], Durability::Durable).unwrap();
        assert_private(dir);
    }

    #[test]
    fn nobody_else_reads_a_store_however_its_directory_was_made() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("store");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        write(&dir);
        for (path, mode) in all_below(&dir) {
            fs::set_permissions(path, Permissions::from_mode(mode | 0o044 | mode >> 3)).unwrap();
        }
        drop(open_disk(&dir).unwrap());
        assert_private(&dir);
    }

    #[test]
    fn a_folder_that_holds_other_things_keeps_its_mode() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("home");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("other"), b"").unwrap();
        let other = fs::metadata(dir.join("other")).unwrap().mode();
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        drop(open_disk(&dir).unwrap());
        let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("."), mode("store.redb")), (0o755, FILE));
        assert_eq!(fs::metadata(dir.join("other")).unwrap().mode(), other);
    }

    #[test]
    fn another_user_s_store_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        drop(open_disk(dir.path()).unwrap());
        let given = std::os::unix::fs::chown(dir.path(), Some(65_534), None);
        if !available("the right to give a folder away", given.is_ok()) {
            return;
        }
        let error = open_disk(dir.path()).err().unwrap();
        assert!(matches!(error, StorageError::NotOurs { .. }), "{error}");
        assert!(error.to_string().contains("belongs to user"), "{error}");
    }
}
