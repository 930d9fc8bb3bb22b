//! Who waits for what of a core. A waiter is a guard: when it goes, for whatever reason, what it asked of the hub is
//! taken back, unless somebody else waits for the same.

use super::wish::Wish;
use super::{CoreHandle, lock};
use crate::hyper::source::SourceError;
use crate::key::DiscoveryKey;
use bytes::Bytes;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// How long a wait may last.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// With a peer connected, or while peers are still being looked for.
    pub read: Duration,
    /// With no peer connected after discovery has finished a round.
    pub lonely: Duration,
    /// With peers connected, for what should be here and is not: it may well be that nobody has it.
    pub lost: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            read: Duration::from_secs(30),
            lonely: Duration::from_secs(1),
            lost: Duration::from_secs(10),
        }
    }
}

tokio::task_local! {
    /// Of whoever waits in this task, in place of [`Patience::read`].
    static READ: Duration;
}

/// Runs `work` with a patience of its own: what it waits for of any core may take so long.
pub async fn with_patience<T>(read: Duration, work: impl Future<Output = T>) -> T {
    READ.scope(read, work).await
}

/// Something that comes from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Awaited {
    Block(u64),
    /// A download, by its number.
    Range(u64),
    /// The block that holds this byte.
    Seek(u64),
}

impl Awaited {
    fn withdrawal(self, core: DiscoveryKey) -> Wish {
        match self {
            Self::Block(index) => Wish::ForgetBlock { core, index },
            Self::Range(id) => Wish::ForgetRange { core, id },
            Self::Seek(bytes) => Wish::ForgetSeek { core, bytes },
        }
    }
}

/// What a waiter is woken with: the bytes, if they are nowhere to be read.
pub(super) type Woken = Option<Bytes>;

/// All that is awaited of one core.
#[derive(Debug, Default)]
pub(super) struct Waiters(HashMap<Awaited, Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    waiters: Vec<oneshot::Sender<Woken>>,
    /// The hub was asked for it.
    asked: bool,
}

impl Waiters {
    pub fn is_awaited(&self, what: Awaited) -> bool {
        self.0.contains_key(&what)
    }

    fn add(&mut self, what: Awaited) -> oneshot::Receiver<Woken> {
        let (wake, woken) = oneshot::channel();
        self.0.entry(what).or_default().waiters.push(wake);
        woken
    }

    /// It came; whoever waited is to be woken without the lock.
    pub fn came(&mut self, what: Awaited) -> Vec<oneshot::Sender<Woken>> {
        self.0.remove(&what).map(|waiting| waiting.waiters).unwrap_or_default()
    }

    /// Whether this is the first to ask.
    fn ask(&mut self, what: Awaited) -> bool {
        self.0.get_mut(&what).is_some_and(|waiting| !std::mem::replace(&mut waiting.asked, true))
    }

    /// Somebody who waited has gone. True if the hub is to be told that nobody is left.
    fn withdraw(&mut self, what: Awaited) -> bool {
        let Some(waiting) = self.0.get_mut(&what) else { return false };
        waiting.waiters.retain(|waiter| !waiter.is_closed());
        waiting.waiters.is_empty() && self.0.remove(&what).is_some_and(|waiting| waiting.asked)
    }
}

/// See the module.
pub(super) struct Waiter<'a> {
    handle: &'a CoreHandle,
    what: Awaited,
    woken: oneshot::Receiver<Woken>,
}

impl Waiter<'_> {
    /// Asks the hub, unless somebody else's wish for the same still stands.
    pub fn ask(&self, wish: Wish) {
        if lock(&self.handle.0.waiters).ask(self.what) {
            self.handle.wish(wish);
        }
    }

    /// Waits until it comes, for the deadline, for loneliness or for the end, whichever is first.
    pub async fn wait(&mut self, number: u64) -> Result<Woken, SourceError> {
        self.wait_within(number, self.handle.patience()).await
    }

    /// The same, with another deadline.
    pub async fn wait_within(
        &mut self,
        number: u64,
        limit: Duration,
    ) -> Result<Woken, SourceError> {
        let handle = self.handle;
        let deadline = Instant::now() + limit;
        tokio::select! {
            biased;
            came = self.came() => came,
            () = sleep_until(deadline) => Err(SourceError::TimedOut(number)),
            () = handle.deserted() => Err(SourceError::TimedOut(number)),
        }
    }

    /// Waits until it comes, without a deadline.
    pub async fn came(&mut self) -> Result<Woken, SourceError> {
        let handle = self.handle;
        tokio::select! {
            biased;
            done = &mut self.woken => done.map_err(|_| SourceError::Refused),
            ended = handle.ended() => Err(ended),
            failed = handle.failed() => Err(failed),
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.woken.close();
        if lock(&self.handle.0.waiters).withdraw(self.what) {
            self.handle.wish(self.what.withdrawal(self.handle.0.discovery_key));
        }
    }
}

impl CoreHandle {
    /// How long whoever asks waits for a block.
    pub(super) fn patience(&self) -> Duration {
        READ.try_with(|read| *read).unwrap_or(self.0.patience.read)
    }

    /// Somebody who waits for `what` from now on.
    pub(super) fn waiter(&self, what: Awaited) -> Waiter<'_> {
        let woken = lock(&self.0.waiters).add(what);
        Waiter { handle: self, what, woken }
    }
}
