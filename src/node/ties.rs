//! What holds a connection: the channels that are open on it. One that has none is offered to the network to end.

use crate::hyper::replication::ConnId;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A connection without an open channel is offered after this, and again. A peer opens its channels with
/// its first words, so it covers a slow path and a drive that is opened a moment after another was closed.
const IDLE: Duration = Duration::from_secs(15);

#[derive(Default)]
pub struct Ties {
    /// Open channels, and since when there are none.
    conns: HashMap<ConnId, (usize, Instant)>,
    next: Option<Instant>,
}

impl Ties {
    pub fn connected(&mut self, conn: ConnId, now: Instant) {
        self.conns.insert(conn, (0, now));
        self.wake_at(now + IDLE);
    }

    pub fn closed(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
    }

    pub fn opened_channel(&mut self, conn: ConnId) {
        if let Some((channels, _)) = self.conns.get_mut(&conn) {
            *channels += 1;
        }
    }

    pub fn closed_channel(&mut self, conn: ConnId, now: Instant) {
        if let Some((channels, since)) = self.conns.get_mut(&conn) {
            (*channels, *since) = (channels.saturating_sub(1), now);
            if *channels == 0 {
                self.wake_at(now + IDLE);
            }
        }
    }

    /// Connections that have had no channel for a while; each is named again after the same time.
    pub fn idle(&mut self, now: Instant) -> Vec<ConnId> {
        if self.next.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let mut idle = Vec::new();
        for (conn, (channels, since)) in &mut self.conns {
            if *channels == 0 && now >= *since + IDLE {
                idle.push(*conn);
                *since = now;
            }
        }
        let free = self.conns.values().filter(|(channels, _)| *channels == 0);
        self.next = free.map(|(_, since)| *since + IDLE).min();
        idle
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    fn wake_at(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;

    #[test]
    fn a_connection_is_offered_when_its_last_channel_has_been_closed_for_a_while() {
        let (mut ties, start) = (Ties::default(), epoch());
        let [a, b] = [ConnId(1), ConnId(2)];
        ties.connected(a, start);
        ties.connected(b, start);
        ties.opened_channel(a);
        ties.opened_channel(a);
        assert_eq!(ties.poll_timeout(), Some(start + IDLE));
        assert_eq!(ties.idle(start + IDLE), [b]);
        ties.closed(b);
        let later = start + 10 * IDLE;
        assert!(ties.idle(later).is_empty());
        ties.closed_channel(a, later);
        assert!(ties.idle(later + IDLE).is_empty());
        ties.closed_channel(a, later);
        assert!(ties.idle(later + IDLE / 2).is_empty());
        assert_eq!(ties.idle(later + IDLE), [a]);
        assert!(ties.idle(later + IDLE).is_empty());
        assert_eq!(ties.idle(later + 2 * IDLE), [a], "the network had a reason to keep it");
        ties.closed(a);
        ties.idle(later + 3 * IDLE);
        assert_eq!(ties.poll_timeout(), None);
    }
}
