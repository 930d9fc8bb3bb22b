//! What the log shows, and where: stderr of this process; and `daemon.log`, which takes the place of stderr where a
//! `--daemon` left a process in the background.
//!
//! Every line of that file begins with the time, the command and its process: many may write it, each line in one
//! piece to its end. It is bounded: what is old is copied to `daemon.log.1`, which is replaced each time.

use super::args::Global;
use super::daemon::is_background;
use super::ls::date;
use super::output::{complain, told};
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Name of the file in a store.
pub const NAME: &str = "daemon.log";
/// The file grows no larger, and neither does the one that it becomes.
const MAX: u64 = 1 << 20;
/// What this process is called in it.
static COMMAND: OnceLock<&str> = OnceLock::new();

/// Who says a line.
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

/// The same on stderr of this process.
pub fn write_stamped(line: &str) {
    if let Ok(fd) = io::stderr().as_fd().try_clone_to_owned() {
        let _ = write_log(&mut fd.into(), line);
    }
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

/// Where the lines of the log go.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match Stamp::own() {
            Some(stamp) => {
                write_stamped(&stamp.before(String::from_utf8_lossy(event).trim_end()));
                Ok(event.len())
            }
            None => io::stderr().write(event),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Starts logging: warnings, or what `-v`, `-q` and `HDRIVE_LOG` ask for.
pub fn init(global: &Global, command: &'static str) {
    let _ = COMMAND.set(command);
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        // fuser tells of answers to requests that the kernel has given up: nothing that anybody could mend.
        (false, 0) => "warn,fuser=error",
        (false, 1) => "info,hdrive=debug",
        (false, _) => "info,hdrive=trace",
    };
    let asked = std::env::var("HDRIVE_LOG").ok().filter(|text| !text.is_empty());
    let filter = match asked.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => filter,
        Some(Err(error)) => {
            complain("warning", format_args!("HDRIVE_LOG is ignored: {error}"));
            EnvFilter::new(level)
        }
        None => EnvFilter::new(level),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(global.verbose > 1)
        .without_time()
        // It would tell of a closed stderr on stderr, and panic.
        .log_internal_errors(false);
    // Who did not ask for a log is told in the words of every other line.
    let _ = match global.verbose == 0 && asked.is_none() {
        true => lines.event_format(Plain).try_init(),
        false => lines.try_init(),
    };
}

/// `warning: …`, as whatever does not end the command is told.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        cx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        cx.format_fields(Writer::new(&mut text), event)?;
        writeln!(writer, "{}", told("warning", text))
    }
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
