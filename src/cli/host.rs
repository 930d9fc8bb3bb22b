//! Runs the request of a command, this process's own or a face's, with what the process has for all of them.

use super::args::Command;
use super::context::{Cancel, Context};
use super::exit::{Exit, Fail, Failure, Result};
use super::fault::guarded_task;
use super::output::Output;
use super::request::Request;
use super::running::{Commands, Running, lasts};
use super::standing::Standing;
use super::{cat, create, forget, gc, get, info, log, ls, mount, put, rm, seed, share, status};
use crate::node::Node;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the process has for every command.
#[derive(Clone)]
pub struct Host {
    pub node: Arc<Node>,
    pub standing: Arc<Standing>,
    pub commands: Arc<Commands>,
    /// Its own command is one that lasts, has begun to, and has not failed.
    pub stays: Arc<AtomicBool>,
}

impl Host {
    pub fn stays(&self) -> bool {
        self.stays.load(Ordering::SeqCst)
    }
}

/// Runs the request of a face, and lets go of its streams.
pub async fn run_asked(
    request: Request,
    out: Arc<Output>,
    host: &Host,
    running: Arc<Running>,
    cancel: Cancel,
) -> Exit {
    if let Some(lost) = request.place.lost_in(&host.standing.place) {
        out.note(lost);
    }
    let refused = refusal(&request, host).await;
    let exit = match refused {
        Some(failure) => {
            out.error(&failure);
            is_written(&out, &cancel).await;
            failure.exit
        }
        None => run_request(request, out.clone(), host, running, cancel).await,
    };
    out.close();
    exit
}

/// Why a request of a face is not even begun.
async fn refusal(request: &Request, host: &Host) -> Option<Failure> {
    if let Err(failure) = request.view.check(&request.command) {
        return Some(failure);
    }
    match request.trust_store {
        true => host.node.trust_store().await.or_exit(Exit::Store).err(),
        false => None,
    }
}

/// Runs one request to its end and tells an error to whoever asked. What is said is written by then, unless that takes
/// long after the command was called off.
pub async fn run_request(
    request: Request,
    out: Arc<Output>,
    host: &Host,
    running: Arc<Running>,
    cancel: Cancel,
) -> Exit {
    if request.told > 0 {
        let pid = std::process::id();
        out.note(format_args!(
            "taken over: the process that worked on the store ended, and process {pid} goes on"
        ));
    }
    let lasting = lasts(&request.command);
    host.node.tell(request.peers);
    let by_default = matches!(request.command, Command::Seed(_));
    let _port = request.port_mapping.unwrap_or(by_default).then(|| host.node.wish_port());
    let cx = Context {
        node: host.node.clone(),
        out: out.clone(),
        cancel: cancel.clone(),
        cwd: request.cwd,
        commands: host.commands.clone(),
        running,
        background: request.background,
        told: request.told,
    };
    let done = guarded_task(dispatch(request.command, cx)).await;
    let written = is_written(&out, &cancel).await;
    match done.and_then(|()| out.failure().or_fail(Exit::Failed, "standard output")) {
        // Nobody has seen what came of it.
        Ok(()) if !lasting && !written && out.owes() => Exit::Interrupted,
        Ok(()) => Exit::Ok,
        Err(failure) => {
            if failure.exit != Exit::Interrupted {
                out.error(&failure);
                // After a wait in vain there is none.
                let _ = written && is_written(&out, &cancel).await;
            }
            failure.exit
        }
    }
}

/// Waits until all that was said is written; not for ever if the command was called off.
async fn is_written(out: &Output, cancel: &Cancel) -> bool {
    tokio::select! {
        biased;
        () = out.written() => true,
        () = cancel.overdue() => false,
    }
}

async fn dispatch(command: Command, cx: Context) -> Result {
    let cancel = cx.cancel.clone();
    match command {
        // These clean up when they are cancelled; the rest may be dropped at any await.
        Command::Mount(args) => mount::run(args, cx).await,
        Command::Share(args) => share::run(args, cx).await,
        Command::Put(args) => put::run(args, cx).await,
        Command::Get(args) => get::run(args, cx).await,
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
        Command::Info(args) => info::run(args, cx).await,
        Command::Log(args) => log::run(args, cx).await,
        Command::Gc(args) => gc::run(args, cx).await,
        Command::Status(args) => status::run(args, cx).await,
        Command::Mount(_)
        | Command::Share(_)
        | Command::Seed(_)
        | Command::Put(_)
        | Command::Get(_)
        | Command::Rm(_)
        | Command::Forget(_)
        | Command::Umount(_)
        | Command::Dht(_)
        | Command::Relay(_)
        | Command::Demo(_)
        | Command::Doctor(_) => Err(Failure::new(Exit::Usage, "this command needs no store")),
    }
}
