//! The ways to a server that does not lie open, beside each other: on the local network (`lan`), and a moment later
//! through a hole (`punching`). The first that is proven ends the others.

use super::lan::Lan;
use super::punching::Punch;
use super::{Connect, ConnectError, DhtEvent, Dial, Link, State, ToPunch};
use crate::swarm::hyperdht::net::Net;
use crate::swarm::socket::SocketId;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// A direct way that has not come by then is late: where both sides have ordinary routers, a round trip to the relay and
/// one between the peers bring it.
const LATE: Duration = Duration::from_millis(500);
/// What the local network has before a hole is asked for. A server of the reference that cannot tell its NAT, in a
/// DHT of one or two nodes for example, answers that with giving up the whole connection.
const HEAD_START: Duration = Duration::from_millis(100);
/// How long a server behind our own router is tried.
const BESIDE: Duration = Duration::from_secs(3);

impl Connect {
    /// Tries the ways to a server that does not lie open, the local network and a hole beside each other.
    pub(super) fn begin_trying(
        &mut self,
        (link, lan, how): (Box<Link>, Option<Lan>, Option<ToPunch>),
        net: &mut Net,
        now: Instant,
    ) {
        if lan.is_none() && how.is_none() {
            return self.fail(ConnectError::HolepunchFailed, net);
        }
        // Behind one router there is no hole but where it turns around what is for its own address.
        let end = lan.is_some().then_some(now + BESIDE);
        let head_start = if lan.is_some() { HEAD_START } else { Duration::ZERO };
        let held = how.map(|how| (how, now + head_start));
        self.state = State::Trying { link, lan, punch: None, held, late: Some(now + LATE), end };
        self.ping_lan(net, now);
        self.begin_punching(net, now);
    }

    /// Asks for a hole, if it is time.
    fn begin_punching(&mut self, net: &mut Net, now: Instant) {
        let (id, target) = (self.id, self.target);
        let State::Trying { link, lan, punch, held, .. } = &mut self.state else { return };
        let Some((how, _)) = held.take_if(|(_, at)| *at <= now) else { return };
        let ToPunch { info, server, via } = how;
        *punch =
            Punch::start(id, target, &link.keys.hash, info, (server, via), net, now).map(Box::new);
        if punch.is_none() && lan.is_none() {
            self.fail(ConnectError::HolepunchFailed, net);
        }
    }

    /// One way came to nothing.
    pub(super) fn on_punch_failed(&mut self, why: ConnectError, net: &mut Net, now: Instant) {
        let waits = self.waits_for_turn(now);
        let State::Trying { lan, punch, .. } = &mut self.state else { return };
        if lan.is_none() && !waits {
            return self.fail(why, net);
        }
        punch.take().into_iter().for_each(|punch| punch.end(net));
    }

    /// A punch came: whether it was for us.
    pub fn on_punch(&mut self, socket: SocketId, from: SocketAddrV4, net: &mut Net) -> bool {
        let ours = matches!(&self.state, State::Trying { punch: Some(p), .. } if p.is_at(&from));
        if ours {
            self.arrive(Dial { socket, to: from.into() }, net);
        }
        ours
    }

    /// One of the ways leads to the server: the others are not needed any more.
    pub(super) fn arrive(&mut self, dial: Dial, net: &mut Net) {
        let State::Trying { link, punch, .. } = std::mem::replace(&mut self.state, State::Over)
        else {
            return;
        };
        punch.into_iter().for_each(|punch| punch.end(net));
        self.stop(net);
        self.succeed_from(&link, Some(dial), net);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let State::Trying { punch, held, late, end, .. } = &self.state else {
            let doubtful = self.doubtful.as_ref().map(|doubtful| doubtful.until);
            let at = self.told.poll_timeout().into_iter().chain(doubtful).min();
            return at.filter(|_| !self.is_over());
        };
        let punch = punch.as_ref().and_then(|punch| punch.poll_timeout());
        let held = held.as_ref().map(|(_, at)| *at);
        [punch, held, *late, *end, self.again_at].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, net: &mut Net, now: Instant) {
        if self.again_at.is_some_and(|at| at <= now) {
            return self.shake_again(net, now);
        }
        if self.doubtful.as_ref().is_some_and(|doubtful| doubtful.until <= now) {
            self.take_doubtful(net, now);
        }
        self.advance(net, now);
        self.begin_punching(net, now);
        let State::Trying { punch, end, .. } = &mut self.state else { return };
        if end.is_some_and(|end| end <= now) {
            return self.fail(ConnectError::LanUnreachable, net);
        }
        if let Some(punch) = punch
            && let Err(why) = punch.handle_timeout(net, now)
        {
            self.on_punch_failed(why, net, now);
        }
        self.tell_if_late(net, now);
    }

    /// Whether ports are tried, or there is no turn for that yet.
    pub fn is_searching(&self, net: &Net) -> bool {
        matches!(&self.state, State::Trying { punch: Some(punch), .. } if punch.is_slow(net))
    }

    /// Says once that a direct way is late, or will hardly be found soon.
    pub(super) fn tell_if_late(&mut self, net: &mut Net, now: Instant) {
        let slow = self.is_searching(net);
        let State::Trying { late, .. } = &mut self.state else { return };
        if late.take_if(|at| slow || *at <= now).is_some() {
            net.events.push_back(DhtEvent::Late { connect: self.id });
        }
    }
}
