//! Handshakes made with a server itself, at an address where it is said to be, without anybody between.
//!
//! The DHT has no part in them, and its rules for addresses do not count: somebody told of this one. Each address is
//! sent the one message of the attempt a few times; the first answer that opens is the way to the server.

use super::super::handshake::Answer;
use super::super::{HyperDht, target_of};
use super::{Connect, ConnectError, ConnectId, Dial, Net, State};
use crate::key::{NodeId, PublicKey};
use crate::swarm::inquiry::{Message, Nonce};
use crate::swarm::socket::SocketId;
use rand::RngCore;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// When the handshake is sent again, and after the last pause no more.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1500),
    Duration::from_millis(2000),
];

/// Datagrams that wait for the owner; of more, the last are lost.
const MAX_QUEUED: usize = 256;

/// The client's side: what is sent where, and how often it was.
#[derive(Debug)]
pub struct Direct {
    addresses: Vec<SocketAddr>,
    target: NodeId,
    nonce: Nonce,
    sent: usize,
    /// When the next is due; none when all was tried.
    at: Option<Instant>,
}

impl Direct {
    /// Nothing is sent before [`Self::handle_timeout`].
    pub fn new(
        remote: &PublicKey,
        addresses: Vec<SocketAddr>,
        net: &mut Net,
        now: Instant,
    ) -> Self {
        let mut nonce = Nonce::default();
        net.rng.fill_bytes(&mut nonce);
        let at = (!addresses.is_empty()).then_some(now);
        Self { addresses, target: target_of(remote), nonce, sent: 0, at }
    }

    /// Whether an answer may still come.
    pub fn is_under_way(&self) -> bool {
        self.at.is_some()
    }

    /// Whether anything was sent.
    pub fn was_tried(&self) -> bool {
        self.sent > 0
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.at
    }

    /// Sends `noise` if it is time.
    pub fn handle_timeout(&mut self, noise: &[u8], net: &mut Net, now: Instant) {
        if self.at.is_none_or(|at| at > now) {
            return;
        }
        let Some(pause) = PAUSES.get(self.sent) else {
            self.at = None;
            return;
        };
        (self.sent, self.at) = (self.sent + 1, Some(now + *pause));
        let (nonce, target, noise) = (self.nonce, self.target, noise.to_vec());
        let bytes = Message::Handshake { nonce, target, noise }.encode();
        for to in &self.addresses {
            net.send_direct(*to, bytes.clone());
        }
    }

    /// Whether what came from there answers it.
    pub fn is_answer(&self, from: &SocketAddr, nonce: &Nonce) -> bool {
        self.nonce == *nonce && self.addresses.contains(from)
    }
}

impl Connect {
    /// An answer came from where the server is said to be: whether it was for us.
    pub fn on_direct(
        &mut self,
        from: SocketAddr,
        nonce: &Nonce,
        noise: &[u8],
        net: &mut Net,
    ) -> bool {
        let State::Finding { opening, .. } = &mut self.state else { return false };
        if !self.told.is_answer(&from, nonce) {
            return false;
        }
        match opening.read(noise) {
            None => tracing::debug!(%from, "a direct handshake answer does not open, ignored"),
            Some(Answer::Garbled) => self.fail(ConnectError::HandshakeInvalid, net),
            Some(Answer::Payload(payload)) => {
                let dial = Dial { socket: SocketId::towards(&from), to: from };
                if let Some(mut link) = self.open(&payload, net) {
                    link.relays.ask = None;
                    self.succeed_from(&link, Some(dial), net);
                }
            }
        }
        true
    }
}

impl Net {
    fn send_direct(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        if self.direct.len() < MAX_QUEUED {
            self.direct.push_back((to, bytes));
        }
    }
}

impl HyperDht {
    /// Takes a message that did not come through the DHT.
    pub fn handle_direct(&mut self, from: SocketAddr, message: &Message, now: Instant) {
        match message {
            Message::Handshake { nonce, target, noise } => {
                let Some(server) = self.servers.get_mut(target) else { return };
                let answer = server.on_direct(noise, from, &self.blocked, &mut self.net, now);
                if let Some(noise) = answer {
                    self.net.send_direct(from, Message::Answer { nonce: *nonce, noise }.encode());
                }
            }
            Message::Answer { nonce, noise } => {
                let net = &mut self.net;
                let id = self.connects.iter_mut().find_map(|(id, connect)| {
                    connect.on_direct(from, nonce, noise, net).then_some(*id)
                });
                id.into_iter().for_each(|id: ConnectId| self.finish_connect(id));
            }
            Message::Inquiry { .. } | Message::Reply(_) => {}
        }
    }

    /// The next datagram that does not go through the DHT.
    pub fn poll_direct(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.net.direct.pop_front()
    }
}
