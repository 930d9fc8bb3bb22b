//! Legs: the ends of streams of others that are joined here, as a relay does.
//!
//! Whatever comes for one leg of a pair goes out to the peer of the other as it is, but for the stream id. Nothing is
//! acknowledged, ordered or repeated here. A leg learns where its peer is from the peer's first packet, which has to come
//! from the host that its owner names; until then a few packets for the peer are kept, for a stream that has sent nothing
//! yet is only a timeout away from its next try.
//!
//! A NAT may forget the peer, which then speaks from another port of its host. Anybody may say so in its name: what is for
//! it goes there as well, within three times what comes from there, until its owner knows where it is.
//!
//! Each host has an allowance of bytes a second, and all have one together; what is beyond them is lost, as on a slow
//! link. A host that has not shown that it is there gets no more than three times what came from it.
//!
//! Source: libudx/src/udx.c:udx_stream_relay_to

use super::detour::Way;
use super::outbox::Outbox;
use super::packet::{Packet, flag};
use super::types::UdxEvent;
use crate::swarm::dht_rpc::bucket::{Bucket, Limit};
use crate::swarm::socket::host_of;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

/// Packets for a peer that has not been heard yet, and their bytes: a header frame and some repetitions of it.
const MAX_KEPT: usize = 4;
const MAX_KEPT_BYTES: usize = 6 << 10;

/// Bytes to a host that has not shown that it is there, for each that came from it.
const FACTOR: u64 = 3;

/// An allowance lasts for so many seconds at once: less than that and a stream that starts is cut off again and again.
const BURST_SECONDS: f64 = 0.5;

/// Hosts without a leg whose allowance is not full yet: they may come again.
pub(super) const MAX_LEFT: usize = 256;

/// Bytes a second that are passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LegRates {
    /// Of what comes from one host.
    pub host: u64,
    pub total: u64,
}

/// One end of a pair, as its owner describes it.
#[derive(Debug, Clone, Copy)]
pub struct LegEnd {
    /// The stream of its peer.
    pub remote_id: u32,
    /// Where its peer has to be; anywhere, if none is given.
    pub host: Option<IpAddr>,
    /// The peer has shown that it is there.
    pub proven: bool,
}

#[derive(Debug)]
struct Leg {
    end: LegEnd,
    /// The other one of its pair. It may be gone.
    other: u32,
    at: Option<Place>,
    /// Another port of its host that it was last heard at.
    beside: Option<Place>,
    /// Where its peer has shown itself, if that is known.
    shown: Option<Way>,
    kept: Vec<Vec<u8>>,
    /// When something last came for it.
    used: Instant,
}

/// Bytes from a place and to it.
#[derive(Debug, Clone, Copy)]
struct Place {
    way: Way,
    received: u64,
    sent: u64,
}

/// What one host has.
#[derive(Debug)]
struct Account {
    allowance: Bucket,
    legs: usize,
}

#[derive(Debug)]
struct Book {
    rates: LegRates,
    total: Bucket,
    /// Of hosts that have legs, or lately had.
    hosts: BTreeMap<IpAddr, Account>,
}

/// All legs.
#[derive(Debug, Default)]
pub(super) struct Legs {
    legs: BTreeMap<u32, Leg>,
    book: Option<Book>,
    passed: u64,
    /// It passes on no more than this of what comes for a leg, as no honest relay does.
    #[cfg(test)]
    pub(super) stingy: Option<u64>,
}

fn bucket(rate: u64, now: Instant) -> Bucket {
    let rate = rate as f64;
    Bucket::full(Limit { burst: rate * BURST_SECONDS, rate }, now)
}

impl Book {
    fn pays(&mut self, host: IpAddr, bytes: f64, now: Instant) -> bool {
        let account = self.hosts.get_mut(&host);
        account.is_none_or(|a| a.allowance.has(bytes, now))
            && self.total.take(bytes, now)
            && self.hosts.get_mut(&host).is_none_or(|a| a.allowance.take(bytes, now))
    }

    fn enter(&mut self, host: IpAddr, now: Instant) {
        let rate = self.rates.host;
        let new = || Account { allowance: bucket(rate, now), legs: 0 };
        self.hosts.entry(host).or_insert_with(new).legs += 1;
    }

    fn leave(&mut self, host: IpAddr) {
        if let Some(account) = self.hosts.get_mut(&host) {
            account.legs = account.legs.saturating_sub(1);
        }
    }

    /// Forgets hosts without a leg, of which nobody can tell any more what they have sent; of many, any.
    fn tidy(&mut self, now: Instant) {
        let mut left = 0;
        self.hosts.retain(|_, account| {
            let stays = account.legs > 0 || left < MAX_LEFT && account.allowance.fill(now) < 1.0;
            left += usize::from(stays && account.legs == 0);
            stays
        });
    }
}

impl Legs {
    /// From now on it passes on no more than this.
    pub(super) fn limit(&mut self, rates: LegRates, now: Instant) {
        if self.book.as_ref().is_none_or(|book| book.rates != rates) {
            let total = bucket(rates.total, now);
            self.book = Some(Book { rates, total, hosts: BTreeMap::new() });
        }
    }

    pub(super) fn has(&self, id: u32) -> bool {
        self.legs.contains_key(&id)
    }

    /// Joins two legs, whose ids nobody has.
    pub(super) fn join(&mut self, ids: [u32; 2], ends: [LegEnd; 2], now: Instant) {
        if let Some(book) = &mut self.book {
            book.tidy(now);
        }
        for (i, end) in ends.into_iter().enumerate() {
            if let (Some(book), Some(host)) = (&mut self.book, end.host) {
                book.enter(host, now);
            }
            let (other, kept) = (ids[1 - i], Vec::new());
            let leg = Leg { end, other, at: None, beside: None, shown: None, kept, used: now };
            self.legs.insert(ids[i], leg);
        }
    }

    /// Takes a leg away. Nobody is told.
    pub(super) fn remove(&mut self, id: u32) -> bool {
        let Some(leg) = self.legs.remove(&id) else { return false };
        if let (Some(book), Some(host)) = (&mut self.book, leg.end.host) {
            book.leave(host);
        }
        true
    }

    /// The peer of a leg has shown that it is there, which may be where it has moved to: the leg leads there from now on. One
    /// that was to lead elsewhere, where it had not shown itself, is taken away, and the answer is false: it may lead to
    /// anybody.
    pub(super) fn prove(&mut self, id: u32, way: Way, now: Instant) -> bool {
        let Some(leg) = self.legs.get_mut(&id) else { return true };
        let host = host_of(&way.1);
        if !leg.end.proven && leg.end.host.is_some_and(|named| named != host) {
            return !self.remove(id);
        }
        let before = leg.end.host.replace(host);
        (leg.end.proven, leg.shown) = (true, Some(way));
        let elsewhere = before.is_some_and(|before| before != host);
        if elsewhere || leg.beside.is_some_and(|beside| beside.way == way) {
            leg.at = leg.at.map(|_| Place::new(way));
            leg.beside = None;
        }
        if let Some(book) = self.book.as_mut().filter(|_| before != Some(host)) {
            before.into_iter().for_each(|before| book.leave(before));
            book.enter(host, now);
        }
        true
    }

    /// When something last came for a leg.
    pub(super) fn used(&self, id: u32) -> Option<Instant> {
        self.legs.get(&id).map(|leg| leg.used)
    }

    #[cfg(test)]
    pub(super) fn hosts(&self) -> usize {
        self.book.as_ref().map_or(0, |book| book.hosts.len())
    }

    /// Bytes passed on.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// Whether a datagram is for a leg; passes it on.
    pub(super) fn handle(
        &mut self,
        id: u32,
        way: Way,
        datagram: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) -> bool {
        let Some(leg) = self.legs.get_mut(&id) else { return false };
        if leg.end.host.is_some_and(|host| host != host_of(&way.1)) {
            return true;
        }
        leg.used = now;
        leg.heard_at(way, datagram.len());
        for datagram in std::mem::take(&mut leg.kept) {
            self.send(id, &datagram, out);
        }
        let Some(leg) = self.legs.get(&id) else { return true };
        let other = leg.other;
        self.pass(id, other, datagram, now, out);
        // It is the last one of this side: what the other still says has nobody to go to.
        if Packet::parse(datagram).is_some_and(|packet| packet.header.has(flag::DESTROY)) {
            self.remove(id);
            out.events.push_back(UdxEvent::LegEnded { leg: id });
        }
        true
    }

    fn pass(&mut self, from: u32, to: u32, datagram: &[u8], now: Instant, out: &mut Outbox) {
        let host = self.legs.get(&from).and_then(|leg| leg.end.host);
        #[cfg(test)]
        if self
            .legs
            .get(&from)
            .and_then(|leg| leg.at)
            .zip(self.stingy)
            .is_some_and(|(at, most)| at.received > most)
        {
            return;
        }
        if let (Some(book), Some(host)) = (&mut self.book, host)
            && !book.pays(host, datagram.len() as f64, now)
        {
            return;
        }
        let Some(leg) = self.legs.get_mut(&to) else { return };
        if leg.at.is_some() {
            self.send(to, datagram, out);
        } else if leg.kept.len() < MAX_KEPT
            && leg.kept.iter().map(Vec::len).sum::<usize>() + datagram.len() <= MAX_KEPT_BYTES
        {
            leg.kept.push(datagram.to_vec());
        }
    }

    /// To the peer of a leg.
    fn send(&mut self, id: u32, datagram: &[u8], out: &mut Outbox) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let (size, proven) = (datagram.len() as u64, leg.end.proven);
        let at = leg.at.iter_mut().map(|at| (at, proven));
        for (place, proven) in at.chain(leg.beside.iter_mut().map(|beside| (beside, false))) {
            if proven || place.sent + size <= FACTOR * place.received {
                place.sent += size;
                self.passed += size;
                let (socket, to) = place.way;
                out.pass_on(socket, to, datagram, leg.end.remote_id);
            }
        }
    }
}

impl Leg {
    /// So many bytes came for it from there.
    fn heard_at(&mut self, way: Way, bytes: usize) {
        let is_there = |place: &Place| place.way == way;
        let place = if self.at.is_none_or(|at| at.way == way) {
            self.at.get_or_insert(Place::new(way))
        } else if self.shown == Some(way) {
            self.beside = None;
            self.at.insert(Place::new(way))
        } else {
            let known = self.beside.filter(is_there);
            self.beside.insert(known.unwrap_or(Place::new(way)))
        };
        place.received += bytes as u64;
    }
}

impl Place {
    fn new(way: Way) -> Self {
        Self { way, received: 0, sent: 0 }
    }
}
