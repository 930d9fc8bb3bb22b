//! `hdrive dht`: a node of the DHT, the first of a private network or one more of a known one.

use super::args::{Dht, Global};
use super::bootstrap;
use super::exit::{Exit, Fail, Failure, Result};
use super::farewell::give_port_back;
use super::output::{complain, say, written};
use super::signals::Signals;
use crate::crypto::KeyPair;
use crate::swarm::driver::{Network, NetworkConfig, NetworkHandle};
use crate::swarm::{Limits, SwarmEvent};
use std::net::SocketAddrV4;
use std::time::Duration;

/// How often it is looked whether there are other nodes. One that is silent was asked four times by the first look.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

pub fn run(args: &Dht, global: &Global) -> Result<Exit> {
    refuse_others(global)?;
    super::network_runtime()?.block_on(async {
        let config = NetworkConfig {
            key_pair: KeyPair::generate(),
            bind: args.bind,
            bootstrap: bootstrap::named(global)?,
            persistent: true,
            address: None,
            limits: Limits::default(),
            relays: Vec::new(),
            lan: false,
        };
        let (network, mut events) =
            Network::start(config).or_fail(Exit::Failed, format_args!("UDP {}", args.bind))?;
        let bound = network.local_addr();
        if args.bind.port() != 0 && bound.port() != args.bind.port() {
            let text = format!("UDP port {} is taken: pass --bind with another", args.bind.port());
            return Err(Failure::new(Exit::Failed, text));
        }
        // A network of one's own is not shown to the Internet unasked.
        let maps = global.port_mapping().unwrap_or(false);
        if maps {
            network.map_port(true);
        }
        let mut signals = Signals::new().or_exit(Exit::Failed)?;
        tell(bound, global)?;
        tokio::select! {
            told = written() => told.or_fail(Exit::Failed, "standard output")?,
            _ = signals.next() => return Ok(Exit::Ok),
        }
        let mut company = Company::new(args, global);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.tick().await;
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
                _ = look.tick() => company.look(&network).await,
                _ = signals.next() => break,
            }
        }
        if maps {
            give_port_back(network, events).await;
        }
        Ok(Exit::Ok)
    })
}

fn refuse_others(global: &Global) -> Result {
    let Some(name) = typed_in_vain(global, &["--port", "--local", "--peer", "--relay"]) else {
        return Ok(());
    };
    let text = match name {
        "--port" | "--local" => " has its address and port by --bind ADDR:PORT",
        _ => " looks for no peer and goes through no relay",
    };
    Err(Failure::new(Exit::Usage, format_args!("{name}: a node of the DHT{text}")))
}

/// Which of some flags of peers was given to a command that is none: somebody who typed it means what would not be.
/// Variables may be there for the other commands.
pub fn typed_in_vain(global: &Global, flags: &[&str]) -> Option<&'static str> {
    let named = [
        ("--port", global.port.is_some(), "HDRIVE_PORT"),
        ("--local", global.local.is_some(), "HDRIVE_LOCAL"),
        ("--peer", !global.peers.is_empty(), "HDRIVE_PEER"),
        ("--relay", !global.relay.is_empty(), "HDRIVE_RELAY"),
    ];
    let unset = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    let mut named = named.into_iter().filter(|(name, given, _)| *given && flags.contains(name));
    named.find(|(.., variable)| unset(variable)).map(|(name, ..)| name)
}

/// Says where others find this node.
fn tell(address: SocketAddrV4, global: &Global) -> Result {
    let listening = match global.json {
        true => serde_json::json!({"listening": address.to_string()}).to_string(),
        false => format!("listening: {address}"),
    };
    say(listening).or_fail(Exit::Failed, "standard output")
}

/// Whether other nodes are there, for one that is to join them.
struct Company {
    /// Where they were said to be; nowhere, for the first node of a network.
    at: String,
    /// Nobody has told this node what its address is.
    homeless: bool,
    quiet: bool,
    alone: bool,
}

impl Company {
    fn new(args: &Dht, global: &Global) -> Self {
        let names: Vec<&str> = global.bootstrap.iter().flatten().map(|name| name.trim()).collect();
        let homeless = args.bind.ip().is_unspecified();
        Self { at: names.join(", "), homeless, quiet: global.quiet, alone: false }
    }

    /// Says once that nobody is there, and once that somebody is again.
    async fn look(&mut self, network: &NetworkHandle) {
        let Some(status) = network.status().await.filter(|_| !self.at.is_empty()) else { return };
        let alone = status.nodes == 0;
        if std::mem::replace(&mut self.alone, alone) == alone || self.quiet {
            return;
        }
        let at = &self.at;
        match (alone, self.homeless) {
            (false, _) => complain("note", "other nodes answer: this one is part of their DHT"),
            (true, false) => {
                complain(
                    "note",
                    format_args!("no node answers at {at}: this one is alone, and asks on"),
                );
            }
            (true, true) => {
                let text = "this one is alone, does not know its address, and keeps nothing for others; it asks on. \
                            To be the first of a network it needs --bind with an address of this machine";
                complain("note", format_args!("no node answers at {at}: {text}"));
            }
        }
    }
}
