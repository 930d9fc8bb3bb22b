//! `hdrive doctor`: tries what a mount needs on this machine, and says what works, what does not, and what to change.
//!
//! Everything is tried at the same time, by tasks of their own that report line by line; lines come in the order of the
//! tasks, as soon as they can. Whoever looks (`look`) only notes what was seen, and a function without a clock or a system
//! (`judge`) makes words of it.
//!
//! | file | tries |
//! |---|---|
//! | `store`, `owner` | the store, and the process that works on it, if there is one |
//! | `fuse` | a mount of an empty drive, in a folder of its own |
//! | `machine` | limits, the clock |
//! | `nodes`, `way`, `network` | nodes of the DHT one by one; whether anything leads to others; then, as a peer for a moment, how this machine can be reached |
//! | `peers` | the addresses of --peer, one by one |
//! | `router` | whether the router gives a port that leads here, if it is to be asked |
//! | `lan` | local networks, IPv6 |
//! | `finding` | one line of what is told |

mod finding;
mod fuse;
mod lan;
mod machine;
mod network;
mod nodes;
mod owner;
mod peers;
mod router;
mod store;
mod way;

use super::args::Global;
use super::bootstrap;
use super::exit::{Exit, Fail, Result};
use super::fault::joined;
use super::output::{say, written};
use super::signals::{LAST_WAIT, Signals};
use crate::disk;
use crate::key::PublicKey;
use crate::swarm::driver::{BootstrapNode, PeerAddress};
use crate::threads;
use clap::Args;
use finding::{Finding, Report, Screen, Verdict};
use owner::Owner;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// All of it ends by then. Each look has a limit of its own before.
const LIMIT: Duration = Duration::from_millis(9500);

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Doctor {}

/// What is tried, as far as it was typed.
struct Setup {
    /// Or why there is no place for it.
    store: std::result::Result<PathBuf, String>,
    nodes: Vec<BootstrapNode>,
    /// They are those of a network that was named.
    named: bool,
    bind: SocketAddrV4,
    relays: Vec<PublicKey>,
    peers: Vec<PeerAddress>,
    lan: bool,
    /// The router is asked for a port, by the peer of a moment, which is put here.
    maps: bool,
    peer: Arc<OnceLock<network::Peer>>,
    /// So many could be started.
    threads: usize,
    begun: Instant,
}

pub fn run(_args: &Doctor, global: &Global) -> Result<Exit> {
    // Before it has any of its own.
    let threads = threads::count(machine::MANY_THREADS).0;
    let nodes = bootstrap::named(global)?;
    let named = !nodes.is_empty();
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, global.port.unwrap_or(0));
    let maps = global.port_mapping() == Some(true);
    let peer: Arc<OnceLock<network::Peer>> = Arc::default();
    let setup = Setup {
        store: super::store_dir(global).map_err(|failure| failure.text),
        nodes: if named { nodes } else { BootstrapNode::public() },
        named,
        bind: global.local.unwrap_or(any),
        relays: global.relay.clone(),
        peers: global.peers.clone(),
        lan: !global.no_lan,
        maps,
        peer: peer.clone(),
        threads,
        begun: Instant::now(),
    };
    let runtime = super::large_runtime(2)?;
    let exit = runtime.block_on(async {
        let mut signals = Signals::new().or_exit(Exit::Failed)?;
        let exit = tokio::select! {
            exit = examine(setup, global.json) => exit,
            _ = signals.next() => Ok(Exit::Interrupted),
        };
        if let Some(asker) = peer.get().filter(|_| maps) {
            router::give_back(&asker.network).await;
        }
        exit
    });
    // A mount that is tried just now is taken away.
    disk::settle(LAST_WAIT);
    runtime.shutdown_background();
    exit
}

/// Something that is tried, and what it tells.
struct Tried {
    name: &'static str,
    findings: UnboundedReceiver<Finding>,
    task: JoinHandle<()>,
}

impl Tried {
    fn begin<F>(name: &'static str, look: impl FnOnce(Report) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (report, findings) = Report::new();
        Self { name, findings, task: tokio::spawn(look(report)) }
    }

    /// The next line; none when all of it is told.
    async fn next(&mut self, until: Instant) -> Result<Option<Finding>> {
        match timeout_at(until, self.findings.recv()).await {
            Ok(Some(finding)) => Ok(Some(finding)),
            Ok(None) => joined((&mut self.task).await).map(|()| None),
            Err(_) => {
                self.findings.close();
                let words = format!("not known after {} s", LIMIT.as_secs());
                Ok(Some(Finding::bad(self.name, words, "try again: the machine may be very busy")))
            }
        }
    }
}

async fn examine(setup: Setup, json: bool) -> Result<Exit> {
    let until = setup.begun + LIMIT;
    let (store, local) = (setup.store.clone(), *setup.bind.ip());
    let (lan, threads) = (setup.lan, setup.threads);
    let (tell_owner, owner) = watch::channel(None);
    let (tell_near, near) = watch::channel(None);
    let tried = [
        Tried::begin("store", |report| {
            let store = store.clone();
            async move {
                let owner = match store {
                    Ok(store) => {
                        report.all(store::look(store.clone()).await);
                        let owner = owner::look(&store).await;
                        report.one(owner::judge(&owner));
                        owner
                    }
                    Err(why) => {
                        report.one(store::judge_none(&why));
                        Owner::None
                    }
                };
                tell_owner.send_replace(Some(owner));
            }
        }),
        Tried::begin("fuse", |report| async move { report.all(fuse::look().await) }),
        Tried::begin("limits", |report| async move {
            report.all(machine::look(store.ok(), threads).await)
        }),
        Tried::begin("network", |report| network::look(setup, owner, near, report)),
        Tried::begin("lan", |report| async move {
            let (near, findings) = lan::look(lan, local).await;
            tell_near.send_replace(Some(near));
            report.all(findings);
        }),
    ];
    let mut bad: Vec<&'static str> = Vec::new();
    let mut less = false;
    for mut tried in tried {
        while let Some(finding) = tried.next(until).await? {
            tell(&finding, json)?;
            if finding.verdict == Verdict::Bad && !bad.contains(&finding.check) {
                bad.push(finding.check);
            }
            less |= finding.check == network::CHECK && finding.verdict == Verdict::Note;
        }
    }
    tell(&finding::summary(&bad, less), json)?;
    written().await.or_fail(Exit::Failed, "standard output")?;
    Ok(if bad.is_empty() { Exit::Ok } else { Exit::Failed })
}

/// A reader that has gone is no error, as everywhere; whoever looks at the exit status may not read a line.
fn tell(finding: &Finding, json: bool) -> Result {
    let text = if json { finding.json() } else { finding.shown(Screen::stdout()) };
    say(text).or_fail(Exit::Failed, "standard output")
}
