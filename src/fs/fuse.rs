//! The kernel's requests: translated, answered here or in a task, nothing decided. They are in `requests`; what changes
//! something goes on in `changing`.
//!
//! What the volume has is answered on the FUSE thread; a reply that must wait for a peer moves into a task on
//! the runtime, and the thread takes the next request. A panic costs the one request that met it: a reply that
//! is dropped unanswered sends EIO.

mod changing;
mod requests;

use super::attr::Look;
use super::errno::Result;
use super::filesystem::{Filesystem, Promise};
use super::handle::HandleId;
use super::inode::Ino;
use super::panics::{caught, caught_panic};
use super::pending::Pending;
use fuser::{FileHandle, INodeNo, InitFlags, KernelConfig, Request};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tracing::{Instrument, Span};

/// Requests of read-ahead that the kernel may have under way. Its default of 16 would hold a network back.
const MAX_BACKGROUND: u16 = 128;
/// From here on the kernel calls the filesystem congested and reads less ahead.
const CONGESTION_THRESHOLD: u16 = 96;
/// What every drive wants of the kernel, each only if it is offered.
const WANTED: [InitFlags; 6] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_AUTO_INVAL_DATA,
];

/// The skin between the kernel and the operations.
pub struct Fuse {
    fs: Arc<Filesystem>,
    look: Look,
    pending: Arc<Pending>,
    runtime: Handle,
    /// Whether the kernel can do without OPEN, and may: it then lets whoever may see a file read what it has cached.
    /// Settled by `init`.
    no_open: bool,
    /// Whether a file may be opened past the page cache, and mapped all the same. Settled by `init`.
    past_cache: bool,
}

impl Fuse {
    pub fn new(fs: Arc<Filesystem>, look: Look, pending: Arc<Pending>, runtime: Handle) -> Self {
        Self { fs, look, pending, runtime, no_open: false, past_cache: false }
    }

    /// Answers in a task, or with the caller's end if that comes first.
    fn later<T: Send + 'static>(
        &self,
        op: &'static str,
        req: &Request,
        promise: Promise<T>,
        answer: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let mut ticket = self.pending.register(req.pid());
        let task = async move {
            let result = tokio::select! {
                biased;
                result = caught(promise) => result,
                error = ticket.ended() => Err(error),
            };
            drop(ticket);
            caught_panic(op, || answer(result));
        };
        self.runtime.spawn(task.instrument(Span::current()));
    }

    /// What is agreed on with the kernel.
    fn settle(&mut self, config: &mut KernelConfig) {
        for flag in WANTED {
            let _ = config.add_capabilities(flag);
        }
        self.ask_to_write(config);
        if !self.look.private {
            self.no_open = config.add_capabilities(InitFlags::FUSE_NO_OPEN_SUPPORT).is_ok();
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_congestion_threshold(CONGESTION_THRESHOLD);
    }

    fn ttl(&self, lasting: bool) -> Duration {
        Look::ttl(lasting, self.fs.frozen())
    }
}

fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

fn handle(number: FileHandle) -> HandleId {
    HandleId(number.0)
}
