//! The local side of a download: what is there, and how something gets there.
//!
//! A file is written beside its place and renamed when it is complete and synced (`part.rs`): under its name is the
//! whole file or what was there before. Nothing is written through a link: one that an earlier version of the drive left
//! would lead wherever its writer likes.
//!
//! Everything here asks a disk, and is for threads that may hang with it.

use super::super::exit::{Exit, Failure, Result};
use super::mark::Mark;
use super::plan::Item;
use crate::crypto::sign::random;
use crate::key::hex;
use rustix::fs::{CWD, OFlags, RenameFlags, getxattr, renameat_with};
use rustix::io::Errno;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is at the place of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum There {
    Nothing,
    /// The file, by size and time.
    Same,
    /// A file of the same size with another time.
    Unsure,
    /// Something else, and what.
    Different(&'static str),
}

impl There {
    /// Why the file would be replaced, once its content is known to be another.
    pub fn difference(&self) -> Option<&'static str> {
        match self {
            Self::Nothing | Self::Same => None,
            Self::Unsure => Some("its content is another"),
            Self::Different(why) => Some(why),
        }
    }
}

/// Looks at the place of `item`.
///
/// # Errors
/// Something is there that is not replaced, however much it is wished.
pub fn look(item: &Item) -> Result<There> {
    let meta = match fs::symlink_metadata(&item.to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(There::Nothing),
        meta => meta.map_err(|error| failed(&item.to, error))?,
    };
    refuse_device(&item.to, &meta)?;
    if meta.is_dir() {
        let text = format!("{} is a folder{AWAY}", item.to.display());
        return Err(Failure::new(Exit::Failed, text));
    }
    Ok(match meta.is_file() {
        false => There::Different("it is a link"),
        true if meta.len() != item.size => There::Different("its size is another"),
        true if item.file.mtime_ms() == Some(milliseconds(&meta)) => There::Same,
        true => There::Unsure,
    })
}

/// Whether the folder of `to` is that of the devices, or of a process.
fn is_among_devices(to: &Path) -> bool {
    let folder = to.parent().and_then(|folder| folder.canonicalize().ok());
    folder.is_some_and(|folder| folder == Path::new("/dev") || folder.starts_with("/proc"))
}

/// A pipe, a socket or a device, or a link to one, is not replaced by a file.
fn refuse_device(to: &Path, meta: &fs::Metadata) -> Result {
    let is_plain = |meta: &fs::Metadata| meta.is_file() || meta.is_dir();
    let is_device = match meta.is_symlink() {
        // Also one that leads to a file just now, as /dev/stdout may: it is of a process, and not to be replaced.
        true => is_among_devices(to) || fs::metadata(to).is_ok_and(|leads| !is_plain(&leads)),
        false => !is_plain(meta),
    };
    if !is_device {
        return Ok(());
    }
    let to = to.display();
    let text = format!("{to} is no place for a file: `hdrive cat` writes to standard output");
    Err(Failure::new(Exit::Failed, text))
}

pub fn differs(to: &Path, why: &str) -> Failure {
    let text = format!("{} is there already and {why}{REPLACE}", to.display());
    Failure::new(Exit::Failed, text)
}

/// What helps where something else is in the place, with and without the wish to replace it.
const REPLACE: &str = ": pass --force to replace it";
const AWAY: &str = ": move it away first";
const SHORTER: &str = ": choose a shorter destination";

/// What may help against a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Help {
    Again,
    Force,
    /// The failure itself says.
    Told,
}

impl Help {
    pub fn against(failure: &Failure) -> Self {
        match &failure.text {
            text if text.ends_with(REPLACE) => Self::Force,
            text if text.ends_with(AWAY) || text.ends_with(SHORTER) => Self::Told,
            _ => Self::Again,
        }
    }
}

/// An error of a local file.
pub fn failed(to: &Path, error: io::Error) -> Failure {
    let help = if Errno::from_io_error(&error) == Some(Errno::NAMETOOLONG) { SHORTER } else { "" };
    Failure::new(Exit::Failed, format_args!("{}: {error}{help}", to.display()))
}

/// Whether the file system of `to` has no room for more files.
pub fn is_full(to: &Path) -> bool {
    let folder = to.parent().unwrap_or(to);
    rustix::fs::statvfs(folder).is_ok_and(|room| room.f_bavail == 0 && room.f_blocks > 0)
}

/// A file's time as drives tell it.
pub fn milliseconds(meta: &fs::Metadata) -> i64 {
    meta.mtime().saturating_mul(1000).saturating_add(meta.mtime_nsec() / 1_000_000)
}

/// The other way round; none where this machine has no such time.
pub fn time(ms: i64) -> Option<SystemTime> {
    let away = Duration::from_millis(ms.unsigned_abs());
    if ms < 0 { UNIX_EPOCH.checked_sub(away) } else { UNIX_EPOCH.checked_add(away) }
}

/// Makes a folder with the rights that one of whoever asked has, whose umask need not be that of this process.
fn make_folder(folder: &Path, umask: u32) -> io::Result<()> {
    // It is to be filled, whatever the umask.
    let wanted = (0o777 & !umask) | 0o700;
    fs::DirBuilder::new().mode(wanted).create(folder)?;
    if has_default_acl(folder) {
        return Ok(());
    }
    let flags = (OFlags::NOFOLLOW | OFlags::DIRECTORY).bits() as i32;
    let made = fs::OpenOptions::new().read(true).custom_flags(flags).open(folder)?;
    let mode = made.metadata()?.mode() & 0o7777;
    // The bit that keeps files in their folder's group is inherited.
    let wanted = (mode & 0o7000) | wanted;
    if mode != wanted {
        made.set_permissions(fs::Permissions::from_mode(wanted))?;
    }
    Ok(())
}

/// Whether the folder of `to` says which rights what is made in it has: then the kernel sees to them, and asks no umask.
pub fn has_default_acl(to: &Path) -> bool {
    let none: &mut [u8] = &mut [];
    to.parent().is_some_and(|folder| getxattr(folder, "system.posix_acl_default", none).is_ok())
}

/// Makes a link, or leaves one that is there and leads to the same. It is made beside its place: if it is not `wanted` any
/// more once the disk has answered, what is there stays.
pub fn link(target: &str, to: &Path, replace: bool, wanted: impl Fn() -> bool) -> Result {
    match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(to, error)),
        Ok(_) if leads_to(to, target) => return Ok(()),
        Ok(meta) => {
            refuse_device(to, &meta)?;
            if meta.is_dir() {
                let text = format!("{} is a folder{AWAY}", to.display());
                return Err(Failure::new(Exit::Failed, text));
            }
            if !replace {
                let why = if meta.is_symlink() { "leads elsewhere" } else { "is no link" };
                return Err(differs(to, why));
            }
        }
    }
    let beside = to.with_file_name(format!(".{}.hdrive-part", hex(&random()[..8])));
    let placed = std::os::unix::fs::symlink(target, &beside).and_then(|()| {
        let placed = match (wanted(), replace) {
            (false, _) => Err(io::Error::other("it was called off")),
            (true, true) => fs::rename(&beside, to),
            (true, false) => rename_to_new(&beside, to),
        };
        placed.inspect_err(|_| drop(fs::remove_file(&beside)))
    });
    match placed {
        // Another download of the same was faster.
        Err(_) if leads_to(to, target) => Ok(()),
        placed => placed.map_err(|error| failed(to, error)),
    }
}

/// Renames, but not over something.
pub fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems that cannot tell.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

fn leads_to(link: &Path, target: &str) -> bool {
    fs::read_link(link).is_ok_and(|there| there.as_os_str() == target)
}

/// Fails if there is something else than a folder.
pub fn refuse_link(folder: &Path) -> Result {
    if fs::symlink_metadata(folder).is_ok_and(|meta| !meta.is_dir()) {
        let folder = folder.display();
        let text = format!("{folder} is no folder but a file or a link{AWAY}");
        return Err(Failure::new(Exit::Failed, text));
    }
    Ok(())
}

/// Folders that were made for a download. Those that are still empty go when it is interrupted.
#[derive(Default)]
pub struct Made(Vec<PathBuf>);

impl Made {
    /// The destination, with what leads to it; marked as unfinished.
    pub fn destination(&mut self, folder: &Path, mark: &Mark, umask: u32) -> Result {
        if folder.is_dir() {
            return Ok(());
        }
        let missing = folder.ancestors().take_while(|above| !above.exists());
        let missing: Vec<PathBuf> = missing.map(Path::to_path_buf).collect();
        for above in missing.into_iter().rev() {
            match make_folder(&above, umask) {
                Ok(()) => self.0.push(above),
                // Another came first.
                Err(error) if above.is_dir() => drop(error),
                Err(error) => return Err(failed(folder, error)),
            }
        }
        mark.set(folder);
        Ok(())
    }

    /// A folder in one that is there.
    pub fn one(&mut self, folder: &Path, umask: u32) -> Result {
        match make_folder(folder, umask) {
            Ok(()) => self.0.push(folder.to_path_buf()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refuse_link(folder)?,
            Err(error) => return Err(failed(folder, error)),
        }
        Ok(())
    }

    /// The download was called off.
    pub fn clear(&mut self) {
        self.0.drain(..).rev().for_each(|folder| drop(fs::remove_dir(folder)));
    }
}

/// A local file that is compared piece by piece.
pub struct Compared {
    file: fs::File,
    at: PathBuf,
    buf: Vec<u8>,
}

impl Compared {
    pub fn open(at: &Path) -> Result<Self> {
        let file = fs::File::open(at).map_err(|error| failed(at, error))?;
        Ok(Self { file, at: at.to_path_buf(), buf: Vec::new() })
    }

    pub fn goes_on_with(&mut self, piece: &[u8]) -> Result<bool> {
        self.buf.resize(piece.len(), 0);
        match self.file.read_exact(&mut self.buf) {
            Ok(()) => Ok(self.buf == piece),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(failed(&self.at, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_was_called_off_takes_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        let entries = || fs::read_dir(dir.path()).unwrap().count();
        let (new, taken) = (dir.path().join("new"), dir.path().join("taken"));
        fs::write(&taken, "mine").unwrap();
        for replace in [false, true] {
            assert!(link("theirs", &new, replace, || false).is_err());
            assert!(link("theirs", &taken, replace, || false).is_err());
        }
        assert_eq!((fs::read(&taken).unwrap(), entries()), (b"mine".to_vec(), 1));
        assert!(link("theirs", &taken, false, || true).is_err());
        link("theirs", &new, false, || true).unwrap();
        link("theirs", &taken, true, || true).unwrap();
        assert!(leads_to(&new, "theirs") && leads_to(&taken, "theirs") && entries() == 2);
    }

    #[test]
    fn times_before_1970_are_kept() {
        let file = tempfile::tempfile().unwrap();
        for ms in [0, 1, -1, -1_500, 1_700_000_000_123, -86_400_000 * 365] {
            file.set_modified(time(ms).unwrap()).unwrap();
            assert_eq!(milliseconds(&file.metadata().unwrap()), ms);
        }
    }
}
