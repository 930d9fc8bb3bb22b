//! BBR version 1.
//!
//! The path is modelled by two numbers: the bandwidth of its bottleneck (largest delivery rate of the last ten
//! round trips) and its round trip without queue (smallest of the last ten seconds). Their product is what
//! fills the path. Startup doubles the rate each round until it stops growing, Drain empties the queue this
//! built, ProbeBw then cycles around the estimate, ProbeRtt lets the queue run empty now and then.
//!
//! Differences from the reference, all invisible on the wire: bytes and microseconds instead of packets and
//! milliseconds; ProbeRtt keeps half of the pipe full instead of four packets; it is skipped where the round trip
//! is below [`MIN_RTT_FLOOR`], where a shorter one would change nothing, and while the shortest one is seen anyway;
//! Startup paces from the first round trip on and ends where it makes a queue overflow.

use super::chance::Chance;
use super::{
    RateSample, ceiling::Ceiling, lumps::Lumps, overflow::Overflow, win_filter::WinFilter,
};

/// 2/ln 2: the smallest gain that doubles the delivery rate each round.
const HIGH_GAIN: f64 = 2.885_39;
const CWND_GAIN: f64 = 2.0;
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];

/// From this phase on all that the push of the first one lost is known.
const AFTER_PUSH: usize = 3;

/// Rounds over which the bandwidth is the maximum.
const BW_ROUNDS: u64 = 10;
const MIN_RTT_WINDOW: u64 = 10_000_000;
/// A round trip that is longer than the shortest by no more than this part of it shows that the queue ran empty.
const SEEN_AGAIN: u64 = 64;
const PROBE_RTT_TIME: u64 = 200_000;
/// Leaves a little room so that the queue does not grow at the estimated rate.
const PACING_MARGIN: f64 = 0.99;
/// Round trips below this count as this, microseconds: on loopback the time a process needs to be woken is part of
/// the pipe although the fastest answer does not show it.
pub const MIN_RTT_FLOOR: u64 = 500;
const MIN_PACKETS: u64 = 4;
/// What may be sent before anything is known of the path: 37 KB, as QUIC servers do. The reference sends 10, which
/// makes a first block take two round trips more.
pub const INITIAL_PACKETS: u64 = 32;
/// Rounds without 25 % growth after which the pipe counts as full.
const FULL_ROUNDS: u8 = 3;
/// Most bytes counted as one burst of the pacer.
const MAX_QUANTUM: u64 = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Startup,
    Drain,
    ProbeBw,
    ProbeRtt,
}

/// Loss recovery as the window sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Open,
    /// Losses are being repaired.
    Recovery,
    /// After a retransmission timeout.
    Loss,
}

/// What the stream knows when a batch of acknowledgements was worked off.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub now: u64,
    /// Bytes in flight after the batch.
    pub in_flight: u64,
    /// Total bytes delivered.
    pub delivered: u64,
    pub phase: Phase,
    /// Numbers of the oldest packet that is not acknowledged, and of the next one.
    pub una: u64,
    pub next: u64,
}

#[derive(Debug)]
pub struct Bbr {
    mode: Mode,
    /// Bytes of a full datagram.
    packet: u64,
    cwnd: u64,
    prior_cwnd: u64,
    pacing_rate: u64,
    pacing_gain: f64,
    cwnd_gain: f64,

    bw: WinFilter,
    round: u64,
    round_start: bool,
    next_round_delivered: u64,

    min_rtt: u64,
    min_rtt_stamp: u64,
    /// The pacing rate follows from a round trip. Before it is as if that were a millisecond, and later it only grows in
    /// Startup: a start in bursts overflows a queue that is shorter than the round trip long before the link is full.
    timed: bool,
    probe_rtt_done: Option<u64>,
    probe_rtt_round_done: bool,

    full_bw: u64,
    full_rounds: u8,
    full: bool,
    /// What was sent in Startup and Drain has numbers below this.
    settled: u64,

    cycle: usize,
    cycle_stamp: u64,
    /// State of a small generator: where in the cycle ProbeBw starts.
    dice: u32,

    last_phase: Phase,
    conserve: bool,
    idle_restart: bool,

    lumps: Lumps,
    chance: Chance,
    ceiling: Ceiling,
    overflow: Overflow,
}

impl Bbr {
    /// `packet` = bytes of a full datagram; `dice` = any number.
    pub fn new(packet: usize, dice: u32) -> Self {
        let packet = packet as u64;
        let cwnd = INITIAL_PACKETS * packet;
        Self {
            mode: Mode::Startup,
            packet,
            cwnd,
            prior_cwnd: 0,
            // As if the round trip were a millisecond, until the first one is known.
            pacing_rate: (HIGH_GAIN * (cwnd * 1000) as f64) as u64,
            pacing_gain: HIGH_GAIN,
            cwnd_gain: HIGH_GAIN,
            bw: WinFilter::new(0),
            round: 0,
            round_start: false,
            next_round_delivered: 0,
            min_rtt: u64::MAX,
            min_rtt_stamp: 0,
            timed: false,
            probe_rtt_done: None,
            probe_rtt_round_done: false,
            full_bw: 0,
            full_rounds: 0,
            full: false,
            settled: 0,
            cycle: 0,
            cycle_stamp: 0,
            dice,
            last_phase: Phase::Open,
            conserve: false,
            idle_restart: false,
            lumps: Lumps::default(),
            chance: Chance::default(),
            ceiling: Ceiling::default(),
            overflow: Overflow::default(),
        }
    }

    /// Bytes that may be in flight.
    pub fn cwnd(&self) -> u64 {
        self.cwnd
    }

    /// Bytes per second.
    pub fn pacing_rate(&self) -> u64 {
        self.pacing_rate
    }

    /// Estimated bandwidth of the bottleneck, bytes per second.
    pub fn bandwidth(&self) -> u64 {
        self.bw.get()
    }

    /// The size of a full datagram changed.
    pub fn set_packet(&mut self, packet: usize) {
        self.packet = packet as u64;
        if self.last_phase != Phase::Loss {
            self.cwnd = self.cwnd.max(MIN_PACKETS * self.packet);
        }
    }

    /// In ProbeRtt the small window, not the application, keeps the sender short: such samples must not lower the estimate.
    pub fn in_probe_rtt(&self) -> bool {
        self.mode == Mode::ProbeRtt
    }

    /// The first packet leaves after an idle time.
    pub fn on_restart(&mut self, now: u64, app_limited: bool) {
        if !app_limited {
            return;
        }
        self.idle_restart = true;
        self.lumps.restart(now);
        if self.mode == Mode::ProbeBw {
            // The pipe is empty: no need to push, no queue to drain.
            self.pacing_rate = self.rate_for(1.0);
        } else if self.mode == Mode::ProbeRtt {
            self.check_probe_rtt_done(now);
        }
    }

    /// Losses were found while none were being repaired.
    pub fn on_enter_recovery(&mut self) {
        self.save_cwnd();
    }

    /// The retransmission timer fired.
    pub fn on_timeout(&mut self) {
        self.save_cwnd();
        self.last_phase = Phase::Loss;
        self.full_bw = 0;
        self.round_start = true;
        self.conserve = false;
        self.cwnd = self.packet;
    }

    /// A batch of acknowledgements was worked off.
    pub fn on_ack(&mut self, sample: &RateSample, view: &View) {
        self.update_round(sample, view);
        let (bw, full) = (self.bw.get(), self.full);
        self.lumps.note(sample, bw, self.cwnd, self.round_start, full, view.now);
        self.update_cycle(sample, view);
        self.check_full(sample);
        self.check_drain(view);
        self.update_min_rtt(sample, view);
        self.set_gains();
        self.set_pacing_rate(sample);
        self.set_cwnd(sample, view);
    }

    fn update_round(&mut self, sample: &RateSample, view: &View) {
        self.round_start = false;
        self.ceiling.note(sample);
        self.overflow.note(sample, self.min_rtt);
        if self.mode == Mode::ProbeBw && self.cycle >= AFTER_PUSH && !self.overflow.stands() {
            self.chance.note(sample);
        }
        if sample.interval == 0 || sample.delivered == 0 {
            return;
        }
        if sample.prior_delivered >= self.next_round_delivered {
            self.next_round_delivered = view.delivered;
            self.round += 1;
            self.round_start = true;
            self.conserve = false;
            let least = MIN_PACKETS * self.packet;
            self.ceiling.end_round(least);
            // What Startup overshot by says nothing about neighbours, and is found lost until all of it is repaired.
            let startup =
                self.mode == Mode::Startup || self.mode == Mode::Drain || view.una < self.settled;
            let pipe = self.pipe(if startup { 1.0 } else { 0.75 });
            let overflowed = self.overflow.end_round(startup, least.max(pipe), self.packet);
            // What more would come of it is lost.
            self.full |= overflowed && self.mode == Mode::Startup;
        }
        let bw = (sample.delivered as f64 * 1e6 / sample.interval as f64) as u64;
        if !sample.app_limited || bw >= self.bw.get() {
            self.bw.update_max(BW_ROUNDS, self.round, bw);
        }
    }

    fn update_cycle(&mut self, sample: &RateSample, view: &View) {
        if self.mode != Mode::ProbeBw {
            return;
        }
        let long_enough = view.now.saturating_sub(self.cycle_stamp) > self.round_trip();
        let done = if self.pacing_gain > 1.0 {
            // Keep pushing until the pipe shows it, unless it overflows.
            long_enough
                && (sample.lost > 0 || sample.prior_in_flight >= self.target(self.pacing_gain))
        } else if self.pacing_gain < 1.0 {
            long_enough || sample.prior_in_flight <= self.target(1.0)
        } else {
            long_enough
        };
        if done {
            self.cycle = (self.cycle + 1) % CYCLE.len();
            self.cycle_stamp = view.now;
        }
    }

    fn check_full(&mut self, sample: &RateSample) {
        if self.full || !self.round_start || sample.app_limited {
            return;
        }
        let bw = self.bw.get();
        if bw as f64 >= self.full_bw as f64 * 1.25 {
            self.full_bw = bw;
            self.full_rounds = 0;
            return;
        }
        self.full_rounds += 1;
        self.full = self.full_rounds >= FULL_ROUNDS;
    }

    fn check_drain(&mut self, view: &View) {
        if self.mode == Mode::Startup && self.full {
            self.mode = Mode::Drain;
        }
        if self.mode == Mode::Drain && view.in_flight <= self.target(1.0) {
            self.settled = view.next;
            self.enter_probe_bw(view.now);
        }
    }

    fn enter_probe_bw(&mut self, now: u64) {
        self.mode = Mode::ProbeBw;
        self.dice = self.dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Anywhere but in the draining phase, so that flows do not move in step.
        self.cycle = match (self.dice >> 16) as usize % 7 {
            0 => 0,
            n => n + 1,
        };
        self.cycle_stamp = now;
    }

    fn update_min_rtt(&mut self, sample: &RateSample, view: &View) {
        // Nothing is old before there is anything: a stream may begin long after its machine did.
        let expired = self.min_rtt != u64::MAX && view.now > self.min_rtt_stamp + MIN_RTT_WINDOW;
        if let Some(rtt) = sample.rtt
            && (rtt < self.min_rtt || rtt <= MIN_RTT_FLOOR || expired)
        {
            self.min_rtt = if expired { rtt } else { rtt.min(self.min_rtt) };
            self.min_rtt_stamp = view.now;
        } else if let Some(rtt) = sample.rtt
            && rtt <= self.min_rtt + self.min_rtt / SEEN_AGAIN
        {
            self.min_rtt_stamp = view.now;
        }
        let floor = self.min_rtt <= MIN_RTT_FLOOR;
        if expired && !floor && !self.idle_restart && self.mode != Mode::ProbeRtt {
            self.mode = Mode::ProbeRtt;
            self.save_cwnd();
            self.probe_rtt_done = None;
        }
        if self.mode == Mode::ProbeRtt {
            self.probe_rtt(view);
        }
        if sample.delivered > 0 {
            self.idle_restart = false;
        }
    }

    fn probe_rtt(&mut self, view: &View) {
        if self.probe_rtt_done.is_none() {
            if view.in_flight <= self.probe_rtt_cwnd() {
                self.probe_rtt_done = Some(view.now + PROBE_RTT_TIME);
                self.probe_rtt_round_done = false;
                self.next_round_delivered = view.delivered;
            }
            return;
        }
        self.probe_rtt_round_done |= self.round_start;
        if self.probe_rtt_round_done {
            self.check_probe_rtt_done(view.now);
        }
    }

    fn check_probe_rtt_done(&mut self, now: u64) {
        if self.probe_rtt_done.is_none_or(|done| now <= done) {
            return;
        }
        self.min_rtt_stamp = now;
        self.cwnd = self.cwnd.max(self.prior_cwnd);
        if self.full {
            self.enter_probe_bw(now);
        } else {
            self.mode = Mode::Startup;
        }
    }

    fn set_gains(&mut self) {
        (self.pacing_gain, self.cwnd_gain) = match self.mode {
            Mode::Startup => (HIGH_GAIN, HIGH_GAIN),
            Mode::Drain => (1.0 / HIGH_GAIN, HIGH_GAIN),
            Mode::ProbeBw => (CYCLE[self.cycle], CWND_GAIN),
            Mode::ProbeRtt => (1.0, 1.0),
        };
    }

    fn rate_for(&self, gain: f64) -> u64 {
        (self.bw.get() as f64 * gain * PACING_MARGIN * self.chance.factor()) as u64
    }

    fn set_pacing_rate(&mut self, sample: &RateSample) {
        if !self.timed
            && let Some(rtt) = sample.rtt
        {
            self.timed = true;
            let per_second = self.cwnd as f64 * 1e6 / rtt.max(MIN_RTT_FLOOR) as f64;
            self.pacing_rate = (HIGH_GAIN * per_second) as u64;
        }
        if self.bw.get() == 0 {
            return;
        }
        let rate = self.rate_for(self.pacing_gain);
        if self.full || rate > self.pacing_rate {
            self.pacing_rate = rate.max(self.packet);
        }
    }

    fn round_trip(&self) -> u64 {
        self.min_rtt.max(MIN_RTT_FLOOR)
    }

    /// Bandwidth-delay product times `gain`.
    fn pipe(&self, gain: f64) -> u64 {
        if self.min_rtt == u64::MAX || self.bw.get() == 0 {
            return INITIAL_PACKETS * self.packet;
        }
        (self.bw.get() as f64 * self.round_trip() as f64 / 1e6 * gain) as u64
    }

    /// What should be in flight at `gain`: the pipe, and some bursts on their way in and out of the two hosts.
    fn target(&self, gain: f64) -> u64 {
        let quantum = (self.pacing_rate / 1000).clamp(self.packet, MAX_QUANTUM.max(self.packet));
        let mut target = self.pipe(gain) + 3 * quantum;
        if self.mode == Mode::ProbeBw && self.cycle == 0 {
            target += 2 * self.packet;
        }
        target
    }

    fn probe_rtt_cwnd(&self) -> u64 {
        self.pipe(0.5).max(MIN_PACKETS * self.packet)
    }

    fn save_cwnd(&mut self) {
        if self.last_phase == Phase::Open && self.mode != Mode::ProbeRtt {
            self.prior_cwnd = self.cwnd;
        } else {
            self.prior_cwnd = self.prior_cwnd.max(self.cwnd);
        }
    }

    /// Follows the phases of loss recovery; true if the window is to stay at what was delivered.
    ///
    /// Only where losses are heavy: scattered ones are no sign of congestion. And never below one full pipe: what is in
    /// flight when the first loss is found may be little because the peer's window was short.
    fn follow_recovery(&mut self, sample: &RateSample, view: &View) -> bool {
        let pipe = if self.bw.get() == 0 { self.packet } else { self.pipe(1.0).max(self.packet) };
        if sample.lost > 0 {
            let floor = pipe.min(self.cwnd);
            self.cwnd = self.cwnd.saturating_sub(sample.lost).max(floor);
        }
        let was = std::mem::replace(&mut self.last_phase, view.phase);
        if view.phase == Phase::Recovery && was == Phase::Open {
            let heavy = sample.lost > 8 * self.packet && sample.lost > view.in_flight / 50;
            if heavy {
                // The first round sends one packet for each that left the network.
                self.conserve = true;
                self.next_round_delivered = view.delivered;
                self.cwnd = self.cwnd.min((view.in_flight + sample.acked).max(pipe));
            }
        }
        if self.conserve {
            self.cwnd = self.cwnd.max(view.in_flight + sample.acked);
        }
        self.conserve
    }

    /// A recovery is over, even if the next one begins with the same acknowledgement.
    pub fn on_recovered(&mut self) {
        self.cwnd = self.cwnd.max(self.prior_cwnd);
        self.conserve = false;
        self.last_phase = Phase::Open;
    }

    fn set_cwnd(&mut self, sample: &RateSample, view: &View) {
        if sample.acked > 0 && !self.follow_recovery(sample, view) {
            let extra = if self.full { self.lumps.extra(self.bw.get()) } else { 0 };
            let target = self.target(self.cwnd_gain) + extra;
            if self.full {
                self.cwnd = (self.cwnd + sample.acked).min(target);
            } else if self.cwnd < target || view.delivered < INITIAL_PACKETS * self.packet {
                self.cwnd += sample.acked;
            }
            self.cwnd = self.cwnd.max(MIN_PACKETS * self.packet);
        }
        if self.mode == Mode::ProbeRtt {
            self.cwnd = self.cwnd.min(self.probe_rtt_cwnd());
        }
        self.cwnd = self.cwnd.min(self.ceiling.limit(self.min_rtt)).min(self.overflow.limit());
    }
}
