//! An unfinished file of a download: it grows beside its place under a name of its own, and is renamed when it is
//! complete and synced.
//!
//! Several downloads may want one name at the same moment, in this process and in others. Each locks the file that it
//! made until that is in its place, and nobody touches one that is locked. One that nobody has locked was left by a
//! download that was killed: the next one removes it. A name alone proves nothing, so before each rename and removal it
//! is looked whether it still names that very file.

use super::super::exit::{Exit, Failure, Result};
use super::local::{There, differs, failed, has_default_acl, look, rename_to_new, time};
use super::plan::Item;
use crate::crypto::sign::random;
use crate::key::hex;
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Names that are the same each time, so that what an earlier download left is found. More than that many at once
/// hardly want one place.
const FORESEEN: u64 = 32;
/// Names by chance after those: whoever may write into the folder may have taken all that can be foreseen.
const BY_CHANCE: u64 = 8;

/// See the module. It is removed when it is dropped, unless it was finished.
pub struct Part {
    at: PathBuf,
    file: File,
    /// The mode that it gets in the end; none if it has it.
    mode: Option<u32>,
}

impl Part {
    /// A new file, under a name that is not `taken` by what else is to come into the folder.
    pub fn create(item: &Item, umask: u32, taken: impl Fn(&str) -> bool) -> Result<Self> {
        let whole = u32::from(item.file.permissions());
        let (first, mode) = match has_default_acl(&item.to) {
            true => (whole, None),
            false => (0o600, Some(whole & !umask)),
        };
        let names = names(&item.to).filter(|name| !taken(name));
        let mut places = names.map(|name| item.to.with_file_name(name));
        let made = places.find_map(|at| match make(&at, first) {
            Ok(None) => None,
            Ok(Some(file)) => Some(Ok(Self { at, file, mode })),
            Err(error) => Some(Err(failed(&item.to, error))),
        });
        // What several left at once: as far as there are names in a row.
        while places.next().is_some_and(|at| remove_left(&at)) {}
        made.unwrap_or_else(|| {
            let text = format!("{}: no name is free for its unfinished file", item.to.display());
            Err(Failure::new(Exit::Failed, text))
        })
    }

    pub fn write(&mut self, item: &Item, pieces: &[bytes::Bytes]) -> Result {
        let mut written = pieces.iter().map(|piece| self.file.write_all(piece));
        written.try_for_each(|done| done).map_err(|error| failed(&item.to, error))
    }

    /// The same file once more, to be synced meanwhile.
    pub fn file(&self, item: &Item) -> Result<File> {
        self.file.try_clone().map_err(|error| failed(&item.to, error))
    }

    /// Syncs the file, gives it its mode and time, and puts it in its place. What came there since it was looked
    /// at is replaced only with `replace`. If it is not `wanted` any more by then, it is removed instead: a disk may have
    /// taken so long that its user went on.
    pub fn finish(self, item: &Item, replace: bool, wanted: impl Fn() -> bool) -> Result {
        let finish = || -> io::Result<()> {
            if let Some(mode) = self.mode {
                self.file.set_permissions(fs::Permissions::from_mode(mode))?;
            }
            if let Some(time) = item.file.mtime_ms().and_then(time) {
                self.file.set_modified(time)?;
            }
            self.file.sync_all()?;
            if !names_it(&self.at, &self.file) {
                return Err(io::Error::other("its unfinished file was taken away: try again"));
            }
            if !wanted() {
                return Err(io::Error::other("it was called off"));
            }
            match replace {
                true => fs::rename(&self.at, &item.to),
                false => rename_to_new(&self.at, &item.to),
            }
        };
        match finish() {
            Ok(()) => {
                // One that is being synced still would keep the lock, on a file that is the user's now.
                let _ = self.file.unlock();
                Ok(())
            }
            // Another download of the same was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match look(item) {
                Ok(There::Same) => Ok(()),
                _ => Err(differs(&item.to, "came there just now")),
            },
            Err(error) => Err(failed(&item.to, error)),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if names_it(&self.at, &self.file) {
            let _ = fs::remove_file(&self.at);
        }
    }
}

/// Names for the unfinished file of `to`, short enough for any file system.
fn names(to: &Path) -> impl Iterator<Item = String> {
    let name = to.file_name().unwrap_or_default().as_encoded_bytes();
    let foreseen = (0..FORESEEN).map(move |n| {
        let mut state = blake2b_simd::Params::new().hash_length(8).to_state();
        state.update(&n.to_le_bytes()).update(name);
        state.finalize().to_hex().to_string()
    });
    let by_chance = (0..BY_CHANCE).map(|_| hex(&random()[..8]));
    foreseen.chain(by_chance).map(|name| format!(".{name}.hdrive-part"))
}

/// A new file of this name, locked; none if another has the name.
fn make(at: &Path, mode: u32) -> io::Result<Option<File>> {
    remove_left(at);
    let file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(at) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        file => file?,
    };
    // Before it was locked somebody may have taken it for left.
    let taken = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
    Ok((!taken && names_it(at, &file)).then_some(file))
}

/// Removes what a download left that was killed, and nothing else: no link, nothing of another user, nothing that is
/// locked, and nothing at all on a file system that has no locks. Tells whether anything was there.
fn remove_left(at: &Path) -> bool {
    let Ok(meta) = fs::symlink_metadata(at) else { return false };
    if !meta.is_file() || meta.uid() != nix::unistd::geteuid().as_raw() {
        return true;
    }
    // To lock it over a network it must be open for writing.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new().write(true).custom_flags(flags).open(at);
    if let Ok(file) = file
        && file.try_lock().is_ok()
        && names_it(at, &file)
    {
        let _ = fs::remove_file(at);
    }
    true
}

/// Whether `at` is a name of this open file.
fn names_it(at: &Path, file: &File) -> bool {
    let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let (there, open) = (fs::symlink_metadata(at).map(id), file.metadata().map(id));
    there.is_ok_and(|there| open.is_ok_and(|open| there == open))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::blobs::BlobId;
    use crate::hyper::drive::{Content, File as Entry, Time};
    use crate::path::DrivePath;
    use std::os::unix::fs::symlink;

    fn item(to: PathBuf) -> Item {
        let content = Content::Blob(BlobId::default());
        let mut file = Entry::of(content);
        file.stat.mtime = Time::new(1_700_000_000_000, 0);
        Item { path: DrivePath::from_user("dir/file").unwrap(), file, size: 6, to }
    }

    fn begin(item: &Item) -> Part {
        Part::create(item, 0o022, |_| false).unwrap()
    }

    fn write(part: &mut Part, item: &Item, text: &'static str) {
        part.write(item, &[bytes::Bytes::from_static(text.as_bytes())]).unwrap();
    }

    /// The places of unfinished files of `to` that can be foreseen.
    fn foreseen(to: &Path) -> Vec<PathBuf> {
        names(to).take(FORESEEN as usize).map(|name| to.with_file_name(name)).collect()
    }

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn what_was_called_off_while_the_disk_took_its_time_gets_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let item = item(dir.path().join("file"));
        fs::write(&item.to, "mine").unwrap();
        let mut part = begin(&item);
        write(&mut part, &item, "theirs");
        assert!(part.finish(&item, true, || false).is_err());
        assert_eq!(fs::read(&item.to).unwrap(), b"mine");
        assert_eq!(entries(dir.path()), 1, "and leaves nothing");
    }

    #[test]
    fn names_are_short_and_those_that_can_be_foreseen_are_the_same_each_time() {
        let long = PathBuf::from("n".repeat(255));
        for to in [&long, Path::new("/a/x"), Path::new("/")] {
            let all: std::collections::HashSet<_> = names(to).collect();
            assert_eq!(all.len() as u64, FORESEEN + BY_CHANCE);
            assert!(all.iter().all(|name| name.len() < 40));
        }
        assert_eq!(foreseen(Path::new("a/x")), foreseen(Path::new("a/x")));
        assert_ne!(foreseen(Path::new("a/x"))[0], foreseen(Path::new("a/y"))[0]);
        assert_ne!(names(&long).last(), names(&long).last());
        // As versions before this one named them.
        assert_eq!(
            foreseen(Path::new("a/report.pdf"))[0],
            Path::new("a/.b5f14b0cec953536.hdrive-part")
        );
    }

    #[test]
    fn each_of_several_at_once_has_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (item(dir.path().join("x")), item(dir.path().join("x")));
        let (mut first, mut second, third) = (begin(&one), begin(&other), begin(&other));
        write(&mut first, &one, "first1");
        write(&mut second, &other, "second");
        drop(third);
        first.finish(&one, false, || true).unwrap();
        assert_eq!(fs::read_to_string(&one.to).unwrap(), "first1");
        second.finish(&other, true, || true).unwrap();
        assert_eq!(fs::read_to_string(&one.to).unwrap(), "second");
        assert_eq!(entries(dir.path()), 1);
    }

    #[test]
    fn one_that_came_meanwhile_is_as_good_only_if_it_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let item = item(dir.path().join("x"));
        let (mut first, mut second) = (begin(&item), begin(&item));
        write(&mut first, &item, "theirs");
        write(&mut second, &item, "theirs");
        let third = begin(&item);
        first.finish(&item, false, || true).unwrap();
        second.finish(&item, false, || true).unwrap();
        fs::write(&item.to, "mine").unwrap();
        let error = third.finish(&item, false, || true).unwrap_err();
        assert!(error.text.contains("came there just now"), "{error}");
        assert_eq!(fs::read_to_string(&item.to).unwrap(), "mine");
        assert_eq!(entries(dir.path()), 1);
    }

    #[test]
    fn what_was_left_goes_and_what_is_locked_stays() {
        let dir = tempfile::tempdir().unwrap();
        let item = item(dir.path().join("x"));
        let places = foreseen(&item.to);
        for place in &places[..4] {
            fs::write(place, "left").unwrap();
        }
        let held = File::open(&places[1]).unwrap();
        held.lock().unwrap();
        let part = begin(&item);
        assert_eq!(part.at, places[0]);
        assert_eq!(fs::read_to_string(&places[1]).unwrap(), "left");
        assert_eq!(entries(dir.path()), 2);
        drop(part);
        assert_eq!(entries(dir.path()), 1);
    }

    #[test]
    fn links_folders_and_what_the_drive_has_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        let item = item(dir.path().join("x"));
        let places = foreseen(&item.to);
        symlink(&victim, &places[0]).unwrap();
        fs::create_dir(&places[1]).unwrap();
        fs::write(&places[2], "theirs").unwrap();
        let of_drive = places[2].file_name().unwrap().to_str().unwrap();
        let mut part = Part::create(&item, 0o022, |name| name == of_drive).unwrap();
        assert_eq!(part.at, places[3]);
        write(&mut part, &item, "theirs");
        part.finish(&item, false, || true).unwrap();
        assert!(places[0].is_symlink() && places[1].is_dir());
        assert_eq!(fs::read_to_string(&places[2]).unwrap(), "theirs");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    }

    #[test]
    fn nobody_keeps_a_download_by_taking_the_names_that_can_be_foreseen() {
        let dir = tempfile::tempdir().unwrap();
        let item = item(dir.path().join("x"));
        let places = foreseen(&item.to);
        places.iter().for_each(|place| symlink("/nowhere", place).unwrap());
        begin(&item).finish(&item, false, || true).unwrap();
        assert!(item.to.is_file());
        assert_eq!(entries(dir.path()), places.len() + 1);
    }

    #[test]
    fn another_file_under_its_name_is_neither_put_in_its_place_nor_removed() {
        let dir = tempfile::tempdir().unwrap();
        let item = item(dir.path().join("x"));
        let other = |part: &Part| {
            fs::remove_file(&part.at).unwrap();
            fs::write(&part.at, "another").unwrap();
            part.at.clone()
        };
        for replace in [false, true] {
            let part = begin(&item);
            let at = other(&part);
            let error = part.finish(&item, replace, || true).unwrap_err();
            assert!(error.text.contains("taken away"), "{error}");
            assert!(!item.to.exists());
            assert_eq!(fs::read_to_string(at).unwrap(), "another");
        }
        let part = begin(&item);
        let at = other(&part);
        drop(part);
        assert_eq!(fs::read_to_string(at).unwrap(), "another");
    }

    #[test]
    fn no_lock_stays_on_what_was_finished() {
        let dir = tempfile::tempdir().unwrap();
        let item = item(dir.path().join("x"));
        let part = begin(&item);
        let synced = part.file(&item).unwrap();
        assert!(File::open(&part.at).unwrap().try_lock().is_err());
        part.finish(&item, false, || true).unwrap();
        assert!(File::open(&item.to).unwrap().try_lock().is_ok());
        drop(synced);
    }
}
