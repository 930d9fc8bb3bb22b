//! One peer of one core: what it has, what it told us, and how fast it answers.

use super::inflight::Flight;
use super::remote_bitfield::RemoteBitfield;
use super::upload::UploadQueue;
use super::wants::{LocalWants, RemoteWants};
use super::wire::Sync;
use super::{ConnId, Limits};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Requests that may be on their way whatever their size.
const MIN_REQUESTS: usize = 4;
/// Bytes in flight to begin with, and at least. The first must outlast a loss while the stream still finds its rate.
const FIRST_WINDOW: usize = 6 << 20;
const MIN_WINDOW: usize = 256 << 10;
/// The window grows while answers take less than this many times the fastest one, and [`QUEUEING`] longer. The
/// fastest is a round trip; a lost datagram holds up what follows for another, and one that is lost again for a
/// third. A longer queue makes nothing faster: answers pile up at the peer and in our frames, and a slow peer
/// would hold work that others could do.
const PATIENT: u32 = 4;
const QUEUEING: Duration = Duration::from_millis(60);
/// Above so many times, and so much longer, the window shrinks.
const SLOW: u32 = 8;
const SLOW_QUEUEING: Duration = Duration::from_millis(250);
/// Blocks that a peer announced and then would not or could not send. Beyond that it is not asked any more.
const MAX_DENIED: usize = 1024;
/// A request is overdue after this long without anything from the peer, at least and at most.
const MIN_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Peer {
    pub conn: ConnId,
    /// Our id of the channel.
    pub channel: u64,
    /// Both sides opened the channel.
    pub open: bool,
    /// When the channel was opened, by us or both.
    pub since: Instant,
    pub seeks: bool,
    /// Its last sync.
    pub remote: Option<Sync>,
    pub synced_at: Instant,
    /// Our length as acknowledged by it, 0 if the forks differed.
    pub acked: u64,
    /// The last sync we sent.
    pub told: Option<Sync>,
    /// The length at which we told it that we have everything.
    pub told_full: u64,
    /// Fork and length of an upgrade that it did not give us.
    pub refused: Option<(u64, u64)>,
    pub bits: RemoteBitfield,
    pub denied: BTreeSet<u64>,
    pub wants: LocalWants,
    pub remote_wants: RemoteWants,
    pub uploads: UploadQueue,
    pub invalid_requests: u32,
    pub flights: usize,
    pub flight_bytes: usize,
    window: usize,
    /// Time from request to answer: smoothed, and the shortest.
    pub service: Duration,
    fastest: Duration,
    pub last_progress: Instant,
    /// Answers so far.
    pub answers: u64,
    pub bytes_down: u64,
    pub bytes_up: u64,
}

impl Peer {
    pub fn new(conn: ConnId, channel: u64, now: Instant) -> Self {
        Self {
            conn,
            channel,
            open: false,
            since: now,
            seeks: false,
            remote: None,
            synced_at: now,
            acked: 0,
            told: None,
            told_full: 0,
            refused: None,
            bits: RemoteBitfield::default(),
            denied: BTreeSet::new(),
            wants: LocalWants::default(),
            remote_wants: RemoteWants::default(),
            uploads: UploadQueue::default(),
            invalid_requests: 0,
            flights: 0,
            flight_bytes: 0,
            window: FIRST_WINDOW,
            service: Duration::ZERO,
            fastest: Duration::MAX,
            last_progress: now,
            answers: 0,
            bytes_down: 0,
            bytes_up: 0,
        }
    }

    /// What it said last, if it may be asked for anything.
    pub fn asked_for(&self) -> Option<&Sync> {
        let useful = self.open && self.denied.len() < MAX_DENIED;
        self.remote.as_ref().filter(|remote| useful && remote.uploading)
    }

    /// Whether it says it has a block, and did not deny it since.
    pub fn has(&self, block: u64) -> bool {
        self.bits.has(block) && !self.denied.contains(&block)
    }

    pub fn deny(&mut self, block: u64) {
        if self.denied.len() < MAX_DENIED {
            self.denied.insert(block);
        }
    }

    /// Whether another request may go to it.
    pub fn has_room(&self, limits: &Limits, small: bool, priority: bool) -> bool {
        let count = if small { limits.small_window_requests } else { limits.window_requests };
        // What somebody waits for goes ahead at the server, so it need not wait here.
        let (count, bytes) =
            if priority { (count + count / 4, 2 * self.window) } else { (count, self.window) };
        self.flights < count && (self.flight_bytes < bytes || self.flights < MIN_REQUESTS)
    }

    /// How busy it is: what a new request has to wait for, roughly.
    pub fn load(&self) -> (usize, Duration) {
        (8 * self.flight_bytes / self.window, self.service)
    }

    pub fn took_off(&mut self, bytes: usize) {
        self.flights += 1;
        self.flight_bytes += bytes;
    }

    /// A request ended without a word from the peer: cancelled.
    pub fn dropped(&mut self, flight: &Flight) {
        self.flights = self.flights.saturating_sub(1);
        self.flight_bytes = self.flight_bytes.saturating_sub(flight.bytes);
    }

    /// A request was answered.
    pub fn landed(&mut self, flight: &Flight, now: Instant, limits: &Limits) {
        let was_full = self.flight_bytes * 2 >= self.window;
        self.dropped(flight);
        self.answers += 1;
        self.last_progress = now;
        let took = now.saturating_duration_since(flight.sent);
        self.service = if self.answers == 1 { took } else { (self.service * 7 + took) / 8 };
        self.fastest = self.fastest.min(took);
        if took > SLOW * self.fastest + SLOW_QUEUEING {
            self.window = self.window.saturating_sub(flight.bytes).max(MIN_WINDOW);
        } else if took < PATIENT * self.fastest + QUEUEING && was_full {
            self.window = (self.window + flight.bytes).min(limits.window_bytes);
        }
    }

    /// How long it may be silent with requests open.
    pub fn timeout(&self) -> Duration {
        (self.service * 4).clamp(MIN_TIMEOUT, MAX_TIMEOUT)
    }
}
