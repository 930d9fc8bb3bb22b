//! The machine: all connections and all cores, and which message is for whom.
//!
//! The owner gives it decrypted frames and local wishes, and sends what [`Hub::poll_transmit`] gives. It
//! reports its own backlog with [`Hub::handle_queued`]; blocks are read for a peer only while little is
//! queued for it.

use super::connection::{Conn, Ctx};
use super::fork::{Fork, Stored};
use super::replica::Replica;
use super::violation::Violation;
use super::{
    AttachOptions, Company, ConnId, ConnInfo, CoreId, HubEvent, Limits, PeerInfo, RangeId, SeekId,
};
use crate::codec::FrameBuf;
use crate::crypto::hash::Hash;
use crate::hyper::core::{Core, SharedCore};
use crate::key::{DiscoveryKey, Topic};
use crate::lock::lock;
use opening::Openings;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

mod incoming;
mod local;
mod meeting;
mod opening;

/// The replication of a process.
pub struct Hub {
    limits: Limits,
    /// Cores that remotes wait for.
    openings: Openings,
    conns: BTreeMap<ConnId, Conn>,
    replicas: BTreeMap<CoreId, Replica>,
    by_discovery: HashMap<DiscoveryKey, CoreId>,
    /// The cores of each topic.
    by_topic: BTreeMap<Topic, BTreeSet<CoreId>>,
    /// Peers that turned out to be some of a topic.
    met: Vec<(ConnId, Topic)>,
    /// Cores that others may be told of in tags.
    shown: BTreeSet<CoreId>,
    /// Connections that may have missed what they were told.
    untold: Vec<ConnId>,
    ranges: HashMap<RangeId, CoreId>,
    seeks: HashMap<SeekId, CoreId>,
    /// Bytes that peers make us hold.
    held: usize,
    /// Connections that may have something to send.
    dirty: BTreeSet<ConnId>,
    doomed: Vec<ConnId>,
    events: VecDeque<HubEvent>,
    /// Forks to be stored.
    forks: VecDeque<Fork>,
    next_id: u64,
    next_tick: Option<Instant>,
    /// Set while a frame of several messages is worked on, with the cores they were about.
    batch: Option<BTreeSet<CoreId>>,
    /// The leaf hash of the block in the frame that is worked on, if it was hashed ahead.
    leaf: Option<Hash>,
}

impl Hub {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            openings: Openings::default(),
            conns: BTreeMap::new(),
            replicas: BTreeMap::new(),
            by_discovery: HashMap::new(),
            by_topic: BTreeMap::new(),
            met: Vec::new(),
            shown: BTreeSet::new(),
            untold: Vec::new(),
            ranges: HashMap::new(),
            seeks: HashMap::new(),
            held: 0,
            dirty: BTreeSet::new(),
            doomed: Vec::new(),
            events: VecDeque::new(),
            forks: VecDeque::new(),
            next_id: 1,
            next_tick: None,
            batch: None,
            leaf: None,
        }
    }

    /// Takes a core in. One that is in already (served for a peer, say) keeps its id and is given the options;
    /// that its peers are in sync, and what they say is in it, is told anew. [`Hub::company`], asked before, has the rest.
    pub fn attach(&mut self, core: SharedCore, options: AttachOptions, now: Instant) -> CoreId {
        self.attach_for(&[], core, options, now)
    }

    /// The same of a core that peers of these topics have, too: its own topic, which follows from its key, is only one of
    /// those that have it.
    pub fn attach_for(
        &mut self,
        topics: &[Topic],
        core: SharedCore,
        options: AttachOptions,
        now: Instant,
    ) -> CoreId {
        let discovery = *lock(&core).discovery_key();
        let id = match self.by_discovery.get(&discovery) {
            Some(id) => *id,
            None => self.insert(core, options, false, now),
        };
        for topic in topics {
            self.by_topic.entry(*topic).or_default().insert(id);
        }
        self.with(id, now, |replica, ctx, core| {
            replica.topics.extend(topics);
            replica.passive = false;
            replica.options = options;
            if options.downloading {
                replica.open_on_all(ctx);
            }
            replica.sync_all(ctx, core);
            replica.tell_again(ctx);
            replica.pump(ctx, core);
            replica.check_synced(ctx, core);
        });
        self.finish(now);
        id
    }

    fn insert(
        &mut self,
        core: SharedCore,
        options: AttachOptions,
        passive: bool,
        now: Instant,
    ) -> CoreId {
        let id = CoreId(self.next_id);
        self.next_id += 1;
        let replica = Replica::new(id, core, options, passive);
        self.by_discovery.insert(replica.discovery, id);
        for topic in &replica.topics {
            self.by_topic.entry(*topic).or_default().insert(id);
        }
        self.expect_tags(&replica);
        self.replicas.insert(id, replica);
        self.accept_waiting(id, now);
        id
    }

    /// Closes the core's channels and forgets it with all wishes. A remote that opens it again makes
    /// [`HubEvent::CoreAsked`].
    pub fn detach(&mut self, id: CoreId, now: Instant) {
        self.with(id, now, |replica, ctx, core| {
            replica.options.downloading = false;
            for conn in replica.conns() {
                replica.close_on(ctx, core, conn);
            }
        });
        self.remove(id);
        self.finish(now);
    }

    fn remove(&mut self, id: CoreId) {
        if let Some(replica) = self.replicas.remove(&id) {
            self.by_discovery.remove(&replica.discovery);
            for topic in &replica.topics {
                if let Some(cores) = self.by_topic.get_mut(topic) {
                    cores.remove(&id);
                    if cores.is_empty() {
                        self.by_topic.remove(topic);
                    }
                }
            }
            self.ranges.retain(|_, core| *core != id);
            self.seeks.retain(|_, core| *core != id);
            self.forget_tags(&replica);
        }
    }

    /// A connection is ready for frames in both directions. No core is named to its peer before one of us two knows that
    /// it is a peer of it: see [`Hub::handle_met`].
    pub fn handle_connected(&mut self, conn: ConnId, info: ConnInfo, now: Instant) {
        self.conns.insert(conn, Conn::new(info, now));
        self.finish(now);
    }

    /// `bytes` of what [`Hub::poll_transmit`] gave for a connection are not sent yet. The hub counts up by
    /// itself what it gives; to be told whenever the queue has fallen below half of
    /// [`Limits::upload_backlog`].
    pub fn handle_queued(&mut self, conn: ConnId, bytes: usize, now: Instant) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.set_below(bytes);
        }
        self.serve(conn, now);
        self.finish(now);
    }

    /// A connection is gone.
    pub fn handle_closed(&mut self, conn: ConnId, now: Instant) {
        self.drop_conn(conn, now);
        self.finish(now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_tick.is_none_or(|at| now < at) {
            return;
        }
        self.next_tick = None;
        self.refuse_overdue(now);
        let due = self.replicas.values().filter(|replica| replica.needs_tick()).map(|r| r.id);
        for id in due.collect::<Vec<_>>() {
            self.with(id, now, |replica, ctx, core| replica.tick(ctx, core));
        }
        self.finish(now);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_tick
    }

    /// The next frame to send, and where.
    pub fn poll_transmit(&mut self) -> Option<(ConnId, FrameBuf)> {
        while let Some(&id) = self.dirty.first() {
            if let Some(conn) = self.conns.get_mut(&id)
                && let Some(frame) = conn.mux.poll_transmit()
            {
                conn.handed_down(frame.len());
                return Some((id, frame));
            }
            self.dirty.remove(&id);
        }
        None
    }

    pub fn poll_event(&mut self) -> Option<HubEvent> {
        let event = self.events.pop_front()?;
        match &event {
            HubEvent::RangeDone { range, .. } => drop(self.ranges.remove(range)),
            HubEvent::Seeked { seek, .. } => drop(self.seeks.remove(seek)),
            _ => {}
        }
        Some(event)
    }

    /// The next fork to be stored, by a thread that may wait.
    pub fn poll_fork(&mut self) -> Option<Fork> {
        self.forks.pop_front()
    }

    /// A fork was stored, or could not be.
    pub fn handle_stored(&mut self, stored: Stored, now: Instant) {
        // By its key: it may have been detached and attached again.
        if let Some(&id) = self.by_discovery.get(&stored.discovery) {
            self.with(id, now, |replica, ctx, core| replica.on_stored(ctx, core, stored.result));
        }
        self.finish(now);
    }

    /// The peers of a core.
    pub fn peers(&self, id: CoreId) -> Vec<PeerInfo> {
        self.replicas.get(&id).map_or_else(Vec::new, |replica| replica.info(&self.conns))
    }

    /// Who has an open channel for a core.
    pub fn company(&self, id: CoreId) -> Company {
        self.replicas.get(&id).map_or_else(Company::default, Replica::company)
    }

    /// The id of an attached core.
    pub fn core_id(&self, discovery: &DiscoveryKey) -> Option<CoreId> {
        self.by_discovery.get(discovery).copied()
    }

    /// Lets go of a core that was only here for a peer.
    fn drop_idle(&mut self, id: CoreId) {
        let idle = |r: &Replica| r.passive && r.peers.is_empty() && !r.has_wishes();
        if self.replicas.get(&id).is_some_and(idle) {
            self.remove(id);
        }
    }

    /// Answers requests while the backlog allows.
    fn serve(&mut self, conn: ConnId, now: Instant) {
        let all: usize = self.conns.values().map(Conn::backlog).sum();
        let limit = match all > self.limits.all_backlogs {
            true => self.limits.fair_backlog,
            false => self.limits.upload_backlog,
        };
        loop {
            let Some(state) = self.conns.get_mut(&conn).filter(|state| !state.closing) else {
                return;
            };
            if state.backlog() >= limit {
                return;
            }
            let Some(id) = state.serving.pop_front() else { return };
            let mut more = false;
            self.with(id, now, |replica, ctx, core| more = replica.serve_one(ctx, core, conn));
            if more && let Some(state) = self.conns.get_mut(&conn) {
                state.serving.push_back(id);
            }
        }
    }

    /// The cores, and what they work on.
    fn parts(&mut self, now: Instant) -> (&mut BTreeMap<CoreId, Replica>, Ctx<'_>) {
        let ctx = Ctx {
            conns: &mut self.conns,
            dirty: &mut self.dirty,
            doomed: &mut self.doomed,
            met: &mut self.met,
            shown: &mut self.shown,
            untold: &mut self.untold,
            events: &mut self.events,
            forks: &mut self.forks,
            limits: &self.limits,
            held: &mut self.held,
            now,
            defer: self.batch.is_some(),
        };
        (&mut self.replicas, ctx)
    }

    fn strike(&mut self, conn: ConnId, what: Violation, now: Instant) {
        self.parts(now).1.strike(conn, None, what);
    }

    /// Does something with a core that does not need its lock.
    fn unlocked(&mut self, id: CoreId, now: Instant, f: impl FnOnce(&mut Replica, &mut Ctx)) {
        let (replicas, mut ctx) = self.parts(now);
        let Some(replica) = replicas.get_mut(&id) else { return };
        f(replica, &mut ctx);
        if let Some(batch) = &mut self.batch {
            batch.insert(id);
        }
    }

    /// Does something with a core under its lock.
    fn with(
        &mut self,
        id: CoreId,
        now: Instant,
        f: impl FnOnce(&mut Replica, &mut Ctx, &mut Core),
    ) {
        self.unlocked(id, now, |replica, ctx| {
            let shared = Arc::clone(&replica.core);
            // A panic elsewhere under the lock leaves a core that checks everything it is given.
            let mut core = lock(&shared);
            f(replica, ctx, &mut core);
        });
        let tick = now + super::patience::TICK;
        if self.next_tick.is_none_or(|at| tick < at)
            && self.replicas.get(&id).is_some_and(Replica::needs_tick)
        {
            self.next_tick = Some(tick);
        }
    }

    /// Opens channels to who was met, and forgets connections that have to end.
    fn finish(&mut self, now: Instant) {
        self.introduce(now);
        while let Some(conn) = self.doomed.pop() {
            self.drop_conn(conn, now);
        }
    }

    fn drop_conn(&mut self, conn: ConnId, now: Instant) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        state.closing = true;
        self.dirty.remove(&conn);
        let channels = std::mem::take(&mut state.channels);
        let ids: BTreeSet<CoreId> = channels.into_values().collect();
        for id in ids {
            self.with(id, now, |replica, ctx, core| replica.on_closed(ctx, core, conn));
            self.drop_idle(id);
        }
        if let Some(mut state) = self.conns.remove(&conn) {
            let names = state.held_for_names();
            state.held.change(&mut self.held, names, 0);
        }
    }
}

#[cfg(test)]
mod tests;
