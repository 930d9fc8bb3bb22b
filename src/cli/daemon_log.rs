//! `daemon.log` in a store: what takes the place of stderr where a `--daemon` left a process in the background.
//!
//! Every line begins with the time, the command and its process: many may write it, each line in one piece to its end.
//! It is bounded: what is old is copied to `daemon.log.1`, which is replaced each time.

use super::words::date;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the file in a store.
pub const NAME: &str = "daemon.log";
/// The file grows no larger, and neither does the one that it becomes.
const MAX: u64 = 1 << 20;
/// What this process is called in it.
pub static COMMAND: OnceLock<&str> = OnceLock::new();

/// Set in the child, so that it leaves the terminal's session before anything else.
pub const MARK: &str = "HDRIVE_DAEMON";

/// Whether this process is the child of a `--daemon`.
pub fn is_background() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Who says a line.
#[derive(Clone, Copy)]
pub struct Stamp {
    pub command: &'static str,
    pub pid: u32,
}

impl Stamp {
    /// That of this process, if it is in the background.
    pub fn own() -> Option<Self> {
        let command = COMMAND.get().copied().unwrap_or("hdrive");
        is_background().then(|| Self { command, pid: std::process::id() })
    }

    /// The line as it stands in the file.
    pub fn before(&self, line: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = date(now.as_millis() as i64);
        format!("{time} UTC {}[{}]: {line}", self.command, self.pid)
    }
}

/// What a process said; none if the line is another's.
pub fn said_by(line: &str, pid: u32) -> Option<&str> {
    let (stamp, said) = line.split_once("]: ")?;
    let (_, by) = stamp.rsplit_once('[')?;
    (by.parse() == Ok(pid)).then_some(said)
}

/// Adds a line, in one piece.
pub fn write_log(file: &mut File, line: &str) -> io::Result<()> {
    let _ = bound(file);
    file.write_all(format!("{line}\n").as_bytes())
}

/// Makes room in a file that is full. It is emptied, not renamed: others have it open, and go on at its end.
fn bound(file: &File) -> io::Result<()> {
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() < MAX {
        return Ok(());
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if path.file_name().is_some_and(|name| name == NAME) {
        std::fs::copy(&path, path.with_extension("log.1"))?;
        file.set_len(0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_put_on_and_taken_off() {
        let line = Stamp { command: "seed", pid: 7 }.before("note: [a]: b");
        assert!(line.contains(" UTC seed[7]: note"), "{line}");
        assert_eq!(said_by(&line, 7), Some("note: [a]: b"));
        for (line, pid) in [(line.as_str(), 77), ("error: [7]", 7), ("[7", 7), ("", 7)] {
            assert_eq!(said_by(line, pid), None, "{line}");
        }
    }

    #[test]
    fn a_log_is_bounded_and_keeps_what_is_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let open = || File::options().create(true).append(true).open(&path).unwrap();
        let (mut one, mut other) = (open(), open());
        one.write_all(&vec![b'x'; MAX as usize]).unwrap();
        write_log(&mut other, "new").unwrap();
        write_log(&mut one, "newer").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\nnewer\n");
        assert_eq!(std::fs::metadata(dir.path().join("daemon.log.1")).unwrap().len(), MAX);
    }
}
