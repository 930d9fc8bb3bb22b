//! Runs requests in the process that owns the store: its own first, then those of every face.
//!
//! The process ends when its own request and those of all faces have ended. A first signal cancels the
//! own request, a second one everything; faces that lose their owner start over by themselves where they can.

use super::args::{Command, Global};
use super::context::{Cancel, Context};
use super::exit::{Exit, Fail, Failure, Result};
use super::output::{Face, Output, complain};
use super::owner::{ACCEPTED, Asked, BEGUN, END, FULL, Ownership, Place, Request, read_request};
use super::signals::{End, Signals};
use super::words::count;
use super::{bootstrap, cat, create, forget, gc, get, history, info, ls, mount, put, rm, runtime};
use super::{seed, share, status};
use crate::node::{Node, NodeConfig};
use crate::swarm::driver::BootstrapNode;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
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

/// Owns the store for as long as any request runs, `first` being this process's own.
pub fn run(ownership: Ownership, first: Request, store: &Path, global: &Global) -> Result<Exit> {
    let runtime = runtime(WORKERS)?;
    let exit = runtime.block_on(async {
        let config = config(&first.command, store, global)?;
        let node = Node::start(config).await.or_exit(Exit::Store)?;
        let exit = serve(&ownership, first, &node).await;
        node.shutdown().await;
        exit
    });
    // Tasks that are stuck in the kernel must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    exit
}

fn config(command: &Command, store: &Path, global: &Global) -> Result<NodeConfig> {
    let mut config = NodeConfig::new(store);
    config.trust_store = global.trust_store;
    config.bootstrap = bootstrap::named(global)?;
    if config.bootstrap.is_empty() {
        config.bootstrap = BootstrapNode::public();
    }
    config.local = global.local.unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    if let Command::Mount(mount) = command {
        // Each mount ends its reads itself; other commands keep the usual patience.
        config.patience.read = config.patience.read.max(mount.read_timeout);
        config.cache_memory = mount.cache_memory;
    }
    Ok(config)
}

async fn serve(ownership: &Ownership, first: Request, node: &Arc<Node>) -> Result<Exit> {
    let streams = own_streams().or_fail(Exit::Failed, "standard streams")?;
    let listener = ownership.listener.try_clone().or_exit(Exit::Store)?;
    listener.set_nonblocking(true).or_exit(Exit::Store)?;
    let listener = tokio::net::UnixListener::from_std(listener).or_exit(Exit::Store)?;

    let (cancel_own, own_cancelled) = watch::channel(false);
    let (cancel_faces, faces_cancelled) = watch::channel(false);
    let out = Output::new(streams, first.json, first.quiet);
    let place = Arc::new(first.place.clone());
    let own = run_request(first, out, node.clone(), Cancel::new(own_cancelled));
    tokio::pin!(own);
    let mut own_exit = None;
    let mut faces = JoinSet::new();
    let mut signals = Signals::new().or_exit(Exit::Failed)?;
    loop {
        if let Some(exit) = own_exit
            && faces.is_empty()
        {
            return Ok(exit);
        }
        tokio::select! {
            exit = &mut own, if own_exit.is_none() => {
                own_exit = Some(exit);
                if !faces.is_empty() {
                    let others = count(faces.len() as u64, "other command");
                    complain("note", format_args!("still serving {others} on this store; Ctrl-C ends them too"));
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if faces.len() < MAX_FACES => {
                    let (node, cancelled) = (node.clone(), faces_cancelled.clone());
                    faces.spawn(serve_face(stream, node, place.clone(), cancelled));
                }
                // Nothing of it is read; one byte always has room.
                Ok((stream, _)) => refuse(stream),
                Err(error) => {
                    tracing::warn!("a command of another process cannot be taken: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = faces.join_next() => {}
            end = signals.next() => {
                let again = *cancel_own.borrow() || own_exit.is_some();
                cancel_own.send_replace(true);
                if end == End::Process || again {
                    cancel_faces.send_replace(true);
                }
            }
        }
    }
}

fn own_streams() -> std::io::Result<[OwnedFd; 3]> {
    Ok([
        std::io::stdin().as_fd().try_clone_to_owned()?,
        std::io::stdout().as_fd().try_clone_to_owned()?,
        std::io::stderr().as_fd().try_clone_to_owned()?,
    ])
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
    node: Arc<Node>,
    place: Arc<Place>,
    mut owner_ends: watch::Receiver<bool>,
) {
    let read = async {
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        let task = tokio::task::spawn_blocking(move || {
            let asked = read_request(&stream)?;
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
    let _ = stream.write_all(&[ACCEPTED]).await;
    let (cancel, cancelled) = watch::channel(false);
    let (stdin_ends, stdin_ended) = watch::channel(false);
    let face = Face::new(also, BEGUN, stdin_ended);
    let command = run_asked(asked, face, node, &place, Cancel::new(cancelled));
    tokio::pin!(command);
    let mut owner_ended = false;
    let mut hung_up = false;
    let exit = loop {
        let mut byte = [0];
        tokio::select! {
            exit = &mut command => break exit,
            read = stream.read(&mut byte), if !hung_up => match read {
                Ok(1) if byte[0] == END => drop(stdin_ends.send_replace(true)),
                read => {
                    hung_up = !matches!(read, Ok(1));
                    cancel.send_replace(true);
                }
            },
            _ = owner_ends.wait_for(|e| *e), if !owner_ended => {
                owner_ended = true;
                cancel.send_replace(true);
            }
        }
    };
    if !owner_ended {
        let _ = stream.write_all(&[exit as u8]).await;
    }
}

/// Runs the request of a face, if it is one of this version.
async fn run_asked(
    asked: Asked,
    face: Face,
    node: Arc<Node>,
    place: &Place,
    cancel: Cancel,
) -> Exit {
    match asked.request() {
        Ok(request) => {
            let out = Output::new(asked.streams, request.json, request.quiet).with_face(face);
            if let Some(lost) = request.place.lost_in(place) {
                out.note(lost);
            }
            if request.trust_store
                && let Err(error) = node.trust_store().await
            {
                out.error(error);
                return Exit::Store;
            }
            run_request(request, out, node, cancel).await
        }
        Err(version) => {
            Output::new(asked.streams, false, false).error(format_args!(
                "the store is in use by process {} of hdrive {}, this is {version}: end it, or use the \
                 same version",
                std::process::id(),
                env!("CARGO_PKG_VERSION"),
            ));
            Exit::Store
        }
    }
}

/// Runs one request to its end and tells an error to whoever asked.
async fn run_request(request: Request, out: Output, node: Arc<Node>, cancel: Cancel) -> Exit {
    let out = Arc::new(out);
    let cx = Context { node, out: out.clone(), cancel: cancel.clone(), cwd: request.cwd };
    let running = dispatch(request.command, cx);
    let done = running.await;
    match done.and_then(|()| out.failure().or_fail(Exit::Failed, "standard output")) {
        Ok(()) => Exit::Ok,
        Err(failure) => {
            if failure.exit != Exit::Interrupted {
                out.error(&failure);
            }
            failure.exit
        }
    }
}

async fn dispatch(command: Command, cx: Context) -> Result {
    let cancel = cx.cancel.clone();
    match command {
        // These clean up when they are cancelled; the rest may be dropped at any await.
        Command::Mount(args) => mount::run(args, cx).await,
        Command::Share(args) => share::run(args, cx).await,
        Command::Put(args) => put::run(args, cx).await,
        Command::Rm(args) => rm::run(args, cx).await,
        Command::Forget(args) => forget::run(args, cx).await,
        // It ends in no other way.
        Command::Seed(args) => tokio::select! {
            done = seed::run(args, cx) => done,
            () = cancel.cancelled() => Ok(()),
        },
        command => tokio::select! {
            done = run_quick(command, cx) => done,
            () = cancel.cancelled() => Err(Failure::new(Exit::Interrupted, "interrupted")),
        },
    }
}

async fn run_quick(command: Command, cx: Context) -> Result {
    match command {
        Command::Create(args) => create::run(args, cx).await,
        Command::Ls(args) => ls::run(args, cx).await,
        Command::Cat(args) => cat::run(args, cx).await,
        Command::Get(args) => get::run(args, cx).await,
        Command::Info(args) => info::run(args, cx).await,
        Command::Log(args) => history::run(args, cx).await,
        Command::Gc(args) => gc::run(args, cx).await,
        Command::Status(args) => status::run(args, cx).await,
        Command::Mount(_)
        | Command::Share(_)
        | Command::Seed(_)
        | Command::Put(_)
        | Command::Rm(_)
        | Command::Forget(_)
        | Command::Umount(_)
        | Command::Dht(_)
        | Command::Demo(_) => Err(Failure::new(Exit::Usage, "this command needs no store")),
    }
}
