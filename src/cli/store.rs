//! The folder of a store: whether there is one, and whether one may be made there.

use super::daemon_log;
use super::exit::{Exit, Failure, Result};
use super::owner::not_written;
use crate::hyper::core::storage::{NAMES, StorageError, keep_private};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

/// Either is in each store: the database, or the key of a relay, which needs no other file.
const MARKS: [&str; 2] = ["store.redb", "relay-key"];
/// What `mkfs` puts into a new file system.
const BARE: &str = "lost+found";

/// Makes the directory of a store, for its user alone: it holds secret keys.
pub fn make(store: &Path) -> Result {
    // What cannot be read is told by who makes it.
    if let Ok(Some(other)) = foreign(store) {
        return Err(Failure::new(Exit::Store, refusal(store, &other)));
    }
    keep_private(store).map_err(|error| match error {
        StorageError::NotOurs { .. } => {
            let lock = store.join("lock");
            Failure::new(Exit::Store, format_args!("cannot open {}: {error}", lock.display()))
        }
        error => not_written(store, format_args!("{error}")),
    })
}

/// Whether somebody works on a store there, or did. Nothing is made by the look.
pub fn is_there(store: &Path) -> bool {
    let is = |name| store.join(name).try_exists().unwrap_or(true);
    is("store.redb") || is("lock")
}

/// Something in a folder that is no store, because of which none is made there: the folder is somebody's.
///
/// # Errors
/// The folder cannot be read.
pub fn foreign(store: &Path) -> io::Result<Option<OsString>> {
    if MARKS.iter().any(|name| store.join(name).exists()) {
        return Ok(None);
    }
    let entries = match fs::read_dir(store) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        let own = NAMES.contains(&&*text) || text.starts_with(daemon_log::NAME);
        if !own && text != BARE {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// What is told of it.
pub fn refusal(store: &Path, other: &OsString) -> String {
    format!(
        "{} is no store, and holds other files ('{}', for one): pass an empty folder with --store, or one that is not \
         there yet",
        store.display(),
        other.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn no_store_is_made_among_the_files_of_somebody() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        make(&at("new/store")).unwrap();
        for own in ["lock", "witness", "daemon.log", BARE] {
            fs::write(at("new/store").join(own), "").unwrap();
        }
        make(&at("new/store")).unwrap();
        fs::create_dir(at("docs")).unwrap();
        let mode = || fs::metadata(at("docs")).unwrap().permissions().mode() & 0o777;
        fs::set_permissions(at("docs"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(at("docs/letter"), "").unwrap();
        let refused = make(&at("docs")).unwrap_err();
        assert!(refused.text.contains("holds other files ('letter', for one)"), "{}", refused.text);
        assert!(mode() == 0o755 && !is_there(&at("docs")), "as it was");
        // One that is there already, beside them.
        fs::write(at("docs/store.redb"), "").unwrap();
        make(&at("docs")).unwrap();
        assert!(is_there(&at("docs")));
    }
}
