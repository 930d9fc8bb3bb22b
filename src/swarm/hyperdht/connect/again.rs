//! A handshake once more, where a server of the reference has no turn for us: it forgets whom it tells so, and has its next
//! turn some time after the last. Meanwhile the attempt waits, and whoever waits for it.
//!
//! Source: hyperdht/index.js:randomPunchInterval

use super::punching::Punch;
use super::{Connect, ConnectError, Opening, State};
use crate::swarm::hyperdht::net::Net;
use rand::RngCore;
use std::time::{Duration, Instant};

/// The reference lets as long pass after one that it punches to with many datagrams.
const PAUSE: Duration = Duration::from_secs(20);

impl Connect {
    /// Begins to wait if that is why `punch` came to nothing, and no other way is open. True if so.
    pub(super) fn waits_for_turn(&mut self, now: Instant) -> bool {
        let State::Trying { link, lan: None, punch: Some(punch), .. } = &self.state else {
            return false;
        };
        let put_off = Punch::put_off(punch).filter(|_| link.relays.ask.is_none());
        if let Some(at) = put_off {
            self.again_at = Some(now.max(at + PAUSE));
        }
        put_off.is_some()
    }

    /// Shakes hands anew, through the relays that the server named.
    pub(super) fn shake_again(&mut self, net: &mut Net, now: Instant) {
        self.again_at = None;
        let mut ephemeral = [0; 32];
        net.rng.fill_bytes(&mut ephemeral);
        let payload = net.client_payload(self.local_id, self.relay_through);
        let opening = Opening::new(&net.config.key_pair, &self.remote, &payload, ephemeral);
        let Some(opening) = opening else { return self.fail(ConnectError::BadKey, net) };
        self.state = State::Finding { opening: Box::new(opening), query: None };
        self.known = self.next_relays.iter().copied().filter(|at| net.rpc.is_usable(at)).collect();
        self.asked.clear();
        self.doubtful = None;
        (self.known_busy, self.busy, self.direct, self.rounds) = (false, 0, 0, 1);
        self.advance(net, now);
    }
}
