//! How large a datagram the path takes.
//!
//! Towards any peer: an ordinary full packet is padded (the data offset says so); once acknowledged, that size is used and
//! the next one tried, up to 1472 bytes. The search begins with leaps, since most paths take all of it; after the first
//! loss it goes on in steps of 32 bytes, as the reference does from the start. Three losses at one size end it.
//!
//! Towards a peer that agreed to larger datagrams (loopback, jumbo frames) probes of their own are sent, largest candidate
//! first, because a packet once cut to a large size could not be resent in pieces. A size the local interface refuses
//! is known at once from the failed send; a size that is lost is tried twice. Only if no candidate passes does the ordinary
//! search run.
//!
//! All sizes here are bytes of the UDP payload.

use super::packet::HEADER;

/// IPv4 and UDP headers.
pub const IP_UDP: usize = 28;
/// What every path takes: an IP packet of 1200 bytes.
pub const BASE: usize = 1200 - IP_UDP;
/// The most an ordinary peer may be sent: its receive buffer cuts off what lies behind 2048 bytes, unnoticed.
pub const ORDINARY_MAX: usize = 1500 - IP_UDP;
/// The largest UDP payload over IPv4.
pub const MAX_DATAGRAM: usize = 65_507;

const STEP: usize = 32;
/// The most that the one byte of the data offset can say, in whole words.
const LEAP: usize = 252;
const MAX_FAILURES: u8 = 3;
/// Losses of a large probe before the next smaller size is tried.
const LARGE_TRIES: u8 = 2;
/// Large sizes, best first: loopback, and the usual jumbo frame.
const LARGE: [usize; 3] = [LOOPBACK, 16_404, 9000 - IP_UDP];
/// Two of them make up one 64 KiB send. Measured on loopback, twice the size costs the same per byte, and a lost packet more.
const LOOPBACK: usize = 32_000;

/// A probe of the ordinary search that is in flight.
#[derive(Debug, Clone, Copy)]
struct Probe {
    seq: u64,
    size: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Large {
    /// Candidate `at` is to be probed for the `tries`-th time.
    Due {
        at: usize,
        tries: u8,
    },
    /// Its probe is on the way.
    Waiting {
        at: usize,
        tries: u8,
    },
    Done,
}

#[derive(Debug, Clone)]
pub struct Mtu {
    size: usize,
    /// End of the ordinary search.
    max: usize,
    /// The first acknowledgement starts the search.
    started: bool,
    probe: Option<Probe>,
    /// What the next probe adds at most.
    stride: usize,
    failures: u8,
    agreed: usize,
    large: Large,
}

impl Mtu {
    /// `max_datagram` is what both sides agreed on; up to 1472 nothing has to be agreed.
    pub fn new(max_datagram: usize) -> Self {
        let agreed = max_datagram.min(MAX_DATAGRAM);
        let mut mtu = Self {
            size: BASE.min(agreed.max(HEADER + 1)),
            max: agreed.min(ORDINARY_MAX),
            started: false,
            probe: None,
            stride: LEAP,
            failures: 0,
            agreed,
            large: Large::Done,
        };
        mtu.large = mtu.candidate(0);
        mtu
    }

    fn candidate(&self, from: usize) -> Large {
        let fits = |size: &usize| *size <= self.agreed && *size > ORDINARY_MAX;
        match LARGE.get(from..).unwrap_or_default().iter().position(fits) {
            Some(i) => Large::Due { at: from + i, tries: 0 },
            None => Large::Done,
        }
    }

    /// Bytes of a full datagram.
    pub fn datagram(&self) -> usize {
        self.size
    }

    /// Payload bytes of a full packet.
    pub fn payload(&self) -> usize {
        self.size - HEADER
    }

    /// What both sides agreed on.
    pub fn agreed(&self) -> usize {
        self.agreed
    }

    /// Whether the peer takes a datagram with `payload` bytes; the path may still be narrower.
    pub fn agrees_to(&self, payload: usize) -> bool {
        HEADER + payload <= self.agreed
    }

    /// Both sides agreed to more than 1472 bytes.
    pub fn large_agreed(&self) -> bool {
        self.agreed > ORDINARY_MAX
    }

    /// Something was acknowledged: the path works.
    pub fn on_ack(&mut self) {
        self.started = true;
    }

    /// Padding for the next full packet if it is to be a probe.
    pub fn padding(&self) -> Option<usize> {
        let wanted = self.started
            && self.probe.is_none()
            && self.large == Large::Done
            && self.size < self.max;
        wanted.then(|| (self.max - self.size).min(self.stride))
    }

    pub fn on_probe_sent(&mut self, seq: u64, padding: usize) {
        self.probe = Some(Probe { seq, size: self.size + padding });
    }

    /// A packet marked as probe was delivered at its first transmission; true if the size grew.
    pub fn on_probe_delivered(&mut self, seq: u64) -> bool {
        let Some(probe) = self.probe.take_if(|probe| probe.seq == seq) else { return false };
        self.failures = 0;
        self.size = probe.size.max(self.size);
        true
    }

    /// A packet marked as probe was lost.
    pub fn on_probe_lost(&mut self, seq: u64) {
        if self.probe.take_if(|probe| probe.seq == seq).is_some() {
            if self.stride > STEP {
                self.stride = STEP;
                return;
            }
            self.failures += 1;
            if self.failures >= MAX_FAILURES {
                self.max = self.size;
            }
        }
    }

    /// Size of the large probe to send now, if one is due.
    pub fn large_probe(&mut self) -> Option<usize> {
        let Large::Due { at, tries } = self.large else { return None };
        if !self.started {
            return None;
        }
        self.large = Large::Waiting { at, tries: tries + 1 };
        LARGE.get(at).copied()
    }

    /// The large probe was not answered in time.
    pub fn on_large_timeout(&mut self) {
        if let Large::Waiting { at, tries } = self.large {
            self.large =
                if tries < LARGE_TRIES { Large::Due { at, tries } } else { self.candidate(at + 1) };
        }
    }

    /// The peer got a probe of `size` bytes; true if the size grew.
    pub fn on_large_answer(&mut self, size: usize) -> bool {
        let known = match self.large {
            Large::Waiting { at, .. } | Large::Due { at, .. } => LARGE.get(at) == Some(&size),
            Large::Done => false,
        };
        if known {
            self.large = Large::Done;
            self.max = size;
            self.size = size;
        }
        known
    }

    /// Packets of the size in use get lost: starts from the bottom, and looks in small steps for what the path takes
    /// now.
    pub fn on_black_hole(&mut self) {
        self.size = BASE.min(self.size);
        self.max = self.agreed.min(ORDINARY_MAX);
        self.probe = None;
        self.stride = STEP;
        self.failures = 0;
        self.large = Large::Done;
    }

    /// The system refused to send a datagram of `size` bytes. Returns the number of the probe that is lost by it.
    pub fn on_send_error(&mut self, size: usize) -> Option<u64> {
        match self.large {
            Large::Waiting { at, .. } if LARGE.get(at) == Some(&size) => {
                self.large = self.candidate(at + 1)
            }
            _ if size <= self.size => {
                // The route changed: what is cut from now on fits again.
                self.size = BASE.min(self.size);
                self.max = self.size;
            }
            _ => {}
        }
        let probe = self.probe.take_if(|probe| probe.size == size)?;
        self.max = self.size;
        Some(probe.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of IP packets that a search finds, all of its probes being delivered.
    fn search(mtu: &mut Mtu) -> Vec<usize> {
        let mut sizes = Vec::new();
        while let Some(padding) = mtu.padding() {
            let seq = 100 + sizes.len() as u64;
            mtu.on_probe_sent(seq, padding);
            assert_eq!(mtu.padding(), None);
            assert!(mtu.on_probe_delivered(seq));
            sizes.push(mtu.datagram() + IP_UDP);
        }
        sizes
    }

    #[test]
    fn two_leaps_and_after_a_loss_steps_of_32() {
        let mut mtu = Mtu::new(ORDINARY_MAX);
        assert_eq!(mtu.padding(), None);
        mtu.on_ack();
        assert_eq!(search(&mut mtu.clone()), [1452, 1500]);
        let padding = mtu.padding().unwrap();
        mtu.on_probe_sent(1, padding);
        mtu.on_probe_lost(1);
        let sizes = [1232, 1264, 1296, 1328, 1360, 1392, 1424, 1456, 1488, 1500];
        assert_eq!(search(&mut mtu), sizes);
        assert_eq!(mtu.payload(), 1452);
    }

    #[test]
    fn three_losses_at_a_step_end_the_search() {
        let mut mtu = Mtu::new(ORDINARY_MAX);
        mtu.on_ack();
        for seq in 0..4 {
            let padding = mtu.padding().unwrap();
            mtu.on_probe_sent(seq, padding);
            mtu.on_probe_lost(seq);
        }
        assert_eq!(mtu.padding(), None);
        assert_eq!(mtu.datagram(), BASE);
    }

    #[test]
    fn large_sizes_fall_back_to_the_ordinary_search() {
        let mut mtu = Mtu::new(MAX_DATAGRAM);
        assert_eq!(mtu.large_probe(), None);
        mtu.on_ack();
        let first = mtu.large_probe().unwrap();
        assert_eq!(mtu.padding(), None);
        assert_eq!(mtu.on_send_error(first), None);
        assert_eq!(mtu.large_probe(), Some(16_404));
        mtu.on_large_timeout();
        assert_eq!(mtu.large_probe(), Some(16_404));
        mtu.on_large_timeout();
        assert_eq!(mtu.large_probe(), Some(8972));
        assert!(!mtu.on_large_answer(16_404));
        mtu.on_send_error(8972);
        assert_eq!(mtu.large_probe(), None);
        assert_eq!(mtu.padding(), Some(LEAP));
    }

    #[test]
    fn a_large_answer_sets_the_size() {
        let mut mtu = Mtu::new(9000);
        mtu.on_ack();
        assert_eq!(mtu.large_probe(), Some(8972));
        assert!(mtu.on_large_answer(8972));
        assert_eq!((mtu.datagram(), mtu.padding()), (8972, None));
    }
}
