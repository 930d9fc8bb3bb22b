//! One process owns a store; every other command on it hands its work over and stays as its face.
//!
//! The first command that opens a store takes the lock and listens on a Unix socket inside it. A later
//! one finds the socket and sends its request (the parsed command as JSON) together with its own
//! standard streams (SCM_RIGHTS), so that the owner writes straight to the terminal that asked. Standard input
//! is another matter: a terminal lets only processes in its foreground read, so the face reads its own and pumps
//! it through a pipe, and says at the end that it was the end.
//!
//! From then on single bytes:
//!
//! | from | byte | meaning |
//! |---|---|---|
//! | owner | [`ACCEPTED`] | it runs, or will at once |
//! | owner | [`BEGUN`] | something was printed or read that a second run would print or miss |
//! | owner | [`FULL`] | it runs too many commands to take another |
//! | owner | [`LATER`] | it ends soon, and the face, which would last, had better own the store itself |
//! | owner | [`ELSEWHERE`] | it sees other files than the face, whose command ran at another owner before |
//! | owner | [`TOLD`] | one more line was printed that another owner need not print again |
//! | owner | [`INTO`], [`BESIDE`] | the destination of a download is a folder, or not, before anything is made there |
//! | owner | exit code | it has ended |
//! | face | [`CANCEL`] | the user does not want it any more, as when the face hangs up |
//! | face | [`END`] | standard input is complete |
//!
//! If the owner goes away without a code the face tries again from the start, and may become the owner itself,
//! unless the first try may have left something: then it says so and fails.
//!
//! | bytes | request |
//! |---|---|
//! | 4 | length of the JSON, u32 little endian; the three descriptors ride on these bytes |
//! | n | JSON of [`Request`] |

use super::args::{Command, Global};
use super::context::LAST_WAIT;
use super::exit::{Exit, Fail, Failure, Result};
use super::output::complain;
use super::pump::{ended, pump};
use super::signals::{self, Signals};
use super::view::View;
use crate::hyper::core::storage::{StorageError, keep_private};
use nix::fcntl::{Flock, FlockArg};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, IoSlice, IoSliceMut, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
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
    pub trust_store: bool,
    pub place: Place,
    pub view: View,
    /// The process that asks.
    pub pid: u32,
    /// It is one that a `--daemon` left in the background.
    pub background: bool,
    /// It does not want to be told [`LATER`].
    pub insists: bool,
    /// An owner that has ended ran it: it is to go on, not to fail.
    pub ran: bool,
    /// How many of the lines that a command prints once ([`TOLD`]) were printed by owners that have ended.
    pub told: u32,
}

/// Where a process stands in the network; the owner's counts for all commands on a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub bootstrap: Option<Vec<String>>,
    pub local: Option<SocketAddrV4>,
}

impl Place {
    pub fn of(global: &Global) -> Self {
        Self { bootstrap: global.bootstrap.clone(), local: global.local }
    }

    /// What this one says and another does not follow, for people.
    pub fn lost_in(&self, other: &Self) -> Option<String> {
        let lost = [
            ("--bootstrap", self.bootstrap.is_some() && self.bootstrap != other.bootstrap),
            ("--local", self.local.is_some() && self.local != other.local),
        ];
        let lost: Vec<&str> = lost.into_iter().filter(|(_, lost)| *lost).map(|(n, _)| n).collect();
        (!lost.is_empty()).then(|| {
            let (names, verb) = (lost.join(" and "), if lost.len() == 1 { "counts" } else { "count" });
            format!(
                "{names} {verb} for the process that opened the store, {}: this command goes by what that was given",
                std::process::id()
            )
        })
    }
}

/// A request larger than this is not one of ours.
const MAX_REQUEST: usize = 1 << 20;

/// The longest wait for an owner that holds the lock but does not listen yet (it is starting or ending).
pub const OWNER_PATIENCE: Duration = Duration::from_secs(10);

/// An owner that was told to end a command and has not after this is named.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// What an owner answers as soon as it has read a request: it is alive. No exit code is as large as these.
pub const ACCEPTED: u8 = 255;
/// What an owner answers before the first byte that a command prints or reads.
pub const BEGUN: u8 = 254;
/// What an owner answers that runs as many commands as it takes.
pub const FULL: u8 = 253;
/// What an owner answers whose own command does not last, to one that does.
pub const LATER: u8 = 252;
/// What an owner says after each of the lines that are printed once.
pub const TOLD: u8 = 251;
/// What an owner says when the destination of a download is a folder of the user, and when it is not.
pub const INTO: u8 = 250;
pub const BESIDE: u8 = 249;
/// What an owner answers to a command that goes on, and names files that it sees others for.
pub const ELSEWHERE: u8 = 248;
/// What a face says when its user does not want to wait any more.
pub const CANCEL: u8 = b'c';
/// What a face says after the last byte of its standard input.
pub const END: u8 = b'e';

/// A share has told so many lines ([`TOLD`]) when all of its folder is in the drive: its key, and what is shared.
pub const SHARED: u32 = 2;

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

/// Makes the directory of a store, for its user alone: it holds secret keys.
pub fn make_store(store: &Path) -> Result {
    keep_private(store).map_err(|error| match error {
        StorageError::NotOurs { .. } => {
            let lock = store.join("lock");
            Failure::new(Exit::Store, format_args!("cannot open {}: {error}", lock.display()))
        }
        error => not_written(store, format_args!("{error}")),
    })
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
    make_store(store)?;
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

/// The process at the other end.
pub fn pid_of(owner: &UnixStream) -> i32 {
    socket_peercred(owner).map_or(0, |peer| peer.pid.as_raw_nonzero().get())
}

/// The owner goes on, and has no answer to one command.
pub fn hangs_up(pid: i32) -> Failure {
    let text = format!(
        "process {pid}, which works on the store, begins this command and does not end it: see what it says, or \
         end it and try again"
    );
    Failure::new(Exit::Store, text)
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
    let socket = socket_path(store);
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket)
        .or_fail(Exit::Store, format_args!("cannot listen on {}", socket.display()))?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).or_exit(Exit::Store)?;
    Ok(Some(Ownership { lock, path, listener, socket }))
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

impl Request {
    /// Whether it can be run again when nobody knows how far the first try came: it changes no drive, and what
    /// it makes it finds again.
    pub fn repeatable(&self) -> bool {
        let command = &self.command;
        matches!(
            command,
            Command::Mount(_) | Command::Share(_) | Command::Seed(_) | Command::Get(_)
        )
    }

    /// Whether it can be run again as long as it has not printed anything.
    fn only_prints(&self) -> bool {
        let command = &self.command;
        matches!(
            command,
            Command::Ls(_)
                | Command::Cat(_)
                | Command::Info(_)
                | Command::Log(_)
                | Command::Status(_)
        )
    }

    /// How it ends when its user wants it no more, and nobody is left to say how far it came.
    pub fn exit_when_asked(&self) -> Exit {
        match self.command {
            Command::Mount(_) | Command::Seed(_) => Exit::Ok,
            Command::Share(_) if self.told >= SHARED => Exit::Ok,
            _ => Exit::Interrupted,
        }
    }

    fn reads_stdin(&self) -> bool {
        matches!(&self.command, Command::Put(put) if put.reads_stdin())
    }
}

/// Sends the request with this process's standard streams; what is to be pumped into the first of them if
/// the command reads it.
pub fn send_request(stream: &UnixStream, request: &Request) -> std::io::Result<Option<PipeWriter>> {
    let body = serde_json::to_vec(request)?;
    let pipe = request.reads_stdin().then(std::io::pipe).transpose()?;
    let (pipe, into) = pipe.unzip();
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let stdin = pipe.as_ref().map_or_else(|| stdin.as_fd(), |pipe| pipe.as_fd());
    let fds = [stdin, stdout.as_fd(), stderr.as_fd()];
    let head = (body.len() as u32).to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(stream, &[IoSlice::new(&head)], &mut control, SendFlags::empty())?;
    (&*stream).write_all(&body)?;
    Ok(into)
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
    // The socket is in a directory of ours; should that have been opened to others, they still are nobody here.
    if socket_peercred(stream)?.uid.as_raw() != nix::unistd::Uid::effective().as_raw() {
        return Err(bad("a request of another user"));
    }
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

/// How a face's stay at an owner ended.
pub enum Ended {
    /// The command has, with this code.
    With(u8),
    /// The owner went away, and the command can be run once more.
    Again,
    /// The same after a while, so that the owner can go away.
    Later,
    /// The same when the owner has ended, which sees other files.
    Elsewhere,
}

/// Stands in for a command that the owner runs: passes Ctrl-C and standard input on and waits for the exit code. What
/// was told once is noted in `request`.
///
/// # Errors
/// An owner that does not even accept the request (it is stopped, say) is named after a while. One that went
/// away when the command may have done something is told.
pub async fn face(
    stream: UnixStream,
    request: &mut Request,
    stdin: Option<PipeWriter>,
    store: &Path,
) -> Result<Ended> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let pid = pid_of(&stream);
    stream.set_nonblocking(true).or_exit(Exit::Failed)?;
    let mut stream = tokio::net::UnixStream::from_std(stream).or_exit(Exit::Failed)?;
    let mut signals = Signals::new().or_exit(Exit::Failed)?;
    let patience = tokio::time::sleep(OWNER_PATIENCE);
    tokio::pin!(patience);
    let (mut accepted, mut begun, mut asked, mut told) = (false, false, false, false);
    let (mut stdin, mut pumped) = (stdin, None);
    loop {
        let mut code = [0];
        tokio::select! {
            read = stream.read(&mut code) => match read {
                Ok(1) if code[0] == ACCEPTED => {
                    accepted = true;
                    request.ran = true;
                    // Not before: as long as nothing was read, another owner may have all of it.
                    pumped = stdin.take().map(pump);
                    continue;
                }
                Ok(1) if code[0] == BEGUN => {
                    begun = true;
                    continue;
                }
                Ok(1) if code[0] == TOLD => {
                    request.told += 1;
                    continue;
                }
                Ok(1) if matches!(code[0], INTO | BESIDE) => {
                    if let Command::Get(get) = &mut request.command {
                        get.into_folder = Some(code[0] == INTO);
                    }
                    continue;
                }
                // Nothing of it was begun, and the user wants it no more.
                Ok(1) if asked && matches!(code[0], LATER | ELSEWHERE | FULL) => {
                    return Ok(Ended::With(request.exit_when_asked() as u8));
                }
                Ok(1) if code[0] == LATER => return Ok(Ended::Later),
                Ok(1) if code[0] == ELSEWHERE => return Ok(Ended::Elsewhere),
                Ok(1) if code[0] == FULL => return Err(full()),
                Ok(1) => return Ok(Ended::With(code[0])),
                // Nobody is left to do it, and the user wants it no more.
                _ if asked => return Ok(Ended::With(request.exit_when_asked() as u8)),
                _ if !accepted || request.repeatable() => return Ok(Ended::Again),
                _ if request.only_prints() && !begun => return Ok(Ended::Again),
                _ => return Err(left_alone()),
            },
            pump = ended(&mut pumped) => {
                match pump {
                    Ok(pipe) => {
                        // Before the pipe ends, so that its end is understood.
                        let _ = stream.write_all(&[END]).await;
                        drop(pipe);
                    }
                    Err(error) => {
                        let _ = stream.write_all(&[CANCEL]).await;
                        return Err(Failure::new(Exit::Failed, format_args!("standard input: {error}")));
                    }
                }
                continue;
            }
            () = &mut patience, if !accepted || asked && !told => {
                if !accepted && !asked {
                    return Err(silent(store));
                }
                if !accepted {
                    // It begins nothing for one who hung up before it took notice.
                    return Ok(Ended::With(request.exit_when_asked() as u8));
                }
                told = true;
                let text = format!(
                    "process {pid}, which works on the store, has not ended this command yet: a second signal does not \
                     wait for it"
                );
                complain("note", text);
                continue;
            }
            _ = signals.next() => {}
        }
        if asked {
            // The second signal does not wait for the owner.
            return Ok(Ended::With(request.exit_when_asked() as u8));
        }
        asked = true;
        let limit = if accepted { LAST_PATIENCE } else { LAST_WAIT };
        patience.as_mut().reset(tokio::time::Instant::now() + limit);
        let _ = stream.write_all(&[CANCEL]).await;
    }
}

/// Whether the owner took no notice of a request and said why: it runs too many.
///
/// # Errors
/// That it does.
pub fn check_room(stream: &UnixStream) -> Result {
    let mut said = [0];
    let mut reader = stream;
    // Its end is closed, so there is nothing to wait for.
    match reader.read(&mut said) {
        Ok(1) if said[0] == FULL => Err(full()),
        _ => Ok(()),
    }
}

fn full() -> Failure {
    let text = "as many commands work on this store as its process takes at once: try again when one has ended \
                (`hdrive status` shows what runs)";
    Failure::new(Exit::Failed, text)
}

/// The owner ended in the middle of a command that cannot simply be run again.
fn left_alone() -> Failure {
    let text = "the process that worked on the store ended in the middle of this command: see what was done \
                (`hdrive ls`), and run it again";
    Failure::new(Exit::Failed, text)
}
