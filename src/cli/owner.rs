//! One process owns a store; every other command on it hands its work over and stays as its face.
//!
//! The first command that opens a store takes the lock and listens on a Unix socket inside it. A later
//! one finds the socket and sends its request (the parsed command as JSON) together with its own
//! standard streams (SCM_RIGHTS), so that the owner writes straight to the terminal that asked. From then
//! on single bytes: the owner says [`ACCEPTED`] at once and the exit code at the end; `c` from the face
//! means "cancel". If the owner goes away without a code, the face tries again from the start and may become
//! the owner itself.
//!
//! | bytes | request |
//! |---|---|
//! | 4 | length of the JSON, u32 little endian; the three descriptors ride on these bytes |
//! | n | JSON of [`Request`] |

use super::args::Command;
use super::exit::{Exit, Fail, Failure, Result};
use nix::fcntl::{Flock, FlockArg};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a face asks the owner to run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Version of the sender; the owner refuses another one.
    pub version: String,
    pub command: Command,
    pub cwd: PathBuf,
    pub json: bool,
    pub quiet: bool,
}

/// A request larger than this is not one of ours.
const MAX_REQUEST: usize = 1 << 20;

/// The longest wait for an owner that holds the lock but does not listen yet (it is starting or ending).
const OWNER_PATIENCE: Duration = Duration::from_secs(10);

/// What an owner answers as soon as it has read a request: it is alive. No exit code is this large.
pub const ACCEPTED: u8 = 255;

/// What this process is to a store.
pub enum Role {
    Owner(Ownership),
    Face(UnixStream),
}

/// The lock and the socket of an owner. Dropping it lets the next one in.
pub struct Ownership {
    _lock: Flock<File>,
    pub listener: UnixListener,
    socket: PathBuf,
}

impl Drop for Ownership {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

/// Makes the directory of a store, for its user alone: it holds secret keys.
pub fn make_store(store: &Path) -> Result {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(store);
    made.or_fail(Exit::Store, format_args!("cannot make the store {}", store.display()))
}

/// Becomes the owner of `store`, or connects to the one it has.
pub fn enter(store: &Path) -> Result<Role> {
    make_store(store)?;
    let give_up = Instant::now() + OWNER_PATIENCE;
    loop {
        if let Some(ownership) = own(store)? {
            return Ok(Role::Owner(ownership));
        }
        if let Ok(stream) = UnixStream::connect(socket_path(store)) {
            return Ok(Role::Face(stream));
        }
        if Instant::now() > give_up {
            return Err(silent(store));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The owner does not answer: who it is, and what can be done.
fn silent(store: &Path) -> Failure {
    let pid = fs::read_to_string(store.join("lock")).unwrap_or_default();
    let (store, pid) = (store.display(), pid.trim());
    let pid = if pid.is_empty() { "a process" } else { &format!("process {pid}") };
    let text = format!(
        "the store {store} is locked by {pid} which does not answer: end it, or use another with --store"
    );
    Failure::new(Exit::Store, text)
}

fn own(store: &Path) -> Result<Option<Ownership>> {
    let path = store.join("lock");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .or_fail(Exit::Store, format_args!("cannot open {}", path.display()))?;
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
                format_args!("cannot lock {}: {errno}", path.display()),
            ));
        }
    };
    let _ = file.set_len(0);
    let _ = write!(file, "{}", std::process::id());
    let socket = socket_path(store);
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket)
        .or_fail(Exit::Store, format_args!("cannot listen on {}", socket.display()))?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).or_exit(Exit::Store)?;
    Ok(Some(Ownership { _lock: lock, listener, socket }))
}

/// The socket of a store. The kernel takes at most 107 bytes of path, so a long one is reached through a
/// descriptor of its directory, which stays open for the life of the process.
fn socket_path(store: &Path) -> PathBuf {
    let path = store.join("socket");
    if path.as_os_str().len() < 100 {
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

/// Sends the request with this process's standard streams.
pub fn send_request(stream: &UnixStream, request: &Request) -> std::io::Result<()> {
    let body = serde_json::to_vec(request)?;
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let fds = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let head = (body.len() as u32).to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(stream, &[IoSlice::new(&head)], &mut control, SendFlags::empty())?;
    (&*stream).write_all(&body)
}

/// A face's words as they came, and its standard streams.
pub struct Asked {
    pub body: Vec<u8>,
    pub streams: [OwnedFd; 3],
}

impl Asked {
    /// The request; the version of the sender if it is one that this program does not understand.
    pub fn request(&self) -> std::result::Result<Request, String> {
        #[derive(Deserialize)]
        struct Sender {
            version: String,
        }
        let sender = serde_json::from_slice(&self.body).map(|sender: Sender| sender.version);
        let sender = sender.map_err(|_| "of another kind".to_string())?;
        if sender != env!("CARGO_PKG_VERSION") {
            return Err(sender);
        }
        serde_json::from_slice(&self.body).map_err(|_| sender)
    }
}

/// Reads what a face asks.
pub fn read_request(stream: &UnixStream) -> std::io::Result<Asked> {
    let bad = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_string());
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut head = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut io = [IoSliceMut::new(&mut head)];
    let message = recvmsg(stream, &mut io, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if message.bytes != 4 {
        return Err(bad("short request"));
    }
    let mut fds: Vec<OwnedFd> = Vec::new();
    for control in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = control {
            fds.extend(received);
        }
    }
    let streams: [OwnedFd; 3] = fds.try_into().map_err(|_| bad("a request without its streams"))?;
    let n = u32::from_le_bytes(head) as usize;
    if n > MAX_REQUEST {
        return Err(bad("request too large"));
    }
    let mut body = vec![0; n];
    let mut reader = stream;
    reader.read_exact(&mut body)?;
    stream.set_read_timeout(None)?;
    Ok(Asked { body, streams })
}

/// Stands in for a command that the owner runs: passes Ctrl-C on and waits for the exit code. `None` when
/// the owner went away without one.
///
/// # Errors
/// An owner that does not even accept the request (it is stopped, say) is named after a while.
pub async fn face(stream: UnixStream, store: &Path) -> Result<Option<u8>> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::signal::unix::{SignalKind, signal};
    stream.set_nonblocking(true).or_exit(Exit::Failed)?;
    let mut stream = tokio::net::UnixStream::from_std(stream).or_exit(Exit::Failed)?;
    let on = |kind| signal(kind).or_exit(Exit::Failed);
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut terminate = on(SignalKind::terminate())?;
    let mut hangup = on(SignalKind::hangup())?;
    let patience = tokio::time::sleep(OWNER_PATIENCE);
    tokio::pin!(patience);
    let (mut accepted, mut asked) = (false, false);
    loop {
        let mut code = [0];
        tokio::select! {
            read = stream.read(&mut code) => match read {
                Ok(1) if code[0] == ACCEPTED => {
                    accepted = true;
                    continue;
                }
                Ok(1) => return Ok(Some(code[0])),
                // Nobody is left to do it, and the user wants it no more.
                _ if asked => return Ok(Some(Exit::Interrupted as u8)),
                _ => return Ok(None),
            },
            () = &mut patience, if !accepted => return Err(silent(store)),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        if asked {
            // The second signal does not wait for the owner.
            return Ok(Some(Exit::Interrupted as u8));
        }
        asked = true;
        let _ = stream.write_all(b"c").await;
    }
}
