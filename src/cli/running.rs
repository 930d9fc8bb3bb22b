//! The commands that run in this process, its own and those of others: who asked, for what, what they hold.

use super::args::Command;
use super::output::Output;
use super::request::Request;
use crate::fs::Mounted;
use crate::key::CoreKey;
use crate::lock::lock;
use crate::node::DriveId;
use crate::threads::LIMIT;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

/// All of them. One that has ended is gone from here.
pub struct Commands {
    list: Mutex<Vec<Weak<Running>>>,
    since: Instant,
    lost: AtomicBool,
}

/// One of them, for as long as it runs.
pub struct Running {
    pub pid: u32,
    /// As it was typed, but for its options.
    pub words: String,
    /// Nobody notices when another process goes on with it.
    moves: bool,
    /// Whoever asked does not want it any more.
    ends: AtomicBool,
    /// It is one that lasts, and nothing that it needed to begin was missing.
    stays: Arc<AtomicBool>,
    mount: Mutex<Option<(Weak<Mounted>, DriveId)>>,
    /// The mount is written.
    writes: AtomicBool,
    /// It was told that work waits for a thread.
    told_waiting: AtomicBool,
    out: Weak<Output>,
}

impl Default for Commands {
    fn default() -> Self {
        Self { list: Mutex::default(), since: Instant::now(), lost: AtomicBool::new(false) }
    }
}

impl Commands {
    pub fn begin(&self, request: &Request, out: &Arc<Output>) -> Arc<Running> {
        let running = Arc::new(Running {
            pid: request.pid,
            words: words(request),
            moves: matches!(request.command, Command::Share(_) | Command::Seed(_)),
            ends: AtomicBool::new(false),
            stays: Arc::default(),
            mount: Mutex::default(),
            writes: AtomicBool::new(false),
            told_waiting: AtomicBool::new(false),
            out: Arc::downgrade(out),
        });
        let mut list = lock(&self.list);
        list.retain(|running| running.strong_count() > 0);
        list.push(Arc::downgrade(&running));
        running
    }

    pub fn all(&self) -> Vec<Arc<Running>> {
        lock(&self.list).iter().filter_map(Weak::upgrade).collect()
    }

    /// When the first of them began.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Mount points with open files, of commands that shall go on.
    pub fn open_mounts(&self) -> Vec<PathBuf> {
        let mounts =
            self.all().into_iter().filter(|running| !running.ends()).filter_map(|r| r.mount());
        mounts
            .filter(|(mount, _)| mount.has_open_files())
            .map(|(mount, _)| mount.mount_point().into())
            .collect()
    }

    /// Whether one of them has a drive mounted to be written.
    pub fn write(&self, key: CoreKey) -> bool {
        let writes = |running: Arc<Running>| {
            running.writes() && running.mount().is_some_and(|(_, (drive, _))| drive == key)
        };
        self.all().into_iter().any(writes)
    }

    /// Whether another process could go on with all of them, and nobody would notice. With a mount somebody would: it
    /// is an empty folder for a moment, which a program may take for the drive.
    pub fn can_move(&self) -> bool {
        self.all().iter().all(|running| running.moves)
    }

    /// The store is not where it was any more.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Tells everybody once that work waits for a thread, which may be theirs.
    pub fn tell_waiting(&self) {
        for running in self.all().iter().filter(|r| !r.told_waiting.swap(true, Ordering::SeqCst)) {
            let out = running.out.upgrade();
            out.iter().for_each(|out| {
                out.note(format_args!("work on this store waits for a thread: {LIMIT}"));
            });
        }
    }

    /// Tells everybody once that the store is gone.
    pub fn tell_lost(&self, text: &str) {
        if !self.lost.swap(true, Ordering::SeqCst) {
            let outs = self.all().into_iter().filter_map(|running| running.out.upgrade());
            outs.for_each(|out| out.warn(text));
        }
    }
}

impl Running {
    pub fn end(&self) {
        self.ends.store(true, Ordering::SeqCst);
    }

    pub fn ends(&self) -> bool {
        self.ends.load(Ordering::SeqCst)
    }

    /// A command that lasts has begun to: until then it may still fail like one that does not.
    pub fn note_begun(&self) {
        self.stays.store(true, Ordering::SeqCst);
    }

    /// Whether it has; true for as long as this is not told otherwise, though the command has ended.
    pub fn stays(&self) -> Arc<AtomicBool> {
        self.stays.clone()
    }

    pub fn note_mount(&self, mount: &Arc<Mounted>, drive: DriveId, writes: bool) {
        self.writes.store(writes, Ordering::SeqCst);
        *lock(&self.mount) = Some((Arc::downgrade(mount), drive));
    }

    /// It is on its way to its end.
    pub fn forget_mount(&self) {
        *lock(&self.mount) = None;
    }

    /// Whether what it has mounted is written.
    pub fn writes(&self) -> bool {
        self.writes.load(Ordering::SeqCst)
    }

    /// What it has mounted, and of which drive.
    pub fn mount(&self) -> Option<(Arc<Mounted>, DriveId)> {
        let mount = lock(&self.mount);
        mount.as_ref().and_then(|(mount, drive)| Some((mount.upgrade()?, *drive)))
    }
}

/// Whether a command stays until it is told to end.
pub fn lasts(command: &Command) -> bool {
    matches!(command, Command::Mount(_) | Command::Share(_) | Command::Seed(_))
}

/// The name of a command.
pub fn name(command: &Command) -> &'static str {
    match command {
        Command::Mount(_) => "mount",
        Command::Share(_) => "share",
        Command::Umount(_) => "umount",
        Command::Create(_) => "create",
        Command::Ls(_) => "ls",
        Command::Cat(_) => "cat",
        Command::Get(_) => "get",
        Command::Put(_) => "put",
        Command::Rm(_) => "rm",
        Command::Info(_) => "info",
        Command::Seed(_) => "seed",
        Command::Log(_) => "log",
        Command::Gc(_) => "gc",
        Command::Forget(_) => "forget",
        Command::Status(_) => "status",
        Command::Dht(_) => "dht",
        Command::Relay(_) => "relay",
        Command::Demo(_) => "demo",
        Command::Doctor(_) => "doctor",
    }
}

fn words(request: &Request) -> String {
    let at = |path: &PathBuf| request.cwd.join(path).display().to_string();
    let about = match &request.command {
        Command::Mount(args) => format!("{} {}", args.key, at(&args.mountpoint)),
        Command::Share(args) => at(&args.folder),
        Command::Seed(args) => args.keys.join(" "),
        Command::Create(args) => args.name.clone(),
        Command::Ls(args) => args.target.clone(),
        Command::Cat(args) => args.target.clone(),
        Command::Get(args) => args.target.clone(),
        Command::Put(args) => args.target.clone(),
        Command::Rm(args) => args.target.clone(),
        Command::Info(args) => args.key.clone(),
        Command::Log(args) => args.key.clone(),
        Command::Forget(args) => args.drive.clone(),
        Command::Gc(args) => args.drives.join(" "),
        _ => String::new(),
    };
    format!("{} {about}", name(&request.command)).trim_end().to_string()
}
