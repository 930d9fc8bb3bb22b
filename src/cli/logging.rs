//! What the log shows, and where: stderr of this process, or the [`daemon_log`] in its place.

use super::args::Global;
use super::daemon_log::{self, Stamp};
use super::output::complain;
use super::words::told;
use super::writer::{Piece, Writer};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Where the lines of the log go.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        Writer::own().push(match Stamp::own() {
            Some(stamp) => Piece::Log(stamp.before(String::from_utf8_lossy(event).trim_end())),
            None => Piece::Said(event.to_vec()),
        });
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts logging: warnings, or what `-v`, `-q` and `HDRIVE_LOG` ask for.
pub fn init(global: &Global, command: &'static str) {
    let _ = daemon_log::COMMAND.set(command);
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error,fuser=off",
        // fuser tells of answers to requests that the kernel has given up: nothing that anybody could mend.
        (false, 0) => "warn,fuser=off",
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
        mut writer: format::Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        cx.format_fields(format::Writer::new(&mut text), event)?;
        writeln!(writer, "{}", told("warning", text))
    }
}
