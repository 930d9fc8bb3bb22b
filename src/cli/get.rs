//! `hdrive get`: a file or a folder of a drive, as local files.
//!
//! Blocks go through the store, so what is here already is not fetched again and a second call resumes. A file
//! is written beside its place and renamed when it is complete and synced: under its name is the whole file
//! or what was there before.

use super::args::Get;
use super::context::Context;
use super::exit::{Exit, Fail, Failure, Result};
use super::looking::Sought;
use super::progress::Progress;
use super::target::{encryption_key, open_target};
use crate::hyper::blobs::BlobError;
use crate::hyper::drive::{Dir, DriveIndex, File, FileReader, Found, Link};
use crate::hyper::source::SourceError;
use crate::path::DrivePath;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Bytes of one read, and how far ahead of it blocks are fetched.
const STEP: u64 = 4 << 20;
const AHEAD: u64 = 32 << 20;
/// Small files fetched side by side.
const SIDE_BY_SIDE: usize = 256;
/// The device is told to begin writing after this many bytes, so that the final sync is short.
const WRITE_BACK: u64 = 32 << 20;

pub async fn run(args: Get, cx: Context) -> Result {
    let secret = encryption_key(&args.secret)?;
    let (target, drive, index) = open_target(&cx, &args.target, secret).await?;
    let (destination, named_by_drive) = destination(&args, &cx.cwd, &target.path);
    refuse_device(&destination)?;
    let out = cx.out.clone();
    let mut plan = Plan::default();
    match index.lookup(&target.path) {
        Some(Found::File(file)) => plan.file(target.path.clone(), file, destination),
        Some(Found::Link(link)) => plan.link(link, destination),
        Some(Found::Directory(dir)) => {
            if named_by_drive {
                refuse_link(&destination)?;
            }
            plan.folder(&target.path, dir, destination);
        }
        None => {
            let text = format!("no such file or directory: {}", target.path);
            return Err(Failure::new(Exit::NotFound, text));
        }
    }
    let job = Arc::new(Job {
        progress: cx.out.progress("downloading", plan.bytes),
        drive,
        index,
        done: Default::default(),
    });
    let (files, bytes) = (plan.files.len(), plan.bytes);
    job.run(plan).await?;
    if out.json {
        out.object(&serde_json::json!({"got": {"files": files, "bytes": bytes}}));
    }
    Ok(())
}

/// Into an existing folder a file goes under its own name (then true), else to the name given.
fn destination(args: &Get, cwd: &Path, path: &DrivePath) -> (PathBuf, bool) {
    let given = cwd.join(args.destination.as_deref().unwrap_or(Path::new(".")));
    match given.is_dir() && !path.is_root() {
        true => (given.join(path.name()), true),
        false => (given, false),
    }
}

/// A pipe, a socket or a device is not replaced by a file.
fn refuse_device(destination: &Path) -> Result {
    let special = |meta: &fs::Metadata| !(meta.is_file() || meta.is_dir() || meta.is_symlink());
    if fs::symlink_metadata(destination).is_ok_and(|meta| special(&meta)) {
        let to = destination.display();
        let text = format!("{to} is no place for a file: `hdrive cat` writes to standard output");
        return Err(Failure::new(Exit::Failed, text));
    }
    Ok(())
}

/// What to make, folders before what is in them.
#[derive(Default)]
struct Plan {
    folders: Vec<PathBuf>,
    files: Vec<Item>,
    links: Vec<(String, PathBuf)>,
    bytes: u64,
}

#[derive(Clone)]
struct Item {
    path: DrivePath,
    size: u64,
    mode: u16,
    mtime_ms: Option<i64>,
    to: PathBuf,
}

impl Plan {
    fn file(&mut self, path: DrivePath, file: &File, to: PathBuf) {
        // What a drive says its files hold may be more than a number can.
        self.bytes = self.bytes.saturating_add(file.size());
        let (size, mode, mtime_ms) = (file.size(), file.mode, file.mtime_ms);
        self.files.push(Item { path, size, mode, mtime_ms, to });
    }

    fn link(&mut self, link: &Link, to: PathBuf) {
        self.links.push((link.target.to_string(), to));
    }

    fn folder(&mut self, path: &DrivePath, dir: &Dir, to: PathBuf) {
        self.folders.push(to.clone());
        for (name, node) in dir.iter() {
            // Names were checked when the index was made: none leads out of the destination.
            let Ok(path) = path.join(name) else { continue };
            match node.shown() {
                Found::Directory(below) => self.folder(&path, below, to.join(name)),
                Found::File(file) => self.file(path, file, to.join(name)),
                Found::Link(link) => self.link(link, to.join(name)),
            }
        }
    }
}

struct Job {
    drive: Sought,
    index: Arc<DriveIndex>,
    progress: Progress,
    done: std::sync::atomic::AtomicU64,
}

impl Job {
    async fn run(self: Arc<Self>, plan: Plan) -> Result {
        make_folders(&plan.folders)?;
        let (small, large): (Vec<_>, Vec<_>) =
            plan.files.into_iter().partition(|item| item.size <= STEP);
        let mut tasks = tokio::task::JoinSet::new();
        for item in small {
            if tasks.len() >= SIDE_BY_SIDE
                && let Some(done) = tasks.join_next().await
            {
                done.or_exit(Exit::Failed)??;
            }
            tasks.spawn(self.clone().fetch(item));
        }
        while let Some(done) = tasks.join_next().await {
            done.or_exit(Exit::Failed)??;
        }
        for item in large {
            self.clone().fetch(item).await?;
        }
        for (target, to) in &plan.links {
            if fs::read_link(to).is_ok_and(|there| there.as_os_str() == target.as_str()) {
                continue;
            }
            let _ = fs::remove_file(to);
            std::os::unix::fs::symlink(target, to).or_fail(Exit::Failed, to.display())?;
        }
        Ok(())
    }

    async fn fetch(self: Arc<Self>, mut item: Item) -> Result {
        let reader = super::target::content(&self.drive, &self.index, &item.path)?;
        // Of a file with a block map the names tell only a guess.
        item.size = reader.learn_size().await.map_err(|error| from_blob(&item.path, error))?;
        if is_there(&item) {
            self.advance(item.size);
            return Ok(());
        }
        let part = Part(part_name(&item.to));
        let file = part.create(&item.to)?;
        let file = self.write(&item, &reader, file).await?;
        finish(file, item, part).await
    }

    async fn write(&self, item: &Item, reader: &FileReader, file: fs::File) -> Result<fs::File> {
        let to = item.to.display();
        let mut offset = 0;
        let mut fetched = 0;
        let mut flushed = 0;
        let mut write_back: Option<tokio::task::JoinHandle<()>> = None;
        while offset < item.size {
            while fetched < item.size && fetched < offset + AHEAD {
                reader.prefetch(fetched, STEP);
                fetched += STEP;
            }
            let pieces = reader
                .read(offset, STEP as usize)
                .await
                .map_err(|error| from_blob(&item.path, error))?;
            for piece in &pieces {
                (&file).write_all(piece).or_fail(Exit::Failed, &to)?;
                offset += piece.len() as u64;
            }
            if pieces.is_empty() {
                let text = format!("{} ends at {offset} of {} bytes", item.path, item.size);
                return Err(Failure::new(Exit::Failed, text));
            }
            self.advance(pieces.iter().map(|piece| piece.len() as u64).sum());
            let idle = write_back.as_ref().is_none_or(|task| task.is_finished());
            if idle && offset - flushed >= WRITE_BACK && offset < item.size {
                flushed = offset;
                let file = file.try_clone().or_fail(Exit::Failed, &to)?;
                write_back = Some(tokio::task::spawn_blocking(move || {
                    let _ = file.sync_data();
                }));
            }
        }
        Ok(file)
    }

    fn advance(&self, bytes: u64) {
        let before = self.done.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        self.progress.set(before + bytes);
    }
}

/// Syncs the file, gives it its mode and time, and puts it in its place.
async fn finish(file: fs::File, item: Item, part: Part) -> Result {
    let to = item.to.clone();
    let work = move || {
        file.set_permissions(fs::Permissions::from_mode(u32::from(item.mode)))?;
        if let Some(ms) = item.mtime_ms.and_then(|ms| u64::try_from(ms).ok()) {
            file.set_modified(UNIX_EPOCH + Duration::from_millis(ms))?;
        }
        file.sync_all()?;
        fs::rename(&part.0, &item.to)
    };
    let done = tokio::task::spawn_blocking(work).await.or_exit(Exit::Failed)?;
    done.or_fail(Exit::Failed, to.display())
}

/// Whether the file is there already, by size and time.
fn is_there(item: &Item) -> bool {
    let Ok(meta) = fs::symlink_metadata(&item.to) else { return false };
    let time = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    let same_time =
        item.mtime_ms.is_some() && time.map(|time| time.as_millis() as i64) == item.mtime_ms;
    meta.is_file() && meta.len() == item.size && same_time
}

/// Makes the folders, the destination first and each before those inside it.
///
/// Below the destination nothing is written through a link: one that an earlier version of the drive left here
/// would lead wherever its writer likes.
fn make_folders(folders: &[PathBuf]) -> Result {
    let Some((destination, below)) = folders.split_first() else { return Ok(()) };
    fs::create_dir_all(destination).or_fail(Exit::Failed, destination.display())?;
    for folder in below {
        match fs::create_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => refuse_link(folder)?,
            made => made.or_fail(Exit::Failed, folder.display())?,
        }
    }
    Ok(())
}

/// Fails if there is something else than a folder.
fn refuse_link(folder: &Path) -> Result {
    if fs::symlink_metadata(folder).is_ok_and(|meta| !meta.is_dir()) {
        let folder = folder.display();
        let text = format!("{folder} is no folder but a file or a link: move it away first");
        return Err(Failure::new(Exit::Failed, text));
    }
    Ok(())
}

/// An unfinished file; removed when dropped, which after its renaming is nothing.
struct Part(PathBuf);

impl Part {
    /// A new file: whatever has the name, a link above all, is taken away first.
    fn create(&self, to: &Path) -> Result<fs::File> {
        let _ = fs::remove_file(&self.0);
        fs::File::create_new(&self.0).or_fail(Exit::Failed, to.display())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// `dir/.name.hdrive-part`.
fn part_name(to: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    name.push(".hdrive-part");
    to.with_file_name(name)
}

/// An error of a file's content, with its exit code.
pub fn from_blob(path: impl std::fmt::Display, error: BlobError) -> Failure {
    let exit = match &error {
        BlobError::Source(SourceError::TimedOut(_)) => Exit::TimedOut,
        BlobError::Source(SourceError::Storage(_)) => Exit::Store,
        _ => Exit::Failed,
    };
    Failure::new(exit, format_args!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::blobs::BlobId;
    use crate::hyper::drive::Content;

    #[test]
    fn files_that_claim_more_bytes_than_a_number_holds_are_planned_all_the_same() {
        let id = BlobId { byte_length: u64::MAX / 2 + 1, ..BlobId::default() };
        let file = File { seq: 0, mode: 0o644, mtime_ms: None, content: Content::Blob(id) };
        let mut plan = Plan::default();
        for name in ["a", "b"] {
            plan.file(DrivePath::from_user(name).unwrap(), &file, PathBuf::from(name));
        }
        assert_eq!((plan.files.len(), plan.bytes), (2, u64::MAX));
    }
}
