//! Clients that shook hands with a server of ours through a relay, and have to punch: what each of them told, and what it is
//! answered.
//!
//! Their messages come through relays as handshakes do, sealed with a key that the handshake made. One that came through
//! a relay of ours with our token shows that its sender receives at the host that the relay saw: only ports of such a
//! host are tried at random.
//!
//! Source: hyperdht/lib/server.js:_onpeerholepunch

use super::event::{DhtEvent, PUNCH_WAIT};
use super::handshake::holepunch_secret;
use super::messages::{Firewall, HolepunchPayload, NoisePayload, PeerHolepunch};
use super::net::Net;
use super::punch::{self, Punching, Remote};
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

/// One client.
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
        // Numbers come round again.
        let older = self.by_id.insert(self.next_id, session);
        older.into_iter().for_each(|session| session.end(net));
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
        let session = self.by_id.get_mut(&m.id)?;
        let told = session.secure.open(&m.payload)?;
        let mut nonce = [0; 24];
        net.rng.fill_bytes(&mut nonce);
        if told.error != NoisePayload::ERROR_NONE {
            return self.abort(m.id, nonce, net);
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
            if net.punching.is_full(ours, session.remote.firewall) {
                // It asks again, and has its turn then.
                let answer = HolepunchPayload {
                    error: NoisePayload::ERROR_TRY_LATER,
                    round: session.round,
                    ..HolepunchPayload::said(ours)
                };
                return Some(session.secure.seal(&answer, nonce));
            }
            session.punching = Punching::start(false, ours, &session.remote, net, now);
            if session.punching.is_none() {
                return self.abort(m.id, nonce, net);
            }
            session.until = now + PUNCH_WAIT;
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

    fn abort(&mut self, id: u64, nonce: [u8; 24], net: &mut Net) -> Option<Vec<u8>> {
        let session = self.by_id.remove(&id)?;
        let answer = HolepunchPayload {
            error: NoisePayload::ERROR_ABORTED,
            round: session.round,
            ..HolepunchPayload::said(Firewall::Unknown)
        };
        let sealed = session.secure.seal(&answer, nonce);
        session.end(net);
        Some(sealed)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::KeyPair;
    use crate::sim::epoch;
    use crate::swarm::dht_rpc::{Rpc, RpcConfig};
    use crate::swarm::hyperdht::event::DhtConfig;
    use crate::swarm::hyperdht::messages::Mode;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const HASH: [u8; 64] = [5; 64];

    fn at(host: u8, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new([20, 0, 0, host].into(), port)
    }

    /// Behind a NAT that shows everybody the same address.
    fn net(now: Instant) -> Net {
        let config = RpcConfig {
            bootstrap: vec![at(1, 1)],
            persistent: false,
            address: Some(at(9, 9)),
            allow_bogons: false,
        };
        let rpc = Rpc::new(config, StdRng::seed_from_u64(1), now);
        let config = DhtConfig::new(KeyPair::from_seed(&[1; 32]), vec![at(1, 1)]);
        let mut net = Net::new(rpc, config, StdRng::seed_from_u64(2), now);
        (0..2).for_each(|_| net.rpc.sample(at(9, 9)));
        assert_eq!(net.nat_verdict().0, Firewall::Consistent);
        sent(&mut net);
        net
    }

    /// Where something was sent.
    fn sent(net: &mut Net) -> Vec<SocketAddrV4> {
        std::iter::from_fn(|| net.rpc.poll_transmit()).map(|transmit| transmit.to).collect()
    }

    /// What a client says whom the relay sees at `peer`, and the answer.
    fn say(
        sessions: &mut Sessions,
        payload: &HolepunchPayload,
        trusted: bool,
        (net, now): (&mut Net, Instant),
    ) -> Option<HolepunchPayload> {
        let secure = SecurePayload::new(holepunch_secret(&HASH), [7; 32]);
        let payload = secure.seal(payload, [1; 24]);
        let m = PeerHolepunch { mode: Mode::FromRelay, id: 0, payload, peer: Some(at(3, 3)) };
        sessions.on_message(&m, trusted, net, now).map(|sealed| secure.open(&sealed).unwrap())
    }

    fn begun(net: &mut Net, now: Instant) -> Sessions {
        let mut sessions = Sessions::default();
        sessions.begin(&HASH, 1, Firewall::Unknown, net, now);
        sessions
    }

    fn told(firewall: Firewall, addresses: &[SocketAddrV4]) -> HolepunchPayload {
        HolepunchPayload { addresses: Some(addresses.to_vec()), ..HolepunchPayload::said(firewall) }
    }

    /// Datagrams to each host until all is over.
    fn run(sessions: &mut Sessions, net: &mut Net) -> BTreeMap<std::net::Ipv4Addr, usize> {
        let mut hosts = BTreeMap::new();
        while let Some(at) = sessions.poll_timeout() {
            sessions.handle_timeout(net, at);
            sent(net).into_iter().for_each(|to| *hosts.entry(*to.ip()).or_default() += 1);
        }
        hosts
    }

    #[test]
    fn clients_at_a_time_are_bounded() {
        let now = epoch();
        let (mut net, mut sessions) = (net(now), Sessions::default());
        for stream in 0..1000 {
            sessions.begin(&HASH, stream, Firewall::Unknown, &mut net, now);
        }
        assert_eq!(sessions.by_id.len(), MAX_SESSIONS);
        run(&mut sessions, &mut net);
        assert!(sessions.by_id.is_empty(), "they end without a word of anybody");
    }

    #[test]
    fn who_has_not_the_key_of_the_handshake_is_not_answered() {
        let now = epoch();
        let mut net = net(now);
        let mut sessions = Sessions::default();
        sessions.begin(&[6; 64], 1, Firewall::Unknown, &mut net, now);
        let payload = told(Firewall::Consistent, &[at(4, 4)]);
        assert_eq!(say(&mut sessions, &payload, true, (&mut net, now)), None);
        assert_eq!(sent(&mut net), []);
    }

    /// Whoever names addresses of others makes us send each of them hardly anything.
    #[test]
    fn named_addresses_get_a_few_punches() {
        let now = epoch();
        let mut net = net(now);
        let mut sessions = begun(&mut net, now);
        let victims: Vec<_> = (10..200).map(|host| at(host, 4)).collect();
        let payload = HolepunchPayload { punching: true, ..told(Firewall::Consistent, &victims) };
        let answer = say(&mut sessions, &payload, true, (&mut net, now)).unwrap();
        assert!(answer.punching);
        let hosts = run(&mut sessions, &mut net);
        assert_eq!((hosts.len(), hosts.values().max()), (8, Some(&2)), "{hosts:?}");
    }

    /// Ports are tried only at a host that has shown, through a relay of ours, that it receives there.
    #[test]
    fn ports_are_tried_of_a_host_that_has_echoed_our_token() {
        let now = epoch();
        for (trusted, echoes) in [(true, true), (true, false), (false, true)] {
            let mut net = net(now);
            let mut sessions = begun(&mut net, now);
            let hello = told(Firewall::Random, &[at(3, 0)]);
            let answer = say(&mut sessions, &hello, true, (&mut net, now)).unwrap();
            let remote_token = answer.token.filter(|_| echoes);
            let ask = HolepunchPayload { punching: true, round: 1, remote_token, ..hello };
            let answer = say(&mut sessions, &ask, trusted, (&mut net, now)).unwrap();
            let proven = trusted && echoes;
            assert_eq!(answer.error == NoisePayload::ERROR_NONE, proven);
            let hosts = run(&mut sessions, &mut net);
            // And not without an end.
            assert_eq!(hosts.get(at(3, 0).ip()).copied(), proven.then_some(1750), "{hosts:?}");
        }
    }

    #[test]
    fn a_token_is_given_through_our_relays_only() {
        let now = epoch();
        let mut net = net(now);
        let mut sessions = begun(&mut net, now);
        let hello = told(Firewall::Consistent, &[at(3, 3)]);
        assert_eq!(say(&mut sessions, &hello, false, (&mut net, now)).unwrap().token, None);
    }
}
