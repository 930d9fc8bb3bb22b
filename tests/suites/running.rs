//! Programs that run until they end or their time is over.

use crate::common::{available, root};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program that is told to end has for it, and then to be gone.
const GRACE: Duration = Duration::from_secs(3);

/// What a shell that runs with `-x` begins with, so that no redirection takes its trace.
pub const TRACED: &str = "exec {BASH_XTRACEFD}>&2\n";

/// How it ended, and what it said on both of its streams.
pub struct Ran {
    pub ok: bool,
    pub said: String,
}

/// Runs it in a process group of its own, which is ended when its time is over.
pub fn run(command: &mut Command, limit: Duration) -> Ran {
    let mut output = tempfile::tempfile().unwrap();
    let also = || Stdio::from(output.try_clone().unwrap());
    command.stdin(Stdio::null()).stdout(also()).stderr(also()).process_group(0);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let group = Pid::from_raw(child.id() as i32);
    let ended = ended_within(&mut child, limit);
    if ended.is_none() {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let _ = killpg(group, signal);
            // One that the kernel does not let go is left to the end of the namespace.
            if ended_within(&mut child, GRACE).is_some() {
                break;
            }
        }
    }
    let mut said = Vec::new();
    output.rewind().unwrap();
    output.read_to_end(&mut said).unwrap();
    let mut said = String::from_utf8_lossy(&said).into_owned();
    if ended.is_none() {
        said.push_str(&format!("\n{command:?} did not end within {limit:?}\n"));
    }
    Ran { ok: ended == Some(true), said }
}

/// Whether it succeeded, if it ends in time.
fn ended_within(child: &mut Child, limit: Duration) -> Option<bool> {
    let give_up = Instant::now() + limit;
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return Some(status.success()),
            None if Instant::now() > give_up => return None,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Where a program is: below `target/tools`, where `scripts/setup` puts what no package has, or in the path. None, with
/// a line that says so, if it is not to be had.
pub fn tool(name: &str) -> Option<PathBuf> {
    let own = root().join("target/tools/bin").join(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(own).chain(std::env::split_paths(&path).map(|dir| dir.join(name)));
    let found = all.into_iter().find(|path| path.is_file());
    available(name, found.is_some()).then_some(found?)
}

/// The last lines of what was said.
pub fn tail(said: &str, lines: usize) -> String {
    let all: Vec<&str> = said.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A new folder.
pub fn folder(at: &Path, name: &str) -> PathBuf {
    let path = at.join(name);
    std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}
