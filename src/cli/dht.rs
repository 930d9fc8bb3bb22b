//! `hdrive dht`: a node of the DHT, the first of a private network or one more of a known one.

use super::args::{Dht, Global};
use super::bootstrap;
use super::exit::{Exit, Fail, Failure, Result};
use super::output::say;
use crate::crypto::KeyPair;
use crate::swarm::driver::{Network, NetworkConfig};
use crate::swarm::{Limits, SwarmEvent};
use std::net::SocketAddrV4;
use tokio::signal::unix::{SignalKind, signal};

pub fn run(args: &Dht, global: &Global) -> Result<Exit> {
    super::runtime(1)?.block_on(async {
        let config = NetworkConfig {
            key_pair: KeyPair::generate(),
            bind: args.bind,
            bootstrap: bootstrap::named(global)?,
            persistent: true,
            address: None,
            limits: Limits::default(),
        };
        let (network, mut events) =
            Network::start(config).or_fail(Exit::Failed, format_args!("UDP {}", args.bind))?;
        let bound = network.local_addr();
        if args.bind.port() != 0 && bound.port() != args.bind.port() {
            let text = format!("UDP port {} is taken: pass --bind with another", args.bind.port());
            return Err(Failure::new(Exit::Failed, text));
        }
        tell(bound, global)?;
        let mut interrupt = signal(SignalKind::interrupt()).or_exit(Exit::Failed)?;
        let mut terminate = signal(SignalKind::terminate()).or_exit(Exit::Failed)?;
        loop {
            tokio::select! {
                events = events.recv() => match events {
                    Some(events) => for event in events {
                        match event {
                            SwarmEvent::Moved { address } => tell(address, global)?,
                            event => tracing::debug!(?event),
                        }
                    },
                    None => return Err(Failure::new(Exit::Failed, "the network stopped")),
                },
                _ = interrupt.recv() => return Ok(Exit::Ok),
                _ = terminate.recv() => return Ok(Exit::Ok),
            }
        }
    })
}

/// Says where others find this node.
fn tell(address: SocketAddrV4, global: &Global) -> Result {
    let listening = match global.json {
        true => serde_json::json!({"listening": address.to_string()}).to_string(),
        false => format!("listening: {address}"),
    };
    say(listening).or_fail(Exit::Failed, "standard output")
}
