//! Calls into file systems of people, each on a thread of its own: a disk that hangs keeps that thread, and nobody else.
//!
//! Such a call cannot be called off. Whoever waits for one may stop waiting; the thread stays until the disk answers, or
//! the process ends. So these threads are none of a runtime's, not of those for blocking calls either, which the store
//! needs: were they all kept by a dead network disk, nothing could be stored or closed any more.
//!
//! Some of them are there from the start. Where the system gives no more than those, and disks keep them all, work waits
//! for one; that is tried again and again, and told. What must not wait for others has a thread [of its own](Own).
#![allow(clippy::disallowed_methods, reason = "threads are waited for in real time")]

use crate::lock::lock;
use crate::threads;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

/// Threads that are there from the start, and stay.
pub const KEPT: usize = 4;
/// Calls that may hang at a time; those beyond them wait for a thread. Each that hangs takes some kilobytes.
const MAX_THREADS: usize = 1024;
/// A thread beyond those that stay ends when there was nothing to do for so long.
const IDLE: Duration = Duration::from_secs(10);
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);
/// While work waits for a thread that the system does not give, it is asked for one this often.
const AGAIN: Duration = Duration::from_millis(100);
/// And that is told after this.
const LONG: Duration = Duration::from_secs(1);

/// Calls that were begun and have not ended.
static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

static QUEUE: Mutex<Queue> = Mutex::new(Queue { jobs: VecDeque::new(), threads: 0, idle: 0 });
/// For a thread: there is work.
static CAME: Condvar = Condvar::new();
/// Work came that found no thread, and none could be made.
static LACKING: Notify = Notify::const_new();

type Job = Box<dyn FnOnce() + Send>;

/// Work that no thread has begun, and the threads.
struct Queue {
    jobs: VecDeque<(Instant, Job)>,
    threads: usize,
    idle: usize,
}

impl Queue {
    /// Makes a thread for each job that has none.
    fn grow(&mut self) -> io::Result<()> {
        let lacking = self.jobs.len().saturating_sub(self.idle);
        (0..lacking.min(MAX_THREADS.saturating_sub(self.threads))).try_for_each(|_| self.start())
    }

    fn start(&mut self) -> io::Result<()> {
        threads::spawn("hdrive-disk", work)?;
        self.threads += 1;
        Ok(())
    }
}

/// Has those threads come that stay.
///
/// # Errors
/// The system gives fewer.
pub fn prepare() -> io::Result<()> {
    let mut queue = lock(&QUEUE);
    (queue.threads..KEPT).try_for_each(|_| queue.start())
}

/// Gets work a thread that found none, as soon as the system gives one again; calls `tell` while that takes long.
pub async fn keep_going(tell: impl Fn()) -> Infallible {
    loop {
        LACKING.notified().await;
        while let Some(waited) = lack() {
            if waited >= LONG {
                tell();
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// How long work has waited already that the system gives no thread for.
fn lack() -> Option<Duration> {
    let mut queue = lock(&QUEUE);
    let grown = queue.grow();
    let first = queue.jobs.front().map(|(since, _)| since.elapsed());
    first.filter(|_| grown.is_err())
}

fn hand(job: Job) {
    let mut queue = lock(&QUEUE);
    queue.jobs.push_back((Instant::now(), job));
    CAME.notify_one();
    if queue.grow().is_err() {
        LACKING.notify_one();
    }
}

/// What a thread does.
fn work() {
    let mut queue = lock(&QUEUE);
    loop {
        if let Some((_, job)) = queue.jobs.pop_front() {
            drop(queue);
            run(job);
            queue = lock(&QUEUE);
            continue;
        }
        let limit = if queue.threads > KEPT { IDLE } else { FOR_EVER };
        queue.idle += 1;
        let waited = CAME.wait_timeout(queue, limit).unwrap_or_else(PoisonError::into_inner);
        queue = waited.0;
        queue.idle -= 1;
        if waited.1.timed_out() && queue.jobs.is_empty() && queue.threads > KEPT {
            queue.threads -= 1;
            return;
        }
    }
}

/// Whoever waits for one that panics learns it from the end of its channel.
fn run(job: Job) {
    let _ = catch_unwind(AssertUnwindSafe(job));
}

/// Begins `work`, which may take for ever. Dropping what is returned leaves it alone; what it brings is dropped by its thread
/// then.
pub fn begin<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Begun<T> {
    let (job, begun) = made(work);
    hand(job);
    begun
}

fn made<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (Job, Begun<T>) {
    let running = Counted::new();
    let runtime = Handle::try_current();
    let (bring, brought) = oneshot::channel();
    let job = move || {
        // What it starts, or waits for, is of the runtime that asked.
        let _inside = runtime.as_ref().ok().map(Handle::enter);
        // Moved in: who panics has ended too.
        let running = running;
        let brought = Brought { what: Held::new(work()), _running: running };
        if let Err(unwanted) = bring.send(brought) {
            drop(unwanted.what.take());
        }
    };
    (Box::new(job), Begun(brought))
}

/// A thread for calls of one's own, one at a time: they wait for nobody else's. It ends when this is dropped, and they have.
pub struct Own(Sender<Job>);

impl Own {
    /// # Errors
    /// The system gives no thread.
    pub fn start(name: &str) -> io::Result<Self> {
        let (to, jobs) = channel();
        threads::spawn(name, move || jobs.into_iter().for_each(run))?;
        Ok(Self(to))
    }

    /// See [`begin`].
    pub fn begin<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Begun<T> {
        let (job, begun) = made(work);
        let _ = self.0.send(job);
        begun
    }
}

/// Work that was begun, to be waited for.
pub struct Begun<T: Send + 'static>(oneshot::Receiver<Brought<T>>);

/// Its call has ended once nobody wants the rest: when it was taken, or dropped, which may ask a disk as well and is nobody's
/// who only stopped waiting. In this order.
struct Brought<T: Send + 'static> {
    what: Held<T>,
    _running: Counted,
}

/// The work panicked.
#[derive(Debug, thiserror::Error)]
#[error("a fault of hdrive itself")]
pub struct Panicked;

impl<T: Send + 'static> Begun<T> {
    pub fn is_finished(&self) -> bool {
        !self.0.is_empty() || self.0.is_terminated()
    }
}

impl<T: Send + 'static> Future for Begun<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let brought = Pin::new(&mut self.0).poll(cx);
        brought.map(|done| done.map(|brought| brought.what.into_inner()).map_err(|_| Panicked))
    }
}

/// Runs `work` and waits for it.
///
/// # Errors
/// It panicked.
pub async fn ask<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    begin(work).await
}

/// Waits until nothing runs any more, but no longer than this. For a process that ends.
pub fn settle(limit: Duration) {
    let running = lock(&RUNNING);
    let _ = ENDED.wait_timeout_while(running, limit, |running| *running > 0);
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
        hand(Box::new(work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Receiver;
    use tokio::runtime::Builder;

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

    /// Where no other can be made they are the only ones.
    #[test]
    fn threads_that_are_there_from_the_start_stay() {
        prepare().unwrap();
        let here = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
            let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
            tasks.filter_map(|task| name(task).ok()).filter(|n| n.trim() == "hdrive-disk").count()
        };
        assert!(here() >= KEPT);
        // Longer than any that may end.
        let (_kept, never) = channel::<()>();
        let _ = never.recv_timeout(IDLE + Duration::from_secs(2));
        assert!(here() >= KEPT);
    }

    #[test]
    fn who_has_a_thread_waits_for_nobody_else_and_a_panic_does_not_end_it() {
        let own = Own::start("own").unwrap();
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            assert!(own.begin(|| panic!("as it should")).await.is_err());
            let (held, from) = told();
            drop(own.begin(move || held));
            let on = own.begin(|| std::thread::current().id()).await.unwrap();
            assert_eq!(from.recv().unwrap(), on, "what nobody waits for ends on its thread");
        });
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
