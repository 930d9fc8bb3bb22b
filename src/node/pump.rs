//! The thread that owns the replication hub and stands between it and the network.
//!
//! | from | comes | goes to |
//! |---|---|---|
//! | network | connections, frames, send queues that drained, discovery | hub; [`Discovery`] |
//! | core handles | wishes | hub |
//! | hub | frames | network |
//! | hub | blocks, upgrades, ranges that arrived | the core's handle, which wakes its waiters |
//! | hub | cores that peers open and that are not attached; forks to be stored | threads [aside](Aside), and back |
//!
//! Nothing here waits for a peer. The disk work is what the hub does to store blocks that came, in memory of the kernel
//! for the most part, and to read those that are asked for; what must be on the device is made so elsewhere. But an
//! append of our own holds its core until it is on the device, and who asks for that core waits for it here.

use super::aside::Aside;
use super::cores::Cores;
use super::discovery::Discovery;
use super::offenders::Offenders;
use super::ties::Ties;
use super::wish_ids::WishIds;
use crate::hyper::core::SharedCore;
use crate::hyper::replication::{
    AttachOptions, Company, ConnId, ConnInfo, CoreId, Fork, Hub, HubEvent, Limits, PeerInfo,
    RangeId, SeekId, Stored,
};
use crate::hyper::session::{CoreHandle, Reach, Wish};
use crate::hyper::store::Store;
use crate::key::{DiscoveryKey, PublicKey, Topic};
use crate::swarm::driver::NetworkHandle;
use crate::swarm::{self, SwarmEvent};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Wishes taken in one turn before the hub's output is looked at.
const WISHES_PER_TURN: usize = 1024;

/// Events of the network that are taken together, about.
const EVENTS_PER_TURN: usize = 64;

/// Frames whose blocks are hashed side by side before the requests that follow from them are sent.
const FRAMES_PER_TURN: usize = 8;

/// A store that keeps failing is told this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

/// What became of a core that was asked for.
type Found = (DiscoveryKey, Option<SharedCore>);

/// A question of another thread about the hub: which peers a core has.
pub struct Question {
    pub core: DiscoveryKey,
    pub answer: oneshot::Sender<Vec<PeerInfo>>,
}

/// What the thread listens to.
pub struct Inputs {
    pub network: mpsc::UnboundedReceiver<Vec<SwarmEvent>>,
    /// Wishes that stood when the network started.
    pub before: Vec<Wish>,
    pub wishes: mpsc::UnboundedReceiver<Wish>,
    pub questions: mpsc::UnboundedReceiver<Question>,
}

pub struct Pump {
    hub: Hub,
    /// Opens cores that peers ask for.
    opener: Aside<DiscoveryKey, Found>,
    /// Stores forks that cores follow.
    forks: Aside<Fork, Stored>,
    /// Cores that may be served.
    used: Arc<Cores>,
    network: NetworkHandle,
    discovery: Arc<Discovery>,
    offenders: Offenders,
    ties: Ties,
    remotes: HashMap<ConnId, PublicKey>,
    cores: HashMap<CoreId, CoreHandle>,
    ids: HashMap<DiscoveryKey, CoreId>,
    ranges: WishIds<RangeId>,
    /// The handle's name of a seek is the byte.
    seeks: WishIds<SeekId>,
    /// When the store's failure was last told.
    complained: Option<Instant>,
}

impl Pump {
    /// # Errors
    /// The system gives it no threads.
    pub fn new(
        network: NetworkHandle,
        discovery: Arc<Discovery>,
        used: Arc<Cores>,
        store: Arc<Store>,
    ) -> io::Result<Self> {
        let asked = used.clone();
        // What no open drive uses is not served, be it in the store.
        let find = move |id: &DiscoveryKey| match asked.is_used(id).then(|| store.stored(id)) {
            None => None,
            Some(Ok(handle)) => handle.map(|handle| handle.shared()),
            Some(Err(error)) => {
                tracing::warn!("what a peer asked for cannot be opened: {error}");
                None
            }
        };
        Ok(Self {
            hub: Hub::new(Limits::default()),
            opener: Aside::start("opener", move |id| (id, find(&id)))?,
            forks: Aside::start("forks", Fork::store)?,
            used,
            network,
            discovery,
            offenders: Offenders::default(),
            ties: Ties::default(),
            remotes: HashMap::new(),
            cores: HashMap::new(),
            ids: HashMap::new(),
            ranges: WishIds::default(),
            seeks: WishIds::default(),
            complained: None,
        })
    }

    /// Runs until it is told to stop or the network has stopped.
    pub async fn run(mut self, mut inputs: Inputs) {
        std::mem::take(&mut inputs.before).into_iter().for_each(|wish| self.on_wish(wish));
        self.drain();
        loop {
            let deadline = [self.hub.poll_timeout(), self.ties.poll_timeout()];
            let deadline = deadline.into_iter().flatten().min().map(tokio::time::Instant::from_std);
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                question = inputs.questions.recv() => match question {
                    Some(Question { core, answer }) => {
                        let id = self.ids.get(&core);
                        let _ = answer.send(id.map(|id| self.hub.peers(*id)).unwrap_or_default());
                    }
                    None => return,
                },
                () = sleep => self.on_time(Instant::now()),
                stored = self.forks.done() => self.hub.handle_stored(stored, Instant::now()),
                (id, core) = self.opener.done() => {
                    // Its drive may have been closed while it was opened.
                    let core = core.filter(|_| self.used.is_used(&id));
                    self.hub.handle_core_found(&id, core, Instant::now());
                }
                events = inputs.network.recv() => {
                    let Some(mut events) = events else { return };
                    // What has come meanwhile is worked on together: more blocks per look at the lanes.
                    while events.len() < EVENTS_PER_TURN
                        && let Ok(more) = inputs.network.try_recv()
                    {
                        events.extend(more);
                    }
                    self.on_network(events);
                }
                wish = inputs.wishes.recv() => {
                    let Some(wish) = wish else { return };
                    self.on_wish(wish);
                    for _ in 0..WISHES_PER_TURN {
                        let Ok(wish) = inputs.wishes.try_recv() else { break };
                        self.on_wish(wish);
                    }
                }
            }
            self.drain();
        }
    }

    fn on_time(&mut self, now: Instant) {
        self.hub.handle_timeout(now);
        for conn in self.ties.idle(now) {
            self.network.release(swarm::ConnId(conn.0));
        }
    }

    fn on_network(&mut self, events: Vec<SwarmEvent>) {
        let now = Instant::now();
        let mut events = events.into_iter().peekable();
        while let Some(event) = events.next() {
            match event {
                SwarmEvent::Ready => tracing::info!("the DHT answers"),
                SwarmEvent::Moved { address } => tracing::info!(%address, "the address changed"),
                SwarmEvent::Reaching { conn, remote, handshake_hash, topics } => {
                    let info = ConnInfo { handshake_hash, initiator: true, remote };
                    self.on_connected(ConnId(conn.0), info, topics, now);
                }
                SwarmEvent::Connected { conn, remote, handshake_hash, initiator, addr, topics } => {
                    tracing::info!(%addr, peer = %crate::key::short(&remote.0), "connected");
                    let info = ConnInfo { handshake_hash, initiator, remote };
                    self.on_connected(ConnId(conn.0), info, topics, now);
                }
                SwarmEvent::Met { conn, topic } => {
                    self.hub.handle_met(ConnId(conn.0), topic, now);
                }
                SwarmEvent::Frame { conn, data } => {
                    let mut frames = vec![data];
                    while let Some(SwarmEvent::Frame { data, .. }) = events.next_if(
                        |next| matches!(next, SwarmEvent::Frame { conn: other, .. } if *other == conn),
                    ) {
                        frames.push(data);
                    }
                    for frames in frames.chunks(FRAMES_PER_TURN) {
                        self.hub.handle_frames(ConnId(conn.0), frames, now);
                        let bytes = frames.iter().map(|frame| frame.len()).sum();
                        self.network.consumed(conn, bytes);
                        // Requests that follow from these answers leave before the next are looked at.
                        self.transmit(now);
                    }
                }
                SwarmEvent::PeerMoved { conn, addr } => {
                    tracing::info!(conn = conn.0, %addr, "the peer is at another address now");
                }
                SwarmEvent::Queued { conn, bytes } => {
                    self.hub.handle_queued(ConnId(conn.0), bytes, now);
                }
                SwarmEvent::Closed { conn, why } => {
                    tracing::info!(conn = conn.0, ?why, "disconnected");
                    self.remotes.remove(&ConnId(conn.0));
                    self.ties.closed(ConnId(conn.0));
                    self.hub.handle_closed(ConnId(conn.0), now);
                }
                SwarmEvent::Round { topic, announced, found } => {
                    tracing::debug!(?topic, found, announced, "looked for peers");
                    if announced {
                        self.discovery.set_announced(topic);
                    }
                }
                SwarmEvent::Settled { topic, connected } => {
                    tracing::debug!(?topic, connected, "all found peers were tried");
                    self.discovery.set_settled(topic);
                }
                SwarmEvent::RelayListens { relays } => {
                    tracing::debug!(relays, "the relay can be found");
                }
                SwarmEvent::Alone { topic } => self.discovery.set_alone(topic),
                SwarmEvent::DialFailed { remote, why } => {
                    tracing::debug!(peer = %crate::key::short(&remote.0), why, "dial failed");
                }
            }
        }
    }

    /// A connection may be written to, or is open; it may be both, one after the other.
    fn on_connected(&mut self, conn: ConnId, info: ConnInfo, topics: Vec<Topic>, now: Instant) {
        if self.remotes.insert(conn, info.remote).is_none() {
            self.ties.connected(conn, now);
            self.hub.handle_connected(conn, info, now);
        }
        for topic in topics {
            self.hub.handle_met(conn, topic, now);
        }
    }

    fn on_wish(&mut self, wish: Wish) {
        let now = Instant::now();
        match wish {
            Wish::Attach { handle, downloading, small_blocks } => {
                let options = AttachOptions { downloading, small_blocks };
                // What is told of it up to now is not for this handle; what attaching it makes true is.
                self.drain();
                let served = self.hub.core_id(&handle.discovery_key());
                // Those who opened it while it was only served have been told to nobody.
                let company = served.map_or_else(Company::default, |id| self.hub.company(id));
                let topics = self.discovery.topics_of(&handle.discovery_key());
                let id = self.hub.attach_for(&topics, handle.shared(), options, now);
                handle.set_reach(|reach| {
                    reach.meet(company);
                    reach.synced = false;
                });
                self.ids.insert(handle.discovery_key(), id);
                self.cores.insert(id, handle);
            }
            Wish::Detach { core } => self.detach(&core, now),
            Wish::Block { core, index, urgent } => {
                if let Some(&id) = self.ids.get(&core) {
                    self.hub.want_block(id, index, urgent, now);
                }
            }
            Wish::ForgetBlock { core, index } => {
                if let Some(&id) = self.ids.get(&core) {
                    self.hub.unwant_block(id, index, now);
                }
            }
            Wish::Range { core, id: range, range: blocks, linear } => {
                if let Some(&id) = self.ids.get(&core) {
                    let name = self.hub.want_range(id, blocks, linear, now);
                    self.ranges.insert(id, range, name);
                }
            }
            Wish::ForgetRange { core, id: range } => {
                let Some(&id) = self.ids.get(&core) else { return };
                if let Some(name) = self.ranges.take_back(id, range) {
                    self.hub.unwant_range(name, now);
                }
            }
            Wish::Seek { core, bytes } => {
                if let Some(&id) = self.ids.get(&core) {
                    let name = self.hub.want_seek(id, bytes, now);
                    self.seeks.insert(id, bytes, name);
                }
            }
            Wish::ForgetSeek { core, bytes } => {
                let Some(&id) = self.ids.get(&core) else { return };
                if let Some(name) = self.seeks.take_back(id, bytes) {
                    self.hub.unwant_seek(name, now);
                }
            }
            Wish::Update { core } => {
                if let Some(&id) = self.ids.get(&core) {
                    self.hub.want_upgrade(id, now);
                }
            }
            Wish::Changed { core } => {
                if let Some(&id) = self.ids.get(&core) {
                    self.hub.core_changed(id, now);
                }
            }
            Wish::Cleared { core, blocks } => {
                if let Some(&id) = self.ids.get(&core) {
                    self.hub.core_cleared(id, blocks, now);
                }
            }
        }
    }

    /// Nobody here uses a core any more: peers lose it, and its handle is let go.
    fn detach(&mut self, core: &DiscoveryKey, now: Instant) {
        let Some(id) = self.ids.remove(core) else { return };
        self.hub.detach(id, now);
        // Its last events still concern the handle.
        self.drain();
        let Some(handle) = self.cores.remove(&id) else { return };
        handle.set_reach(|reach| *reach = Reach::default());
        self.ranges.forget(id);
        self.seeks.forget(id);
    }

    /// Passes on what the hub has to say until it has nothing more.
    fn drain(&mut self) {
        let now = Instant::now();
        self.transmit(now);
        while let Some(fork) = self.hub.poll_fork() {
            if let Err(fork) = self.forks.ask(fork) {
                // There is no such thread: better late than never.
                self.hub.handle_stored(fork.store(), now);
            }
        }
        while let Some(event) = self.hub.poll_event() {
            self.on_hub(event, now);
        }
        self.transmit(now);
    }

    fn transmit(&mut self, now: Instant) {
        while let Some((conn, frame)) = self.hub.poll_transmit() {
            let queued = self.network.send(swarm::ConnId(conn.0), frame);
            self.hub.handle_queued(conn, queued, now);
        }
    }

    fn tell_company(&self, core: CoreId) {
        let company = self.hub.company(core);
        self.handle(core, |h| h.set_reach(|reach| reach.meet(company)));
    }

    fn on_hub(&mut self, event: HubEvent, now: Instant) {
        match event {
            HubEvent::Arrived { core, index, stored } => {
                self.handle(core, |h| h.on_arrived(index, stored));
            }
            HubEvent::Block { core, index } => self.handle(core, |h| h.on_block(index)),
            HubEvent::Upgraded { core, .. } | HubEvent::Truncated { core, .. } => {
                self.handle(core, CoreHandle::on_version);
            }
            HubEvent::RangeDone { core, range } => {
                if let Some(range) = self.ranges.take(range) {
                    self.handle(core, |h| h.on_range(range));
                }
            }
            HubEvent::Seeked { core, seek, .. } => {
                if let Some(bytes) = self.seeks.take(seek) {
                    self.handle(core, |h| h.on_seek(bytes));
                }
            }
            // Whoever waits has a deadline of its own, and another peer may still come.
            HubEvent::BlockUnavailable { .. } => {}
            HubEvent::PeerOpened { core, conn } => {
                self.ties.opened_channel(conn);
                self.handle(core, |h| h.set_reach(|reach| reach.synced = false));
                self.tell_company(core);
            }
            HubEvent::PeerTold { core } => self.tell_company(core),
            HubEvent::PeerClosed { core, conn } => {
                self.ties.closed_channel(conn, now);
                self.tell_company(core);
            }
            HubEvent::PeersSynced { core } => {
                self.handle(core, |h| {
                    h.set_reach(|reach| (reach.syncs, reach.synced) = (reach.syncs + 1, true));
                });
            }
            HubEvent::TwoHistories { core, length } => {
                self.handle(core, |h| {
                    let core = crate::key::short(&h.key().0);
                    tracing::debug!(core, length, "its writer has signed two histories");
                    // Told by the drive that it belongs to: see `super::drives`.
                    h.set_reach(|reach| reach.two_histories = true);
                    h.on_two_histories();
                });
            }
            HubEvent::CoreAsked { discovery } => {
                // Without the thread nothing is found, and the hub refuses it in time.
                let _ = self.opener.ask(discovery);
            }
            HubEvent::Heard { core, empty } => {
                self.handle(core, |h| h.set_reach(|reach| reach.empty = empty));
            }
            HubEvent::Violation { conn, what, .. } => {
                let Some(&remote) = self.remotes.get(&conn) else { return };
                tracing::warn!(peer = %crate::key::short(&remote.0), ?what, "a peer broke the rules");
                if let Some(until) = self.offenders.offence(remote, now) {
                    tracing::warn!(peer = %crate::key::short(&remote.0), "banned for a while");
                    self.network.ban(remote, until);
                }
            }
            HubEvent::Unstored { core, index, stored } => {
                self.handle(core, |h| h.on_unstored(index, stored));
            }
            HubEvent::StorageFailed { core, why, full } => {
                // It may come for many cores at once.
                if self.complained.is_none_or(|last| now >= last + COMPLAIN_EVERY) {
                    tracing::error!("what a peer sent cannot be stored: {why}");
                    self.complained = Some(now);
                }
                // A full disk passes, and what somebody waits for is handed on from memory meanwhile.
                if !full {
                    self.handle(core, |h| h.on_storage_failure(why));
                }
            }
            HubEvent::CloseConnection { conn, why } => {
                tracing::info!(conn = conn.0, why, "closing");
                self.network.close(swarm::ConnId(conn.0));
            }
        }
    }

    /// Tells a core's handle; cores that are only served have none.
    fn handle(&self, core: CoreId, tell: impl FnOnce(&CoreHandle)) {
        if let Some(handle) = self.cores.get(&core) {
            tell(handle);
        }
    }
}

#[cfg(test)]
mod tests;
