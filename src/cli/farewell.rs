//! The end of a network that no store owns: of `hdrive dht` and `hdrive relay`.

use crate::swarm::SwarmEvent;
use crate::swarm::driver::NetworkHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A router that was asked for a port has so long to hear that it is not needed any more.
const PATIENCE: Duration = Duration::from_secs(1);

/// Gives the port back, if there is one.
pub async fn give_port_back(
    network: NetworkHandle,
    mut events: mpsc::UnboundedReceiver<Vec<SwarmEvent>>,
) {
    network.map_port(false);
    network.stop();
    let _ = timeout(PATIENCE, async { while events.recv().await.is_some() {} }).await;
}
