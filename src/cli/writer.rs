//! Writes what a command says, on a thread of its own: a terminal may be paused (Ctrl-S), and what reads a pipe may take
//! its time. Whoever says something never waits for that, and no signal does. Where no thread can be made, who says something
//! or waits writes himself what is taken at once.
//!
//! Both streams have one queue, so that what is said stays in its order. A command with much of a result awaits room in it.
//! Of what else is said, that which comes while it is full is left out, and the number of such lines told afterwards.

mod attempt;

use super::asker::Asker;
use super::daemon_log::Stamp;
use super::signals::{self, LAST_WAIT};
use super::words::{count, told};
use crate::lock::lock;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Who awaits room has it while less than so many bytes are queued: two blocks of a file.
const ROOM: usize = 128 << 10;
/// With so many bytes no more lines about it are queued. That is more than room: one beside what is awaited finds its place.
const FULL: usize = 256 << 10;
/// A thread without work ends after this: a mount says one line in months.
const IDLE: Duration = Duration::from_secs(1);
/// How often the end of the process looks whether it is to wait on, and who waits whether there is a thread.
const LOOK: Duration = Duration::from_millis(50);

/// A standard stream, of this process or passed to it by another.
pub type Stream = Box<dyn AsFd + Send + Sync>;

/// Whether whoever writes waits for a reader.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    ForReader,
    Never,
}

/// Something to be written.
pub enum Piece {
    /// On stdout; if that fails, in the log where there is one.
    Result { bytes: Bytes, log: Option<String> },
    /// On stderr.
    Said(Vec<u8>),
    /// The same, of an end in error: it is never left out.
    Error(Vec<u8>),
    /// A line for `daemon.log`, which stderr is.
    Log(String),
    /// What the other process behind the streams is told when all before it is written.
    Mark(u8),
    /// The bar is taken away.
    Clear,
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Result { bytes, .. } => bytes.len(),
            Self::Said(bytes) | Self::Error(bytes) => bytes.len(),
            Self::Log(line) => line.len(),
            Self::Mark(_) | Self::Clear => 0,
        }
    }

    /// What is left of it when the first `written` bytes are.
    fn rest(self, written: usize) -> Option<Self> {
        if written >= self.len() {
            return None;
        }
        Some(match self {
            Self::Result { bytes, log } => Self::Result { bytes: bytes.slice(written..), log },
            Self::Said(bytes) => Self::Said(bytes[written..].to_vec()),
            Self::Error(bytes) => Self::Error(bytes[written..].to_vec()),
            whole => whole,
        })
    }

    /// Of a result it is told by how it ends whether all of it was written.
    fn is_result(&self) -> bool {
        matches!(self, Self::Result { .. })
    }

    /// A part of a result never is: whoever has much of it awaits room.
    fn may_be_left_out(&self) -> bool {
        matches!(self, Self::Said(_) | Self::Log(_))
    }
}

/// See the module.
pub struct Writer {
    stdout: Stream,
    stderr: Stream,
    /// What stands before each line of one who is in the background.
    stamp: Option<Stamp>,
    face: Option<Arc<Asker>>,
    queue: Mutex<Queue>,
    /// The queue changed: for threads, and for tasks.
    changed: Condvar,
    room: Notify,
    /// The bar on the terminal.
    bar: Mutex<Option<Vec<u8>>>,
    /// The first line that could not be written.
    lost: OnceLock<io::Error>,
    /// Whoever read stdout does not any more.
    gone: AtomicBool,
    /// As if the system had no threads left.
    #[cfg(test)]
    no_threads: AtomicBool,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    /// A bar that is to be drawn when there is nothing else to do: only the newest counts.
    bar: Option<Vec<u8>>,
    /// What is queued or being written: in all, and pieces of a result among it.
    bytes: usize,
    results: usize,
    /// Pieces that ever came, and those that are written.
    came: u64,
    done: u64,
    /// What found no room.
    left_out: u64,
    /// There is a thread that writes.
    running: bool,
    /// Nobody wants it any more.
    closed: bool,
}

impl Queue {
    fn add(&mut self, piece: &Piece) {
        self.bytes += piece.len();
        self.results += usize::from(piece.is_result());
        self.came += 1;
    }

    fn take_off(&mut self, piece: &Piece) {
        self.bytes = self.bytes.saturating_sub(piece.len());
        self.results = self.results.saturating_sub(piece.is_result().into());
        self.done += 1;
    }

    /// Of what was taken off something is left.
    fn put_back(&mut self, rest: Piece) {
        self.bytes += rest.len();
        self.results += usize::from(rest.is_result());
        self.done -= 1;
        self.pieces.push_front(rest);
    }

    /// How many must be written until what is said so far is, with the word about what is left out.
    fn said(&self) -> u64 {
        self.came + u64::from(self.left_out > 0)
    }

    fn has_written(&self, said: u64) -> bool {
        self.closed || self.done >= said
    }
}

impl Writer {
    pub fn new(
        [stdout, stderr]: [Stream; 2],
        stamp: Option<Stamp>,
        face: Option<Arc<Asker>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            stdout,
            stderr,
            stamp,
            face,
            queue: Mutex::default(),
            changed: Condvar::new(),
            room: Notify::new(),
            bar: Mutex::default(),
            lost: OnceLock::new(),
            gone: AtomicBool::new(false),
            #[cfg(test)]
            no_threads: AtomicBool::new(false),
        })
    }

    /// That of this process, which its own command and all that has no command share.
    pub fn own() -> &'static Arc<Self> {
        static OWN: OnceLock<Arc<Writer>> = OnceLock::new();
        let streams = || -> [Stream; 2] { [Box::new(io::stdout()), Box::new(io::stderr())] };
        OWN.get_or_init(|| Self::new(streams(), Stamp::own(), None))
    }

    /// Queues `piece`, or leaves it out.
    pub fn push(self: &Arc<Self>, piece: Piece) {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return;
        }
        if piece.may_be_left_out() && (queue.left_out > 0 || queue.bytes >= FULL) {
            queue.left_out += 1;
            return;
        }
        queue.add(&piece);
        queue.pieces.push_back(piece);
        self.wake(queue);
    }

    /// Draws a bar in place of the one before.
    pub fn draw(self: &Arc<Self>, bar: String) {
        let mut queue = lock(&self.queue);
        if !queue.closed {
            queue.bar = Some(bar.into_bytes());
            self.wake(queue);
        }
    }

    /// Takes the bar away, and one that is not drawn yet.
    pub fn clear(self: &Arc<Self>) {
        lock(&self.queue).bar = None;
        self.push(Piece::Clear);
    }

    /// What tells the width of the terminal.
    pub fn stderr(&self) -> &Stream {
        &self.stderr
    }

    /// Resolves when there is room for more, or nobody wants it.
    pub async fn room(self: &Arc<Self>) {
        self.until(|queue| queue.closed || queue.bytes < ROOM).await;
    }

    /// Resolves when all that is said by now is written.
    pub async fn written(self: &Arc<Self>) {
        let said = lock(&self.queue).said();
        self.until(|queue| queue.has_written(said)).await;
    }

    async fn until(self: &Arc<Self>, is_so: impl Fn(&Queue) -> bool) {
        loop {
            // Before the look, so that no change is missed.
            let changed = self.room.notified();
            if is_so(&lock(&self.queue)) {
                return;
            }
            if self.has_thread(&mut lock(&self.queue)) {
                changed.await;
            } else {
                self.run(Duration::ZERO, Wait::Never);
                if is_so(&lock(&self.queue)) {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Waits until all that is said by now is written, unless this process is told to end. For a process that ends: where
    /// there is no thread it writes that itself.
    pub fn settle(self: &Arc<Self>) {
        let mut told: Option<Instant> = None;
        let mut queue = lock(&self.queue);
        let said = queue.said();
        while !queue.has_written(said) {
            let since = signals::came().then(|| *told.get_or_insert_with(Instant::now));
            if since.is_some_and(|since| since.elapsed() >= LAST_WAIT) {
                return;
            }
            if self.has_thread(&mut queue) {
                queue = self.wait(queue, LOOK);
            } else {
                drop(queue);
                self.run(Duration::ZERO, Wait::ForReader);
                queue = lock(&self.queue);
            }
        }
    }

    /// Whether a part of the result is not written yet.
    pub fn owes(&self) -> bool {
        lock(&self.queue).results > 0
    }

    /// An error if a line is lost.
    pub fn failure(&self) -> Result<(), &io::Error> {
        self.lost.get().map_or(Ok(()), Err)
    }

    /// Whether nobody reads stdout any more.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Nobody wants the rest. A thread that waits for a reader ends.
    pub fn close(&self) {
        let mut queue = lock(&self.queue);
        *queue = Queue { closed: true, running: queue.running, ..Queue::default() };
        drop(queue);
        self.tell_change();
    }

    fn tell_change(&self) {
        self.changed.notify_all();
        self.room.notify_waiters();
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>, limit: Duration) -> MutexGuard<'a, Queue> {
        let waited = self.changed.wait_timeout(queue, limit);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn wake(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        self.changed.notify_all();
        if !self.has_thread(&mut queue) {
            drop(queue);
            self.run(Duration::ZERO, Wait::Never);
        }
    }

    /// Whether there is a thread that writes, perhaps since this moment.
    fn has_thread(self: &Arc<Self>, queue: &mut Queue) -> bool {
        queue.running = queue.running || self.start().is_ok();
        queue.running
    }

    fn start(self: &Arc<Self>) -> io::Result<()> {
        #[cfg(test)]
        if self.no_threads.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let writer = Arc::clone(self);
        let thread = std::thread::Builder::new().name("hdrive-writer".into());
        thread.spawn(move || writer.write_all(IDLE, Wait::ForReader)).map(drop)
    }

    /// Writes what is there, unless somebody else does.
    fn run(&self, idle: Duration, wait: Wait) {
        if !std::mem::replace(&mut lock(&self.queue).running, true) {
            self.write_all(idle, wait);
        }
    }

    /// Writes what comes until nothing has for so long, or until nothing is taken by whom nobody waits for.
    fn write_all(&self, idle: Duration, wait: Wait) {
        let mut queue = lock(&self.queue);
        let mut since = Instant::now();
        loop {
            let work = self.next(&mut queue);
            let Some((piece, bar)) = work else {
                if queue.closed || since.elapsed() >= idle {
                    break;
                }
                queue = self.wait(queue, idle);
                continue;
            };
            drop(queue);
            let written = piece.as_ref().map_or(0, |piece| self.write_piece(piece, wait));
            if let Some(bar) = bar {
                self.show(bar, wait);
            }
            since = Instant::now();
            queue = lock(&self.queue);
            let Some(piece) = piece else { continue };
            queue.take_off(&piece);
            let rest = piece.rest(written).filter(|_| !queue.closed);
            if let Some(rest) = rest {
                queue.put_back(rest);
                break;
            }
            self.tell_change();
        }
        queue.running = false;
        drop(queue);
        self.tell_change();
    }

    /// What is to be written next: a piece, or a bar.
    fn next(&self, queue: &mut Queue) -> Option<(Option<Piece>, Option<Vec<u8>>)> {
        if let Some(piece) = queue.pieces.pop_front() {
            return Some((Some(piece), None));
        }
        if queue.left_out > 0 {
            let lines = count(std::mem::take(&mut queue.left_out), "line");
            let line = format!("{lines} left out here: what was said before was not read");
            let line = told("warning", line);
            let piece = match &self.stamp {
                Some(stamp) => Piece::Log(stamp.before(&line)),
                None => Piece::Said((line + "\n").into_bytes()),
            };
            queue.add(&piece);
            return Some((Some(piece), None));
        }
        queue.bar.take().map(|bar| (None, Some(bar)))
    }
}

#[cfg(test)]
mod tests;
