//! Sockets and the clock: the thread that runs the [`Swarm`] machine.
//!
//! One thread owns the sockets and the machine; nothing else of the swarm waits for anything. A turn of
//! its loop takes commands, receives in batches, lets the machine decide, sends in batches, hands the
//! events to the owner as one list, and waits for a socket, a command or the machine's deadline.
//!
//! ```text
//!   NetworkHandle ── commands ──▶ ┌──────────────┐ ── recvmmsg/GRO ── sendmsg/GSO ── network
//!   owner ◀── Vec<SwarmEvent> ─── │ this thread  │
//!                                 └──────────────┘ ppoll(sockets, bell, deadline)
//! ```
//!
//! A failed send or receive is a lost datagram, never the end of the loop.

#![allow(clippy::disallowed_methods, reason = "the clock is read here")]

#[cfg(test)]
mod bench;
mod bootstrap;
mod clock;
mod datagrams;
mod gateway;
mod handle;
mod inbox;
mod interfaces;
mod mapped;
mod neighbours;
mod news;
mod own_call;
mod peer_address;
mod socket;
mod sockets;
mod way_out;
mod ways;

pub use bootstrap::{BootstrapError, BootstrapNode, look_up};
pub use handle::{NetworkConfig, NetworkHandle};
pub use own_call::{OwnCall, call_and_listen};
pub use peer_address::{PeerAddress, PeerAddressError};

use super::{Swarm, SwarmConfig, SwarmEvent, SwarmStatus, Traffic, Transmit};
use crate::key::PublicKey;
use crate::threads;
use bootstrap::{Bootstrap, LookUp};
use clock::Clock;
use gateway::Gateway;
use inbox::{Command, Inbox};
use interfaces::local_addresses;
use neighbours::Neighbours;
use news::News;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use peer_address::PeerNames;
use rand::SeedableRng;
use rand::rngs::StdRng;
use socket::Socket;
use sockets::{Sockets, main_addr};
use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use way_out::WayOut;
use ways::Ways;

/// Interfaces are looked at this often.
const INTERFACES_EVERY: Duration = Duration::from_secs(5);

/// After news of them: one thing follows the other, and an address is usable a moment later.
const SETTLING: Duration = Duration::from_millis(50);

/// After [`NetworkHandle::stop`] the thread takes at most this long to say good-bye.
const FAREWELL: Duration = Duration::from_secs(3);

/// A running network.
pub struct Network;

impl Network {
    /// Binds the socket and starts the thread. Events come as lists, in order; the channel ends when the
    /// network has stopped.
    pub fn start(
        config: NetworkConfig,
    ) -> io::Result<(NetworkHandle, mpsc::UnboundedReceiver<Vec<SwarmEvent>>)> {
        let socket = Socket::bind(config.bind.into())?;
        let bound = socket.local_addr().and_then(main_addr)?;
        let follows = follows_address(&config, bound);
        let config = NetworkConfig { address: own_address(&config, bound), ..config };
        let local_addr = config.address.unwrap_or(bound);
        let inbox = Arc::new(Inbox::new()?);
        let public_key = PublicKey(config.key_pair.public());
        let (events, receiver) = mpsc::unbounded_channel();
        let handle = NetworkHandle::new(inbox.clone(), local_addr, public_key);
        let turn = move || {
            let mut driver = Driver::new(config, socket, bound, inbox, events);
            driver.follows_address = follows;
            driver.run();
        };
        threads::spawn("network", turn)?;
        Ok((handle, receiver))
    }
}

/// The address that a full node has an id for; none for others, or where peers must tell it.
fn own_address(config: &NetworkConfig, bound: SocketAddrV4) -> Option<SocketAddrV4> {
    let fixed = !bound.ip().is_unspecified();
    let first = || local_addresses(bound).into_iter().next();
    match config.address {
        None if config.persistent && fixed => Some(bound),
        None if config.persistent && config.bootstrap.is_empty() => first(),
        known => known,
    }
}

/// Whether [`own_address`] is the first of this machine's, whatever that becomes.
fn follows_address(config: &NetworkConfig, bound: SocketAddrV4) -> bool {
    let unknown = config.address.is_none() && config.bootstrap.is_empty();
    config.persistent && unknown && bound.ip().is_unspecified()
}

/// The wall clock, which the values that the DHT stores are dated by.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

struct Driver {
    swarm: Swarm,
    sockets: Sockets,
    inbox: Arc<Inbox>,
    commands: Vec<Command>,
    events: mpsc::UnboundedSender<Vec<SwarmEvent>>,
    /// The datagrams of one send.
    buf: Vec<u8>,
    /// A send that the kernel had no room for.
    blocked: Option<Transmit>,
    traffic: Traffic,
    bootstrap: Bootstrap,
    peer_names: PeerNames,
    clock: Clock,
    /// When the turn began.
    turn_at: Instant,
    ways: Ways,
    way_out: WayOut,
    /// Our public address is the first of this machine's.
    follows_address: bool,
    address: Option<SocketAddrV4>,
    local_addresses: Vec<SocketAddrV4>,
    interfaces_at: Instant,
    /// None where they are not to be called.
    neighbours: Option<Neighbours>,
    /// None as long as nobody wanted a port of it.
    gateway: Option<Gateway>,
    news: News,
    /// We are to stop, by then at the latest.
    stop_by: Option<Instant>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.inbox.shut();
    }
}

impl Driver {
    fn new(
        config: NetworkConfig,
        socket: Socket,
        bound: SocketAddrV4,
        inbox: Arc<Inbox>,
        events: mpsc::UnboundedSender<Vec<SwarmEvent>>,
    ) -> Self {
        let NetworkConfig { key_pair, bootstrap, persistent, address, limits, relays, lan, .. } =
            config;
        let local_addresses = local_addresses(bound);
        let mut clock = Clock::new();
        let now = clock.now();
        let bootstrap = Bootstrap::new(bootstrap, now);
        let way_out = WayOut::find(bound, &bootstrap.addresses(), &local_addresses);
        let config = SwarmConfig {
            key_pair,
            bootstrap: bootstrap.addresses(),
            persistent,
            address,
            local_addresses: local_addresses.clone(),
            unix_ms: unix_ms(),
            limits,
            relays,
        };
        let mut swarm = Swarm::new(config, StdRng::from_os_rng(), now);
        if bootstrap.is_pending() {
            swarm.await_bootstrap();
        }
        let mut neighbours = lan.then(Neighbours::default);
        let mut sockets = Sockets::new(socket);
        let bound6 = sockets.ipv6_addr();
        if let Some(links) = neighbours.as_mut().and_then(|known| known.look(bound, bound6)) {
            swarm.set_links(links, now);
        }
        Self {
            swarm,
            sockets,
            inbox,
            commands: Vec::new(),
            events,
            buf: Vec::with_capacity(1 << 16),
            blocked: None,
            traffic: Traffic::default(),
            bootstrap,
            peer_names: PeerNames::default(),
            clock,
            turn_at: now,
            ways: Ways::default(),
            way_out,
            follows_address: false,
            address,
            local_addresses,
            interfaces_at: now + INTERFACES_EVERY,
            neighbours,
            gateway: None,
            news: News::new(),
            stop_by: None,
        }
    }

    fn run(mut self) {
        // The kernel rounds waits by 50 µs unless told otherwise; pacing wants them sharper.
        let _ = nix::sys::prctl::set_timerslack(1000);
        let mut more = true;
        loop {
            let now = self.clock.now();
            self.traffic.turns += 1;
            if Clock::slept(self.turn_at, now, INTERFACES_EVERY) {
                // The machines see by the time itself that much has faded.
                tracing::info!(time = ?(now - self.turn_at), "the machine slept");
                self.interfaces_at = now;
                self.bootstrap.hurry(now);
                self.gateway.iter().for_each(Gateway::network_changed);
            }
            self.turn_at = now;
            self.take_commands(now);
            let received = more && self.receive(now);
            if self.swarm.poll_timeout().is_some_and(|at| at <= now) {
                self.swarm.handle_timeout(now);
            }
            if self.interfaces_at <= now {
                self.look_at_interfaces(now);
            }
            if self.swarm.take_router_doubt() {
                self.gateway.iter().for_each(Gateway::network_changed);
            }
            self.look_up_names(now);
            let sending = self.transmit(now);
            while let Some(socket) = self.swarm.poll_closed_socket() {
                self.sockets.close(socket);
                // What waits to be sent from it would bind it anew.
                self.blocked.take_if(|blocked| blocked.socket == socket);
            }
            if !self.hand_over_events() || self.is_over(now) {
                break;
            }
            more = received || sending || self.wait();
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let Some(by) = self.stop_by else { return false };
        now >= by || self.swarm.is_stopped() && self.gateway_had_its_time(by, now).is_none()
    }

    fn take_commands(&mut self, now: Instant) {
        let mut commands = std::mem::take(&mut self.commands);
        self.inbox.take(&mut commands);
        for command in commands.drain(..) {
            self.obey(command, now);
        }
        self.commands = commands;
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Send(conn, frame) => {
                self.swarm.send(conn, frame, now);
            }
            Command::Consumed(conn, bytes) => self.swarm.consumed(conn, bytes),
            Command::Join(topic, options) => self.swarm.join(topic, options, now),
            Command::Leave(topic) => self.swarm.leave(&topic, now),
            Command::Close(conn) => self.swarm.close(conn, now),
            Command::Release(conn) => self.swarm.release(conn, now),
            Command::Ban(key, until) => {
                let until = self.clock.at(until);
                self.swarm.ban(key, until, now);
            }
            Command::Visit(relay) => self.swarm.visit(relay, now),
            Command::SetRelay(relay) => self.swarm.set_relay(relay, now),
            Command::Found(name, found) => {
                let changed = self.bootstrap.found(&name, found);
                if changed || !self.bootstrap.is_pending() {
                    self.swarm.set_bootstrap(self.bootstrap.addresses(), now);
                }
            }
            Command::Tell(addresses) => {
                let known = self.peer_names.tell(addresses, now);
                self.swarm.tell(known, now);
            }
            Command::Reached(name, found) => {
                let found = self.peer_names.found(&name, found, now);
                self.swarm.tell(found, now);
            }
            Command::Hint(topic, nodes) => self.swarm.hint(topic, nodes, now),
            Command::MapPort(wanted) => self.map_port(wanted, now),
            Command::PortMapping(status) => self.port_mapping_changed(status, now),
            Command::Hints(topic, answer) => {
                let _ = answer.send(self.swarm.hints(&topic));
            }
            Command::Status(answer) => {
                self.swarm.measure(now);
                let traffic = self.traffic;
                let port_mapping = self.port_mapping();
                let local_network = self.has_local_network();
                let status = self.swarm.status();
                let nameless = self.peer_names.nameless();
                let status =
                    SwarmStatus { traffic, port_mapping, local_network, nameless, ..status };
                let _ = answer.send(status);
            }
            Command::Stop => {
                if self.stop_by.is_none() {
                    self.stop_by = Some(now + FAREWELL);
                    self.map_port(false, now);
                    self.swarm.stop(now);
                }
            }
        }
    }

    /// Gives the owner its events. `false` if there is no owner any more and nothing to finish.
    fn hand_over_events(&mut self) -> bool {
        let mut list = Vec::new();
        while let Some(mut event) = self.swarm.poll_event() {
            match &mut event {
                SwarmEvent::Reaching { conn, .. } | SwarmEvent::Connected { conn, .. } => {
                    self.inbox.open(*conn)
                }
                SwarmEvent::Closed { conn, .. } => self.inbox.close(*conn),
                SwarmEvent::Queued { conn, bytes } => *bytes = self.inbox.set_queued(*conn, *bytes),
                _ => {}
            }
            list.push(event);
        }
        if !list.is_empty() && self.events.send(list).is_err() && self.stop_by.is_none() {
            return false;
        }
        true
    }

    /// Waits for a datagram, for room to send, for a command or for the time. Answers whether there is
    /// something to receive.
    fn wait(&mut self) -> bool {
        if !self.inbox.sleep() {
            return false;
        }
        self.traffic.waits += 1;
        let now = self.clock.now();
        let names = self.bootstrap.poll_timeout(self.swarm.is_alone());
        let peers = self.peer_names.poll_timeout();
        let stop = self.stop_by.map(|by| self.gateway_had_its_time(by, now).unwrap_or(by));
        let deadline = [self.swarm.poll_timeout(), Some(self.interfaces_at), stop, names, peers];
        let deadline = deadline.into_iter().flatten().min().unwrap_or(self.interfaces_at);
        let timeout = TimeSpec::from(deadline.saturating_duration_since(now));
        let mut fds = vec![PollFd::new(self.inbox.fd(), PollFlags::POLLIN)];
        fds.extend(self.news.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let others = fds.len();
        self.sockets.poll_fds(self.blocked.map(|blocked| blocked.socket), &mut fds);
        fds.extend(self.neighbours.iter().flat_map(Neighbours::poll_fds));
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|r| !r.is_empty());
        if ppoll(&mut fds, Some(timeout), None).is_err() {
            return true;
        }
        let (others, sockets) = fds.split_at(others);
        let readable = sockets.iter().any(ready);
        let (rings, news) = (others.first().is_some_and(ready), others.get(1).is_some_and(ready));
        drop(fds);
        if rings {
            self.inbox.hush();
        }
        if news && self.news.take() {
            self.interfaces_at = self.interfaces_at.min(now + SETTLING);
        }
        readable
    }

    fn has_local_network(&self) -> bool {
        let Ok(bound) = self.sockets.local_addr() else { return false };
        self.neighbours.as_ref().is_some_and(|known| known.has_network(bound))
    }

    fn look_at_interfaces(&mut self, now: Instant) {
        self.interfaces_at = now + INTERFACES_EVERY;
        let Ok(bound) = self.sockets.local_addr() else { return };
        let found = local_addresses(bound);
        let bound6 = self.sockets.ipv6_addr();
        if let Some(links) = self.neighbours.as_mut().and_then(|known| known.look(bound, bound6)) {
            self.swarm.set_links(links, now);
        }
        let way_out = WayOut::find(bound, &self.bootstrap.addresses(), &found);
        let elsewhere = way_out != self.way_out;
        if elsewhere || found != self.local_addresses {
            tracing::info!(addresses = ?found, ?way_out, "the network changed");
            self.ways.clear();
            let gone = self.address.is_none_or(|address| !found.contains(&address));
            let first = found.first().copied().filter(|_| self.follows_address && gone);
            self.local_addresses = found.clone();
            if let Some(address) = first {
                self.address = Some(address);
                self.swarm.set_address(address, now);
            }
            self.way_out = way_out;
            // Where there is none now, nobody could be asked; another look follows when there is one again.
            if !elsewhere || !self.way_out.leads_anywhere() {
                return self.swarm.set_local_addresses(found, now);
            }
            if self.swarm.network_changed(found, now) {
                self.bootstrap.hurry(now);
                self.peer_names.hurry(now);
            }
            self.gateway.iter().for_each(Gateway::network_changed);
        }
    }

    /// Looks names of bootstrap nodes and peers up, each on a thread of its own: a resolver may hang.
    fn look_up_names(&mut self, now: Instant) {
        for address in self.peer_names.due(now) {
            let (inbox, name) = (self.inbox.clone(), address.clone());
            let run = move || inbox.push(Command::Reached(name.clone(), name.look_up()));
            if let Err(error) = threads::spawn("names", run) {
                self.peer_names.found(&address, Err(error), now);
            }
        }
        let pending = self.bootstrap.is_pending();
        for name in self.bootstrap.due(self.swarm.is_alone(), now) {
            let inbox = self.inbox.clone();
            let LookUp { name: host, port, .. } = name.clone();
            let task = name.clone();
            let run = move || {
                let found = look_up(&host, port);
                inbox.push(Command::Found(task, found));
            };
            if let Err(error) = threads::spawn("names", run) {
                self.bootstrap.found(&name, Err(error));
            }
        }
        if pending && !self.bootstrap.is_pending() {
            self.swarm.set_bootstrap(self.bootstrap.addresses(), now);
        }
    }
}
