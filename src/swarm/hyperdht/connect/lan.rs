//! The way to a server behind our own router: its addresses on the local network are asked one after the other, once a
//! second, and the first that answers is where it is.
//!
//! Source: hyperdht/lib/connect.js

use super::{Connect, ConnectError, State};
use crate::swarm::dht_rpc::{Ask, bogon};
use crate::swarm::hyperdht::event::Dial;
use crate::swarm::hyperdht::messages::NoisePayload;
use crate::swarm::hyperdht::nat::match_address;
use crate::swarm::hyperdht::net::Net;
use crate::swarm::hyperdht::owner::{ConnectStep as Step, Owner};
use crate::swarm::socket::SocketId;
use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Instant;

/// PINGs before the local network is given up.
const TRIES: u8 = 4;

#[derive(Debug)]
pub(super) struct Lan {
    candidates: VecDeque<SocketAddrV4>,
    tries: u8,
}

impl Lan {
    pub fn new(candidates: VecDeque<SocketAddrV4>) -> Self {
        Self { candidates, tries: TRIES }
    }

    /// The next to be asked.
    fn next(&mut self) -> Option<SocketAddrV4> {
        self.tries = self.tries.checked_sub(1)?;
        self.candidates.rotate_left(1);
        self.candidates.back().copied()
    }
}

/// The server's local addresses, the most likely first.
pub(super) fn candidates(payload: &NoisePayload, net: &Net) -> VecDeque<SocketAddrV4> {
    let local = &net.config.local_addresses;
    let mut list: Vec<_> = payload
        .addresses4
        .iter()
        .copied()
        .filter(|a| a.port() != 0 && !bogon::is_reserved(a.ip()) && !local.contains(a))
        .collect();
    let ours: Vec<_> = local.iter().map(|a| *a.ip()).collect();
    if let Some(best) = match_address(&ours, &list) {
        list.retain(|a| *a != best);
        list.insert(0, best);
    }
    list.into()
}

impl Connect {
    /// Asks the next address, if there is one to be asked.
    pub(super) fn ping_lan(&mut self, net: &mut Net, now: Instant) {
        let State::Trying { lan, punch, held, .. } = &mut self.state else { return };
        let Some(waits) = lan else { return };
        match waits.next() {
            Some(to) => {
                let ask = Ask { retries: 0, ..Ask::ping(to) };
                net.ask(ask, Owner::Connect(self.id, Step::Lan(to)), now);
            }
            None if punch.is_some() || held.is_some() => *lan = None,
            None => self.fail(ConnectError::LanUnreachable, net),
        }
    }

    pub(super) fn on_lan(
        &mut self,
        addr: SocketAddrV4,
        answered: bool,
        net: &mut Net,
        now: Instant,
    ) {
        match answered {
            true => self.arrive(Dial { socket: SocketId::MAIN, to: addr.into() }, net),
            false => self.ping_lan(net, now),
        }
    }
}
