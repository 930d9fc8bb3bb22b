//! A mount's life: from the mount point to its end, whoever ends it.

use super::attach::{DEVICE, attach};
use super::attr::Look;
use super::errno::MountError;
use super::filesystem::Filesystem;
use super::flush::Flusher;
use super::fuse::Fuse;
use super::mount_point::prepare;
use super::notify::{self, Event};
use super::options::{Access, MountOptions};
use super::own::OwnMount;
use super::pending::Pending;
use super::unmount::{How, helper, install_hint, is_open, with_users};
use super::volume::Volume;
use crate::lock::lock;
use crate::threads;
use fuser::{Config, Session, SessionACL};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// How long the end of a mount of ours is waited for once the kernel has agreed to it.
const END: Duration = Duration::from_millis(500);
/// How long threads of a session are looked for, where `/proc` does not show them.
const START: Duration = Duration::from_secs(2);

/// Mounts `volume` on `mount_point` and returns once the kernel answers through it.
///
/// Answers that need a peer run as tasks on `runtime`, which must have time enabled and worker threads of its
/// own. A dead mount that an earlier, killed process left at `mount_point` is taken away first.
///
/// # Errors
/// [`MountError`], each with what to do.
pub fn mount(
    volume: Arc<dyn Volume>,
    mount_point: &Path,
    options: &MountOptions,
    runtime: Handle,
) -> Result<Mounted, MountError> {
    check_device()?;
    // Held until the kernel has its answers: who waits for it finds a mount that lives.
    let claim = prepare(mount_point, options.nonempty)?;
    let point = claim.point().to_path_buf();
    let fs = Arc::new(Filesystem::new(volume.clone(), options.deadline));
    let failed = |source| io_error(&format!("mounting on {}", point.display()), source);
    let pending = Pending::start().map_err(failed)?;
    let owner = Uid::effective().as_raw();
    let look = Look {
        uid: options.uid.unwrap_or(owner),
        gid: options.gid.unwrap_or(Gid::effective().as_raw()),
        owners: options.uid.is_none() && options.gid.is_none(),
        private: options.access == Access::OwnerAndRoot,
    };
    let skin = Fuse::new(fs.clone(), look, pending.clone(), runtime);
    let device = attach(&point, options).map_err(|error| {
        pending.close();
        explain(&point, options, error)
    })?;
    // Held by the session alone once it runs: the connection ends with it.
    let connection = Arc::new(device);
    let own = OwnMount::made_at(&point, &connection).ok_or_else(|| {
        pending.close();
        let why = "it was unmounted or covered, or a folder above it renamed, at the same moment: try again";
        io_error(&format!("mounting on {}", point.display()), io::Error::other(why))
    })?;
    let start = || {
        let config = config(options);
        let device = connection.try_clone().map_err(failed)?;
        let session = Session::from_fd(skin, device, config.acl, config).map_err(failed)?;
        // The kernel answers from here on.
        raise_read_ahead(&own, options.read_ahead_kib);
        let (events, queue) = mpsc::channel();
        notify::start(fs.clone(), queue, session.notifier()).map_err(failed)?;
        volume.subscribe(notify::listener(events.clone()));
        let touched = Mutex::new(events.clone());
        fs.on_own_changes(move |ino| drop(lock(&touched).send(Event::Touched(ino))));
        let mut flusher = None;
        if let Some(writable) = fs.writes().filter(|_| fs.keeps_writes()) {
            let started = Flusher::start(&fs, point.clone(), own.device()).map_err(failed)?;
            let started = Arc::new(started);
            let asked = Arc::downgrade(&started);
            writable.on_flush(Box::new(move || {
                asked.upgrade().map(|flusher| flusher.flush()).is_some()
            }));
            flusher = Some(started);
        }
        let threads = config_threads(options);
        Ok((
            serve(session, threads, own.clone(), connection.clone()).map_err(failed)?,
            events,
            flusher,
        ))
    };
    let (ended, events, flusher) = start().inspect_err(|_| {
        pending.close();
        let _ = own.detach(How::Lazy);
    })?;
    drop(claim);
    tracing::info!(mount_point = %point.display(), "mounted");
    Ok(Mounted {
        point,
        own,
        fs,
        volume,
        pending,
        events,
        ended,
        refused: AtomicBool::new(false),
        flusher,
    })
}

/// How the session of a mount was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Unmounted,
    /// Nobody has unmounted it. It was taken away, if it could be.
    Broken,
}

/// Runs the session on threads of its own, so many beside one; the receiver learns when it is over.
///
/// # Errors
/// Not all of them can be made.
fn serve(
    session: Session<Fuse>,
    count: usize,
    own: OwnMount,
    connection: Arc<OwnedFd>,
) -> io::Result<watch::Receiver<Option<End>>> {
    // The session makes them, and does not tell. Of one session at a time it is known whose they are.
    static STARTING: Mutex<()> = Mutex::new(());
    let _alone = lock(&STARTING);
    let last = format!("fuser-{}", count - 1);
    let before = threads_named(&last);
    let (tell, failed) = mpsc::channel();
    let (over, ended) = watch::channel(None);
    threads::spawn("hdrive-session", move || {
        // However the kernel says it, one that was unmounted has ended as it should.
        let why = session.run().err();
        let lacks = why.as_ref().is_some_and(|why| why.kind() == io::ErrorKind::WouldBlock);
        let _ = tell.send(lacks);
        // If not by an unmount, it is still there, and nobody serves it any more.
        let end = if own.clear() { End::Broken } else { End::Unmounted };
        tracing::debug!("the mount ended: {end:?} {why:?}");
        drop(connection);
        let _ = over.send(Some(end));
    })?;
    let begun = Instant::now();
    while threads_named(&last).is_subset(&before) && begun.elapsed() < START {
        match failed.recv_timeout(Duration::from_millis(1)) {
            Ok(true) => return Err(threads::told("a thread", io::ErrorKind::WouldBlock.into())),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            _ => break,
        }
    }
    Ok(ended)
}

/// The numbers of threads of this process that have this name.
fn threads_named(name: &str) -> BTreeSet<OsString> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let has_it = |task: &std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|own| own.trim_end() == name)
    };
    tasks.filter(has_it).map(|task| task.file_name()).collect()
}

/// A mounted drive. Dropping it unmounts, lazily if it is in use, wherever its mount point was moved since.
pub struct Mounted {
    point: PathBuf,
    own: OwnMount,
    fs: Arc<Filesystem>,
    volume: Arc<dyn Volume>,
    pending: Arc<Pending>,
    events: Sender<Event>,
    ended: watch::Receiver<Option<End>>,
    /// Of a mount that lets the kernel keep what is written.
    flusher: Option<Arc<Flusher>>,
    /// Whether somebody was told already that it cannot be unmounted.
    refused: AtomicBool,
}

impl Mounted {
    /// Where it is, without links.
    pub fn mount_point(&self) -> &Path {
        &self.point
    }

    /// Requests that wait for a peer right now.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Whether somebody has a file or a directory of it open. Only links in `/proc` are read for it: it never waits.
    pub fn has_open_files(&self) -> bool {
        // Under another mount it is where it was.
        let place = || self.own.place().unwrap_or_else(|| self.point.clone());
        self.own.lives() && (self.fs.has_open() || self.fs.frozen() && is_open(&place()))
    }

    /// Where it is now, whatever lies above it: in its own place, and copied to others (bind mounts). In neither it may go on
    /// all the same, for who has files open and in other mount namespaces.
    ///
    /// # Errors
    /// Those of reading `/proc/self/mountinfo`.
    pub fn places(&self) -> io::Result<(Option<PathBuf>, Vec<PathBuf>)> {
        self.own.places()
    }

    /// Returns when the mount is gone, whoever unmounted it, or broken.
    pub async fn ended(&self) -> End {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await;
        end.ok().and_then(|end| *end).unwrap_or(End::Broken)
    }

    /// Unmounts. Blocks for a moment: not to be called from a task.
    ///
    /// Clean, it fails with [`MountError::InUse`] and the mount goes on as before. Lazy, it succeeds unless another mount
    /// lies over it: waiting requests end with ENODEV, and who has files open keeps what needs no peer until this process
    /// ends.
    ///
    /// # Errors
    /// Those of [`super::unmount()`].
    pub fn unmount(&self, how: How) -> Result<(), MountError> {
        self.detach(how).map_err(with_users)
    }

    /// Unmounts, lazily if it is in use; whether it was is told. It takes no longer where there are many processes.
    ///
    /// # Errors
    /// Those of [`super::unmount()`].
    pub fn end(&self) -> Result<bool, MountError> {
        // What is written by who has files open is not lost.
        if let Some(flusher) = &self.flusher
            && self.own.lives()
        {
            flusher.flush();
        }
        match self.detach(How::Clean) {
            Ok(()) => Ok(false),
            // Files are open: the mount goes when the last is closed; nobody new gets in.
            Err(MountError::InUse { .. }) => self.detach(How::Lazy).map(|()| true),
            // Somebody else may have unmounted it at this moment.
            Err(_) => self.detach(How::Lazy).map(|()| false),
        }
    }

    fn detach(&self, how: How) -> Result<(), MountError> {
        if how == How::Lazy {
            self.close();
        }
        let done = self.own.detach(how);
        self.refused.store(done.is_err() && how == How::Lazy, Ordering::Relaxed);
        if let Some(place) = done? {
            tracing::info!(mount_point = %place.display(), "unmounted");
        }
        self.close();
        Ok(())
    }

    fn close(&self) {
        self.pending.close();
        self.volume.close();
        let _ = self.events.send(Event::Close);
    }

    /// Gives the session's threads a moment to end; who still uses a lazily detached mount keeps them.
    fn settle(&self) {
        let ended = self.ended.clone();
        let deadline = Instant::now() + END;
        while ended.borrow().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let told = self.refused.load(Ordering::Relaxed);
        match self.end() {
            Ok(_) => self.settle(),
            Err(error) if told => tracing::debug!("not unmounted: {error}"),
            Err(error) => tracing::warn!("not unmounted: {error}"),
        }
    }
}

fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.acl = match options.access {
        Access::Owner => SessionACL::Owner,
        Access::OwnerAndRoot => SessionACL::RootAndOwner,
        Access::Everybody => SessionACL::All,
    };
    config.n_threads = Some(config_threads(options));
    config
}

fn config_threads(options: &MountOptions) -> usize {
    options.threads.max(1)
}

/// Whether FUSE can be used at all, told before anything else is tried.
fn check_device() -> Result<(), MountError> {
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(DEVICE);
    let Err(error) = opened else { return Ok(()) };
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => Err(MountError::NoDevice),
        Some(Errno::EACCES | Errno::EPERM) => {
            let mode = std::fs::metadata(DEVICE).map_or(0, |meta| meta.permissions().mode());
            Err(MountError::DeviceForbidden { mode: mode & 0o7777, install: install_hint() })
        }
        _ => Err(io_error(DEVICE, error)),
    }
}

/// Finds out what an ordinary user lacks.
fn explain(point: &Path, options: &MountOptions, error: io::Error) -> MountError {
    if Uid::effective().is_root() {
        // mount(2) was refused, and so was the helper that is tried next.
        let refused = error.kind() == io::ErrorKind::NotFound
            || error.to_string().contains("Operation not permitted");
        if refused {
            return MountError::NotPermitted(point.into());
        }
        return io_error(&format!("mounting on {}", point.display()), error);
    }
    let Some(helper) = helper() else {
        return MountError::NoHelper { install: install_hint() };
    };
    let said = error.to_string();
    if options.access != Access::Owner && said.contains("user_allow_other") {
        return MountError::AllowOther;
    }
    // The last of them in a sticky folder, as /tmp is one.
    let not_theirs = ["no write access", "Permission denied", "not owned by user"];
    if not_theirs.iter().any(|words| said.contains(words)) {
        let own = std::fs::metadata(point).is_ok_and(|at| at.uid() == Uid::effective().as_raw());
        let why = match own {
            true => "an ordinary user can mount only where they may write: `chmod u+w` allows it",
            false => "an ordinary user can mount only on a directory of their own",
        };
        let why = why.to_owned();
        return MountError::Forbidden { path: point.into(), why };
    }
    let setuid = std::fs::metadata(&helper)
        .is_ok_and(|meta| meta.uid() == 0 && meta.permissions().mode() & 0o4000 != 0);
    if !setuid {
        return MountError::HelperNotSetuid { helper, install: install_hint() };
    }
    io_error(&format!("mounting on {}", point.display()), error)
}

/// The kernel reads ahead 128 KiB by default; only root may change it.
fn raise_read_ahead(own: &OwnMount, kib: u32) {
    let (major, minor) = own.device();
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    let opened = std::fs::OpenOptions::new().write(true).open(&path);
    // What is open stays that of the mount which had the number then: this one, if it lives.
    let written = opened.and_then(|mut file| match own.lives() {
        true => file.write_all(kib.to_string().as_bytes()),
        false => Ok(()),
    });
    if let Err(error) = written {
        tracing::debug!(%error, path, "the kernel's read-ahead stays at its default");
    }
}

fn io_error(what: &str, source: io::Error) -> MountError {
    MountError::Io { what: what.into(), source }
}
