//! A panic costs the one request that met it, not the mount.

use super::errno::{FsError, Result};
use super::filesystem::Promise;
use fuser::{INodeNo, Request};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

/// Runs the handler of a request; a panic ends there. Its reply, dropped on the way, tells the caller EIO.
pub(super) fn guarded(op: &'static str, req: &Request, number: INodeNo, handler: impl FnOnce()) {
    let span = tracing::debug_span!("fuse", op, req = req.unique().0, ino = number.0);
    span.in_scope(|| caught_panic(op, handler));
}

pub(super) fn caught_panic(op: &'static str, handler: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(handler)).is_err() {
        FsError::Panicked.log(op);
    }
}

/// The promise with its panics as errors.
pub(super) async fn caught<T>(mut promise: Promise<T>) -> Result<T> {
    std::future::poll_fn(move |cx| {
        catch_unwind(AssertUnwindSafe(|| promise.as_mut().poll(cx)))
            .unwrap_or(Poll::Ready(Err(FsError::Panicked)))
    })
    .await
}
