//! `hdrive relay`: passes on the packets of peers that have no direct way to each other, and does nothing else.

mod telling;

pub use telling::{Found, ask};

use super::args::{Global, Relay};
use super::dht::{LOOK_EVERY, typed_in_vain};
use super::exit::{Exit, Fail, Failure, Result};
use super::farewell::give_port_back;
use super::output::{complain, say, written};
use super::signals::Signals;
use super::{bootstrap, owner, store};
use crate::crypto::KeyPair;
use crate::key::PublicKey;
use crate::swarm::driver::{BootstrapNode, Network, NetworkConfig};
use crate::swarm::{Access, Limits, SwarmEvent, SwarmStatus};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use telling::{Telling, tell};

/// In the directory of the store: what the relay's key is made from.
const KEY_FILE: &str = "relay-key";
/// Held by the one relay of a store: of two with one key each would draw the other's customers to where it is not.
const LOCK_FILE: &str = "relay-lock";
/// One that is ending is waited for so long.
const PATIENCE: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::from_millis(20);

pub fn run(args: &Relay, global: &Global) -> Result<Exit> {
    if let Some(name) = typed_in_vain(global, &["--peer", "--relay"]) {
        let text = format!("{name}: a relay looks for no peer and goes through no other relay");
        return Err(Failure::new(Exit::Usage, text));
    }
    let store = super::store_dir(global)?;
    store::make(&store)?;
    let _only = become_relay(&store)?;
    let key_pair = Arc::new(key_pair(&store)?);
    super::network_runtime()?.block_on(async {
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
        let telling = Telling::start(&store)
            .inspect_err(|why| {
                complain("note", format_args!("`hdrive status` cannot ask how it is: {why}"));
            })
            .ok();
        let mut told = false;
        let mut outlook = Outlook::default();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.tick().await;
        'serving: loop {
            tokio::select! {
                _ = look.tick() => {
                    if let Some(status) = network.status().await {
                        outlook.look(&status, global.quiet);
                    }
                }
                who = Telling::asked(telling.as_ref()) => if let Some(status) = network.status().await {
                    tell(who, &status);
                },
                events = events.recv() => match events {
                    Some(events) => for event in events {
                        tracing::debug!(?event);
                        // Nobody can come before it is announced.
                        if let SwarmEvent::RelayListens { relays } = event
                            && relays > 0
                            && !std::mem::replace(&mut told, true)
                        {
                            announce(key, global)?;
                            tokio::select! {
                                told = written() => told.or_fail(Exit::Failed, "standard output")?,
                                _ = signals.next() => break 'serving,
                            }
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

/// What keeps others from coming here.
#[derive(Default)]
struct Outlook {
    alone: bool,
    closed: bool,
}

impl Outlook {
    /// Says it once, and once that it is over.
    fn look(&mut self, status: &SwarmStatus, quiet: bool) {
        let (nodes, access) = (status.nodes, status.standing.access);
        let news = self.news(nodes, access);
        for (kind, text) in news.into_iter().filter(|(kind, _)| *kind == "warning" || !quiet) {
            complain(kind, text);
        }
    }

    fn news(&mut self, nodes: usize, access: Access) -> Vec<(&'static str, &'static str)> {
        let mut news = Vec::new();
        let alone = nodes == 0;
        if std::mem::replace(&mut self.alone, alone) != alone {
            news.push(match alone {
                true => ("note", "no DHT node answers: nobody can find this relay; it asks on"),
                false => ("note", "a DHT node answers"),
            });
        }
        // Nobody could tell where it is not known.
        let closed = if access == Access::Unknown { self.closed } else { access == Access::Closed };
        if std::mem::replace(&mut self.closed, closed) != closed {
            news.push(match closed {
                true => (
                    "warning",
                    "others do not reach this relay: a firewall or NAT lets in only peers that this machine writes to as \
                     well; forward a UDP port to it and pass that with --port",
                ),
                false => ("note", "others reach this relay"),
            });
        }
        news
    }
}

fn announce(key: PublicKey, global: &Global) -> Result {
    let relay = match global.json {
        true => serde_json::json!({"relay": key.to_string()}).to_string(),
        false => format!("relay: {key}"),
    };
    say(relay).or_fail(Exit::Failed, "standard output")
}

fn become_relay(store: &Path) -> Result<Flock<File>> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(lock) = owner::claim(store, LOCK_FILE)? {
            return Ok(lock);
        }
        if Instant::now() > give_up {
            let (pid, store) = (of_store(store), store.display());
            let who = pid.map_or_else(|| "a process".to_string(), |pid| format!("process {pid}"));
            let text = format!(
                "{who} is the relay of the store {store} already: end it, or use another with --store"
            );
            return Err(Failure::new(Exit::Failed, text));
        }
        std::thread::sleep(SHORT);
    }
}

/// The process that is the relay of a store.
fn of_store(store: &Path) -> Option<u32> {
    let file = File::open(store.join(LOCK_FILE)).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Err((file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            file.take(16).read_to_string(&mut pid).ok()?;
            pid.trim().parse().ok()
        }
        _ => None,
    }
}

/// The same each time, so that people can name it.
fn key_pair(store: &Path) -> Result<KeyPair> {
    let file = store.join(KEY_FILE);
    let failed = |error| Failure::new(Exit::Failed, format!("{}: {error}", file.display()));
    let mut seed = Vec::new();
    match std::fs::File::open(&file).and_then(|f| f.take(64).read_to_end(&mut seed)) {
        Ok(_) => {
            // Zeros are what a machine that lost its power may leave of a file; everybody has that key.
            let seed: Option<&[u8; 32]> = seed.as_slice().try_into().ok();
            return seed.filter(|seed| **seed != [0; 32]).map(KeyPair::from_seed).ok_or_else(
                || {
                    let text = format!("{} is no key of a relay: remove it", file.display());
                    Failure::new(Exit::Failed, text)
                },
            );
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        Err(_) => {}
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_others_away_is_told_once_and_that_it_is_over() {
        let mut outlook = Outlook::default();
        let mut kinds = |nodes, access| -> Vec<_> {
            outlook.news(nodes, access).into_iter().map(|(kind, _)| kind).collect()
        };
        assert_eq!(kinds(0, Access::Unknown), ["note"]);
        assert!(kinds(0, Access::Unknown).is_empty());
        assert_eq!(kinds(5, Access::Closed), ["note", "warning"]);
        assert!(kinds(5, Access::Closed).is_empty() && kinds(5, Access::Unknown).is_empty());
        assert_eq!(kinds(5, Access::Open), ["note"]);
        assert!(kinds(5, Access::Open).is_empty());
    }
}
