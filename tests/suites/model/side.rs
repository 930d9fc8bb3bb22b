//! A folder in which operations are done, and the files that are open there.

use super::Tree;
use super::operation::{Mode, Operation, SLOTS, Slot};
use crate::common::sha256;
use nix::fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, fallocate, renameat2};
use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    File {
        size: u64,
        hash: String,
        mode: u32,
        links: u64,
        xattrs: Vec<(String, Vec<u8>)>,
    },
    Directory {
        mode: u32,
    },
    Link(PathBuf),
    /// It is told by its folder, and then not found or not read.
    Broken(String),
}

/// What an operation told: bytes, names, a size; or its error.
pub type Told = Result<Vec<u8>, i32>;

pub struct Side {
    root: PathBuf,
    open: [Option<File>; SLOTS],
}

impl Side {
    pub fn new(root: PathBuf) -> Self {
        Self { root, open: Default::default() }
    }

    pub fn close_all(&mut self) {
        self.open = Default::default();
    }

    pub fn act(&mut self, operation: &Operation) -> Told {
        let errno = |error: io::Error| error.raw_os_error().unwrap_or_else(|| panic!("{error:?}"));
        self.try_to(operation).map_err(errno)
    }

    fn slot(&self, slot: Slot) -> io::Result<&File> {
        self.open[slot].as_ref().ok_or(io::Error::from_raw_os_error(nix::libc::EBADF))
    }

    fn try_to(&mut self, operation: &Operation) -> io::Result<Vec<u8>> {
        let path = |name: &str| self.root.join(name);
        match *operation {
            Operation::Open(slot, name, mode) => {
                let path = path(name);
                self.open[slot] = None;
                self.open[slot] = Some(opened(&path, mode)?);
            }
            Operation::Close(slot) => self.open[slot] = None,
            Operation::Write { slot, at, len, byte } => {
                self.slot(slot)?.write_all_at(&vec![byte; len], at)?;
            }
            Operation::Read { slot, at, len } => return read(self.slot(slot)?, at, len),
            Operation::SetLen(slot, size) => self.slot(slot)?.set_len(size)?,
            Operation::Punch { slot, at, len } => {
                let how =
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                fallocate(self.slot(slot)?, how, at as i64, len as i64)?;
            }
            Operation::Allocate { slot, at, len, keep_size } => {
                let mut how = FallocateFlags::empty();
                how.set(FallocateFlags::FALLOC_FL_KEEP_SIZE, keep_size);
                fallocate(self.slot(slot)?, how, at as i64, len as i64)?;
            }
            Operation::Sync(slot) => self.slot(slot)?.sync_all()?,
            Operation::SyncNames => File::open(&self.root)?.sync_all()?,
            Operation::Save { name, len, byte } => fs::write(path(name), vec![byte; len])?,
            Operation::Replace { name, len, byte } => {
                let second = path("second");
                let mut file = File::create(&second)?;
                file.write_all(&vec![byte; len])?;
                drop(file);
                let done = fs::rename(&second, path(name));
                if done.is_err() {
                    fs::remove_file(&second)?;
                }
                done?;
            }
            Operation::SetLenByName(name, size) => {
                nix::unistd::truncate(&path(name), size as i64)?;
            }
            Operation::MakeDir(name) => fs::create_dir(path(name))?,
            Operation::RemoveDir(name) => fs::remove_dir(path(name))?,
            Operation::Remove(name) => fs::remove_file(path(name))?,
            Operation::Rename(from, to) => fs::rename(path(from), path(to))?,
            Operation::Exchange(from, to) => {
                let how = RenameFlags::RENAME_EXCHANGE;
                renameat2(AT_FDCWD, &path(from), AT_FDCWD, &path(to), how)?;
            }
            Operation::RenameNew(from, to) => {
                let how = RenameFlags::RENAME_NOREPLACE;
                renameat2(AT_FDCWD, &path(from), AT_FDCWD, &path(to), how)?;
            }
            Operation::Link(from, to) => fs::hard_link(path(from), path(to))?,
            Operation::Symlink(target, name) => symlink(target, path(name))?,
            Operation::Copy(from, to) => return copied(&path(from), &path(to)),
            Operation::Chmod(name, mode) => {
                fs::set_permissions(path(name), fs::Permissions::from_mode(mode))?;
            }
            Operation::SetXattr(name, xattr, byte) => {
                setxattr(path(name), xattr, &[byte; 20], XattrFlags::empty())?;
            }
            Operation::RemoveXattr(name, xattr) => removexattr(path(name), xattr)?,
            Operation::List(name) => {
                let names = fs::read_dir(path(name))?.map(|entry| Ok(entry?.file_name()));
                let mut names = names.collect::<io::Result<Vec<_>>>()?;
                names.sort();
                return Ok(format!("{names:?}").into_bytes());
            }
            Operation::Stat(name) => {
                let stat = fs::metadata(path(name))?;
                let size = if stat.is_dir() { 0 } else { stat.size() };
                return Ok(format!("{:o} {size}", stat.mode()).into_bytes());
            }
        }
        Ok(Vec::new())
    }

    /// Everything below the folder.
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        add(&self.root, &self.root, &mut tree);
        tree
    }

    /// The content that a file has, by what leads to it.
    pub fn content(&self, name: &Path) -> Option<Vec<u8>> {
        fs::read(self.root.join(name)).ok()
    }

    /// The content of the file that is open in a slot.
    pub fn content_of_open(&self, slot: Slot) -> Option<Vec<u8>> {
        let open = self.open[slot].as_ref()?;
        let size = open.metadata().unwrap().size();
        Some(read(open, 0, size as usize).unwrap())
    }

    /// The names of the file that is open in a slot.
    pub fn names(&self, slot: Slot) -> Vec<PathBuf> {
        let Some(open) = &self.open[slot] else { return Vec::new() };
        let number = open.metadata().unwrap().ino();
        let is_it = |path: &PathBuf| {
            fs::symlink_metadata(self.root.join(path)).is_ok_and(|stat| stat.ino() == number)
        };
        self.tree().into_keys().filter(is_it).collect()
    }

    /// Whether somebody has what is at a path open.
    pub fn is_open(&self, name: &Path) -> bool {
        let Ok(stat) = fs::symlink_metadata(self.root.join(name)) else { return false };
        let mut open = self.open.iter().flatten();
        open.any(|file| file.metadata().is_ok_and(|open| open.ino() == stat.ino()))
    }

    /// Holds what the other does.
    pub fn become_as(&mut self, other: &Side) {
        fs::remove_dir_all(&self.root).unwrap();
        if other.root.exists() {
            crate::common::copy(&other.root, &self.root);
        } else {
            // The very folder was lost.
            fs::create_dir(&self.root).unwrap();
            fs::create_dir(&other.root).unwrap();
        }
    }
}

fn opened(path: &Path, mode: Mode) -> io::Result<File> {
    let mut how = OpenOptions::new();
    match mode {
        Mode::Read => how.read(true),
        Mode::Write => how.read(true).write(true).create(true),
        Mode::Append => how.read(true).append(true).create(true),
        Mode::Truncate => how.read(true).write(true).create(true).truncate(true),
        Mode::CreateNew => how.read(true).write(true).create_new(true),
    };
    let file = how.open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::from_raw_os_error(nix::libc::EISDIR));
    }
    Ok(file)
}

fn read(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut found = 0;
    loop {
        match file.read_at(&mut bytes[found..], at + found as u64) {
            Ok(0) => break,
            Ok(more) => found += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(found);
    Ok(bytes)
}

/// With copy_file_range, as `cp` does; within a file nothing is copied.
fn copied(from: &Path, to: &Path) -> io::Result<Vec<u8>> {
    let source = File::open(from)?;
    if source.metadata()?.is_dir() {
        return Err(io::Error::from_raw_os_error(nix::libc::EISDIR));
    }
    if fs::metadata(to).is_ok_and(|stat| stat.ino() == source.metadata().unwrap().ino()) {
        return Ok(Vec::new());
    }
    let mut sink = File::create(to)?;
    io::copy(&mut &source, &mut sink)?;
    Ok(Vec::new())
}

fn add(root: &Path, dir: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_path_buf();
        let seen = seen(&path).unwrap_or_else(|error| Seen::Broken(error.to_string()));
        if let Seen::Directory { .. } = seen {
            add(root, &path, tree);
        }
        tree.insert(name, seen);
    }
}

fn seen(path: &Path) -> io::Result<Seen> {
    let stat = fs::symlink_metadata(path)?;
    let mode = stat.mode() & 0o7777;
    if stat.is_symlink() {
        return Ok(Seen::Link(fs::read_link(path)?));
    } else if stat.is_dir() {
        return Ok(Seen::Directory { mode });
    }
    let content = fs::read(path)?;
    let (size, links, xattrs) = (stat.size(), stat.nlink(), xattrs(path));
    if content.len() as u64 != size {
        return Ok(Seen::Broken(format!("{} bytes are read of {size}", content.len())));
    }
    Ok(Seen::File { size, hash: sha256(&content), mode, links, xattrs })
}

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let all = ["user.one", "user.two"].into_iter().filter_map(|name| {
        let mut value = [0; 100];
        let len = getxattr(path, name, &mut value[..]).ok()?;
        Some((name.to_string(), value[..len].to_vec()))
    });
    all.collect()
}
