//! The `hdrive` command: everything is in the library; this passes the exit code on.

use std::process::ExitCode;

/// Blocks of 64 KiB are allocated on one thread and freed on another all the time. The system's allocator
/// gives such memory back to the kernel and takes it again, page fault by page fault.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Of huge pages the allocator keeps whole ones for a few live blocks: 50 MB more of a mount that reads, and no time saved.
    let _ = nix::sys::prctl::set_thp_disable(true);
    ExitCode::from(hdrive::cli::main() as u8)
}
