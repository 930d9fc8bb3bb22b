//! `hdrive get`: a file or a folder of a drive, as local files.
//!
//! `plan.rs` says what goes where, `local.rs` and `part.rs` put it there, `destination.rs` finds out where to begin,
//! `missing.rs` tells what could not be written. Blocks go through the store, so what is here already is not fetched
//! again and a second call resumes. Whatever cannot be written is told at the end; everything else arrives.

mod destination;
mod local;
mod mark;
mod missing;
mod part;
mod plan;

use super::args::Get;
use super::context::Context;
use super::exit::{Exit, Fail, Failure, Result};
use super::fault::joined;
use super::progress::Progress;
use super::signals::LAST_WAIT;
use super::target::{encryption_key, from_live, open_target};
use crate::disk::{self, Held};
use crate::hyper::blobs::BlobError;
use crate::hyper::drive::{Drive, DriveIndex, FileReader, Found, LiveError};
use crate::hyper::source::SourceError;
use crate::key::CoreKey;
use crate::lock::lock;
use crate::path::DrivePath;
use local::{Made, There};
use mark::Mark;
use missing::Missing;
use part::Part;
use plan::{Folder, Item, Link, Plan};
use serde_json::json;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Bytes of one read, and how far ahead of it blocks are fetched.
const STEP: u64 = 4 << 20;
const AHEAD: u64 = 32 << 20;
/// Small files fetched side by side.
const SIDE_BY_SIDE: usize = 256;
/// And of those, the ones that ask the disk at a time: no more threads hang with it.
const ASKING: usize = 64;
/// How often it is looked whether all of a download that was called off has ended.
const LOOK: Duration = Duration::from_millis(5);
/// The device is told to begin writing after this many bytes, so that the final sync is short.
const WRITE_BACK: u64 = 32 << 20;
/// Downloads. When it is called off, what is unfinished is removed, as far as the disk answers in time.
pub async fn run(mut args: Get, cx: Context) -> Result {
    let folders = Arc::new(Folders::default());
    tokio::select! {
        done = download(&mut args, &cx, &folders) => return done,
        () = cx.cancel.cancelled() => folders.called_off.store(true, Ordering::SeqCst),
    }
    let clear = async {
        // Every task has its share in it, and each unfinished file: folders are empty only after those.
        while Arc::strong_count(&folders) > 1 {
            tokio::time::sleep(LOOK).await;
        }
        disk::ask(move || drop(folders)).await
    };
    let _ = tokio::time::timeout(LAST_WAIT, clear).await;
    Err(called_off())
}

async fn download(args: &mut Get, cx: &Context, folders: &Arc<Folders>) -> Result {
    destination::look(args, cx).await?;
    let secret = encryption_key(&args.secret)?;
    let (target, live, index) = open_target(cx, &args.target, secret).await?;
    let place = destination::of(args, cx, &target).await?;
    let mark = Arc::new(Mark::of(&target));
    let mut plan = Plan::default();
    match index.lookup(&target.path) {
        Some(Found::File(file)) => plan.file(target.path.clone(), file, place),
        Some(Found::Link(link)) => plan.link(target.path.clone(), link, place),
        Some(Found::Directory(dir)) => {
            plan.folder(&target.path, dir, place);
            destination::resume(args, cx, &mut plan, &mark).await?;
        }
        Some(Found::Special(_)) => plan.left_out.push(target.path.clone()),
        None => {
            let text = format!("no such file or directory: {}", target.path);
            return Err(Failure::new(Exit::NotFound, text));
        }
    }
    for path in &plan.left_out {
        cx.room().await?;
        cx.out.note(format_args!("{path} is a pipe, a socket or a device: it is left out"));
    }
    for (path, name) in &plan.renamed {
        cx.room().await?;
        cx.out.note(format_args!("{path} is a file and a folder: the file is written as '{name}'"));
    }
    // One that is empty has no contents to be opened.
    let drive = match index.version() {
        0 => None,
        _ => Some(live.drive().await.map_err(|error| from_live(&target.key, error))?),
    };
    let job = Arc::new(Job {
        progress: cx.out.progress("downloading", plan.bytes),
        drive,
        index,
        key: target.key,
        mark: mark.clone(),
        folders: folders.clone(),
        asking: Semaphore::new(ASKING),
        force: args.force,
        umask: args.umask,
        done: AtomicU64::new(0),
        written: AtomicUsize::new(0),
        missing: Missing::default(),
    });
    let (bytes, alone) = (plan.bytes, plan.folders.is_empty());
    let folder = plan.folders.first().map(|folder| folder.to.clone());
    let all = plan.files.len() + plan.links.len();
    job.clone().run(plan).await?;
    job.progress.clear();
    let missing = &job.missing;
    if let Some(folder) = folder.filter(|_| missing.is_empty()) {
        job.ask(move || mark.clear(&folder)).await?;
    }
    if cx.out.json && (!alone || missing.is_empty()) {
        let mut got = json!({"files": job.written.load(Ordering::Relaxed), "bytes": bytes});
        if !missing.is_empty() {
            got["missing"] = missing.json();
        }
        cx.out.object(&json!({ "got": got }));
    }
    missing.outcome(all, alone, cx).await
}

/// What goes when the download is called off. Whatever works on it holds it, and the last one, which may be a thread that a
/// disk kept for long, takes it away.
#[derive(Default)]
struct Folders {
    made: Mutex<Made>,
    /// From now on nothing gets to its place, whoever still works on it.
    called_off: AtomicBool,
}

impl Folders {
    fn is_called_off(&self) -> bool {
        self.called_off.load(Ordering::SeqCst)
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        if self.is_called_off() {
            lock(&self.made).clear();
        }
    }
}

struct Job {
    /// None for a drive that has no files.
    drive: Option<Drive>,
    index: Arc<DriveIndex>,
    key: CoreKey,
    mark: Arc<Mark>,
    folders: Arc<Folders>,
    asking: Semaphore,
    progress: Progress,
    /// Files that differ are replaced.
    force: bool,
    /// That of whoever asked.
    umask: u32,
    done: AtomicU64,
    /// Files that are here now.
    written: AtomicUsize,
    missing: Missing,
}

impl Job {
    /// Lets `work` ask the disk, unless the download is called off before a thread has time for it.
    async fn ask<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let _turn = self.asking.acquire().await.or_exit(Exit::Failed)?;
        let folders = self.folders.clone();
        let work = move || (!folders.is_called_off()).then(work);
        joined(disk::ask(work).await)?.ok_or_else(called_off)
    }

    async fn run(self: Arc<Self>, plan: Plan) -> Result {
        let lost = self.make_folders(plan.folders).await?;
        let here = |to: &Path| !to.ancestors().any(|above| lost.contains(above));
        let of_lost = plan.files.iter().map(|item| &item.to);
        let of_lost = of_lost.chain(plan.links.iter().map(|link| &link.to));
        let of_lost = of_lost.filter(|to| !here(to)).count();
        self.missing.note_of_lost(of_lost);
        let files = plan.files.into_iter().filter(|item| here(&item.to));
        let (small, large): (Vec<_>, Vec<_>) = files.partition(|item| item.size <= STEP);
        let mut tasks = tokio::task::JoinSet::new();
        for item in small {
            if tasks.len() >= SIDE_BY_SIDE {
                let _ = tasks.join_next().await;
            }
            tasks.spawn(self.clone().file(item));
        }
        while tasks.join_next().await.is_some() {}
        for item in large {
            self.clone().file(item).await;
        }
        let links = plan.links.into_iter().filter(|link| here(&link.to));
        let (links, job) = (links.collect::<Vec<_>>(), self.clone());
        let wanted = move |job: &Self| !job.folders.is_called_off();
        self.ask(move || links.iter().take_while(|_| wanted(&job)).for_each(|link| job.link(link)))
            .await
    }

    /// Makes the folders, each before those in it; returns those that could not be made.
    async fn make_folders(self: &Arc<Self>, folders: Vec<Folder>) -> Result<HashSet<PathBuf>> {
        let job = self.clone();
        self.ask(move || {
            let mut lost = HashSet::new();
            for (n, folder) in folders.iter().enumerate() {
                if job.folders.is_called_off() {
                    break;
                }
                let above = folder.to.parent().is_some_and(|parent| lost.contains(parent));
                let mut made = lock(&job.folders.made);
                let result = match (above, n) {
                    (true, _) => Ok(()),
                    (_, 0) => made.destination(&folder.to, &job.mark, job.umask),
                    _ => made.one(&folder.to, job.umask),
                };
                drop(made);
                if above || result.is_err() {
                    lost.insert(folder.to.clone());
                }
                if let Err(why) = result {
                    job.missing.folder(&folder.path, why);
                }
            }
            lost
        })
        .await
    }

    async fn file(self: Arc<Self>, item: Item) {
        if self.missing.ends_it() {
            return self.missing.not_tried(item.path.to_string());
        }
        match self.try_file(&item).await {
            Ok(()) => drop(self.written.fetch_add(1, Ordering::Relaxed)),
            Err(why) => {
                let (path, to) = (item.path.to_string(), item.to);
                let full = self.ask(move || local::is_full(&to)).await.unwrap_or(false);
                self.missing.add(path, why);
                if full {
                    self.missing.end_it(Exit::Failed);
                }
            }
        }
    }

    async fn try_file(&self, item: &Item) -> Result {
        let failed = |error| from_live(&self.key, error);
        let drive = self.drive.as_ref();
        let drive = drive.ok_or_else(|| failed(LiveError::NotFound(item.path.clone())))?;
        let reader = drive.open(&item.file).map_err(|error| failed(error.into()))?;
        // Of a file with a block map the names tell only a guess.
        let size = reader.learn_size().await.map_err(|error| from_blob(&item.path, error))?;
        let item = Arc::new(Item { size, ..item.clone() });
        let (at, force, begin) = (item.clone(), self.force, self.part(&item));
        let look = move || -> Result<(There, Option<Part>)> {
            let there = local::look(&at)?;
            Ok(match there {
                There::Same | There::Unsure => (there, None),
                There::Different(why) if !force => return Err(local::differs(&at.to, why)),
                _ => (there, Some(begin()?)),
            })
        };
        let (there, mut part) = self.ask(look).await??;
        if there == There::Same || there == There::Unsure && self.is_content(&item, &reader).await?
        {
            self.advance(size);
            return Ok(());
        }
        if let Some(why) = there.difference()
            && !self.force
        {
            return Err(local::differs(&item.to, why));
        }
        if part.is_none() {
            part = Some(self.ask(self.part(&item)).await??);
        }
        let part = part.map(|part| self.unfinished(part));
        self.write(&item, &reader, part, there != There::Nothing).await
    }

    /// Begins a file, for a thread that may hang with the disk.
    fn part(&self, item: &Arc<Item>) -> impl FnOnce() -> Result<Part> + Send + 'static {
        let (item, umask, index) = (item.clone(), self.umask, self.index.clone());
        move || {
            // The drive may have files of such names in the same folder.
            let beside = |name: &str| item.path.parent()?.join(name).ok();
            let taken = |name: &str| beside(name).is_some_and(|path| index.lookup(&path).is_some());
            Part::create(&item, umask, taken)
        }
    }

    /// What is not complete, and goes if it never is.
    fn unfinished(&self, part: Part) -> Unfinished {
        Held::new((part, self.folders.clone()))
    }

    /// Fetches a file and puts it in its place.
    async fn write(
        &self,
        item: &Arc<Item>,
        reader: &FileReader,
        mut part: Option<Unfinished>,
        replace: bool,
    ) -> Result {
        let mut offset = 0;
        let mut fetched = 0;
        let mut flushed = 0;
        let mut write_back: Option<disk::Begun<()>> = None;
        while let Some(unfinished) = part.take() {
            while fetched < item.size && fetched < offset + AHEAD {
                reader.prefetch(fetched, STEP);
                fetched += STEP;
            }
            let pieces = match offset < item.size {
                true => self.read(item, reader, offset).await?,
                false => Vec::new(),
            };
            let length: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
            offset += length;
            let idle = write_back.as_ref().is_none_or(|task| task.is_finished());
            let (last, sync) = (offset >= item.size, idle && offset - flushed >= WRITE_BACK);
            let at = item.clone();
            let write = move || -> Result<Option<(Unfinished, Option<std::fs::File>)>> {
                let Some((mut part, folders)) = unfinished.take() else { return Ok(None) };
                part.write(&at, &pieces)?;
                if last {
                    let wanted = || !folders.is_called_off();
                    return part.finish(&at, replace, wanted).map(|()| None);
                }
                let file = sync.then(|| part.file(&at)).transpose()?;
                Ok(Some((Held::new((part, folders)), file)))
            };
            if let Some((unfinished, file)) = self.ask(write).await?? {
                part = Some(unfinished);
                if let Some(file) = file {
                    flushed = offset;
                    write_back = Some(disk::begin(move || drop(file.sync_data())));
                }
            }
            self.advance(length);
        }
        Ok(())
    }

    /// Whether the local file, of the same size, holds what the drive says.
    async fn is_content(&self, item: &Item, reader: &FileReader) -> Result<bool> {
        let to = item.to.clone();
        let mut local = self.ask(move || local::Compared::open(&to).map(Held::new)).await??;
        let mut offset = 0;
        while offset < item.size {
            reader.prefetch(offset, AHEAD.min(item.size - offset));
            let pieces = self.read(item, reader, offset).await?;
            offset += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
            let compare = move || -> Result<Option<Held<local::Compared>>> {
                let Some(mut local) = local.take() else { return Ok(None) };
                for piece in &pieces {
                    if !local.goes_on_with(piece)? {
                        return Ok(None);
                    }
                }
                Ok(Some(Held::new(local)))
            };
            match self.ask(compare).await?? {
                Some(same) => local = same,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn read(
        &self,
        item: &Item,
        reader: &FileReader,
        offset: u64,
    ) -> Result<Vec<bytes::Bytes>> {
        let read = reader.read(offset, STEP as usize).await;
        let pieces = read.map_err(|error| from_blob(&item.path, error))?;
        if pieces.is_empty() {
            let (path, size) = (&item.path, item.size);
            let text = format!("{path} ends at {offset} of {size} bytes");
            return Err(Failure::new(Exit::Failed, text));
        }
        self.missing.something_came();
        Ok(pieces)
    }

    fn link(&self, link: &Link) {
        let linked = match &link.target {
            Ok(target) => {
                local::link(target, &link.to, self.force, || !self.folders.is_called_off())
            }
            Err(why) => Err(Failure::new(Exit::Failed, why)),
        };
        if let Err(why) = linked {
            self.missing.add(link.path.to_string(), why);
        }
    }

    fn advance(&self, bytes: u64) {
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        self.progress.set(before + bytes);
    }
}

/// A file that is removed when it is dropped, and the folders that are made for the download it belongs to.
type Unfinished = Held<(Part, Arc<Folders>)>;

fn called_off() -> Failure {
    Failure::new(Exit::Interrupted, "interrupted")
}

/// An error of a file's content, with its exit code.
pub fn from_blob(path: impl std::fmt::Display, error: BlobError) -> Failure {
    let exit = match &error {
        BlobError::Source(SourceError::TimedOut(_) | SourceError::Lost(_)) => Exit::TimedOut,
        BlobError::Source(SourceError::Storage(_) | SourceError::DiskFull(_)) => Exit::Store,
        _ => Exit::Failed,
    };
    Failure::new(exit, format_args!("{path}: {error}"))
}

/// The name of a drive as a folder: the last part of its local name, or its key.
fn folder_name(name: Option<&str>, key: &CoreKey) -> String {
    let last = name.and_then(|name| {
        DrivePath::from_user(name.rsplit('/').find(|part| !part.is_empty())?).ok()
    });
    match last {
        Some(path) if !path.is_root() => path.name().to_string(),
        _ => key.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_is_a_folder_of_its_name() {
        let key = CoreKey([7; 32]);
        for (name, folder) in [("photos", "photos"), ("/home/u/photos", "photos"), ("a/b/", "b")] {
            assert_eq!(folder_name(Some(name), &key), folder);
        }
        for none in [None, Some("/"), Some(".."), Some("/x/..")] {
            assert_eq!(folder_name(none, &key), key.to_string());
        }
    }
}
