//! How a node goes online: once, and whole, whoever waits for it.
//!
//! The first command that needs peers starts the network, and may be called off meanwhile. So a task of its own does it,
//! which nobody calls off, and what can fail comes before what cannot be had twice: the next command finds the
//! network, or everything that is needed to start it.

use super::backlog::Gathered;
use super::pump::{Inputs, Pump, Question};
use super::{Node, NodeError};
use crate::crypto::KeyPair;
use crate::hyper::session::Wish;
use crate::lock::lock;
use crate::swarm::driver::{Network, NetworkConfig, NetworkHandle};
use crate::swarm::{Limits, RelayLimits};
use crate::threads;
use std::io;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Gathers wishes until it is told to stop.
pub(super) struct Offline {
    stop: oneshot::Sender<()>,
    gathers: JoinHandle<Gathered>,
}

impl Offline {
    pub(super) fn start(wishes: mpsc::UnboundedReceiver<Wish>) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop, gathers: tokio::spawn(super::backlog::gather(wishes, stopped)) }
    }

    /// What was wished for up to now, and the rest as it comes.
    async fn gathered(self) -> Result<Gathered, NodeError> {
        let _ = self.stop.send(());
        self.gathers.await.map_err(NodeError::of_task)
    }
}

/// The running network.
pub(super) struct Online {
    pub(super) network: NetworkHandle,
    /// Of the relay that it may be; another one each time, as the peer's own.
    relay_key: Arc<KeyPair>,
    pub(super) questions: mpsc::UnboundedSender<Question>,
    pump: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Online {
    /// Leaves the network in good order, and waits for that.
    async fn stop(&self) {
        self.network.stop();
        // The pump ends when the network's events do; it says good-bye within its own bound.
        let pump = lock(&self.pump).take();
        let joined = tokio::task::spawn_blocking(move || pump.map(|pump| pump.join()));
        let _ = joined.await;
    }
}

/// Keeps a node being a relay.
pub struct Relaying {
    node: Arc<Node>,
}

impl Drop for Relaying {
    fn drop(&mut self) {
        let mut users = lock(&self.node.relaying);
        *users -= 1;
        if let Some(online) = self.node.running().filter(|_| *users == 0) {
            online.network.set_relay(None);
        }
    }
}

/// Keeps a port of the gateway being wanted.
pub struct PortWish {
    node: Arc<Node>,
}

impl Drop for PortWish {
    fn drop(&mut self) {
        let mut wishes = lock(&self.node.port_wishes);
        *wishes -= 1;
        if let Some(online) = self.node.running().filter(|_| *wishes == 0) {
            online.network.map_port(false);
        }
    }
}

impl Node {
    /// The network, which the first who asks starts.
    pub(super) async fn online(self: &Arc<Self>) -> Result<&Online, NodeError> {
        if self.running().is_none() {
            let node = self.clone();
            let start = async move {
                let start = async || node.go_online().await.map(Some);
                node.online.get_or_try_init(start).await.map(drop)
            };
            tokio::spawn(start).await.map_err(NodeError::of_task)??;
        }
        let online = self.running().ok_or(NodeError::Ends)?;
        // What came while it was being started.
        lock(&self.told).hand_over(&online.network);
        self.pass_on_port_wish(&online.network);
        Ok(online)
    }

    /// The network, if it runs.
    pub(super) fn running(&self) -> Option<&Online> {
        self.online.get()?.as_ref()
    }

    /// Ends the network, or keeps it from being started.
    pub(super) async fn go_offline(&self) {
        if let Some(online) = self.online.get_or_init(async || None).await {
            online.stop().await;
        }
    }

    async fn go_online(&self) -> Result<Online, NodeError> {
        let config = NetworkConfig {
            // A new identity each time: peers need not recognise this one, and nobody can follow it.
            key_pair: KeyPair::generate(),
            bind: self.config.local,
            bootstrap: self.config.bootstrap.clone(),
            persistent: false,
            address: None,
            limits: Limits::default(),
            relays: self.config.relays.clone(),
            lan: self.config.lan,
        };
        let started = Network::start(config);
        let (network, events) = started.map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => NodeError::Thread(source),
            _ => NodeError::Socket { at: self.config.local, source },
        })?;
        self.pass_on_port_wish(&network);
        let (discovery, cores) = (self.discovery.clone(), self.cores.clone());
        let pump = match Pump::new(network.clone(), discovery, cores, self.store.clone()) {
            Ok(pump) => start_pump(pump).await,
            Err(error) => Err(error),
        };
        let begun = match pump.map_err(NodeError::Thread) {
            Ok(begun) => self.gathered().await.map(|gathered| (begun, gathered)),
            Err(error) => Err(error),
        };
        // Nobody would hear of its events.
        let ((thread, begin), (wishes, backlog)) = begun.inspect_err(|_| network.stop())?;
        let (questions, asked) = mpsc::unbounded_channel();
        let before = backlog.into_wishes();
        let _ = begin.send(Inputs { network: events, before, wishes, questions: asked });
        if self.config.local.port() != 0 && self.config.local.port() != network.local_addr().port()
        {
            let (wanted, got) = (self.config.local.port(), network.local_addr().port());
            tracing::warn!(
                "UDP port {wanted} is taken, {got} is used: what a router forwards does not arrive"
            );
        }
        lock(&self.told).hand_over(&network);
        self.drives.go_online(network.clone());
        // What comes from peers changes files from now on. Noted here, nobody waits for that in the middle of it.
        let storage = self.store.storage().clone();
        tokio::task::spawn_blocking(move || storage.begin_session());
        let relay_key = Arc::new(KeyPair::generate());
        Ok(Online { network, relay_key, questions, pump: Mutex::new(Some(thread)) })
    }

    /// Is a relay for others, until all that is answered here was dropped. Who asks last sets the limits.
    pub async fn relay(self: &Arc<Self>, limits: RelayLimits) -> Result<Relaying, NodeError> {
        self.online().await?;
        *lock(&self.relaying) += 1;
        let relaying = Relaying { node: self.clone() };
        if let Some(online) = self.running() {
            online.network.set_relay(Some((online.relay_key.clone(), limits)));
        }
        Ok(relaying)
    }

    /// Wants a port of the gateway that leads here, as soon as the network runs and until what is answered here was dropped.
    pub fn wish_port(self: &Arc<Self>) -> PortWish {
        *lock(&self.port_wishes) += 1;
        if let Some(online) = self.running() {
            online.network.map_port(true);
        }
        PortWish { node: self.clone() }
    }

    fn pass_on_port_wish(&self, network: &NetworkHandle) {
        if *lock(&self.port_wishes) > 0 {
            network.map_port(true);
        }
    }

    async fn gathered(&self) -> Result<Gathered, NodeError> {
        let offline = lock(&self.offline).take();
        offline.ok_or(NodeError::Ends)?.gathered().await
    }
}

/// Starts the thread of a pump, which waits there for what to listen to. It ends if that never comes.
async fn start_pump(
    pump: Pump,
) -> io::Result<(std::thread::JoinHandle<()>, oneshot::Sender<Inputs>)> {
    let (begin, inputs) = oneshot::channel();
    let (tell, started) = oneshot::channel();
    // The thread makes its runtime itself: elsewhere that could not be dropped.
    let work = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(tell.send(Err(threads::told("a thread", error)))),
        };
        let _ = tell.send(Ok(()));
        runtime.block_on(async {
            if let Ok(inputs) = inputs.await {
                pump.run(inputs).await;
            }
        });
    };
    let thread = threads::spawn("replication", work)?;
    started.await.map_err(io::Error::other)??;
    Ok((thread, begin))
}
