//! Calls into file systems of people, each on a thread of its own: a disk that hangs keeps that thread, and nobody else.
//!
//! Such a call cannot be called off. Whoever waits for one may stop waiting; the thread stays until the disk answers, or
//! the process ends. So these threads are none of a runtime's, not of those for blocking calls either, which the store
//! needs: were they all kept by a dead network disk, nothing could be stored or closed any more.

use crate::lock::lock;
use std::pin::Pin;
use std::sync::{Condvar, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{JoinError, JoinHandle};

/// Calls that may hang at a time; those beyond them wait for a thread. Each that hangs takes some kilobytes.
const MAX_THREADS: usize = 1024;

/// A thread that is there waits for work for ever: where the system gives no other it is the one that there is.
const IDLE: Duration = Duration::from_secs(u32::MAX as u64);

/// Calls that were begun and have not ended.
static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// Has the first thread come. Work that finds none, and no other can be made for, would panic, and be done by the next
/// thread nevertheless.
pub fn prepare() {
    if let Some(threads) = threads() {
        drop(threads.spawn_blocking(|| ()));
    }
}

/// Begins `work`, which may take for ever. Dropping what is returned leaves it alone; what it brings is dropped by its thread
/// then.
pub fn begin<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Begun<T> {
    let running = Counted::new();
    let runtime = Handle::try_current();
    let work = move || {
        // What it starts, or waits for, is of the runtime that asked.
        let _inside = runtime.as_ref().ok().map(Handle::enter);
        // Moved in: who panics has ended too.
        let running = running;
        Brought { what: Held::new(work()), _running: running }
    };
    Begun(match threads() {
        Some(threads) => threads.spawn_blocking(work),
        None => tokio::task::spawn_blocking(work),
    })
}

/// Work that was begun, to be waited for.
pub struct Begun<T: Send + 'static>(JoinHandle<Brought<T>>);

/// Its call has ended once nobody wants the rest: when it was taken, or dropped, which may ask a disk as well and is nobody's
/// who only stopped waiting. In this order.
struct Brought<T: Send + 'static> {
    what: Held<T>,
    _running: Counted,
}

impl<T: Send + 'static> Begun<T> {
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T: Send + 'static> Future for Begun<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|done| done.map(|brought| brought.what.into_inner()))
    }
}

/// Runs `work` and waits for it.
///
/// # Errors
/// It panicked.
pub async fn ask<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    begin(work).await
}

/// Waits until nothing runs any more, but no longer than this. For a process that ends.
pub fn settle(limit: Duration) {
    let running = lock(&RUNNING);
    let _ = ENDED.wait_timeout_while(running, limit, |running| *running > 0);
}

/// Never dropped, which would wait for the threads.
fn threads() -> Option<&'static Runtime> {
    static THREADS: OnceLock<Option<Runtime>> = OnceLock::new();
    let make = || {
        let mut builder = Builder::new_current_thread();
        builder.max_blocking_threads(MAX_THREADS).thread_keep_alive(IDLE);
        builder.thread_name("hdrive-disk").build().ok()
    };
    THREADS.get_or_init(make).as_ref()
}

struct Counted;

impl Counted {
    fn new() -> Self {
        *lock(&RUNNING) += 1;
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *lock(&RUNNING) -= 1;
        ENDED.notify_all();
    }
}

/// Something whose end asks a disk, an open file say: it is dropped where that may take long.
pub struct Held<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Held<T> {
    pub fn new(held: T) -> Self {
        Self(Some(held))
    }

    /// What it was made of.
    fn into_inner(mut self) -> T {
        let Some(held) = self.0.take() else { unreachable!("only this takes it, and once") };
        held
    }

    /// To be dropped by the caller, who may wait for a disk.
    pub fn take(mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T: Send + 'static> Drop for Held<T> {
    fn drop(&mut self) {
        let Some(held) = self.0.take() else { return };
        let running = Counted::new();
        let work = move || {
            let _running = running;
            drop(held);
        };
        // After the end of its runtime as well.
        if let Some(threads) = threads() {
            drop(threads.spawn_blocking(work));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Tells the thread on which it is dropped.
    struct Told(Sender<std::thread::ThreadId>);

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send(std::thread::current().id());
        }
    }

    fn told() -> (Told, Receiver<std::thread::ThreadId>) {
        let (to, from) = channel();
        (Told(to), from)
    }

    /// Of the runtime itself there is one thread, and no other for what blocks.
    #[test]
    fn calls_that_hang_keep_no_thread_of_the_runtime() {
        let runtime = Builder::new_multi_thread().worker_threads(1).max_blocking_threads(1).build();
        let runtime = runtime.unwrap();
        let (let_go, hang) = channel::<()>();
        let hang = std::sync::Arc::new(Mutex::new(hang));
        runtime.block_on(async {
            for _ in 0..20 {
                let hang = hang.clone();
                drop(begin(move || drop(hang.lock().map(|hang| hang.recv()))));
            }
            assert_eq!(tokio::task::spawn_blocking(|| 1).await.unwrap(), 1);
            assert_eq!(ask(|| 2).await.unwrap(), 2);
            let inside = || Handle::current().block_on(tokio::task::spawn_blocking(|| 3));
            let inside = ask(inside).await.unwrap();
            assert_eq!(inside.unwrap(), 3, "it is in the runtime that asked");
        });
        drop(let_go);
    }

    #[test]
    fn what_is_held_is_dropped_elsewhere_and_what_nobody_waits_for_too() {
        let here = std::thread::current().id();
        let limit = Duration::from_secs(20);
        let (held, from) = told();
        drop(Held::new(held));
        assert_ne!(from.recv_timeout(limit).unwrap(), here);
        let (brought, from) = told();
        drop(begin(move || brought));
        assert_ne!(from.recv_timeout(limit).unwrap(), here);
        let (taken, from) = told();
        drop(Held::new(taken).take());
        assert_eq!(from.recv_timeout(limit).unwrap(), here);
    }

    /// Where no other can be made it is the only one.
    #[test]
    fn a_thread_that_is_there_stays() {
        prepare();
        let here = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
            let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
            tasks.filter_map(|task| name(task).ok()).any(|n| n.trim() == "hdrive-disk")
        };
        // Longer than a runtime keeps one without being told.
        let (_kept, never) = channel::<()>();
        let _ = never.recv_timeout(Duration::from_secs(12));
        assert!(here());
    }

    /// A mount that nobody waits for any more is taken away when it is dropped, say.
    #[test]
    fn what_nobody_waits_for_counts_until_it_is_dropped() {
        struct Slow(Sender<()>);
        impl Drop for Slow {
            fn drop(&mut self) {
                let (_kept, never) = channel::<()>();
                let _ = never.recv_timeout(Duration::from_millis(100));
                let _ = self.0.send(());
            }
        }
        let (to, from) = channel();
        drop(begin(move || Slow(to)));
        settle(Duration::from_secs(20));
        assert!(from.try_recv().is_ok(), "it is dropped still");
    }
}
