//! What a file system does with names, by its rules: each change is seen at once, and costs what it changes.

use super::{Draft, Names};
use crate::hyper::drive::{
    Content, DriveIndex, Extended, File, Found, Leaf, Link, Owner, Special, SpecialKind, Stat,
    Time, Xattrs,
};
use crate::hyper::local::{Base, LocalFile};
use crate::lock::write;
use crate::path::{DrivePath, MAX_PATH};
use std::ops::Range;
use std::sync::Arc;

/// Why a change is not made; nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("no such file or directory")]
    NotFound,
    #[error("it exists")]
    Exists,
    #[error("not a directory")]
    NotADirectory,
    #[error("is a directory")]
    IsADirectory,
    #[error("directory not empty")]
    NotEmpty,
    /// The root, or a folder into itself.
    #[error("it cannot be moved there")]
    Impossible,
    /// Other programs read such a name as another one.
    #[error("no drive can hold such a name")]
    Name,
    /// It, or something in it, would have a longer path than a drive holds.
    #[error("a path would be too long")]
    TooLong,
    /// Its entry makes no sense, or what is needed of its content is not here.
    #[error("the file is damaged")]
    Damaged,
}

pub type Result<T> = std::result::Result<T, EditError>;

/// What a rename does with what is at its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rename {
    /// Takes its place, as `rename` does.
    Replace,
    /// Nothing may be there.
    NoReplace,
    /// It comes to where the other was.
    Exchange,
}

/// Attributes to be set; none stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Set {
    pub mode: Option<u16>,
    pub mtime: Option<Time>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// Who changes a draft, a mount say. It is not told of its own changes.
pub struct Editor {
    draft: Arc<Draft>,
    id: u64,
}

impl Editor {
    pub(super) fn new(draft: Arc<Draft>, id: u64) -> Self {
        Self { draft, id }
    }

    pub fn draft(&self) -> &Arc<Draft> {
        &self.draft
    }

    /// Makes an empty file, and opens it to be written: see [`LocalFile::close`].
    pub fn create(&self, path: &DrivePath, mode: u16, mtime: Time) -> Result<Arc<LocalFile>> {
        let file = Arc::new(self.draft.new_file(None));
        file.touch(mtime.nanos().unwrap_or(0));
        file.open();
        let stat = Stat { mode, ..Stat::default() };
        let content = Content::local(&file, None, file.id());
        self.make(path, Leaf::File(File { seq: 0, stat, xattrs: None, content }))?;
        Ok(file)
    }

    /// Makes a symbolic link.
    pub fn make_link(&self, path: &DrivePath, target: &str, mtime: Time) -> Result<()> {
        let stat = Stat { mode: 0o777, mtime, ..Stat::default() };
        self.make(path, Leaf::Link(Link { seq: 0, stat, xattrs: None, target: target.into() }))
    }

    fn make(&self, path: &DrivePath, leaf: Leaf) -> Result<()> {
        self.change(|names, change| {
            names.free(path)?;
            names.now.set(path, leaf);
            change.push(path);
            Ok(())
        })
    }

    /// Makes a folder.
    pub fn make_dir(&self, path: &DrivePath) -> Result<()> {
        self.change(|names, change| {
            names.free(path)?;
            names.now.make_dir(path);
            change.push(path);
            Ok(())
        })
    }

    /// Takes a file or link out.
    pub fn remove(&self, path: &DrivePath) -> Result<()> {
        self.change(|names, change| {
            if let Found::Directory(_) = names.at(path)? {
                return Err(EditError::IsADirectory);
            }
            names.take(path);
            change.push(path);
            Ok(())
        })
    }

    /// Takes an empty folder out.
    pub fn remove_dir(&self, path: &DrivePath) -> Result<()> {
        self.change(|names, change| {
            match names.at(path)? {
                Found::Directory(_) if path.is_root() => return Err(EditError::Impossible),
                Found::Directory(dir) if dir.is_empty() => {}
                Found::Directory(_) => return Err(EditError::NotEmpty),
                _ => return Err(EditError::NotADirectory),
            }
            names.take(path);
            change.push(path);
            Ok(())
        })
    }

    /// Gives what is at `from`, with all that is in it, the name `to`.
    pub fn rename(&self, from: &DrivePath, to: &DrivePath, how: Rename) -> Result<()> {
        self.change(|names, change| {
            let source = names.at(from)?.is_dir();
            let below = |a: &DrivePath, b: &DrivePath| a != b && a.moved(b, b).is_some();
            if from.is_root() || to.is_root() || below(to, from) {
                return Err(EditError::Impossible);
            }
            names.parent(to)?;
            let target = names.now.lookup(to).map(|found| (found.is_dir(), found.is_full()));
            if from != to {
                names.fits(from, to)?;
            }
            match (target, how) {
                (None, Rename::Exchange) => return Err(EditError::NotFound),
                (Some(_), Rename::NoReplace) => return Err(EditError::Exists),
                _ if from == to => return Ok(()),
                (Some(_), Rename::Exchange) if below(from, to) => {
                    return Err(EditError::Impossible);
                }
                (Some(_), Rename::Exchange) => {
                    names.fits(to, from)?;
                    let aside = names.aside();
                    names.now.move_to(to, &aside);
                    names.now.move_to(from, to);
                    names.now.move_to(&aside, from);
                    change.push(from);
                    change.push(to);
                    return Ok(());
                }
                (Some(_), Rename::Replace) if names.are_one(from, to) => return Ok(()),
                (Some((_, true)), _) if below(from, to) => return Err(EditError::NotEmpty),
                (Some((true, _)), _) if !source => return Err(EditError::IsADirectory),
                (Some((false, _)), _) if source => return Err(EditError::NotADirectory),
                (Some((true, true)), _) => return Err(EditError::NotEmpty),
                (Some(_), _) => names.take(to),
                (None, _) => valid(to)?,
            }
            names.now.move_to(from, to);
            change.push(from);
            change.push(to);
            Ok(())
        })
    }

    /// Makes a pipe, a socket or a device.
    pub fn make_special(
        &self,
        path: &DrivePath,
        kind: SpecialKind,
        mode: u16,
        mtime: Time,
    ) -> Result<()> {
        let stat = Stat { mtime, mode, ..Stat::default() };
        self.make(path, Leaf::Special(Box::new(Special { seq: 0, kind, stat, xattrs: None })))
    }

    /// Gives the file, link or special node at `from` one more name. `id` tells it from every other from now on, if
    /// nothing does yet.
    pub fn link(&self, from: &DrivePath, to: &DrivePath, id: u64) -> Result<()> {
        self.change(|names, change| {
            let mut leaf = names.leaf(from)?;
            names.free(to)?;
            if names.now.id_of(from, &leaf) == 0 {
                leaf.described_mut().0.id = id;
                names.now.set(from, leaf);
            }
            names.now.link(from, to);
            change.push(from);
            change.push(to);
            Ok(())
        })
    }

    /// Sets attributes of what is at `path`.
    pub fn set(&self, path: &DrivePath, new: &Set) -> Result<()> {
        self.describe(path, |stat, _| {
            stat.mode = new.mode.unwrap_or(stat.mode);
            stat.mtime = new.mtime.unwrap_or(stat.mtime);
            let owner = stat.owner;
            stat.owner = Owner::new(new.uid.or(owner.uid()), new.gid.or(owner.gid()));
        })
    }

    /// Sets the extended attributes of what is at `path`.
    pub fn set_xattrs(&self, path: &DrivePath, new: Xattrs) -> Result<()> {
        let new = Extended::set(new);
        self.describe(path, |_, xattrs| *xattrs = new.clone())
    }

    /// Changes what is said of the name at `path`, and of all others that are the same file.
    fn describe(
        &self,
        path: &DrivePath,
        say: impl Fn(&mut Stat, &mut Option<Arc<Extended>>),
    ) -> Result<()> {
        self.change(|names, change| {
            if let Found::Directory(dir) = names.at(path)? {
                let mut own = dir.attributes().cloned().unwrap_or_default();
                say(&mut own.stat, &mut own.xattrs);
                names.now.set_dir_attributes(path, own);
                change.push(path);
                return Ok(());
            }
            for path in names.all_of(path)? {
                let mut leaf = names.leaf(&path)?;
                let local = leaf.local().map(|local| Arc::clone(&local.file));
                let published = leaf.stat().mtime;
                let (stat, xattrs) = leaf.described_mut();
                if let Some(local) = &local {
                    stat.mtime = Time::of_nanos(local.mtime());
                }
                let before = stat.mtime;
                say(stat, xattrs);
                if let Some(local) = local {
                    // The leaf says what others see of the time.
                    if stat.mtime != before {
                        local.set_mtime(stat.mtime.nanos().unwrap_or(0));
                    }
                    stat.mtime = published;
                }
                names.now.set(&path, leaf);
                change.push(&path);
            }
            Ok(())
        })
    }

    /// Opens the file at `path` to be written: see [`LocalFile::close`]. It is one for all who have it open.
    pub fn open(&self, path: &DrivePath) -> Result<Arc<LocalFile>> {
        self.change(|names, change| {
            let file = match names.at(path)? {
                Found::File(file) => file.clone(),
                Found::Directory(_) => return Err(EditError::IsADirectory),
                Found::Link(_) | Found::Special(_) => return Err(EditError::NotFound),
            };
            if let Content::Local(local) = &file.content {
                local.file.open();
                return Ok(local.file.clone());
            }
            let id = file.blob().ok_or(EditError::Damaged)?;
            let reader = self.draft.drive.open(&file).map_err(|_| EditError::Damaged)?;
            let size = file.known_size().ok_or(EditError::Damaged)?;
            let local = Arc::new(self.draft.new_file(Some(Base { reader, id, size })));
            local.touch(file.stat.mtime.nanos().unwrap_or(0));
            local.open();
            let revision = names.revision(&Leaf::File(file.clone()));
            for path in names.all_of(path)? {
                let Leaf::File(file) = names.leaf(&path)? else { continue };
                let published = Some(file.content.clone());
                let content = Content::local(&local, published, revision);
                names.now.set(&path, Leaf::File(File { content, ..file }));
                change.push(&path);
            }
            Ok(local)
        })
    }

    /// Lets a range of the file at `to`, which is open to be written, have the same bytes as that range of the published
    /// file at `from`, without copying them. How many bytes that was done for: none where it cannot be.
    pub fn share(&self, from: &DrivePath, to: &DrivePath, range: Range<u64>) -> Result<u64> {
        self.change(|names, _| {
            let (Leaf::File(from), to) = (names.leaf(from)?, names.leaf(to)?) else { return Ok(0) };
            let base = match &from.content {
                Content::Local(local) => local.file.whole_base(),
                _ => {
                    let (id, size) = (from.blob(), from.known_size());
                    let reader = self.draft.drive.open(&from).ok();
                    let parts = reader.zip(id).zip(size);
                    parts.map(|((reader, id), size)| Base { reader, id, size })
                }
            };
            Ok(match (to.local(), base) {
                (Some(to), Some(base)) if to.file.share(&base, range.clone()) => {
                    range.end - range.start
                }
                _ => 0,
            })
        })
    }

    /// A file that was opened by [`Self::open`] or [`Self::create`] is written no more.
    pub fn close(&self, file: &LocalFile) {
        if file.close() {
            (self.draft.bell)();
        }
    }

    /// Somebody wrote to the file at `path`.
    pub fn wrote(&self, path: &DrivePath) {
        self.draft.tell(self.id, std::slice::from_ref(path));
    }

    /// Makes a change, and tells it.
    fn change<T>(&self, make: impl FnOnce(&mut Names, &mut Changed) -> Result<T>) -> Result<T> {
        let mut changed = Changed::default();
        let made = make(&mut write(&self.draft.names), &mut changed)?;
        self.draft.tell(self.id, &changed.0);
        (self.draft.bell)();
        Ok(made)
    }
}

/// Paths that are something else since.
#[derive(Default)]
struct Changed(Vec<DrivePath>);

impl Changed {
    fn push(&mut self, path: &DrivePath) {
        self.0.push(path.clone());
    }
}

impl Names {
    fn at(&self, path: &DrivePath) -> Result<Found<'_>> {
        self.now.lookup(path).ok_or_else(|| missing(&self.now, path))
    }

    /// The file, link or special node at `path`.
    fn leaf(&self, path: &DrivePath) -> Result<Leaf> {
        match self.at(path)? {
            Found::Directory(_) => Err(EditError::IsADirectory),
            _ => self.now.leaf(path).cloned().ok_or(EditError::NotFound),
        }
    }

    /// Whether two names are the same file.
    fn are_one(&self, a: &DrivePath, b: &DrivePath) -> bool {
        let id = |path| self.leaf(path).map(|leaf| self.now.id_of(path, &leaf));
        matches!((id(a), id(b)), (Ok(a), Ok(b)) if a == b && a != 0)
    }

    /// All names of what is at `path`.
    pub(super) fn all_of(&self, path: &DrivePath) -> Result<Vec<DrivePath>> {
        let id = self.now.id_of(path, &self.leaf(path)?);
        let mut all: Vec<DrivePath> = self.now.links(id).cloned().collect();
        if all.is_empty() {
            all.push(path.clone());
        }
        Ok(all)
    }

    /// Whether something can be made at `path`.
    fn free(&self, path: &DrivePath) -> Result<()> {
        self.parent(path)?;
        match self.now.lookup(path) {
            Some(_) => Err(EditError::Exists),
            None => valid(path),
        }
    }

    /// Whether all that is at `from` can be at `to`. Only a longer path costs a look at it.
    fn fits(&self, from: &DrivePath, to: &DrivePath) -> Result<()> {
        let (before, after) = (from.as_str().len(), to.as_str().len());
        match self.now.list(from) {
            Some(dir) if after > before && dir.is_longer(MAX_PATH - after) => {
                Err(EditError::TooLong)
            }
            _ => Ok(()),
        }
    }

    /// Whether the folder that it is to be in is there.
    fn parent(&self, path: &DrivePath) -> Result<()> {
        let parent = path.parent().ok_or(EditError::Exists)?;
        match self.at(&parent)? {
            Found::Directory(_) => Ok(()),
            _ => Err(EditError::NotADirectory),
        }
    }

    /// A name that nothing has, short wherever what moves there comes from.
    fn aside(&self) -> DrivePath {
        let names = (0u64..).filter_map(|n| DrivePath::root().join(&format!(".aside-{n}")).ok());
        let free = |path: &DrivePath| self.now.lookup(path).is_none();
        names.into_iter().find(free).expect("a folder has fewer names than there are numbers")
    }
}

/// Why nothing is found at `path`.
fn missing(index: &DriveIndex, path: &DrivePath) -> EditError {
    let mut above = path.parent();
    while let Some(path) = above {
        match index.lookup(&path) {
            Some(Found::Directory(_)) => return EditError::NotFound,
            Some(_) => return EditError::NotADirectory,
            None => above = path.parent(),
        }
    }
    EditError::NotFound
}

/// The reference takes a backslash for a slash.
fn valid(path: &DrivePath) -> Result<()> {
    match path.name().contains('\\') {
        true => Err(EditError::Name),
        false => Ok(()),
    }
}
