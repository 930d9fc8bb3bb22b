//! Delivery-rate samples, after draft-cheng-iccrg-delivery-rate-estimation.
//!
//! Each packet remembers how much had been delivered when it left ([`Snapshot`]). When it is acknowledged,
//! what was delivered in between, divided by the time that took (to send or to acknowledge, whichever was
//! longer), is the rate of the path. Times in microseconds, amounts in bytes of datagrams.

/// State of the sampler when a packet left, kept with the packet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Snapshot {
    delivered: u64,
    delivered_time: u64,
    first_sent: u64,
    app_limited: bool,
}

/// What a batch of acknowledgements says about the path.
#[derive(Debug, Clone, Copy, Default)]
pub struct RateSample {
    /// Bytes delivered over `interval`; meaningless if `interval` is 0.
    pub delivered: u64,
    /// Microseconds; 0 if there is no valid sample.
    pub interval: u64,
    /// Total delivered when the newest acknowledged packet left.
    pub prior_delivered: u64,
    /// The sender had too little to send during the interval.
    pub app_limited: bool,
    /// Bytes newly acknowledged.
    pub acked: u64,
    /// Bytes newly found lost.
    pub lost: u64,
    /// Smallest round trip among the packets sent once.
    pub rtt: Option<u64>,
    /// In flight before this batch.
    pub prior_in_flight: u64,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    xmit: u64,
    sent: u64,
    at_send: Snapshot,
}

#[derive(Debug, Default)]
pub struct RateSampler {
    delivered: u64,
    delivered_time: u64,
    first_sent: u64,
    /// Total delivered at which the sender no longer counts as short of data; 0 if it is not.
    app_limited_until: u64,
    newest: Option<Newest>,
    acked: u64,
}

impl RateSampler {
    /// Bytes delivered since the start.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// A packet leaves; `idle` if nothing else is in flight.
    pub fn on_sent(&mut self, now: u64, idle: bool) -> Snapshot {
        if idle {
            self.first_sent = now;
            self.delivered_time = now;
        }
        Snapshot {
            delivered: self.delivered,
            delivered_time: self.delivered_time,
            first_sent: self.first_sent,
            app_limited: self.app_limited_until != 0,
        }
    }

    /// A packet of `size` bytes, last sent at `sent` as the `xmit`-th transmission, was delivered.
    pub fn on_delivered(&mut self, now: u64, size: u64, xmit: u64, sent: u64, at_send: Snapshot) {
        self.delivered += size;
        self.delivered_time = now;
        self.acked += size;
        if self.newest.is_none_or(|newest| xmit > newest.xmit) {
            self.newest = Some(Newest { xmit, sent, at_send });
        }
    }

    pub fn is_app_limited(&self) -> bool {
        self.app_limited_until != 0
    }

    /// The sender has nothing to send although it may; `in_flight` bytes are on their way.
    pub fn set_app_limited(&mut self, in_flight: u64) {
        self.app_limited_until = (self.delivered + in_flight).max(1);
    }

    /// Closes a batch. An interval below `min_rtt` comes of compressed acknowledgements and is no sample.
    pub fn finish(&mut self, min_rtt: u64) -> RateSample {
        if self.app_limited_until != 0 && self.delivered > self.app_limited_until {
            self.app_limited_until = 0;
        }
        let mut sample =
            RateSample { acked: std::mem::take(&mut self.acked), ..RateSample::default() };
        let Some(newest) = self.newest.take() else { return sample };
        let prior = newest.at_send;
        self.first_sent = newest.sent;
        let send_elapsed = newest.sent.saturating_sub(prior.first_sent);
        let ack_elapsed = self.delivered_time.saturating_sub(prior.delivered_time);
        let interval = send_elapsed.max(ack_elapsed);
        sample.prior_delivered = prior.delivered;
        sample.app_limited = prior.app_limited;
        sample.delivered = self.delivered - prior.delivered;
        if interval >= min_rtt.max(1) {
            sample.interval = interval;
        }
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_shows_its_rate() {
        let mut sampler = RateSampler::default();
        let mut in_flight = std::collections::VecDeque::new();
        let mut last = RateSample::default();
        for i in 0..100u64 {
            let now = 1_000_000 + i * 100;
            in_flight.push_back((i, now, sampler.on_sent(now, in_flight.is_empty())));
            if i >= 10 {
                let (xmit, sent, at_send) = in_flight.pop_front().unwrap();
                sampler.on_delivered(now, 1000, xmit, sent, at_send);
                last = sampler.finish(1000);
            }
        }
        assert_eq!(last.delivered * 1_000_000 / last.interval, 10_000_000);
        assert!(!last.app_limited);
    }

    #[test]
    fn a_sender_without_data_is_marked() {
        let mut sampler = RateSampler::default();
        let first = sampler.on_sent(1000, true);
        sampler.set_app_limited(500);
        let second = sampler.on_sent(1000, false);
        sampler.on_delivered(2000, 500, 0, 1000, first);
        assert!(!sampler.finish(0).app_limited);
        sampler.on_delivered(2000, 500, 1, 1000, second);
        assert!(sampler.finish(0).app_limited);
        assert_eq!(sampler.app_limited_until, 0);
    }
}
