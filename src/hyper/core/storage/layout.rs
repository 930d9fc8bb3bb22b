//! Where the files of cores are in the directory of a store, and of which cores there are any: see [`super::disk`].

use super::FileKind;
use crate::key::{DiscoveryKey, hex, unhex};
use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const CORES: &str = "cores";

/// What [`MetadataExt::blocks`] counts in.
const BLOCK: u64 = 512;

fn end(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Blocks => ".blocks",
        FileKind::Tree => ".tree",
    }
}

/// The file of a core.
pub(super) fn path(store: &Path, core: &DiscoveryKey, kind: FileKind) -> PathBuf {
    let name = hex(core.as_bytes());
    let (dir, stem) = name.split_at(2);
    store.join(CORES).join(dir).join(format!("{stem}{}", end(kind)))
}

/// The store that a file of a core is in.
pub(super) fn store_of(file: &Path) -> &Path {
    file.ancestors().nth(3).unwrap_or(file)
}

/// The cores that have a file, with the bytes that these take.
pub(super) fn cores(store: &Path) -> io::Result<Vec<(DiscoveryKey, u64)>> {
    let mut found = BTreeMap::<_, u64>::new();
    for dir in entries(&store.join(CORES))? {
        if !dir.file_type()?.is_dir() {
            continue;
        }
        for file in entries(&dir.path())? {
            // Anything else is none of ours.
            let Some(core) = core_of(&dir, &file) else { continue };
            let bytes = file.metadata().map_or(0, |meta| meta.blocks() * BLOCK);
            *found.entry(core).or_default() += bytes;
        }
    }
    Ok(found.into_iter().collect())
}

/// What is in a directory; nothing if there is none.
fn entries(dir: &Path) -> io::Result<Vec<DirEntry>> {
    match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.collect(),
    }
}

/// The core of a file, by the names of its directory and its own.
fn core_of(dir: &DirEntry, file: &DirEntry) -> Option<DiscoveryKey> {
    let (dir, name) = (dir.file_name(), file.file_name());
    let (dir, name) = (dir.to_str()?, name.to_str()?);
    let kinds = [FileKind::Blocks, FileKind::Tree];
    let stem = kinds.into_iter().find_map(|kind| name.strip_suffix(end(kind)))?;
    let bytes = unhex(&format!("{dir}{stem}"))?;
    Some(DiscoveryKey(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_cores_are_found_and_no_others() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(cores(store.path()).unwrap(), []);
        let keys = [1, 2].map(|n| DiscoveryKey([n; 32]));
        for (key, kind) in keys.iter().zip([FileKind::Blocks, FileKind::Tree]) {
            let path = path(store.path(), key, kind);
            assert_eq!(store_of(&path), store.path());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, [7; 10_000]).unwrap();
        }
        fs::write(store.path().join("cores/01/other"), b"").unwrap();
        fs::write(store.path().join("cores/note"), b"").unwrap();
        let found = cores(store.path()).unwrap();
        assert_eq!(found.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys);
        assert!(found.iter().all(|(_, bytes)| *bytes >= 10_000), "{found:?}");
    }
}
