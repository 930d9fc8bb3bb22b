//! Clients that shook hands with a server of ours through a relay, and have to punch: what each of them told, and what it is
//! answered.
//!
//! Their messages come through relays as handshakes do, sealed with a key that the handshake made. One that came through
//! a relay of ours with our token shows that its sender receives at the host that the relay saw: only ports of such a
//! host are tried at random.
//!
//! Anybody can shake hands, and name whom he likes. So a session ends however much is said, what it sends is counted, and
//! of many those go first whose host has most. And a relay of ours can name hosts as it likes: so of many the next to go are
//! those of the relay that alone told of most, and never whom we punch to before who waits.
//!
//! Source: hyperdht/lib/server.js:_onpeerholepunch

#[cfg(test)]
mod tests;

use super::event::DhtEvent;
use super::handshake::holepunch_secret;
use super::messages::{Firewall, HolepunchPayload, NoisePayload, PeerHolepunch};
use super::net::Net;
use super::punch::{self, Aim, Punching, Remote};
use super::secure_payload::SecurePayload;
use super::turns::Role;
use crate::swarm::socket::SocketId;
use rand::RngCore;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// How long a client may take to its first message, and from one to the next.
const WAIT: Duration = Duration::from_secs(10);
/// In that time one of the reference asks again that is told to do so later, if it has a relay.
const LATER: Duration = Duration::from_secs(21);
/// How long all of it may take: probes, half a minute until it is its turn, and the longest of punches.
const LIFE: Duration = Duration::from_secs(80);
/// Clients at a time, and of one host. Of more one is forgotten.
const MAX_SESSIONS: usize = 256;
const MAX_OF_HOST: usize = 32;
/// So many of a host are no more than one: a client tries again before its last try is forgotten.
const FEW_OF_HOST: usize = 4;

/// Messages of a client that are answered: who waits for its turn asks twice a second, and a relay may bring some twice.
const MESSAGES: u32 = 128;
/// Punches that are sent at once to where the relay sees a client who opened its side.
const QUICK: u32 = 8;
/// Punches of a client that are answered: one has to arrive there.
const ANSWERS: u32 = 16;

/// Who a client is, as far as is known.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// Who pays for it: where one of our relays saw it, else who brought its handshake.
    pub host: Ipv4Addr,
    /// The relay of ours that it came through, if it was one.
    pub by: Option<SocketAddrV4>,
    pub firewall: Firewall,
}

/// What may still be done for a client.
struct Left {
    messages: u32,
    quick: u32,
    answers: u32,
}

/// Takes one, if there is one.
fn take(left: &mut u32) -> bool {
    let taken = left.checked_sub(1);
    *left = taken.unwrap_or(0);
    taken.is_some()
}

/// One client.
struct Session {
    /// The stream that was made for it.
    stream: u32,
    client: Client,
    /// More than one relay of ours has told of it.
    vouched: bool,
    secure: SecurePayload,
    remote: Remote,
    /// The latest round of the client.
    round: Option<u64>,
    punching: Option<Punching>,
    left: Left,
    until: Instant,
    /// No later, whatever it says.
    end: Instant,
}

impl Session {
    fn end(self, net: &mut Net) {
        self.punching.into_iter().for_each(|punching| punching.end(net));
    }
}

/// All of one server.
#[derive(Default)]
pub struct Sessions {
    by_id: BTreeMap<u64, Session>,
    next_id: u64,
}

impl Sessions {
    /// The number that the next one gets.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// A client shook hands: `hash` is that of the handshake.
    pub fn begin(
        &mut self,
        hash: &[u8; 64],
        stream: u32,
        client: Client,
        net: &mut Net,
        now: Instant,
    ) {
        self.make_room(client.host, net);
        let mut local = [0; 32];
        net.rng.fill_bytes(&mut local);
        let session = Session {
            stream,
            client,
            vouched: false,
            secure: SecurePayload::new(holepunch_secret(hash), local),
            remote: Remote::new(client.firewall),
            round: None,
            punching: None,
            left: Left { messages: MESSAGES, quick: QUICK, answers: ANSWERS },
            until: now + WAIT,
            end: now + LIFE,
        };
        // Numbers come round again.
        let older = self.by_id.insert(self.next_id, session);
        older.into_iter().for_each(|session| session.end(net));
        self.next_id = (self.next_id + 1) % 0x1_0000;
    }

    /// The same handshake came through a relay of ours, which sees the client of `stream` at `host`.
    pub fn told_again(&mut self, stream: u32, host: Ipv4Addr, by: SocketAddrV4) {
        let session = self.by_id.values_mut().find(|session| session.stream == stream);
        let Some(session) = session else { return };
        match session.client.by {
            None => (session.client.host, session.client.by) = (host, Some(by)),
            Some(first) => session.vouched |= first != by,
        }
    }

    /// Forgets one where there are too many, of a host or of all: the oldest of those that no relay of ours told of, then
    /// of those that wait, each time of a host or a relay that has most.
    fn make_room(&mut self, host: Ipv4Addr, net: &mut Net) {
        let mut of_host = BTreeMap::<Ipv4Addr, usize>::new();
        let mut of_relay = BTreeMap::<Option<SocketAddrV4>, usize>::new();
        for session in self.by_id.values() {
            *of_host.entry(session.client.host).or_default() += 1;
            *of_relay.entry(session.client.by.filter(|_| !session.vouched)).or_default() += 1;
        }
        let of_host = |host: &Ipv4Addr| of_host.get(host).copied().unwrap_or(0);
        let full = of_host(&host) >= MAX_OF_HOST;
        if !full && self.by_id.len() < MAX_SESSIONS {
            return;
        }
        let candidates =
            self.by_id.iter().filter(|(_, session)| !full || session.client.host == host);
        let goes = candidates.max_by_key(|(_, session)| {
            let Client { host, by, .. } = &session.client;
            let alone = by.filter(|_| !session.vouched);
            let of_relay = alone.map_or(0, |by| of_relay.get(&Some(by)).copied().unwrap_or(0));
            let of_host = of_host(host).max(FEW_OF_HOST);
            (by.is_none(), session.punching.is_none(), of_host, of_relay, Reverse(session.end))
        });
        if let Some((&id, _)) = goes {
            self.by_id.remove(&id).into_iter().for_each(|session| session.end(net));
        }
    }

    /// The answer to a message of a client, sealed; `None` if it gets none. `trusted`: it came through a relay of ours.
    pub fn on_message(
        &mut self,
        m: &PeerHolepunch,
        trusted: bool,
        net: &mut Net,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let peer = m.peer?;
        let session = self.by_id.get_mut(&m.id)?;
        let told = session.secure.open(&m.payload)?;
        if !take(&mut session.left.messages) {
            return None;
        }
        let mut nonce = [0; 24];
        net.rng.fill_bytes(&mut nonce);
        if told.error != NoisePayload::ERROR_NONE {
            return self.abort(m.id, nonce, net);
        }
        let (ours, addresses) = net.nat_verdict();
        let token = session.secure.token(peer.ip());
        let echoed = trusted && told.remote_token == Some(token);
        // A relay may say again what was said.
        if session.round.is_none_or(|round| told.round > round) {
            session.round = Some(told.round);
            session.remote.update(&told, echoed.then_some(*peer.ip()));
            session.until = session.until.max(now + WAIT).min(session.end);
            // It has opened its side towards this address of ours: a punch may pass at once.
            if punch::is_consistent(ours)
                && told.remote_address.is_some_and(|at| addresses.contains(&at))
                && take(&mut session.left.quick)
            {
                punch::punch(peer, net, now);
            }
        }
        let round = session.round.unwrap_or(0);
        if session.remote.punching && session.punching.is_none() {
            let Some(aim) = Aim::of(ours, &session.remote) else {
                return self.abort(m.id, nonce, net);
            };
            let Some(turn) = net.punching.take(Role::Server, aim.sort(), now) else {
                // It asks again, and has its turn then.
                session.until = session.until.max(now + LATER).min(session.end);
                let answer = HolepunchPayload {
                    error: NoisePayload::ERROR_TRY_LATER,
                    round,
                    ..HolepunchPayload::said(ours)
                };
                return Some(session.secure.seal(&answer, nonce));
            };
            session.punching = Some(Punching::start(aim, turn, net, now));
            session.until = session.until.max(now + aim.lasts()).min(session.end);
            let (local_id, until) = (session.stream, session.until);
            net.events.push_back(DhtEvent::Punching { local_id, until });
        }
        let answer = HolepunchPayload {
            round,
            punching: session.punching.is_some(),
            addresses: (!addresses.is_empty()).then_some(addresses),
            token: trusted.then_some(token),
            remote_token: told.token,
            ..HolepunchPayload::said(ours)
        };
        Some(session.secure.seal(&answer, nonce))
    }

    fn abort(&mut self, id: u64, nonce: [u8; 24], net: &mut Net) -> Option<Vec<u8>> {
        let session = self.by_id.remove(&id)?;
        let answer = HolepunchPayload {
            error: NoisePayload::ERROR_ABORTED,
            round: session.round.unwrap_or(0),
            ..HolepunchPayload::said(Firewall::Unknown)
        };
        let sealed = session.secure.seal(&answer, nonce);
        session.end(net);
        Some(sealed)
    }

    /// A punch came to `socket`: whether it is one of theirs to whom we punch, who gets one back.
    pub fn on_punch(
        &mut self,
        socket: SocketId,
        from: SocketAddrV4,
        net: &mut Net,
        now: Instant,
    ) -> bool {
        let answered = self.by_id.values_mut().any(|session| {
            session.punching.is_some()
                && session.remote.is_at(&from, true)
                && take(&mut session.left.answers)
        });
        if answered {
            punch::answer(socket, from, net, now);
        }
        answered
    }

    /// The client of this stream is there.
    pub fn end(&mut self, stream: u32, net: &mut Net) {
        self.end_those(|session| session.stream == stream, net);
    }

    /// The server does not listen any more.
    pub fn end_all(&mut self, net: &mut Net) {
        self.end_those(|_| true, net);
    }

    fn end_those(&mut self, which: impl Fn(&Session) -> bool, net: &mut Net) {
        let ids = self.by_id.iter().filter(|(_, session)| which(session)).map(|(id, _)| *id);
        for id in ids.collect::<Vec<_>>() {
            self.by_id.remove(&id).into_iter().for_each(|session| session.end(net));
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let at = |session: &Session| {
            let punching = session.punching.as_ref().and_then(Punching::poll_timeout);
            punching.map_or(session.until, |at| at.min(session.until))
        };
        self.by_id.values().map(at).min()
    }

    pub fn handle_timeout(&mut self, net: &mut Net, now: Instant) {
        self.end_those(|session| session.until <= now, net);
        for session in self.by_id.values_mut() {
            if let Some(punching) = &mut session.punching {
                punching.handle_timeout(&session.remote, net, now);
            }
        }
    }
}
