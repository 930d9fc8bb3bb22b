//! How handshake and hole punch messages pass from a client through one or two relays to a server and back.
//!
//! ```text
//! client ──FROM_CLIENT──▶ relay ──FROM_RELAY──▶ server        (requests under the client's tid)
//! client ◀────REPLY────── relay ◀─FROM_SERVER── server        (REPLY is the response)
//!
//! client ──▶ relay ──FROM_RELAY──▶ relay 2 ──FROM_SECOND_RELAY──▶ server ──FROM_SERVER──▶ relay
//! ```
//!
//! The server sends FROM_SERVER to the relay that has the client's request open. These are pure functions
//! from a message to the datagram that it causes.
//!
//! Source: hyperdht/lib/router.js

use super::messages::{Mode, PeerHandshake, PeerHolepunch};
use std::net::SocketAddrV4;

/// What a message causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hop {
    /// The same request to another node, with this value.
    Request { to: SocketAddrV4, value: Vec<u8> },
    /// The response to the request, sent to `to`.
    Response { to: SocketAddrV4, value: Vec<u8> },
    /// A response without value, with nodes that may know more.
    Closer,
    /// Nothing.
    Drop,
}

/// A relay's part of a handshake. `route`: where the server announced itself from, if it did so here.
pub fn relay_handshake(m: PeerHandshake, from: SocketAddrV4, route: Option<SocketAddrV4>) -> Hop {
    if m.noise.is_empty() {
        return Hop::Drop;
    }
    let noise = m.noise;
    match (m.mode, m.relay.or(route), route, m.peer) {
        (Mode::FromClient, Some(to), ..) => {
            let m = PeerHandshake { mode: Mode::FromRelay, noise, peer: Some(from), relay: None };
            Hop::Request { to, value: m.encode() }
        }
        (Mode::FromClient, None, ..) => Hop::Closer,
        (Mode::FromRelay, _, Some(to), peer) => {
            let relay = Some(from);
            let m = PeerHandshake { mode: Mode::FromSecondRelay, noise, peer, relay };
            Hop::Request { to, value: m.encode() }
        }
        (Mode::FromServer, .., Some(to)) => {
            let m = PeerHandshake { mode: Mode::Reply, noise, peer: Some(from), relay: None };
            Hop::Response { to, value: m.encode() }
        }
        _ => Hop::Drop,
    }
}

/// How the server's answer `noise` goes back.
pub fn answer_handshake(m: &PeerHandshake, noise: Vec<u8>, from: SocketAddrV4) -> Hop {
    let request = |to| {
        let m = PeerHandshake {
            mode: Mode::FromServer,
            noise: noise.clone(),
            peer: m.peer,
            relay: None,
        };
        Hop::Request { to, value: m.encode() }
    };
    match (m.mode, m.relay) {
        (Mode::FromClient, _) => {
            let m = PeerHandshake { mode: Mode::Reply, noise, peer: None, relay: None };
            Hop::Response { to: from, value: m.encode() }
        }
        (Mode::FromRelay, _) => request(from),
        (Mode::FromSecondRelay, Some(relay)) => request(relay),
        _ => Hop::Drop,
    }
}

/// How the server's answer to a hole punch message goes back.
pub fn answer_holepunch(m: &PeerHolepunch, payload: Vec<u8>, from: SocketAddrV4) -> Hop {
    let answer = |mode, peer| PeerHolepunch { mode, id: m.id, payload, peer }.encode();
    match m.mode {
        Mode::FromClient => Hop::Response { to: from, value: answer(Mode::Reply, None) },
        Mode::FromRelay => Hop::Request { to: from, value: answer(Mode::FromServer, m.peer) },
        _ => Hop::Drop,
    }
}

/// A relay's part of a hole punch message.
pub fn relay_holepunch(m: PeerHolepunch, from: SocketAddrV4, route: Option<SocketAddrV4>) -> Hop {
    let PeerHolepunch { id, payload, .. } = m;
    match (m.mode, m.peer.or(route), m.peer) {
        (Mode::FromClient, Some(to), _) => {
            let m = PeerHolepunch { mode: Mode::FromRelay, id, payload, peer: Some(from) };
            Hop::Request { to, value: m.encode() }
        }
        (Mode::FromServer, _, Some(to)) => {
            let m = PeerHolepunch { mode: Mode::Reply, id, payload, peer: Some(from) };
            Hop::Response { to, value: m.encode() }
        }
        _ => Hop::Drop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new([10, 0, 0, 1].into(), port)
    }

    const CLIENT: u16 = 1;
    const RELAY: u16 = 2;
    const SECOND: u16 = 3;
    const SERVER: u16 = 4;

    fn message(mode: Mode) -> PeerHandshake {
        PeerHandshake { mode, noise: vec![1, 2], peer: None, relay: None }
    }

    fn request(hop: Hop) -> (u16, PeerHandshake) {
        let Hop::Request { to, value } = hop else { panic!("{hop:?}") };
        (to.port(), PeerHandshake::decode(&value).unwrap())
    }

    fn response(hop: Hop) -> (u16, PeerHandshake) {
        let Hop::Response { to, value } = hop else { panic!("{hop:?}") };
        (to.port(), PeerHandshake::decode(&value).unwrap())
    }

    #[test]
    fn through_one_relay_and_back() {
        let route = Some(addr(SERVER));
        let (to, at_server) =
            request(relay_handshake(message(Mode::FromClient), addr(CLIENT), route));
        assert_eq!(
            (to, at_server.mode, at_server.peer),
            (SERVER, Mode::FromRelay, Some(addr(CLIENT)))
        );
        let (to, back) = request(answer_handshake(&at_server, vec![3], addr(RELAY)));
        assert_eq!((to, back.mode, back.peer), (RELAY, Mode::FromServer, Some(addr(CLIENT))));
        let (to, reply) = response(relay_handshake(back, addr(SERVER), route));
        assert_eq!((to, reply.mode, reply.peer), (CLIENT, Mode::Reply, Some(addr(SERVER))));
        assert_eq!(reply.noise, [3]);
    }

    #[test]
    fn through_two_relays_and_back_through_the_first() {
        let mut first = message(Mode::FromClient);
        first.relay = Some(addr(SECOND));
        let (to, at_second) = request(relay_handshake(first, addr(CLIENT), None));
        assert_eq!((to, at_second.mode), (SECOND, Mode::FromRelay));
        let (to, at_server) = request(relay_handshake(at_second, addr(RELAY), Some(addr(SERVER))));
        assert_eq!((to, at_server.mode), (SERVER, Mode::FromSecondRelay));
        assert_eq!((at_server.peer, at_server.relay), (Some(addr(CLIENT)), Some(addr(RELAY))));
        let (to, back) = request(answer_handshake(&at_server, vec![3], addr(SECOND)));
        assert_eq!((to, back.mode, back.peer), (RELAY, Mode::FromServer, Some(addr(CLIENT))));
    }

    #[test]
    fn a_direct_request_gets_a_direct_response() {
        let hop = answer_handshake(&message(Mode::FromClient), vec![3], addr(CLIENT));
        let (to, reply) = response(hop);
        assert_eq!((to, reply.mode, reply.peer), (CLIENT, Mode::Reply, None));
    }

    #[test]
    fn what_leads_nowhere_is_answered_with_nodes_or_dropped() {
        let from = addr(CLIENT);
        assert_eq!(relay_handshake(message(Mode::FromClient), from, None), Hop::Closer);
        assert_eq!(relay_handshake(message(Mode::FromRelay), from, None), Hop::Drop);
        assert_eq!(relay_handshake(message(Mode::FromServer), from, Some(from)), Hop::Drop);
        assert_eq!(relay_handshake(message(Mode::Reply), from, Some(from)), Hop::Drop);
        assert_eq!(answer_handshake(&message(Mode::FromSecondRelay), vec![1], from), Hop::Drop);
    }

    #[test]
    fn hole_punch_messages_pass_by_address_or_route() {
        let m = |mode, peer| PeerHolepunch { mode, id: 7, payload: vec![1], peer };
        let Hop::Request { to, value } =
            relay_holepunch(m(Mode::FromClient, None), addr(CLIENT), Some(addr(SERVER)))
        else {
            panic!()
        };
        assert_eq!(to, addr(SERVER));
        let at_server = PeerHolepunch::decode(&value).unwrap();
        assert_eq!((at_server.mode, at_server.peer), (Mode::FromRelay, Some(addr(CLIENT))));
        let back = m(Mode::FromServer, Some(addr(CLIENT)));
        let Hop::Response { to, value } = relay_holepunch(back, addr(SERVER), None) else {
            panic!()
        };
        assert_eq!(to, addr(CLIENT));
        assert_eq!(PeerHolepunch::decode(&value).unwrap().peer, Some(addr(SERVER)));
        assert_eq!(relay_holepunch(m(Mode::FromRelay, None), addr(1), None), Hop::Drop);
    }
}
