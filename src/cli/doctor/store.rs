//! The store: whether it is there or can be made, may be written, and has room. Nothing in it is touched.

use super::finding::Finding;
use crate::cli::store;
use crate::cli::words::{bytes, without_numbers};
use crate::disk;
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};
use serde_json::json;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;

/// A disk that does not answer within this is told as one that hangs.
const PATIENCE: Duration = Duration::from_secs(3);
/// With less room a drive of some size finds none.
const LITTLE: u64 = 256 << 20;
/// With less not even its names do.
const NONE: u64 = 8 << 20;

/// What was seen of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    path: PathBuf,
    there: bool,
    /// Bytes that this user may add.
    free: Option<u64>,
    read_only: bool,
    /// Why it cannot be used.
    refused: Option<String>,
}

pub async fn look(path: PathBuf) -> Vec<Finding> {
    let at = path.clone();
    let finding = match timeout(PATIENCE, disk::ask(move || see(at))).await {
        Ok(Ok(seen)) => judge(&seen),
        Ok(Err(error)) => Finding::bad("store", error.to_string(), "report this"),
        Err(_) => {
            let words = format!("{}: the disk that it is on does not answer", path.display());
            Finding::bad("store", words, "see what is wrong with that, or use another with --store")
        }
    };
    vec![finding]
}

/// No place is known for it, and `why` says what to do after a colon.
pub fn judge_none(why: &str) -> Finding {
    let (words, next) = why.split_once(": ").unwrap_or((why, "pass --store DIR"));
    Finding::bad("store", words, next)
}

fn see(path: PathBuf) -> Seen {
    let there = path.exists();
    let Some(real) = path.ancestors().find(|at| at.exists()) else {
        return Seen { path, refused: Some("no folder above it exists".into()), ..Seen::default() };
    };
    let room = statvfs(real).ok();
    let refused =
        refused(&path, real, there).err().map(|error| without_numbers(&error.to_string()));
    Seen {
        there,
        free: room.as_ref().map(|room| room.f_bavail.saturating_mul(room.f_frsize)),
        read_only: room.is_some_and(|room| room.f_flag.contains(StatVfsMountFlags::RDONLY)),
        refused,
        path,
    }
}

/// What keeps this user from writing a store at `path`, of which `real` is there.
fn refused(path: &Path, real: &Path, there: bool) -> io::Result<()> {
    let meta = std::fs::metadata(real)?;
    if !meta.is_dir() {
        return Err(io::Error::other(format!("{} is no folder", real.display())));
    }
    if there && meta.uid() != nix::unistd::Uid::effective().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    access(real, Access::WRITE_OK | Access::EXEC_OK)?;
    if let Ok(Some(other)) = store::foreign(path) {
        let why = format!("it is no store, and holds other files ('{}', for one)", other.display());
        return Err(io::Error::other(why));
    }
    match access(path.join("lock"), Access::WRITE_OK) {
        Err(rustix::io::Errno::NOENT) | Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn judge(seen: &Seen) -> Finding {
    let path = seen.path.display();
    let place = match seen.there {
        true => format!("{path}"),
        false => format!("{path}, made by the first command that needs it"),
    };
    let free = seen.free.map_or_else(String::new, |free| format!(", {} free", bytes(free)));
    let elsewhere = "use another with --store";
    let finding = match (&seen.refused, seen.free) {
        (Some(why), _) => {
            let next = match seen.read_only {
                true => format!("its file system is read-only: {elsewhere}"),
                false => elsewhere.to_string(),
            };
            Finding::bad("store", format!("{path} cannot be written: {why}"), next)
        }
        (None, Some(free)) if free < NONE => {
            let words = format!("{place}: the disk is full, {} free", bytes(free));
            Finding::bad("store", words, "make room, `hdrive gc` may; or use another with --store")
        }
        (None, Some(free)) if free < LITTLE => {
            let next = "make room, `hdrive gc` may: what is read is kept there";
            Finding::note("store", format!("{place}, only {} free", bytes(free)), next)
        }
        (None, _) => Finding::good("store", format!("{place}{free}")),
    };
    finding.with(json!({ "store": path.to_string(), "exists": seen.there, "free": seen.free }))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn seen() -> Seen {
        let free = Some(5 << 30);
        Seen { path: "/s".into(), there: true, free, read_only: false, refused: None }
    }

    #[test]
    fn a_store_that_is_not_there_yet_is_no_fault_and_one_that_may_not_be_written_is() {
        let good = judge(&seen());
        assert_eq!((good.verdict, good.words.as_str()), (Verdict::Good, "/s, 5.0 GiB free"));
        let fresh = judge(&Seen { there: false, ..seen() });
        assert!(fresh.verdict == Verdict::Good && fresh.words.contains("made by the first"));
        let refused = Some("Permission denied".to_string());
        let bad = judge(&Seen { refused, read_only: true, ..seen() });
        assert_eq!(bad.verdict, Verdict::Bad);
        assert!(bad.next.unwrap().contains("read-only: use another with --store"));
    }

    #[test]
    fn room_that_is_short_is_told_before_there_is_none() {
        let of = |free| judge(&Seen { free: Some(free), ..seen() }).verdict;
        assert_eq!(
            [of(NONE - 1), of(NONE), of(LITTLE)],
            [Verdict::Bad, Verdict::Note, Verdict::Good]
        );
    }

    #[test]
    fn looking_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(see(dir.path().to_path_buf()).refused, None);
        let path = dir.path().join("a/store");
        let seen = see(path.clone());
        assert_eq!((seen.there, seen.refused.as_ref()), (false, None));
        assert!(seen.free.is_some() && !dir.path().join("a").exists());
        std::fs::write(dir.path().join("a"), "").unwrap();
        assert!(see(path).refused.unwrap().contains("no folder"));
        assert!(see(dir.path().to_path_buf()).refused.unwrap().contains("other files ('a', for"));
    }
}
