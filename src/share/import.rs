//! Brings a drive up to what a folder holds, writing as little as possible.
//!
//! A file is taken for unchanged if size, modification time (to the millisecond) and mode are what the drive
//! says. What differs is read; content that turns out to be the old one, or that of a file which vanished
//! (a rename), keeps its blocks. Contents are appended before the entries that name them, in groups, so that
//! a crash leaves at most blocks that nothing names.

use super::scan::{Local, LocalKind, Scan, locate, open_file, scan};
use crate::hyper::blobs::{BlobError, BlobId, Writer};
use crate::hyper::drive::{Content, Drive, DriveError, DriveIndex, Entry, File, Found, Leaf, Node};
use crate::path::DrivePath;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Entries or bytes after which what was imported so far is published, so that a long import shows up.
const GROUP_ENTRIES: usize = 20_000;
const GROUP_BYTES: u64 = 1 << 30;

/// A file that was told to have changed, with a time this recent, is read even if its time and size are as
/// before: two writes can fall into one millisecond.
const RECENT: Duration = Duration::from_secs(2);

/// What an import did.
#[derive(Debug, Default)]
pub struct Report {
    /// Files and links below the looked-at paths, and their bytes.
    pub files: u64,
    pub bytes: u64,
    /// Entries written and removed.
    pub written: u64,
    pub removed: u64,
    /// What was left out, with the reason.
    pub skipped: Vec<(PathBuf, String)>,
}

/// Where to look, and how much of it to believe.
pub struct Import<'a> {
    pub drive: &'a Drive,
    /// The drive's names now.
    pub index: &'a DriveIndex,
    pub folder: &'a Path,
    /// Told how many bytes of how many have been read.
    pub progress: &'a dyn Fn(u64, u64),
    /// Asked now and then whether to stop; what was imported so far stays.
    pub cancelled: &'a dyn Fn() -> bool,
}

/// One change to make.
enum Change {
    Write(Local),
    Remove(DrivePath),
}

impl Import<'_> {
    /// Looks at these paths and everything below them; the root for the whole folder.
    pub fn run(&self, paths: &[DrivePath]) -> Result<Report, DriveError> {
        let mut report = Report::default();
        let mut changes = Vec::new();
        for path in paths {
            let scan = scan(self.folder, path);
            self.compare(path, &scan, &mut changes);
            report.files += scan.found.len() as u64;
            report.bytes += scan.found.iter().map(size).sum::<u64>();
            report.skipped.extend(scan.skipped);
        }
        self.apply(changes, &mut report)?;
        Ok(report)
    }

    /// What must change so that the drive at `path` is as the scan says.
    fn compare(&self, path: &DrivePath, scan: &Scan, changes: &mut Vec<Change>) {
        let mut known = leaves_below(self.index, path);
        for local in &scan.found {
            let told = local.path == *path;
            match known.remove(&local.path) {
                Some(leaf) if is_same(local, leaf) && !(told && is_recent(local.mtime_ms)) => {}
                _ => changes.push(Change::Write(local.clone())),
            }
        }
        for path in known.into_keys() {
            if !scan.unknown.iter().any(|unknown| is_below(&path, unknown)) {
                changes.push(Change::Remove(path));
            }
        }
    }

    fn apply(&self, changes: Vec<Change>, report: &mut Report) -> Result<(), DriveError> {
        let mut vanished = self.vanished(&changes);
        let total = changes.iter().map(change_size).sum();
        let mut done = 0;
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() && !(self.cancelled)() {
            let mut entries: Vec<(DrivePath, Option<Entry>)> = Vec::new();
            let group_end = done + GROUP_BYTES;
            let mut writer = self.drive.blobs().writer()?;
            while entries.len() < GROUP_ENTRIES && done < group_end && !(self.cancelled)() {
                let Some(change) = changes.next() else { break };
                let before = done;
                done += change_size(&change);
                match change {
                    Change::Remove(path) => entries.push((path, None)),
                    Change::Write(local) => {
                        let mut told = |read: u64| (self.progress)(before + read, total);
                        match self.entry(&local, &mut writer, &mut vanished, &mut told) {
                            Ok(entry) => entries.push((local.path, Some(entry))),
                            Err(BlobError::Input(error)) => {
                                let full = locate(self.folder, &local.path);
                                report.skipped.push((full, error.to_string()));
                            }
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
                (self.progress)(done, total);
            }
            writer.flush()?;
            drop(writer);
            self.publish(entries, report)?;
        }
        Ok(())
    }

    /// Writes a group of entries as one change of the drive.
    fn publish(
        &self,
        entries: Vec<(DrivePath, Option<Entry>)>,
        report: &mut Report,
    ) -> Result<(), DriveError> {
        let mut batch = self.drive.batch()?;
        for (path, entry) in entries {
            match entry {
                Some(entry) => {
                    batch.put(&path, &entry)?;
                    report.written += 1;
                }
                None => report.removed += u64::from(batch.delete(&path)?),
            }
        }
        if !batch.is_empty() {
            batch.flush()?;
        }
        Ok(())
    }

    /// The entry of a local file or link; its content is in the writer or already in the drive.
    fn entry(
        &self,
        local: &Local,
        writer: &mut Writer<'_>,
        vanished: &mut HashMap<(u64, i64), File>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Entry, BlobError> {
        let mut entry = match &local.kind {
            LocalKind::Symlink { target } => {
                let mut entry = Entry::symlink(target.clone());
                entry.set_mtime_ms(local.mtime_ms);
                return Ok(entry);
            }
            LocalKind::File { size } => {
                let known = self.known_content(local, *size, vanished);
                let known = known.filter(|file| self.is_content(file, &local.path));
                match known.and_then(|file| blob(&file)) {
                    Some(id) => Entry::file(id),
                    None => {
                        let file = open_file(self.folder, &local.path).map_err(input)?;
                        Entry::file(writer.put(Counted { file, read: 0, progress })?)
                    }
                }
            }
        };
        entry.set_mode(local.mode as u16);
        entry.set_mtime_ms(local.mtime_ms);
        Ok(entry)
    }

    /// A file of the drive that may have the content of `local`: the one of its name, or one that vanished.
    fn known_content(
        &self,
        local: &Local,
        size: u64,
        vanished: &mut HashMap<(u64, i64), File>,
    ) -> Option<File> {
        if size == 0 {
            return None;
        }
        match self.index.lookup(&local.path) {
            Some(Found::File(file)) if file.size() == size => Some(file.clone()),
            _ => vanished.remove(&(size, local.mtime_ms)),
        }
    }

    /// Files that the changes take away, by size and time.
    fn vanished(&self, changes: &[Change]) -> HashMap<(u64, i64), File> {
        let removed = changes.iter().filter_map(|change| match change {
            Change::Remove(path) => match self.index.lookup(path) {
                Some(Found::File(file)) => Some(((file.size(), file.mtime_ms?), file.clone())),
                _ => None,
            },
            Change::Write(_) => None,
        });
        removed.collect()
    }

    /// Whether a file of the drive, as far as it is here, has just the bytes of a local one.
    fn is_content(&self, file: &File, path: &DrivePath) -> bool {
        const STEP: usize = 1 << 20;
        let (Ok(reader), Ok(mut local)) = (self.drive.open(file), open_file(self.folder, path))
        else {
            return false;
        };
        let mut offset = 0;
        let mut buf = Vec::with_capacity(STEP);
        loop {
            buf.clear();
            let Ok(n) = (&mut local).take(STEP as u64).read_to_end(&mut buf) else { return false };
            if n == 0 {
                return offset == reader.size();
            }
            let Ok(Some(pieces)) = reader.read_local(offset, n) else { return false };
            let mut left = &buf[..];
            for piece in pieces {
                let Some((head, tail)) = left.split_at_checked(piece.len()) else { return false };
                if head != piece {
                    return false;
                }
                left = tail;
            }
            if !left.is_empty() {
                return false;
            }
            offset += n as u64;
        }
    }
}

/// Reads a file and tells how far it is.
struct Counted<'a> {
    file: fs::File,
    read: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buf)?;
        self.read += n as u64;
        (self.progress)(self.read);
        Ok(n)
    }
}

fn input(error: std::io::Error) -> BlobError {
    BlobError::Input(std::sync::Arc::new(error))
}

fn blob(file: &File) -> Option<BlobId> {
    match &file.content {
        Content::Blob(id) => Some(*id),
        Content::Mapped(mapped) => Some(mapped.0),
        Content::Damaged(_) => None,
    }
}

fn size(local: &Local) -> u64 {
    match local.kind {
        LocalKind::File { size } => size,
        LocalKind::Symlink { .. } => 0,
    }
}

fn change_size(change: &Change) -> u64 {
    match change {
        Change::Write(local) => size(local),
        Change::Remove(_) => 0,
    }
}

fn is_same(local: &Local, leaf: &Leaf) -> bool {
    match (&local.kind, leaf) {
        (LocalKind::File { size }, Leaf::File(file)) => {
            file.size() == *size
                && file.mtime_ms == Some(local.mtime_ms)
                && u32::from(file.mode) == local.mode
                && !matches!(file.content, Content::Damaged(_))
        }
        (LocalKind::Symlink { target }, Leaf::Link(link)) => *link.target == **target,
        _ => false,
    }
}

fn is_recent(mtime_ms: i64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as i64 - mtime_ms < RECENT.as_millis() as i64
}

/// Whether `path` is `dir` or below it.
fn is_below(path: &DrivePath, dir: &DrivePath) -> bool {
    dir.is_root()
        || path == dir
        || path.as_str().strip_prefix(dir.as_str()).is_some_and(|rest| rest.starts_with('/'))
}

/// Paths of every file and link of the drive at or below `start`.
pub fn paths_below(index: &DriveIndex, start: &DrivePath) -> Vec<DrivePath> {
    leaves_below(index, start).into_keys().collect()
}

/// Every file and link of the drive at or below `start`, with its path.
fn leaves_below<'a>(index: &'a DriveIndex, start: &DrivePath) -> BTreeMap<DrivePath, &'a Leaf> {
    let mut found = BTreeMap::new();
    let mut todo: Vec<(DrivePath, &Node)> = Vec::new();
    let children = |dir: &DrivePath, todo: &mut Vec<(DrivePath, &'a Node)>| {
        if let Some(names) = index.list(dir) {
            todo.extend(names.iter().filter_map(|(name, node)| Some((dir.join(name).ok()?, node))));
        }
    };
    match start.parent() {
        None => children(start, &mut todo),
        Some(parent) => {
            let node = index.list(&parent).and_then(|names| names.get(start.name()));
            todo.extend(node.map(|node| (start.clone(), node)));
        }
    }
    while let Some((path, node)) = todo.pop() {
        if node.dir().is_some() {
            children(&path, &mut todo);
        }
        if let Some(leaf) = node.leaf() {
            found.insert(path, leaf);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::source::BlockSource;
    use crate::hyper::source::memory::MemoryLog;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    struct Shared {
        dir: tempfile::TempDir,
        drive: Drive,
        blobs: Arc<MemoryLog>,
    }

    impl Shared {
        fn new() -> Self {
            let (db, blobs) = (Arc::new(MemoryLog::default()), Arc::new(MemoryLog::default()));
            let drive = Drive::writable(db, blobs.clone(), None);
            Self { dir: tempfile::tempdir().unwrap(), drive, blobs }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn index(&self) -> DriveIndex {
            if self.drive.bee().source().length() == 0 {
                return DriveIndex::default();
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(self.drive.index()).unwrap()
        }

        fn sync(&self) -> Report {
            self.sync_at("/")
        }

        fn sync_at(&self, path: &str) -> Report {
            let import = Import {
                drive: &self.drive,
                index: &self.index(),
                folder: self.dir.path(),
                progress: &|_, _| {},
                cancelled: &|| false,
            };
            import.run(&[DrivePath::from_user(path).unwrap()]).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let index = self.index();
            leaves_below(&index, &DrivePath::root()).into_keys().map(|p| p.to_string()).collect()
        }

        fn content(&self, path: &str) -> Vec<u8> {
            let index = self.index();
            let Some(Found::File(file)) = index.lookup(&DrivePath::from_user(path).unwrap()) else {
                panic!("{path} is no file")
            };
            let reader = self.drive.open(file).unwrap();
            reader.read_local(0, reader.size() as usize).unwrap().unwrap().concat()
        }
    }

    #[test]
    fn a_second_import_writes_nothing_and_a_change_writes_just_that() {
        let s = Shared::new();
        fs::create_dir_all(s.at("a/b")).unwrap();
        fs::write(s.at("a/b/one"), "1").unwrap();
        fs::write(s.at("two"), vec![7; 100_000]).unwrap();
        std::os::unix::fs::symlink("a/b/one", s.at("link")).unwrap();
        assert_eq!(s.sync().written, 3);
        assert_eq!(s.names(), ["/a/b/one", "/link", "/two"]);
        assert_eq!(s.content("/two"), vec![7; 100_000]);
        let again = s.sync();
        assert_eq!((again.written, again.removed, again.files), (0, 0, 3));

        fs::write(s.at("a/b/one"), "11").unwrap();
        fs::remove_file(s.at("link")).unwrap();
        let third = s.sync();
        assert_eq!((third.written, third.removed), (1, 1));
        assert_eq!(s.content("/a/b/one"), b"11");
    }

    #[test]
    fn renames_touches_and_modes_append_no_content() {
        let s = Shared::new();
        fs::write(s.at("old"), vec![1; 200_000]).unwrap();
        s.sync();
        let length = s.blobs.length();
        fs::rename(s.at("old"), s.at("new")).unwrap();
        assert_eq!(s.sync().removed, 1);
        fs::set_permissions(s.at("new"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(s.sync().written, 1);
        fs::File::open(s.at("new")).unwrap().set_modified(UNIX_EPOCH).unwrap();
        assert_eq!(s.sync().written, 1);
        assert_eq!(s.blobs.length(), length);
        assert_eq!(s.content("/new"), vec![1; 200_000]);
    }

    #[test]
    fn a_file_that_becomes_a_folder_and_back_is_followed() {
        let s = Shared::new();
        fs::write(s.at("x"), "file").unwrap();
        s.sync();
        fs::remove_file(s.at("x")).unwrap();
        fs::create_dir(s.at("x")).unwrap();
        fs::write(s.at("x/y"), "inside").unwrap();
        s.sync_at("/x");
        assert_eq!(s.names(), ["/x/y"]);
        fs::remove_dir_all(s.at("x")).unwrap();
        fs::write(s.at("x"), "again").unwrap();
        s.sync_at("/x");
        assert_eq!(s.names(), ["/x"]);
        fs::remove_file(s.at("x")).unwrap();
        s.sync_at("/x");
        assert!(s.names().is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_told_and_not_taken_for_deleted() {
        let scan =
            Scan { unknown: vec![DrivePath::from_user("/locked").unwrap()], ..Scan::default() };
        let s = Shared::new();
        fs::create_dir(s.at("locked")).unwrap();
        fs::write(s.at("locked/kept"), "1").unwrap();
        fs::write(s.at("gone"), "2").unwrap();
        s.sync();
        let index = s.index();
        let import = Import {
            drive: &s.drive,
            index: &index,
            folder: s.dir.path(),
            progress: &|_, _| {},
            cancelled: &|| false,
        };
        let mut changes = Vec::new();
        import.compare(&DrivePath::root(), &scan, &mut changes);
        let removed: Vec<String> = changes
            .iter()
            .map(|change| match change {
                Change::Remove(path) => path.to_string(),
                Change::Write(local) => panic!("{local:?}"),
            })
            .collect();
        assert_eq!(removed, ["/gone"]);
    }
}
