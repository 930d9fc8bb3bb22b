//! Answers that may be meant for another: a server that has to be punched to says so to the relays of a handshake, and to
//! who brings the handshake in his own name that it writes to him. Such an answer opens as any other does. So one that
//! offers no hole, and leads where the server does not say that it is, waits a moment for a better one.

use super::{Connect, Net, Opening, State};
use crate::swarm::hyperdht::messages::{Firewall, NoisePayload};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// How long it waits: a relay that is farther away, and not one that was asked anew.
const GRACE: Duration = Duration::from_millis(300);

/// Who brought an answer, where he sees the server, and where we are seen.
pub(super) type By = (SocketAddrV4, Option<SocketAddrV4>, SocketAddrV4);

/// The first such answer.
#[derive(Debug)]
pub(super) struct Doubtful {
    opening: Box<Opening>,
    payload: NoisePayload,
    by: By,
    pub until: Instant,
}

fn is_doubtful(payload: &NoisePayload, (via, seen_at, _): By, net: &Net) -> bool {
    let to = seen_at.unwrap_or(via);
    let punch = payload.holepunch.as_ref().is_some_and(|info| !info.relays.is_empty());
    let said = payload.addresses4.contains(&to) || net.is_here(to.ip());
    payload.firewall != Firewall::Open && !punch && !said
}

impl Connect {
    /// Keeps an answer that was just read back, if there may be a better one. True if it did.
    pub(super) fn keep_back(
        &mut self,
        payload: &NoisePayload,
        by: By,
        net: &Net,
        now: Instant,
    ) -> bool {
        let State::Finding { opening, .. } = &mut self.state else { return false };
        if payload.error != NoisePayload::ERROR_NONE || !is_doubtful(payload, by, net) {
            return false;
        }
        let Some(unread) = opening.unread() else { return false };
        let opening = std::mem::replace(opening, Box::new(unread));
        let until = now + GRACE;
        self.doubtful.get_or_insert(Doubtful { opening, payload: payload.clone(), by, until });
        true
    }

    /// Nothing better came.
    pub(super) fn take_doubtful(&mut self, net: &mut Net, now: Instant) {
        let State::Finding { opening, .. } = &mut self.state else { return };
        let Some(doubtful) = self.doubtful.take() else { return };
        *opening = doubtful.opening;
        self.on_answer_payload(doubtful.by, doubtful.payload, net, now);
    }
}
