//! `hdrive relay`: passes on the packets of peers that have no direct way to each other, and does nothing else.

use super::args::{Global, Relay};
use super::bootstrap;
use super::exit::{Exit, Fail, Failure, Result};
use super::farewell::give_port_back;
use super::output::{complain, say, written};
use super::signals::Signals;
use crate::crypto::KeyPair;
use crate::key::PublicKey;
use crate::swarm::driver::{BootstrapNode, Network, NetworkConfig};
use crate::swarm::{Limits, SwarmEvent};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// In the directory of the store: what the relay's key is made from.
const KEY_FILE: &str = "relay-key";

pub fn run(args: &Relay, global: &Global) -> Result<Exit> {
    let key_pair = Arc::new(key_pair(&super::store_dir(global)?)?);
    super::runtime(1)?.block_on(async {
        let mut nodes = bootstrap::named(global)?;
        if nodes.is_empty() {
            nodes = BootstrapNode::public();
        }
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, global.port.unwrap_or(0));
        let bind = global.local.unwrap_or(any);
        let config = NetworkConfig {
            key_pair: KeyPair::generate(),
            bind,
            bootstrap: nodes,
            persistent: false,
            address: None,
            limits: Limits::default(),
            lan: false,
            relays: Vec::new(),
        };
        let (network, mut events) =
            Network::start(config).or_fail(Exit::Failed, format_args!("UDP {bind}"))?;
        let (wanted, got) = (bind.port(), network.local_addr().port());
        if wanted != 0 && got != wanted {
            complain("warning", format_args!("UDP port {wanted} is taken, {got} is used"));
        }
        let maps = global.port_mapping().unwrap_or(true);
        if maps {
            network.map_port(true);
        }
        let mut signals = Signals::new().or_exit(Exit::Failed)?;
        let key = PublicKey(key_pair.public());
        network.set_relay(Some((key_pair, args.limits.limits())));
        let mut told = false;
        loop {
            tokio::select! {
                events = events.recv() => match events {
                    Some(events) => for event in events {
                        tracing::debug!(?event);
                        // Nobody can come before it is announced.
                        if let SwarmEvent::RelayListens { relays } = event
                            && relays > 0
                            && !std::mem::replace(&mut told, true)
                        {
                            tell(key, global)?;
                            written().await.or_fail(Exit::Failed, "standard output")?;
                        }
                    },
                    None => return Err(Failure::new(Exit::Failed, "the network stopped")),
                },
                _ = signals.next() => break,
            }
        }
        if maps {
            give_port_back(network, events).await;
        }
        Ok(Exit::Ok)
    })
}

fn tell(key: PublicKey, global: &Global) -> Result {
    let relay = match global.json {
        true => serde_json::json!({"relay": key.to_string()}).to_string(),
        false => format!("relay: {key}"),
    };
    say(relay).or_fail(Exit::Failed, "standard output")
}

/// The same each time, so that people can name it.
fn key_pair(store: &Path) -> Result<KeyPair> {
    let file = store.join(KEY_FILE);
    let failed = |error| Failure::new(Exit::Failed, format!("{}: {error}", file.display()));
    let mut seed = Vec::new();
    match std::fs::File::open(&file).and_then(|f| f.take(64).read_to_end(&mut seed)) {
        Ok(_) => {
            let seed = seed.as_slice().try_into();
            let seed: &[u8; 32] = seed.map_err(|_| {
                let text = format!("{} is no key of a relay: remove it", file.display());
                Failure::new(Exit::Failed, text)
            })?;
            return Ok(KeyPair::from_seed(seed));
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        Err(_) => {}
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(store).map_err(failed)?;
    let key_pair = KeyPair::generate();
    let options = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).clone();
    let write = |mut f: std::fs::File| {
        f.write_all(&key_pair.seed())?;
        f.sync_all()
    };
    if let Err(error) = options.open(&file).and_then(write) {
        complain("note", format_args!("its key will be another one next time: {}", failed(error)));
    }
    Ok(key_pair)
}
