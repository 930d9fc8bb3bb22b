//! `--daemon`: starts the same command again in a session of its own and returns when it is ready.
//!
//! A second process instead of a fork: threads and locks of this one stay out of it. The child inherits no
//! terminal and keeps no folder busy; what it has to say goes to `daemon.log` in the store, among what others say, and
//! this process repeats it as long as it waits. Until then its end is the child's too, and the child's is its own.

use super::args::{Command, Global};
use super::daemon_log::{self, MARK, is_background, said_by};
use super::exit::{Exit, Fail, Failure, Result};
use super::output::{complain_in_lines, say, written};
use super::signals::Signals;
use crate::threads;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::RawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// What begins the line by which a child says how its own command ended, where it lives on for others. Nothing that a
/// command prints has it.
const ENDED: char = '\u{4}';

/// Lets the process that waits for this one go, though others are served here.
pub fn tell_end(exit: Exit) {
    // Nobody listens any more once the command was ready.
    let _ = say(format_args!("{ENDED}{}", exit as u8));
}

/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// A child that was told to end and has not after this is killed.
const END: Duration = Duration::from_secs(10);
/// One that is ending, or was killed, is gone within this, unless a thread of it waits for a disk that hangs: the kernel
/// lets that go when the disk answers.
const GONE: Duration = Duration::from_millis(500);
/// How often it is looked whether it is.
const SHORT: Duration = Duration::from_millis(10);

/// Leaves the session of the terminal if this process is the child of a `--daemon`.
pub fn leave_terminal() {
    if is_background() {
        // Fails only for a process that leads a group already, which has no terminal to leave.
        let _ = nix::unistd::setsid();
    }
}

/// Closes what the child of a `--daemon` was given beyond its standard streams: a lock of whoever started it, or a pipe that
/// is waited on, would be held as long as it lives. Before this process opens anything itself.
pub fn close_inherited() {
    if !is_background() {
        return;
    }
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<RawFd> =
        open.flatten().filter_map(|fd| fd.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // That of the list itself is closed already.
        let _ = nix::unistd::close(fd);
    }
}

/// Leaves the folder it was started in, once every path is known from the root.
pub fn leave_folder() {
    if is_background() {
        let _ = std::env::set_current_dir("/");
    }
}

/// The line of output, and how many of them, after which a command that was asked to go to the background is
/// ready; none for a command that stays.
pub fn ready(command: &Command) -> Option<(&'static str, usize)> {
    match command {
        Command::Mount(args) if args.daemon => Some(("mounted", 1)),
        Command::Share(args) if args.daemon => Some(("shared", 1)),
        // To hold all of a drive may take days: it is followed, and what is here is served.
        Command::Seed(args) if args.daemon => Some(("key", args.keys.len())),
        _ => None,
    }
}

/// Starts the child, with the same `words`, and waits until it has printed `lines` lines of `name`.
pub fn start(global: &Global, words: Vec<OsString>, (name, lines): (&str, usize)) -> Result<Exit> {
    let store = super::store_dir(global)?;
    super::store::make(&store)?;
    let log_path = store.join(daemon_log::NAME);
    let mut options = OpenOptions::new();
    let stderr = options.create(true).append(true).mode(0o600).open(&log_path);
    let failed = |error| {
        let why = format_args!("cannot write {}: {error}", log_path.display());
        super::owner::not_written(&store, why)
    };
    let stderr = stderr.map_err(failed)?;
    let mut log = Log::from_here(&log_path).or_fail(Exit::Store, log_path.display())?;
    let exe = std::env::current_exe().or_fail(Exit::Failed, "cannot find my own program")?;
    let args = words.into_iter().skip(1).filter(|arg| arg != "--daemon");
    let runtime = super::runtime(1)?;
    let _guard = runtime.enter();
    // Before there is a child that they could leave behind.
    let mut signals = Signals::new().or_exit(Exit::Failed)?;
    let mut child = std::process::Command::new(exe)
        // These words are a person's by now, under whatever name mount(8) called this program.
        .arg0("hdrive")
        .args(args)
        .env(MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .map_err(|error| threads::told("the background process", error))
        .or_exit(Exit::Failed)?;
    log.child = child.id();
    let said = child.stdout.take().map(lines_of).transpose();
    let mut said = said.or_exit(Exit::Failed).inspect_err(|_| {
        let _ = end(&mut child);
    })?;
    let (mut seen, mut ended, mut gone, mut lost) = (0, None, false, None);
    let interrupted = runtime.block_on(async {
        while let Some(said) = &mut said {
            let line = tokio::select! {
                line = said.recv() => line,
                _ = signals.next() => return true,
                () = tokio::time::sleep(LOOK) => {
                    log.repeat();
                    // What it had to say is here by then. Its output may never end: the owner of the store holds it too.
                    if gone {
                        break;
                    }
                    gone = is_ending(&mut child);
                    continue;
                }
            };
            let Some(line) = line else { break };
            if let Some(code) = line.strip_prefix(ENDED) {
                ended = Some(code.parse().map_or(Exit::Failed, Exit::from_code));
                break;
            }
            let _ = say(&line);
            let written = tokio::select! {
                written = written() => written,
                _ = signals.next() => return true,
            };
            if let Err(error) = written {
                lost.get_or_insert(error);
            }
            seen += usize::from(is_line(&line, name));
            if seen >= lines {
                break;
            }
        }
        false
    });
    if interrupted {
        let status = end(&mut child);
        log.repeat();
        // A mount that it could not take away any more.
        let stays = status.and_then(|status| status.code()) == Some(Exit::Mount as i32);
        return Ok(if stays { Exit::Mount } else { Exit::Interrupted });
    }
    if seen >= lines {
        log.repeat();
        return match lost {
            None => Ok(Exit::Ok),
            Some(error) => {
                let pid = child.id();
                let text =
                    format!("standard output: {error}; process {pid} goes on in the background");
                Err(Failure::new(Exit::Failed, text))
            }
        };
    }
    let exit = ended.unwrap_or_else(|| {
        let code = exit_of(&mut child, if gone { GONE } else { END }).and_then(|end| end.code());
        code.map_or(Exit::Failed, |code| Exit::from_code(code as u8))
    });
    let exit = if exit == Exit::Ok { Exit::Failed } else { exit };
    log.repeat();
    match log.told_error {
        true => Ok(exit),
        false => Err(Failure::new(exit, "the background process ended before it was ready")),
    }
}

/// Lines of the child as they come.
fn lines_of(stdout: ChildStdout) -> std::io::Result<UnboundedReceiver<String>> {
    let (to, lines) = unbounded_channel();
    threads::spawn("hdrive-lines", move || {
        let lines = BufReader::new(stdout).lines();
        lines.map_while(std::result::Result::ok).try_for_each(|line| to.send(line))
    })?;
    Ok(lines)
}

/// Whether a line tells `name`, to people or in JSON.
fn is_line(line: &str, name: &str) -> bool {
    let plain = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
    plain
        || serde_json::from_str(line)
            .is_ok_and(|value: serde_json::Value| value.get(name).is_some())
}

/// Ends a child that is still on its way. It mounts and prints nothing more when this returns, though a disk that hangs
/// may keep a thread of it.
fn end(child: &mut Child) -> Option<ExitStatus> {
    let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
    let told = Instant::now();
    while !is_ending(child) {
        if told.elapsed() > END {
            let _ = child.kill();
            break;
        }
        std::thread::sleep(SHORT);
    }
    exit_of(child, GONE)
}

/// How a child has ended, if it does within `limit`.
fn exit_of(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) if begun.elapsed() < limit => std::thread::sleep(SHORT),
            end => return end.ok().flatten(),
        }
    }
}

/// Whether a process runs no more, though threads of it may be left.
fn is_ending(child: &mut Child) -> bool {
    if !matches!(child.try_wait(), Ok(None)) {
        return true;
    }
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    // Its name, which may hold anything, is in brackets.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// What the child has to say.
struct Log {
    file: File,
    child: u32,
    /// The beginning of a line.
    rest: String,
    told_error: bool,
}

impl Log {
    /// What is written from now on. It is opened once more: with the child's descriptor it would share its place.
    fn from_here(path: &Path) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, child: 0, rest: String::new(), told_error: false })
    }

    /// Repeats on stderr what is new of the child's.
    fn repeat(&mut self) {
        // It was emptied when it was full.
        if self
            .file
            .metadata()
            .is_ok_and(|meta| meta.len() < self.file.stream_position().unwrap_or(0))
        {
            let _ = self.file.rewind();
        }
        let _ = self.file.read_to_string(&mut self.rest);
        while let Some((line, rest)) = self.rest.split_once('\n') {
            if let Some(said) = said_by(line, self.child) {
                self.told_error |= said.starts_with("error: ");
                complain_in_lines(said);
            }
            self.rest = rest.to_string();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_known_in_both_forms() {
        for line in ["mounted: /mnt", r#"{"mounted":"/mnt"}"#] {
            assert!(is_line(line, "mounted"), "{line}");
        }
        for line in ["mounted", "unmounted: x", r#"{"key":"mounted"}"#, "", "{"] {
            assert!(!is_line(line, "mounted"), "{line}");
        }
    }
}
