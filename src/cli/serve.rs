//! Runs requests in the process that owns the store: its own first, then those of every face.
//!
//! The process ends when its own request and those of all faces have ended. Ctrl-C cancels the own request, a second
//! one everything. SIGTERM ends the process: the own request at once, the others when no file is open in their mounts
//! any more, within a bound. Faces that lose their owner start over by themselves where they can.

use super::args::{Command, Global};
use super::asker::Asker;
use super::context::{Cancel, Stop};
use super::daemon_log::Stamp;
use super::exit::{Exit, Fail, Failure, Result};
use super::host::{Host, run_asked, run_request};
use super::output::{Output, complain};
use super::owner::{OWNER_PATIENCE, Ownership};
use super::request::{self, APART, BEGUN, ELSEWHERE, END, FULL, LATER, Request, TOLD};
use super::running::{Commands, lasts, name};
use super::signals::{End, LAST_WAIT, Signals};
use super::standing::Standing;
use super::words::count;
use super::{bootstrap, daemon, large_runtime};
use crate::disk;
use crate::node::{Node, NodeConfig};
use crate::swarm::driver::BootstrapNode;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Worker threads for commands and waiting reads. Replication and the network have threads of their own.
const WORKERS: usize = 2;

/// Commands of other processes that are run, or read, at a time. Each takes five descriptors; a process may have 1024 by
/// default, and the rest is for files, mounts and sockets.
pub const MAX_FACES: usize = 128;

/// After a command that could not be taken (no descriptor is free, say) the next is looked at after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often it is looked whether the last owner has closed the store.
const BUSY: Duration = Duration::from_millis(20);

/// A process that was told to end stays so long for open files in the mounts of other commands.
const OPEN_FILES: Duration = Duration::from_secs(60);
/// Shorter waits for them are not worth a word: at a shutdown the others are told to end as well.
const FIRST_WORD: Duration = Duration::from_millis(500);
/// How often it is looked whether such a wait is over.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is looked whether the store is still there, and whether a process whose own command is done can go.
const LOOK_AROUND: Duration = Duration::from_secs(2);

/// Owns the store for as long as any request runs, `first` being this process's own.
pub fn run(
    ownership: Ownership,
    mut first: Request,
    store: &Path,
    global: &Global,
) -> Result<Exit> {
    let mut global = global.clone();
    let standing = Standing::of_owner(&mut first, &mut global).or_exit(Exit::Store)?;
    let runtime = large_runtime(WORKERS)?;
    let exit = runtime.block_on(async {
        let config = config(&first.command, store, &global)?;
        let Some(node) = open(config).await? else { return Ok(first.exit_when_asked()) };
        let commands = Arc::new(Commands::default());
        let exit = tokio::select! {
            exit = serve(&ownership, first, standing, &node, &commands) => exit,
            never = disk::keep_going(|| commands.tell_waiting()) => match never {},
        };
        node.shutdown().await;
        match commands.is_lost() {
            true => Err(Failure::new(Exit::Store, lost(store))),
            false => exit,
        }
    });
    // Tasks that are stuck in the kernel must not keep the process, nor must disks.
    disk::settle(LAST_WAIT);
    runtime.shutdown_timeout(Duration::from_secs(1));
    exit
}

/// Opens the store; none if it is not wanted any more. Its last owner may be on its way out: the kernel gives its lock
/// back before its database, and later still where a thread of it waits for the disk.
async fn open(config: NodeConfig) -> Result<Option<Arc<Node>>> {
    let mut signals = Signals::new().or_exit(Exit::Failed)?;
    let give_up = Instant::now() + OWNER_PATIENCE;
    loop {
        match Node::start(config.clone()).await {
            Err(error) if !error.is_busy() => return Err(error).or_exit(Exit::Store),
            Err(_) if Instant::now() > give_up => {
                let text = format!(
                    "the store {} is still open in a process that was its owner, or in another program: end that and \
                     try again",
                    config.store.display()
                );
                return Err(Failure::new(Exit::Store, text));
            }
            Err(_) => {}
            Ok(node) => return Ok(Some(node)),
        }
        tokio::select! {
            _ = signals.next() => return Ok(None),
            () = tokio::time::sleep(BUSY) => {}
        }
    }
}

fn config(command: &Command, store: &Path, global: &Global) -> Result<NodeConfig> {
    let mut config = NodeConfig::new(store);
    config.trust_store = global.trust_store;
    config.bootstrap = bootstrap::named(global)?;
    if config.bootstrap.is_empty() {
        config.bootstrap = BootstrapNode::public();
    }
    config.relays.clone_from(&global.relay);
    config.lan = !global.no_lan;
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, global.port.unwrap_or(0));
    config.local = global.local.unwrap_or(any);
    if let Command::Mount(mount) = command {
        config.cache_memory = mount.cache_memory;
    }
    Ok(config)
}

/// What is told when the store is not there any more.
fn lost(store: &Path) -> String {
    format!(
        "the store {} was removed, moved or replaced under this process: what is in it now has no keys of the \
         drives that were here",
        store.display()
    )
}

/// How far a process is on its way to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// Told to end at this time, it waits for open files of others.
    Waiting(Instant),
    /// Everything is called off.
    Ending,
}

async fn serve(
    ownership: &Ownership,
    first: Request,
    standing: Standing,
    node: &Arc<Node>,
    commands: &Arc<Commands>,
) -> Result<Exit> {
    let listener = ownership.listener.try_clone().or_exit(Exit::Store)?;
    listener.set_nonblocking(true).or_exit(Exit::Store)?;
    let listener = tokio::net::UnixListener::from_std(listener).or_exit(Exit::Store)?;

    let (cancel_own, own_cancelled) = watch::channel(Stop::Not);
    let (cancel_faces, faces_cancelled) = watch::channel(false);
    let out = Output::own(stamp(&first), first.json, first.quiet);
    let out = Arc::new(out.or_fail(Exit::Failed, "standard streams")?.after(first.told));
    let running = commands.begin(&first, &out);
    let host = Host {
        node: node.clone(),
        standing: Arc::new(standing),
        commands: commands.clone(),
        stays: running.stays(),
    };
    let background = first.background;
    let mut own_running = Some(running.clone());
    let own = run_request(first, out, &host, running, Cancel::new(own_cancelled));
    tokio::pin!(own);
    let mut own_exit = None;
    let mut faces = JoinSet::new();
    let mut signals = Signals::new().or_exit(Exit::Failed)?;
    let mut stage = Stage::Serving;
    let mut told_open = false;
    let mut looked = tokio::time::Instant::now();
    loop {
        if let Stage::Waiting(since) = stage {
            let open = commands.open_mounts();
            if open.is_empty() || since.elapsed() >= OPEN_FILES {
                stage = Stage::Ending;
            } else if !told_open && since.elapsed() >= FIRST_WORD {
                told_open = true;
                let open: Vec<_> = open.iter().map(|at| at.display().to_string()).collect();
                let (open, limit) = (open.join(", "), OPEN_FILES.as_secs());
                let text = format!(
                    "files are still open in {open}: waiting up to {limit} s for them; a second signal ends it"
                );
                complain("note", text);
            }
        }
        if stage == Stage::Ending {
            cancel_faces.send_replace(true);
        }
        if let Some(exit) = own_exit
            && faces.is_empty()
        {
            return Ok(exit);
        }
        let pause = if let Stage::Waiting(_) = stage { LOOK } else { LOOK_AROUND };
        tokio::select! {
            exit = &mut own, if own_exit.is_none() => {
                own_exit = Some(exit);
                own_running = None;
                if !matches!(exit, Exit::Ok | Exit::Interrupted) {
                    host.stays.store(false, Ordering::SeqCst);
                }
                if may_go(&host, &faces) {
                    stage = Stage::Ending;
                } else if background && !faces.is_empty() {
                    daemon::tell_end(exit);
                } else if !faces.is_empty() && stage == Stage::Serving {
                    let others = count(faces.len() as u64, "other command");
                    complain("note", format_args!("still serving {others} on this store; Ctrl-C ends them too"));
                }
            }
            // Who comes now waits for the next owner.
            accepted = listener.accept(), if stage != Stage::Ending => match accepted {
                Ok((stream, _)) if faces.len() < MAX_FACES => {
                    faces.spawn(serve_face(stream, host.clone(), faces_cancelled.clone()));
                }
                // Nothing of it is read; one byte always has room.
                Ok((stream, _)) => refuse(stream),
                Err(error) => {
                    tracing::warn!("a command of another process cannot be taken: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = faces.join_next() => {}
            () = tokio::time::sleep_until(looked + pause) => {
                looked = tokio::time::Instant::now();
                if !commands.is_lost() && ownership.is_lost() {
                    commands.tell_lost(&lost(&node.config().store));
                }
                if own_exit.is_some() && may_go(&host, &faces) {
                    stage = Stage::Ending;
                }
            }
            end = signals.next() => {
                let again = own_running.as_ref().is_none_or(|own| own.ends());
                own_running.iter().for_each(|own| own.end());
                cancel_own.send_replace(Stop::Asked);
                stage = match (stage, end) {
                    (Stage::Serving, End::Process) => Stage::Waiting(Instant::now()),
                    (Stage::Serving, End::Command) if !again => Stage::Serving,
                    _ => Stage::Ending,
                };
            }
        }
    }
}

/// Whether a process whose command was not one that lasts, or failed, can leave all others to the next owner.
fn may_go(host: &Host, faces: &JoinSet<()>) -> bool {
    let commands = &host.commands;
    // One that is being read is none of the commands yet.
    !host.stays() && commands.all().len() == faces.len() && commands.can_move()
}

fn stamp(request: &Request) -> Option<Stamp> {
    let stamp = Stamp { command: name(&request.command), pid: request.pid };
    request.background.then_some(stamp)
}

/// Tells a face that it is one too many. What it asks is not read; one byte always has room.
fn refuse(stream: tokio::net::UnixStream) {
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(&[FULL]);
    }
}

/// Serves one face: its request runs here, its hang-up or wish cancels it, its exit code goes back. When the
/// owner ends first the face gets no code and knows what to do.
async fn serve_face(
    stream: tokio::net::UnixStream,
    host: Host,
    mut owner_ends: watch::Receiver<bool>,
) {
    let read = async {
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        let task = tokio::task::spawn_blocking(move || {
            let asked = request::receive(&stream)?;
            Ok::<_, std::io::Error>((stream, asked))
        });
        task.await.map_err(std::io::Error::other)?
    };
    let (stream, asked) = match read.await {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!("a command of another process: {error}");
            return;
        }
    };
    let _ = stream.set_nonblocking(true);
    let Ok(also) = stream.try_clone() else { return };
    let Ok(mut stream) = tokio::net::UnixStream::from_std(stream) else { return };
    // It is for the next owner; nothing of it was begun.
    if *owner_ends.borrow() {
        return;
    }
    let request = asked.request();
    if !host.stays() && request.as_ref().is_ok_and(|asked| lasts(&asked.command) && !asked.insists)
    {
        let _ = stream.write_all(&[LATER]).await;
        return;
    }
    let goes_on = request.as_ref().ok().filter(|asked| asked.stood.is_some());
    if goes_on.is_some_and(|asked| asked.view.check(&asked.command).is_err()) {
        let _ = stream.write_all(&[ELSEWHERE]).await;
        return;
    }
    if goes_on.is_some_and(|asked| host.standing.is_apart_from(asked)) {
        let _ = stream.write_all(&[APART]).await;
        return;
    }
    // One of another version is told so, and would not know what else is said.
    let words = match request {
        Ok(_) => request::acceptance(&host.standing),
        Err(_) => Ok(vec![request::ACCEPTED]),
    };
    let Ok(words) = words else { return };
    // Whoever is gone by then was told that nothing was begun.
    if stream.write_all(&words).await.is_err() {
        return;
    }
    let (cancel, cancelled) = watch::channel(Stop::Not);
    let (stdin_ends, stdin_ended) = watch::channel(false);
    let face = Asker::new(also, [BEGUN, TOLD], stdin_ended);
    let request = match request {
        Ok(request) => request,
        Err(version) => {
            refuse_version(asked.streams, &version).await;
            let _ = stream.write_all(&[Exit::Store as u8]).await;
            return;
        }
    };
    let (end, lasting) = (Known::of(&request), lasts(&request.command));
    let (stamp, json, quiet) = (stamp(&request), request.json, request.quiet);
    let out = Output::of(asked.streams, Some(face), stamp, json, quiet).after(request.told);
    let out = Arc::new(out);
    let running = host.commands.begin(&request, &out);
    let command = run_asked(request, out, &host, running.clone(), Cancel::new(cancelled));
    tokio::pin!(command);
    let mut owner_ended = false;
    let mut asked_to_end = false;
    let mut hung_up = false;
    let exit = loop {
        let mut byte = [0];
        tokio::select! {
            exit = &mut command => break exit,
            read = stream.read(&mut byte), if !hung_up => match read {
                Ok(1) if byte[0] == END => drop(stdin_ends.send_replace(true)),
                read => {
                    hung_up = !matches!(read, Ok(1));
                    asked_to_end = true;
                    running.end();
                    cancel.send_replace(Stop::Asked);
                }
            },
            _ = owner_ends.wait_for(|e| *e), if !owner_ended => {
                owner_ended = true;
                if !asked_to_end {
                    cancel.send_replace(Stop::HandOver);
                }
            }
        }
    };
    let exit = match exit {
        Exit::Ok if host.commands.is_lost() && lasting => Exit::Store,
        exit => exit,
    };
    // Else it goes on elsewhere, or asks its user to see what was done.
    if !owner_ended || asked_to_end || host.commands.is_lost() || end.is_known(exit) {
        let _ = stream.write_all(&[exit as u8]).await;
    }
    // Something that hangs in writing may hold it open.
    let _ = stream.shutdown().await;
}

/// When the end of a command that its owner called off tells all there is to tell.
#[derive(Clone, Copy)]
enum Known {
    Never,
    /// It came to its end first.
    Done,
    /// That too, or it changed nothing and has said so.
    Always,
}

impl Known {
    fn of(request: &Request) -> Self {
        match &request.command {
            Command::Put(_) | Command::Rm(_) => Self::Always,
            command if lasts(command) => Self::Never,
            _ => Self::Done,
        }
    }

    fn is_known(self, exit: Exit) -> bool {
        match self {
            Self::Never => false,
            Self::Done => exit != Exit::Interrupted,
            Self::Always => true,
        }
    }
}

async fn refuse_version(streams: [OwnedFd; 3], version: &str) {
    let mine = env!("CARGO_PKG_VERSION");
    let theirs = if version == mine { "another build of it" } else { version };
    let out = Output::of(streams, None, None, false, false);
    out.error(format_args!(
        "the store is in use by process {} of hdrive {mine}, this is {theirs}: end it, or use the same version",
        std::process::id(),
    ));
    let _ = tokio::time::timeout(LAST_WAIT, out.written()).await;
    out.close();
}
