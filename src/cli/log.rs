//! What the log shows, and where: stderr of this process.

use super::args::Global;
use super::output::complain;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging: warnings, or what `-v`, `-q` and `HDRIVE_LOG` ask for.
pub fn init(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
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
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(global.verbose > 1)
        .without_time()
        // It would tell of a closed stderr on stderr, and panic.
        .log_internal_errors(false)
        .try_init();
}
