//! Streams that ended well, remembered for a while.
//!
//! UDX has no TIME_WAIT. If our last acknowledgement is lost the peer repeats its END for 13 seconds and then reports a timeout
//! although everything arrived. The graveyard answers such a packet with the same acknowledgement.

use std::collections::{BTreeMap, VecDeque};

use super::packet::{HEADER, Packet, flag};

/// How long a grave is kept: the reference gives up after 13 s, a second or so of delay on top. Microseconds.
const KEPT: u64 = 16_000_000;

/// Graves at most; a peer that opens and ends streams at will must not fill memory.
const MAX_GRAVES: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Graveyard {
    graves: BTreeMap<u32, Grave>,
    order: VecDeque<(u64, u32)>,
}

#[derive(Debug)]
struct Grave {
    ack: [u8; HEADER],
    until: u64,
}

impl Graveyard {
    /// Remembers that stream `id` answers with `ack`.
    pub(super) fn bury(&mut self, id: u32, ack: [u8; HEADER], now: u64) {
        self.expire(now);
        if self.order.len() >= MAX_GRAVES {
            self.remove_oldest();
        }
        let until = now + KEPT;
        self.order.push_back((until, id));
        self.graves.insert(id, Grave { ack, until });
    }

    pub(super) fn has(&self, id: u32) -> bool {
        self.graves.contains_key(&id)
    }

    /// Answers a datagram for an ended stream if it asks for it; false if no such stream is remembered.
    pub(super) fn answer(
        &mut self,
        id: u32,
        datagram: &[u8],
        now: u64,
        send: impl FnOnce(Vec<u8>),
    ) -> bool {
        self.expire(now);
        let Some(grave) = self.graves.get(&id) else { return false };
        let asks = Packet::parse(datagram)
            .is_some_and(|packet| packet.header.has(flag::DATA | flag::END | flag::HEARTBEAT));
        if asks {
            send(grave.ack.to_vec());
        }
        true
    }

    /// Forgets what is old enough.
    pub(super) fn expire(&mut self, now: u64) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some((until, id)) = self.order.pop_front()
            && self.graves.get(&id).is_some_and(|grave| grave.until == until)
        {
            self.graves.remove(&id);
        }
    }

    /// Makes room for a new stream with this id.
    pub(super) fn remove(&mut self, id: u32) {
        self.graves.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graves_expire_and_are_bounded() {
        let mut yard = Graveyard::default();
        for id in 0..2000 {
            yard.bury(id, [0; 20], 5);
        }
        assert!(!yard.has(0) && yard.has(1999));
        assert_eq!(yard.graves.len(), MAX_GRAVES);
        yard.expire(5 + KEPT);
        assert!(yard.graves.is_empty() && yard.order.is_empty());
    }
}
