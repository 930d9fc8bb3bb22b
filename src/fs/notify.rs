//! Tells the kernel what it must no longer believe when the drive changes.
//!
//! A thread of its own, for the kernel takes locks of directories and pages that a request in flight may hold:
//! neither a handler nor the holder of any lock may send these messages. Changes wait in a queue, are merged,
//! change the inode table under a new epoch (see [`Filesystem`]) and only then become messages.

use super::filesystem::Filesystem;
use super::inode::{Bound, Ino, Inodes};
use super::volume::{Changes, Kind, MaybeLater};
use crate::path::DrivePath;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

/// Paths that are handled while answers are held off: some 10 ms of look-ups in memory.
const BATCH: usize = 1000;

/// Unit of the kernel's page cache, in bytes.
const PAGE: u64 = 4096;

/// The kernel's caches. Errors mean that there was nothing to forget.
pub trait KernelCache: Send + 'static {
    /// Forget attributes and content (for a directory: its names) of an inode.
    fn forget_inode(&self, ino: Ino);
    /// Forget attributes only.
    fn forget_attributes(&self, ino: Ino);
    /// Forget what a name stands for, or that it stands for nothing.
    fn forget_name(&self, parent: Ino, name: &str);
    /// The file reaches farther than the kernel knows: these are the bytes of its last page, at this offset.
    fn grown(&self, ino: Ino, offset: u64, bytes: &[u8]);
    /// The name is gone; who watches it is told.
    fn deleted(&self, parent: Ino, child: Ino, name: &str);
}

/// What the kernel must be told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Message {
    Inode(Ino),
    Attributes(Ino),
    Name(Ino, String),
    Grown(Ino, u64, Vec<Bytes>),
    Deleted(Ino, Ino, String),
}

/// What a volume's listener puts into the queue.
pub enum Event {
    Changed(Changes),
    /// Attributes of this inode changed by a request of the kernel's own.
    Touched(Ino),
    Close,
}

/// Runs the thread until [`Event::Close`] or until nobody can send any more.
pub fn start(
    fs: Arc<Filesystem>,
    events: Receiver<Event>,
    cache: impl KernelCache,
) -> std::io::Result<()> {
    crate::threads::spawn("hdrive-notify", move || {
        while let Some((paths, touched)) = next(&events) {
            touched.into_iter().for_each(|ino| cache.forget_attributes(ino));
            // A panic in the volume must not end the messages for good.
            let told = catch_unwind(AssertUnwindSafe(|| tell(&fs, &paths, &cache)));
            if told.is_err() {
                tracing::error!("panic while changes were told to the kernel");
            }
        }
    })?;
    Ok(())
}

/// A listener for [`super::volume::Volume::subscribe`].
pub fn listener(events: Sender<Event>) -> Box<dyn Fn(Changes) + Send + Sync> {
    let events = std::sync::Mutex::new(events);
    Box::new(move |changes| {
        let _ = super::lock(&events).send(Event::Changed(changes));
    })
}

/// All changes that wait, merged; none when it is over.
fn next(events: &Receiver<Event>) -> Option<(BTreeSet<DrivePath>, BTreeSet<Ino>)> {
    let (mut paths, mut touched) = (BTreeSet::new(), BTreeSet::new());
    let mut event = events.recv().ok()?;
    loop {
        match event {
            Event::Changed(changes) => paths.extend(changes.paths),
            Event::Touched(ino) => drop(touched.insert(ino)),
            Event::Close => return None,
        }
        match events.try_recv() {
            Ok(more) => event = more,
            Err(_) => return Some((paths, touched)),
        }
    }
}

fn tell(fs: &Filesystem, paths: &BTreeSet<DrivePath>, cache: &dyn KernelCache) {
    // Backwards: what lies in a directory goes before the directory, which the kernel asks for.
    let paths: Vec<&DrivePath> = paths.iter().rev().collect();
    let mut messages = Vec::new();
    let mut directories = BTreeSet::new();
    for batch in paths.chunks(BATCH) {
        let epoch = fs.new_epoch();
        for path in batch {
            apply(fs, path, &mut messages, &mut directories);
        }
        drop(epoch);
        for message in messages.drain(..) {
            send(cache, message);
        }
    }
    for directory in directories {
        cache.forget_inode(directory);
    }
}

/// Brings the inode table up to date with one path and notes what the kernel must be told.
fn apply(
    fs: &Filesystem,
    path: &DrivePath,
    messages: &mut Vec<Message>,
    directories: &mut BTreeSet<Ino>,
) {
    let entry = fs.volume().lookup(path);
    // What others write to a file of such a volume leaves its revision as it is.
    let rewritten = fs.volume().writable().is_some();
    if rewritten {
        fs.reopen(path);
    }
    let name = path.name().to_owned();
    fs.with_inodes(|inodes| {
        let known = inodes.at(path);
        let parent = path.parent().and_then(|parent| inodes.at(&parent));
        directories.extend(parent);
        match (known, entry) {
            (Some(ino), MaybeLater::Now(Ok(Some(entry)))) => {
                let (kind, revision) = (entry.kind, entry.revision);
                let Some(bound) = inodes.bind_at(path, entry) else { return };
                // The kernel was not told of another number yet.
                inodes.settle(bound.ino());
                let stale_pages = inodes
                    .get(ino)
                    .is_some_and(|node| node.pages.is_some_and(|pages| pages != revision));
                match bound {
                    // Who has it open goes on reading the old pages; only its link count changed.
                    Bound::Moved { .. } => {
                        messages.push(match fs.keeps_writes() {
                            // By its size alone the kernel would not see that it is another content.
                            true => Message::Inode(ino),
                            false => Message::Attributes(ino),
                        });
                        messages.extend(parent.map(|parent| Message::Name(parent, name)));
                    }
                    _ if kind == Kind::Directory => drop(directories.insert(ino)),
                    _ if kind == Kind::File && fs.keeps_writes() => {
                        rewritten_beside(inodes, ino, messages);
                    }
                    // A look-up or open was faster than we.
                    Bound::Same(_) if !stale_pages && !rewritten => {
                        messages.push(Message::Attributes(ino))
                    }
                    _ => messages.push(Message::Inode(ino)),
                }
            }
            (Some(ino), MaybeLater::Now(Ok(None))) => {
                inodes.unlink_at(path);
                messages.push(match parent {
                    Some(parent) => Message::Deleted(parent, ino, name),
                    None => Message::Inode(ino),
                });
            }
            // Not known for sure: let the kernel ask.
            (Some(ino), _) => {
                messages.push(Message::Attributes(ino));
                messages.extend(parent.map(|parent| Message::Name(parent, name)));
            }
            // The kernel may believe that there is no such name.
            (None, _) => messages.extend(parent.map(|parent| Message::Name(parent, name))),
        }
    });
}

/// Somebody wrote to a file beside this mount, whose kernel knows sizes by what it writes itself. Who opens it from now on
/// opens another file; who has it open to read sees it grow.
fn rewritten_beside(inodes: &mut Inodes, ino: Ino, messages: &mut Vec<Message>) {
    let Some(node) = inodes.get(ino) else { return };
    let Some(body) = node.body.clone().filter(|_| node.is_open()) else {
        let names = inodes.renumber(ino).into_iter().flatten();
        messages.extend(names.map(|(parent, name)| Message::Name(parent, name)));
        return;
    };
    messages.push(Message::Inode(ino));
    let content = body.content();
    let page = content.size().unwrap_or(0).saturating_sub(1) / PAGE * PAGE;
    if let Ok(Some(bytes)) = content.read_local(page, PAGE as usize) {
        messages.push(Message::Grown(ino, page, bytes));
    }
}

fn send(cache: &dyn KernelCache, message: Message) {
    tracing::trace!(?message, "told the kernel");
    match message {
        Message::Inode(ino) => cache.forget_inode(ino),
        Message::Attributes(ino) => cache.forget_attributes(ino),
        Message::Name(parent, name) => cache.forget_name(parent, &name),
        Message::Grown(ino, offset, bytes) => cache.grown(ino, offset, &bytes.concat()),
        Message::Deleted(parent, child, name) => cache.deleted(parent, child, &name),
    }
}
