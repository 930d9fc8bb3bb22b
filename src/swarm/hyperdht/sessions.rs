//! Clients that shook hands with a server of ours through a relay, and have to punch: what each of them told, and what it is
//! answered.
//!
//! Their messages come through relays as handshakes do, sealed with a key that the handshake made. One that came through
//! a relay of ours with our token shows that its sender receives at the host that the relay saw: only ports of such a
//! host are tried at random.
//!
//! Source: hyperdht/lib/server.js:_onpeerholepunch

use super::event::DhtEvent;
use super::handshake::holepunch_secret;
use super::messages::{Firewall, HolepunchPayload, NoisePayload, PeerHolepunch};
use super::net::Net;
use super::punch::{self, LONGEST, Punching, Remote};
use super::secure_payload::SecurePayload;
use crate::swarm::socket::SocketId;
use rand::RngCore;
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// How long a client may take to its first message, and from one to the next.
const WAIT: Duration = Duration::from_secs(10);
/// Clients at a time; of more the one that waits longest is forgotten.
const MAX_SESSIONS: usize = 256;
/// Of those, at a time for whom ports are tried at random: 200 datagrams a second each, for some seconds; and for whom many
/// sockets are open.
const MAX_RANDOM: usize = 8;
const MAX_FROM_MANY: usize = 2;

struct Session {
    /// The stream that was made for it.
    stream: u32,
    secure: SecurePayload,
    remote: Remote,
    /// The latest round of the client.
    round: u64,
    punching: Option<Punching>,
    until: Instant,
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
        firewall: Firewall,
        net: &mut Net,
        now: Instant,
    ) {
        if self.by_id.len() >= MAX_SESSIONS
            && let Some((&id, _)) = self.by_id.iter().min_by_key(|(_, session)| session.until)
        {
            self.by_id.remove(&id).into_iter().for_each(|session| session.end(net));
        }
        let mut local = [0; 32];
        net.rng.fill_bytes(&mut local);
        let session = Session {
            stream,
            secure: SecurePayload::new(holepunch_secret(hash), local),
            remote: Remote::new(firewall),
            round: 0,
            punching: None,
            until: now + WAIT,
        };
        self.by_id.insert(self.next_id, session);
        self.next_id = (self.next_id + 1) % 0x1_0000;
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
        let (random, from_many) = self.busy();
        let session = self.by_id.get_mut(&m.id)?;
        let told = session.secure.open(&m.payload)?;
        let mut nonce = [0; 24];
        net.rng.fill_bytes(&mut nonce);
        if told.error != NoisePayload::ERROR_NONE {
            return self.abort(m.id, NoisePayload::ERROR_ABORTED, nonce, net);
        }
        let (ours, addresses) = net.nat_verdict();
        let token = session.secure.token(peer.ip());
        let echoed = trusted && told.remote_token == Some(token);
        if told.round >= session.round {
            session.round = told.round;
            session.remote.update(&told, echoed.then_some(*peer.ip()));
        }
        session.until = session.until.max(now + WAIT);
        // It has opened its side towards this address of ours: a punch may pass at once.
        if punch::is_consistent(ours)
            && told.remote_address.is_some_and(|at| addresses.contains(&at))
        {
            punch::punch(peer, net, now);
        }
        if session.remote.punching && session.punching.is_none() {
            let theirs = session.remote.firewall;
            if theirs == Firewall::Random && random >= MAX_RANDOM
                || ours == Firewall::Random && from_many >= MAX_FROM_MANY
            {
                return self.abort(m.id, NoisePayload::ERROR_TRY_LATER, nonce, net);
            }
            session.punching = Punching::start(false, ours, &session.remote, net, now);
            if session.punching.is_none() {
                return self.abort(m.id, NoisePayload::ERROR_ABORTED, nonce, net);
            }
            session.until = now + LONGEST;
            net.events.push_back(DhtEvent::Punching { local_id: session.stream });
        }
        let answer = HolepunchPayload {
            round: session.round,
            punching: session.punching.is_some(),
            addresses: (!addresses.is_empty()).then_some(addresses),
            token: trusted.then_some(token),
            remote_token: told.token,
            ..HolepunchPayload::said(ours)
        };
        Some(session.secure.seal(&answer, nonce))
    }

    fn abort(&mut self, id: u64, error: u64, nonce: [u8; 24], net: &mut Net) -> Option<Vec<u8>> {
        let session = self.by_id.remove(&id)?;
        let answer = HolepunchPayload {
            error,
            round: session.round,
            ..HolepunchPayload::said(Firewall::Unknown)
        };
        let sealed = session.secure.seal(&answer, nonce);
        session.end(net);
        Some(sealed)
    }

    /// Those whose ports are tried, and those for whom many sockets are open.
    fn busy(&self) -> (usize, usize) {
        let punching = || self.by_id.values().filter_map(|session| session.punching.as_ref());
        (
            punching().filter(|p| p.tries_ports()).count(),
            punching().filter(|p| p.is_from_many()).count(),
        )
    }

    /// A punch came to `socket`: whether it is one of theirs, who gets one back.
    pub fn on_punch(
        &mut self,
        socket: SocketId,
        from: SocketAddrV4,
        net: &mut Net,
        now: Instant,
    ) -> bool {
        let ours = self.by_id.values().any(|session| session.remote.is_at(&from));
        if ours {
            punch::answer(socket, from, net, now);
        }
        ours
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
