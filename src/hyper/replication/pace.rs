//! How fast one peer delivers, and how much may be asked of it at a time.
//!
//! A single peer is asked for as much as its stream may want to send. Among several, each is asked for what it
//! delivers in [`AHEAD`] and no more: what lies queued at a slow one, others could have sent, and can be
//! asked for again only at the price of coming twice.

use super::Limits;
use super::inflight::Flight;
use std::time::{Duration, Instant};

/// Requests that may be on their way whatever their size, to a single peer and to one of several.
const MIN_REQUESTS: usize = 4;
const MIN_SHARED_REQUESTS: usize = 2;
/// Bytes in flight to begin with, and at least. The first must outlast a loss while the stream still finds its rate.
const FIRST_WINDOW: usize = 6 << 20;
const MIN_WINDOW: usize = 256 << 10;
/// What one of several peers is asked for: this much of its time beyond a round trip. Enough to outlast a loss,
/// and so little that one that stops takes little with it.
const AHEAD: Duration = Duration::from_millis(400);
/// The same in bytes while its rate is not known, and at least.
const FIRST_SHARE: usize = 1 << 20;
const MIN_SHARE: usize = 64 << 10;
/// The rate is measured over this long at least; the best is remembered, and fades by a tenth each time.
const SAMPLE: Duration = Duration::from_millis(100);
const FADE: f64 = 0.9;
/// The window grows while answers take less than this many times the fastest one, and [`QUEUEING`] longer. The
/// fastest is a round trip; a lost datagram holds up what follows for another, and one that is lost again for a
/// third. A longer queue makes nothing faster: answers pile up at the peer and in our frames, and a slow peer
/// would hold work that others could do.
const PATIENT: u32 = 4;
const QUEUEING: Duration = Duration::from_millis(60);
/// Above so many times, and so much longer, the window shrinks.
const SLOW: u32 = 8;
const SLOW_QUEUEING: Duration = Duration::from_millis(250);
/// A request is overdue after this long without anything from the peer, at least and at most.
const MIN_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_TIMEOUT: Duration = Duration::from_secs(10);
/// The least where another peer could do it: until now the peer has answered all the time, or never yet.
const STALL: Duration = Duration::from_millis(500);
const FIRST_STALL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Pace {
    /// Requests on their way, and the bytes that their answers will have.
    pub flights: usize,
    pub flight_bytes: usize,
    window: usize,
    /// Time from request to answer: smoothed, and the shortest.
    service: Duration,
    fastest: Duration,
    pub last_progress: Instant,
    /// Answers so far.
    pub answers: u64,
    /// Bytes per second, once known, and what is being measured: since when, and how many.
    rate: Option<f64>,
    since: Instant,
    bytes: usize,
    /// It has stopped in the middle of its work.
    pub stalled: bool,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self {
            flights: 0,
            flight_bytes: 0,
            window: FIRST_WINDOW,
            service: Duration::ZERO,
            fastest: Duration::MAX,
            last_progress: now,
            answers: 0,
            rate: None,
            since: now,
            bytes: 0,
            stalled: false,
        }
    }

    /// Whether another request may go to the peer, which is the only one or not.
    pub fn has_room(&self, limits: &Limits, small: bool, priority: bool, single: bool) -> bool {
        let count = if small { limits.small_window_requests } else { limits.window_requests };
        let (least, bytes) = match single {
            true => (MIN_REQUESTS, self.window),
            false => (MIN_SHARED_REQUESTS, self.share().min(limits.window_bytes)),
        };
        // What somebody waits for goes ahead at the server, so it need not wait here.
        let (count, bytes) = if priority { (count + count / 4, 2 * bytes) } else { (count, bytes) };
        let room = self.flights < count && (self.flight_bytes < bytes || self.flights < least);
        room && (single || !self.stalled)
    }

    fn share(&self) -> usize {
        let Some(rate) = self.rate else { return FIRST_SHARE };
        let time = self.round_trip() + AHEAD;
        ((rate * time.as_secs_f64()) as usize).max(MIN_SHARE)
    }

    fn round_trip(&self) -> Duration {
        if self.answers == 0 { Duration::ZERO } else { self.fastest }
    }

    /// How long it takes to deliver what it was asked for.
    pub fn busy_for(&self) -> Duration {
        let rate = self.rate.unwrap_or(FIRST_SHARE as f64 / AHEAD.as_secs_f64());
        Duration::from_secs_f64(self.flight_bytes as f64 / rate.max(1.0))
    }

    /// What a new request has to wait for, roughly: what is less comes first.
    pub fn load(&self) -> (bool, Duration, Duration) {
        (self.stalled, self.busy_for(), self.service)
    }

    pub fn took_off(&mut self, bytes: usize, now: Instant) {
        if self.flights == 0 {
            (self.since, self.bytes) = (now, 0);
        }
        self.flights += 1;
        self.flight_bytes += bytes;
    }

    /// A request ended without a word from the peer.
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
        self.stalled = false;
        self.measure(flight.bytes, now);
        let took = now.saturating_duration_since(flight.sent);
        self.service = if self.answers == 1 { took } else { (self.service * 7 + took) / 8 };
        self.fastest = self.fastest.min(took);
        if took > SLOW * self.fastest + SLOW_QUEUEING {
            self.window = self.window.saturating_sub(flight.bytes).max(MIN_WINDOW);
        } else if took < PATIENT * self.fastest + QUEUEING && was_full {
            self.window = (self.window + flight.bytes).min(limits.window_bytes);
        }
    }

    fn measure(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes;
        let time = now.saturating_duration_since(self.since);
        if time < SAMPLE {
            return;
        }
        let sample = self.bytes as f64 / time.as_secs_f64();
        let before = self.rate.unwrap_or_default();
        // A peer that ran out of work could have done more.
        let least = if self.flights == 0 { before } else { FADE * before };
        self.rate = Some(sample.max(least));
        (self.since, self.bytes) = (now, 0);
    }

    /// How long it may be silent with requests open.
    pub fn timeout(&self, single: bool) -> Duration {
        if single {
            return (self.service * 4).clamp(MIN_TIMEOUT, MAX_TIMEOUT);
        }
        // All that is under way may come in one frame.
        let least = if self.answers == 0 { FIRST_STALL } else { STALL };
        (self.round_trip() + self.busy_for() * 5 / 4).clamp(least, MAX_TIMEOUT)
    }
}
