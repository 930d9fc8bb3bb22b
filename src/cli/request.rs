//! What a face asks of the owner of a store, and the single bytes that the two say to each other afterwards.
//!
//! | bytes | what a face sends |
//! |---|---|
//! | 4 | length of what follows, u32 little endian; three descriptors ride on these bytes |
//! | n | [`HELLO`], and once the owner has said [`LISTENS`] the JSON of [`Request`] |
//!
//! Its own streams go with the request only: in the hands of an owner that is stopped they would stay open, for whoever
//! waits for their end, when the face has long given up. An owner before there was a hello refuses it as a request that
//! it does not understand; a face from that time asks at once, and is answered.
//!
//! The rest is single bytes:
//!
//! | from | byte | meaning |
//! |---|---|---|
//! | owner | [`LISTENS`] | it has read the hello, and is to be asked |
//! | owner | [`ACCEPTED`] | it runs, or will at once |
//! | owner | [`BEGUN`] | something was printed or read that a second run would print or miss |
//! | owner | [`FULL`] | it runs too many commands to take another |
//! | owner | [`LATER`] | it ends soon, and the face, which would last, had better own the store itself |
//! | owner | [`STANDS`] | so it stands in the network: the length of what follows as above, and the JSON of [`Standing`] |
//! | owner | [`ELSEWHERE`] | it sees other files than the face, whose command ran at another owner before |
//! | owner | [`APART`] | it stands elsewhere in the network than the owner where the face's command ran before |
//! | owner | [`TOLD`] | one more line was printed that another owner need not print again |
//! | owner | [`INTO`], [`BESIDE`] | the destination of a download is a folder, or not, before anything is made there |
//! | owner | exit code | it has ended |
//! | face | [`CANCEL`] | the user does not want it any more, as when the face hangs up |
//! | face | [`END`] | standard input is complete |

use super::args::Command;
use super::exit::Exit;
use super::standing::{Place, Standing};
use super::view::View;
use crate::swarm::driver::PeerAddress;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
    /// Whether a port of the router is wanted, if that was said.
    pub port_mapping: Option<bool>,
    /// Where peers may be.
    pub peers: Vec<PeerAddress>,
    pub view: View,
    /// The process that asks.
    pub pid: u32,
    /// It is one that a `--daemon` left in the background.
    pub background: bool,
    /// It does not want to be told [`LATER`].
    pub insists: bool,
    /// How an owner stood in the network that ran it and has ended: it is to go on, not to fail, and nowhere else.
    pub stood: Option<Standing>,
    /// How many of the lines that a command prints once ([`TOLD`]) were printed by owners that have ended.
    pub told: u32,
}

/// A request larger than this is not one of ours.
const MAX_REQUEST: usize = 1 << 20;

/// A face that says nothing for so long is not listened to any longer.
const SILENCE: Duration = Duration::from_secs(5);

/// What a face says first.
const HELLO: &[u8] = b"do you listen?";
/// What an owner answers to that.
pub const LISTENS: u8 = 247;
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
/// What an owner says of itself when it has accepted a command.
pub const STANDS: u8 = 246;
/// What an owner answers to a command that goes on, where it would be looked for and found by others than before.
pub const APART: u8 = 245;
/// What a face says when its user does not want to wait any more.
pub const CANCEL: u8 = b'c';
/// What a face says after the last byte of its standard input.
pub const END: u8 = b'e';

/// A share has told so many lines ([`TOLD`]) when all of its folder is in the drive: its key, and what is shared.
pub const SHARED: u32 = 2;

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
    pub fn only_prints(&self) -> bool {
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

/// Says hello to an owner, with descriptors in the place of a request's that are of no use to anybody.
pub async fn greet(owner: &mut tokio::net::UnixStream) -> io::Result<()> {
    let (_, nobodys) = io::pipe()?;
    send(owner, HELLO, [nobodys.as_fd(); 3]).await
}

/// Sends the request with this process's standard streams to an owner that listens; what is to be pumped into the first
/// of them if the command reads it.
pub async fn ask(
    owner: &mut tokio::net::UnixStream,
    request: &Request,
) -> io::Result<Option<PipeWriter>> {
    let body = serde_json::to_vec(request)?;
    let pipe = request.reads_stdin().then(io::pipe).transpose()?;
    let (pipe, into) = pipe.unzip();
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let stdin = pipe.as_ref().map_or_else(|| stdin.as_fd(), |pipe| pipe.as_fd());
    send(owner, &body, [stdin, stdout.as_fd(), stderr.as_fd()]).await?;
    Ok(into)
}

/// The same with other streams; for a command that reads nothing.
pub async fn ask_for(
    owner: &mut tokio::net::UnixStream,
    request: &Request,
    streams: [BorrowedFd<'_>; 3],
) -> io::Result<()> {
    send(owner, &serde_json::to_vec(request)?, streams).await
}

async fn send(
    owner: &mut tokio::net::UnixStream,
    body: &[u8],
    fds: [BorrowedFd<'_>; 3],
) -> io::Result<()> {
    send_head(&*owner, body.len() as u32, &fds)?;
    owner.write_all(body).await
}

/// There is room for it: the owner has read all that was sent before.
fn send_head(owner: impl AsFd, length: u32, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(fds));
    let head = length.to_le_bytes();
    sendmsg(owner, &[IoSlice::new(&head)], &mut control, SendFlags::empty())?;
    Ok(())
}

/// What an owner says that accepts a command.
pub fn acceptance(standing: &Standing) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(standing)?;
    let head = (body.len() as u32).to_le_bytes();
    Ok([&[ACCEPTED, STANDS], &head[..], &body].concat())
}

/// Reads what follows [`STANDS`]. It was sent at once with that.
pub async fn read_standing(owner: &mut tokio::net::UnixStream) -> io::Result<Standing> {
    let read = async {
        let length = owner.read_u32_le().await? as usize;
        if length > MAX_REQUEST {
            return Err(bad("a standing too large"));
        }
        let mut body = vec![0; length];
        owner.read_exact(&mut body).await?;
        Ok(serde_json::from_slice(&body)?)
    };
    tokio::time::timeout(SILENCE, read).await?
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

/// Reads what a face asks, and says before that it may.
pub fn receive(face: &UnixStream) -> io::Result<Asked> {
    // The socket is in a directory of ours; should that have been opened to others, they still are nobody here.
    if socket_peercred(face)?.uid.as_raw() != nix::unistd::Uid::effective().as_raw() {
        return Err(bad("a request of another user"));
    }
    face.set_read_timeout(Some(SILENCE))?;
    let mut asked = receive_one(face)?;
    if asked.body == HELLO {
        let mut answer = face;
        answer.write_all(&[LISTENS])?;
        asked = receive_one(face)?;
    }
    face.set_read_timeout(None)?;
    Ok(asked)
}

fn receive_one(face: &UnixStream) -> io::Result<Asked> {
    let mut head = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut io = [IoSliceMut::new(&mut head)];
    let message = recvmsg(face, &mut io, &mut control, RecvFlags::CMSG_CLOEXEC)?;
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
    let mut reader = face;
    reader.read_exact(&mut body)?;
    Ok(Asked { body, streams })
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}
