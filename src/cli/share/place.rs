//! The folder that is to be shared: where it really is, and whether it may be.

use super::super::exit::{Exit, Fail, Failure, Result};
use crate::share::mounts::is_on_own_mount;
use crate::share::root::Identity;
use crate::share::stores::{FileId, is_store};
use std::io;
use std::path::{Path, PathBuf};

/// A folder, and the store, which must lie elsewhere.
pub(super) struct Place {
    /// Without links in its path.
    pub folder: PathBuf,
    pub store: Option<FileId>,
    pub identity: io::Result<Identity>,
}

impl Place {
    /// Looks at `folder`, on a disk that may hang. One that is missing is none to fail for where it `may_miss`.
    pub fn of(folder: &Path, may_miss: bool, store: PathBuf) -> Result<Self> {
        let (folder, store) = judge(folder, may_miss, store)?;
        let identity = Identity::of(&folder);
        Ok(Self { folder, store, identity })
    }
}

fn judge(folder: &Path, may_miss: bool, store: PathBuf) -> Result<(PathBuf, Option<FileId>)> {
    let folder = match folder.canonicalize() {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound && may_miss => {
            return Ok((std::path::absolute(folder).unwrap_or(folder.into()), None));
        }
        Err(error) => {
            return Err(Failure::new(
                Exit::NotFound,
                format_args!("{}: {error}", folder.display()),
            ));
        }
    };
    let usage = |text: String| Err(Failure::new(Exit::Usage, text));
    let at = folder.display();
    if !folder.is_dir() {
        return usage(format!("{at} is not a folder: `hdrive put` takes files"));
    }
    std::fs::read_dir(&folder).or_fail(Exit::Failed, folder.display())?;
    if is_on_own_mount(&folder).unwrap_or(false) {
        return usage(format!("{at} is a mounted drive: `hdrive seed KEY` keeps and serves it"));
    }
    let id = |path: &Path| std::fs::metadata(path).map(|meta| FileId::of(&meta)).ok();
    // By inode: a bind mount has another path.
    let is_within = |inner: &Path, outer: &Path| {
        let outer = id(outer);
        outer.is_some() && inner.ancestors().any(|above| id(above) == outer)
    };
    let store = store.canonicalize().unwrap_or(store);
    if is_within(&store, &folder) {
        return usage(format!(
            "{at} holds the store itself: share another folder, or pass --store elsewhere"
        ));
    }
    if is_within(&folder, &store) || folder.ancestors().any(is_store) {
        return usage(format!(
            "{at} is a store of drives, or lies in one: secret keys are never shared"
        ));
    }
    Ok((folder, id(&store)))
}
