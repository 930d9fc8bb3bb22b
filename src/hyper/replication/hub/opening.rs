//! Channels that remotes open for cores that are not in the hub, and which wait until somebody has looked.
//!
//! Opening a core reads and checks files, which may take long; the hub never waits for it. It says
//! [`HubEvent::CoreAsked`], and whoever is asked answers with [`Hub::handle_core_found`], from wherever it looked.

use super::Hub;
use crate::hyper::core::SharedCore;
use crate::hyper::replication::violation::Violation;
use crate::hyper::replication::{AttachOptions, ConnId, CoreId, HubEvent};
use crate::key::DiscoveryKey;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a channel waits for its core; then it is refused, as if nobody had the core.
pub(super) const OPENING_PATIENCE: Duration = Duration::from_secs(10);
/// Channels of one connection that wait at a time; more are refused at once. An honest peer may have some thousand
/// cores and opens all of them when it connects.
pub(super) const MAX_WAITING: usize = 4096;
/// Cores that are looked for at a time, for all connections.
const MAX_OPENINGS: usize = 16_384;
/// A handshake longer than this is none: it has a flag and a hash.
const MAX_HANDSHAKE: usize = 256;

#[derive(Default)]
pub(super) struct Openings(BTreeMap<DiscoveryKey, Opening>);

struct Opening {
    since: Instant,
    waiting: Vec<Waiting>,
}

/// A channel, by the id that the remote gave it.
struct Waiting {
    conn: ConnId,
    remote: u64,
    handshake: Bytes,
}

impl Hub {
    pub(super) fn on_asked(
        &mut self,
        conn: ConnId,
        remote: u64,
        id: &[u8],
        handshake: &Bytes,
        now: Instant,
    ) {
        let discovery = <[u8; 32]>::try_from(id).ok().map(DiscoveryKey);
        if let Some(core) = discovery.and_then(|id| self.by_discovery.get(&id)).copied() {
            self.with(core, now, |replica, ctx, core| {
                replica.accept_on(ctx, core, conn, None, handshake);
            });
            return self.drop_idle(core);
        }
        let Some(state) = self.conns.get_mut(&conn) else { return };
        let known = discovery.is_some_and(|id| self.openings.0.contains_key(&id));
        let room = state.mux.deferred() < MAX_WAITING
            && (known || self.openings.0.len() < MAX_OPENINGS)
            && handshake.len() <= MAX_HANDSHAKE;
        let Some(discovery) = discovery.filter(|_| room) else {
            state.mux.refuse();
            return self.on_refused(conn, discovery, now);
        };
        state.mux.defer();
        let opening = self.openings.0.entry(discovery);
        let opening = opening.or_insert_with(|| Opening { since: now, waiting: Vec::new() });
        // A copy: the frame that it came in may be large.
        let handshake = Bytes::copy_from_slice(handshake);
        opening.waiting.push(Waiting { conn, remote, handshake });
        if !known {
            self.events.push_back(HubEvent::CoreAsked { discovery });
        }
        self.tick_by(now + OPENING_PATIENCE);
    }

    /// Answers [`HubEvent::CoreAsked`]: the core, which is served until its last peer closes, or nothing.
    pub fn handle_core_found(
        &mut self,
        discovery: &DiscoveryKey,
        core: Option<SharedCore>,
        now: Instant,
    ) {
        match core.filter(|_| self.is_awaited(discovery)) {
            Some(core) if !self.by_discovery.contains_key(discovery) => {
                let options = AttachOptions { downloading: false, small_blocks: false };
                let id = self.insert(core, options, true, now);
                self.drop_idle(id);
            }
            _ => self.refuse_waiting(discovery, now),
        }
        self.finish(now);
    }

    fn is_awaited(&self, discovery: &DiscoveryKey) -> bool {
        self.openings.0.contains_key(discovery)
    }

    /// Accepts the channels that wait for a core, which is here now.
    pub(super) fn accept_waiting(&mut self, id: CoreId, now: Instant) {
        let Some(discovery) = self.replicas.get(&id).map(|replica| replica.discovery) else {
            return;
        };
        let waiting = self.openings.0.remove(&discovery).map(|opening| opening.waiting);
        for Waiting { conn, remote, handshake } in waiting.unwrap_or_default() {
            self.with(id, now, |replica, ctx, core| {
                replica.accept_on(ctx, core, conn, Some(remote), &handshake);
            });
        }
    }

    fn refuse_waiting(&mut self, discovery: &DiscoveryKey, now: Instant) {
        let waiting = self.openings.0.remove(discovery).map(|opening| opening.waiting);
        for Waiting { conn, remote, .. } in waiting.unwrap_or_default() {
            let Some(state) = self.conns.get_mut(&conn) else { continue };
            if state.mux.refuse_deferred(remote, &discovery.0) {
                self.dirty.insert(conn);
                self.on_refused(conn, Some(*discovery), now);
            }
        }
    }

    /// Remembers who asked, should the core come later, and counts.
    fn on_refused(&mut self, conn: ConnId, core: Option<DiscoveryKey>, now: Instant) {
        if let Some(core) = core {
            self.parts(now).1.name(conn, core);
        }
        if self.conns.get_mut(&conn).is_some_and(|state| !state.refused(now)) {
            self.strike(conn, Violation::Openings, now);
        }
    }

    /// Nobody has answered for long: the channels wait no more.
    pub(super) fn refuse_overdue(&mut self, now: Instant) {
        let late = |opening: &Opening| now >= opening.since + OPENING_PATIENCE;
        let overdue: Vec<DiscoveryKey> =
            self.openings.0.iter().filter(|(_, o)| late(o)).map(|(id, _)| *id).collect();
        overdue.iter().for_each(|discovery| self.refuse_waiting(discovery, now));
        if let Some(next) = self.openings.0.values().map(|o| o.since + OPENING_PATIENCE).min() {
            self.tick_by(next);
        }
    }

    fn tick_by(&mut self, at: Instant) {
        self.next_tick = Some(self.next_tick.map_or(at, |tick| tick.min(at)));
    }
}
