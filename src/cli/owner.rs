//! One process owns a store; every other command on it hands its work over and stays as its face.
//!
//! The first command that opens a store takes the lock and listens on a Unix socket inside it. A later
//! one finds the socket and sends its request (the parsed command as JSON) together with its own
//! standard streams (SCM_RIGHTS), so that the owner writes straight to the terminal that asked. Standard input
//! is another matter: a terminal lets only processes in its foreground read, so the face reads its own and pumps
//! it through a pipe, and says at the end that it was the end.
//!
//! What they say to each other is in `request`, what a face does in `face`.

use super::exit::{Exit, Fail, Failure, Result};
use super::{signals, store};
use nix::fcntl::{Flock, FlockArg};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest wait for an owner that holds the lock but does not listen yet (it is starting or ending).
pub const OWNER_PATIENCE: Duration = Duration::from_secs(10);

/// A socket's path is no longer for the kernel; it takes a few bytes more.
const MAX_PATH: usize = 100;

/// What this process is to a store.
pub enum Role {
    Owner(Ownership),
    Face(UnixStream),
}

/// The lock and the socket of an owner. Dropping it lets the next one in.
pub struct Ownership {
    lock: Flock<File>,
    path: PathBuf,
    pub listener: UnixListener,
    socket: PathBuf,
}

impl Ownership {
    /// Whether somebody took the store away from under this process, or put another in its place.
    pub fn is_lost(&self) -> bool {
        let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
        match (self.lock.metadata(), fs::metadata(&self.path)) {
            (Ok(held), Ok(there)) => id(held) != id(there),
            (_, Err(error)) => {
                matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
            }
            (Err(_), _) => false,
        }
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        // That of another owner, in another store of the same path, stays.
        if !self.is_lost() {
            let _ = fs::remove_file(&self.socket);
        }
    }
}

/// A store cannot be written: why, and the way out where its filesystem is read-only.
pub fn not_written(store: &Path, why: impl fmt::Display) -> Failure {
    let read_only = rustix::fs::statvfs(store.ancestors().find(|at| at.exists()).unwrap_or(store))
        .is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let next = match read_only {
        true => "; copy the store to where it can be written, or use another with --store",
        false => "",
    };
    Failure::new(Exit::Store, format_args!("{why}{next}"))
}

/// Becomes the owner of `store`, or connects to the one it has; neither if the user wants it no more.
pub fn enter(store: &Path) -> Result<Option<Role>> {
    store::make(store)?;
    let give_up = Instant::now() + OWNER_PATIENCE;
    loop {
        // Between two owners nobody else heeds it.
        if signals::asked() {
            return Ok(None);
        }
        if let Some(ownership) = own(store)? {
            return Ok(Some(Role::Owner(ownership)));
        }
        if let Ok(stream) = UnixStream::connect(socket_path(store)) {
            return Ok(Some(Role::Face(stream)));
        }
        if Instant::now() > give_up {
            return Err(silent(store));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Locks a file of a store and notes there whose process it is; none if another holds it.
pub fn claim(store: &Path, name: &str) -> Result<Option<Flock<File>>> {
    let path = store.join(name);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| {
            not_written(store, format_args!("cannot open {}: {error}", path.display()))
        })?;
    let _ = file.set_permissions(fs::Permissions::from_mode(0o600));
    let lock = match Flock::lock(
        file.try_clone().or_exit(Exit::Store)?,
        FlockArg::LockExclusiveNonblock,
    ) {
        Ok(lock) => lock,
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, errno)) => {
            return Err(Failure::new(
                Exit::Store,
                format_args!("cannot lock {}: {}", path.display(), errno.desc()),
            ));
        }
    };
    let _ = file.set_len(0);
    let _ = write!(file, "{}", std::process::id());
    Ok(Some(lock))
}

fn own(store: &Path) -> Result<Option<Ownership>> {
    let path = store.join("lock");
    let Some(lock) = claim(store, "lock")? else { return Ok(None) };
    let socket = socket_path(store);
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket)
        .or_fail(Exit::Store, format_args!("cannot listen on {}", socket.display()))?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).or_exit(Exit::Store)?;
    Ok(Some(Ownership { lock, path, listener, socket }))
}

/// Connects to the owner of `store`, without becoming it.
///
/// # Errors
/// It has none; or the socket may not be used.
pub fn meet(store: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(socket_path(store))
}

/// The socket of a store. The kernel takes at most 107 bytes of path, so a long one is reached through a
/// descriptor of its directory, which stays open for the life of the process.
fn socket_path(store: &Path) -> PathBuf {
    let path = store.join("socket");
    if path.as_os_str().len() < MAX_PATH {
        return path;
    }
    match File::open(store) {
        Ok(dir) => {
            let fd = std::os::fd::IntoRawFd::into_raw_fd(dir);
            PathBuf::from(format!("/proc/self/fd/{fd}/socket"))
        }
        Err(_) => path,
    }
}

/// Does something with a socket of a store, by a path that the kernel takes.
pub fn at_socket<T>(
    store: &Path,
    name: &str,
    act: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let path = store.join(name);
    if path.as_os_str().len() < MAX_PATH {
        return act(&path);
    }
    let dir = File::open(store)?;
    act(&PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())))
}

/// The owner does not answer: who it is, and what can be done.
pub fn silent(store: &Path) -> Failure {
    let pid = fs::read_to_string(store.join("lock")).unwrap_or_default();
    let (store, pid) = (store.display(), pid.trim());
    let pid = if pid.is_empty() { "a process" } else { &format!("process {pid}") };
    let text = format!(
        "the store {store} is locked by {pid} which does not answer: end it, or use another with --store"
    );
    Failure::new(Exit::Store, text)
}
