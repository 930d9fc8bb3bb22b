//! The command line: what was typed becomes a [`Request`] that the owner of the store runs.
//!
//! Words go through [`output::Output`], ends through [`exit::Exit`].
//!
//! | file | holds |
//! |---|---|
//! | `args`, `fstab`, `bootstrap`, `moment`, `target` | what can be typed, also to mount(8) and in fstab |
//! | `store`, `owner`, `request`, `view`, `standing` | who owns the store; what another process asks of that, whether both see the same files, and where it stands in the network |
//! | `face`, `pump` | a command that the owner runs: its signals, its standard input, its end |
//! | `serve`, `host`, `asker`, `running`, `context` | the owner: requests of all processes, what runs, what each is given |
//! | `gate`, `waiting`, `signals`, `fault`, `exit` | when a change is made or called off; how commands wait and end |
//! | `output`, `writer`, `progress`, `words`, `looking`, `findable`, `hearing` | what people read, and whoever does not read it |
//! | `daemon`, `daemon_log`, `logging` | commands in the background, and the logs |
//! | `farewell` | the end of a network that no store owns |
//! | `spool` | standard input on its way into a drive |
//! | all others | the subcommand of their name, with a `run` |
#![allow(clippy::disallowed_methods, reason = "people and processes are waited for in real time")]

pub mod args;
mod asker;
mod bootstrap;
mod cat;
mod context;
mod create;
mod daemon;
mod daemon_log;
mod demo;
mod dht;
mod doctor;
mod drafting;
pub mod exit;
mod face;
mod farewell;
mod fault;
mod findable;
mod forget;
mod fstab;
mod gate;
mod gc;
mod get;
mod hearing;
mod host;
mod info;
mod log;
mod logging;
mod looking;
mod ls;
mod moment;
mod mount;
mod outlook;
mod output;
mod owner;
mod progress;
mod pump;
mod put;
mod relay;
mod request;
mod rm;
mod running;
mod seed;
mod serve;
mod share;
mod signals;
mod spool;
mod standing;
mod status;
mod store;
mod target;
mod umount;
mod view;
mod waiting;
mod words;
mod writer;

use crate::disk;
use args::{Cli, Command, Global};
use exit::{Exit, Fail, Failure, Result};
use face::Ended;
use fstab::Typed;
use owner::Role;
use request::Request;
use rustix::fs::OFlags;
use standing::Place;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use view::View;

/// Parses the command line, runs it, says what went wrong, and returns how it ended.
pub fn main() -> Exit {
    let exit = parse_and_run();
    match output::settle() {
        Err(error) if exit == Exit::Ok => {
            output::complain("error", format_args!("standard output: {error}"));
            let _ = output::settle();
            Exit::Failed
        }
        _ => exit,
    }
}

fn parse_and_run() -> Exit {
    daemon::close_inherited();
    let (words, made) = match fstab::typed(std::env::args_os().collect()) {
        Typed::Words(words) => (words, false),
        Typed::Made(words) => (words, true),
        Typed::Nothing => return Exit::Ok,
    };
    let cli = match Cli::typed(words.clone()) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            let error = if made { fstab::as_option(error) } else { error };
            output::complain_in_lines(&error.render().to_string());
            return Exit::Usage;
        }
        Err(help) => {
            return match help.print() {
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    output::complain("error", format_args!("standard output: {error}"));
                    Exit::Failed
                }
                _ => Exit::Ok,
            };
        }
    };
    if let Err(short) = crate::descriptors::make_room() {
        output::complain("error", short);
        return Exit::Failed;
    }
    daemon::leave_terminal();
    logging::init(&cli.global, running::name(&cli.command));
    fault::tell_faults();
    match fault::guarded(|| run(cli, words)) {
        Ok(exit) => exit,
        Err(failure) => {
            output::complain("error", &failure);
            failure.exit
        }
    }
}

fn run(cli: Cli, words: Vec<OsString>) -> Result<Exit> {
    let global = cli.global;
    match cli.command {
        // These need no store.
        Command::Umount(args) => umount::run(&args).map(|()| Exit::Ok),
        Command::Dht(args) => dht::run(&args, &global),
        Command::Relay(args) => relay::run(&args, &global),
        Command::Demo(args) => demo::run(&args, &global),
        Command::Doctor(args) => doctor::run(&args, &global),
        Command::Forget(args) => {
            forget::confirm(&args)?;
            on_store(Command::Forget(args), &global)
        }
        command => match daemon::ready(&command) {
            Some(ready) => daemon::start(&global, words, ready),
            None => on_store(command, &global),
        },
    }
}

/// Between the end of an owner and the search for the next; the same owner is left alone twice as long each time.
const RETRY: Duration = Duration::from_millis(10);
/// An owner that ends may hang up on a command once or twice. One that goes on to do so gets it no more; that is after
/// some seconds.
const MAX_HANGUPS: u32 = 9;
/// A command that lasts waits so long for an owner that will not, to own the store itself: else that could not end
/// before this does. It looks again this often.
const YIELD: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);
/// One that ran and cannot go on at an owner that sees other files looks this often whether that has ended; it may take days.
const LOOK_ELSEWHERE: Duration = Duration::from_millis(500);

/// Runs `command` in the owner of the store, which may be this process.
fn on_store(command: Command, global: &Global) -> Result<Exit> {
    let store = store_dir(global)?;
    // Who only wants to know makes none.
    if matches!(command, Command::Status(_)) && !store::is_there(&store) {
        return status::of_none(store, global);
    }
    if let Command::Put(put) = &command
        && put.reads_stdin()
        && stdin_is_closed()
    {
        let text = "standard input is closed: pass a file, or something to read";
        return Err(Failure::new(Exit::Failed, text));
    }
    let cwd = match std::env::current_dir() {
        // It was removed, say, and nothing that was typed is in it.
        Err(_) if !command.starts_here() => PathBuf::from("/"),
        cwd => cwd.or_fail(Exit::Failed, "cannot tell the current folder")?,
    };
    if let Command::Mount(args) = &command {
        mount::check(args)?;
    }
    let mut command = command;
    if let Command::Get(get) = &mut command {
        match get.to_stdout() {
            // What was printed cannot be taken back, unlike a download.
            Some(cat) => command = Command::Cat(cat),
            None => get.note(own_umask()),
        }
    }
    let mut request = Request {
        version: env!("CARGO_PKG_VERSION").into(),
        command,
        cwd,
        json: global.json,
        quiet: global.quiet,
        trust_store: global.trust_store,
        place: Place::of(global),
        port_mapping: global.port_mapping(),
        peers: global.peers.clone(),
        view: View::own(),
        pid: std::process::id(),
        background: daemon_log::is_background(),
        insists: false,
        stood: None,
        told: 0,
    };
    daemon::leave_folder();
    let mut yielding: Option<Instant> = None;
    let (mut hung_up, mut hangups) = (0, 0);
    let mut elsewhere = None;
    loop {
        request.view = View::own();
        request.insists = yielding.is_some_and(|since| since.elapsed() > YIELD);
        let stream = match owner::enter(&store)? {
            None => return Ok(request.exit_when_asked()),
            Some(Role::Owner(ownership)) => {
                return serve::run(ownership, request, &store, global);
            }
            Some(Role::Face(stream)) => stream,
        };
        let pid = face::pid_of(&stream);
        hangups = if pid == hung_up { hangups } else { 0 };
        let runtime = runtime(1)?;
        // From the moment that the owner may print something, a signal must not just end this process.
        signals::Signals::new().or_exit(Exit::Failed)?;
        let ended = runtime.block_on(face::face(stream, &mut request, &store));
        // A terminal that is read from keeps its thread until somebody types.
        runtime.shutdown_background();
        match ended? {
            Ended::With(code) => return Ok(Exit::from_code(code)),
            // The owner ended in the middle: the next round finds another one or becomes it.
            Ended::Again if hangups == MAX_HANGUPS => return Err(face::hangs_up(pid)),
            Ended::Again => {
                yielding = None;
                pause(RETRY * (1 << hangups));
                (hung_up, hangups) = (pid, hangups + 1);
            }
            Ended::Later => {
                yielding.get_or_insert_with(Instant::now);
                pause(LOOK);
            }
            Ended::Elsewhere(why) => {
                if elsewhere.replace(pid) != Some(pid) && !request.quiet {
                    let text = format!(
                        "the process that worked on the store ended, and process {pid}, which does now, {why}: this \
                         command goes on when that ends"
                    );
                    output::complain("note", text);
                }
                yielding = None;
                pause(LOOK_ELSEWHERE);
            }
        }
    }
}

/// Waits, unless the user wants it no more.
fn pause(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end && !signals::asked() {
        std::thread::sleep(RETRY);
    }
}

/// Whether this process was started without a standard input. The null device stands in its place then, open for
/// reading and writing; who means it opens it for reading.
fn stdin_is_closed() -> bool {
    let stdin = std::io::stdin();
    let both =
        rustix::fs::fcntl_getfl(&stdin).is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::RDWR);
    let Ok(null) = rustix::fs::stat("/dev/null") else { return false };
    both && rustix::fs::fstat(&stdin).is_ok_and(|stdin| stdin.st_rdev == null.st_rdev)
}

/// What this process takes away from the rights of files that it makes. To look at it is to set it, which nobody
/// notices: no other thread runs yet.
fn own_umask() -> u32 {
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    nix::sys::stat::umask(umask);
    umask.bits()
}

/// The directory of the store: `--store`, `HDRIVE_STORE`, or below the user's data directory.
fn store_dir(global: &Global) -> Result<PathBuf> {
    if let Some(dir) = global.store.as_ref().filter(|dir| !dir.as_os_str().is_empty()) {
        return std::path::absolute(dir).or_fail(Exit::Usage, dir.display());
    }
    if let Some(data) = std::env::var_os("XDG_DATA_HOME").filter(|d| Path::new(d).is_absolute()) {
        return Ok(PathBuf::from(data).join("hdrive"));
    }
    match std::env::var_os("HOME").filter(|d| !d.is_empty()) {
        Some(home) => Ok(PathBuf::from(home).join(".local/share/hdrive")),
        None => Err(Failure::new(
            Exit::Usage,
            "no HOME to keep drives in: pass --store DIR, in fstab the option store=DIR",
        )),
    }
}

/// Threads that a command may need beside those of the runtime before it can say anything: that for what blocks, and those
/// of signals, of the writer and of standard input.
const SPARE_THREADS: usize = 4;
/// Those beside them of whoever works on a store: for disks, and of the network (its own, that of the gateway, replication,
/// openings, forks, names).
const STORE_THREADS: usize = disk::KEPT + 7;
/// Threads for what blocks stay: where the system gives no other they take what is queued.
const IDLE_THREAD: Duration = Duration::from_secs(u32::MAX as u64);

/// The runtime of whoever works on a store, or looks at everything.
fn large_runtime(threads: usize) -> Result<tokio::runtime::Runtime> {
    let runtime = runtime_beside(threads, STORE_THREADS)?;
    disk::prepare().or_exit(Exit::Failed)?;
    Ok(runtime)
}

/// That of whoever is only in the network: beside it are its thread, that of the gateway, and one that looks a name up.
fn network_runtime() -> Result<tokio::runtime::Runtime> {
    runtime_beside(1, 3)
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime> {
    runtime_beside(threads, 0)
}

/// The start is refused where the threads that matter cannot be made: later nobody could be told, or helped.
fn runtime_beside(threads: usize, others: usize) -> Result<tokio::runtime::Runtime> {
    // A runtime that gets fewer than it wants panics, or hangs.
    let (_, all) = crate::threads::count(threads + SPARE_THREADS + others);
    all.or_exit(Exit::Failed)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).thread_keep_alive(IDLE_THREAD);
    let runtime = builder.enable_all().build().or_fail(Exit::Failed, "cannot start threads")?;
    drop(runtime.spawn_blocking(|| ()));
    Ok(runtime)
}
