//! `mount --daemon`: starts the same command again in a session of its own and returns when it is mounted.
//!
//! A second process instead of a fork: threads and locks of this one stay out of it. The child inherits
//! no terminal; what it has to say goes to `daemon.log` in the store, and this process repeats it when
//! the mount fails.

use super::args::Global;
use super::exit::{Exit, Fail, Failure, Result};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

/// Set in the child, so that it leaves the terminal's session before anything else.
const MARK: &str = "HDRIVE_DAEMON";

/// Leaves the session of the terminal if this process is the child of `mount --daemon`.
pub fn leave_terminal() {
    if std::env::var_os(MARK).is_some() {
        // Fails only for a process that leads a group already, which has no terminal to leave.
        let _ = nix::unistd::setsid();
    }
}

/// Starts the child and waits for its `mounted:` line.
pub fn mount(global: &Global) -> Result<Exit> {
    let store = super::store_dir(global)?;
    super::owner::make_store(&store)?;
    let log_path = store.join("daemon.log");
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .mode(0o600)
        .open(&log_path)
        .or_fail(Exit::Store, log_path.display())?;
    let before = log.seek(SeekFrom::End(0)).or_exit(Exit::Store)?;
    let exe = std::env::current_exe().or_fail(Exit::Failed, "cannot find my own program")?;
    let args = std::env::args_os().skip(1).filter(|arg| arg != "--daemon");
    let mut child = Command::new(exe)
        .args(args)
        .env(MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone().or_exit(Exit::Store)?)
        .spawn()
        .or_fail(Exit::Failed, "cannot start the background process")?;
    let stdout = child.stdout.take().into_iter();
    for line in
        stdout.flat_map(|out| BufReader::new(out).lines()).map_while(std::result::Result::ok)
    {
        let _ = writeln!(std::io::stdout(), "{line}");
        if line.starts_with("mounted:") || line.contains("\"mounted\"") {
            return Ok(Exit::Ok);
        }
    }
    let status = child.wait().or_exit(Exit::Failed)?;
    let mut said = String::new();
    let _ = log.seek(SeekFrom::Start(before)).and_then(|_| log.read_to_string(&mut said));
    let exit = status.code().map_or(Exit::Failed, |code| Exit::from_code(code as u8));
    let reason = said.trim().trim_start_matches("hdrive: ");
    let exit = if exit == Exit::Ok { Exit::Mount } else { exit };
    let reason = if reason.is_empty() { "it ended before it was mounted" } else { reason };
    Err(Failure::new(exit, reason))
}
