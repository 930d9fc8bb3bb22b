//! The `hdrive` command: everything is in the library; this passes the exit code on.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(hdrive::cli::main() as u8)
}
