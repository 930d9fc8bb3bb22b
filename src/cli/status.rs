//! `hdrive status`: what the owner of the store does right now, looked at once, then told to a program or to people.

mod peer;

use super::args::{Global, Status};
use super::context::Context;
use super::drafting::not_published;
use super::exit::{Exit, Fail, Result};
use super::hearing;
use super::outlook::{Outlook, Wait};
use super::output::Output;
use super::relay::{self, Found};
use super::running::Running;
use super::words::{bytes, count};
use crate::key::{CoreKey, Topic};
use crate::node::{DriveId, DriveState, Trouble};
use crate::swarm::dht_rpc::bogon;
use crate::swarm::{
    Access, Nat, PortMapping, PortMappingStatus, RelayingStatus, Standing, SwarmStatus,
};
use serde_json::{Value, json};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

pub async fn run(_args: Status, cx: Context) -> Result {
    let picture = Picture::of(&cx).await?;
    picture.tell(&cx.out).await;
    Ok(())
}

/// Where no store is, and none is made.
pub fn of_none(store: PathBuf, global: &Global) -> Result<Exit> {
    let out =
        Output::own(None, global.json, global.quiet).or_fail(Exit::Failed, "standard streams")?;
    let picture = Picture::of_none(&store);
    super::runtime(1)?.block_on(async {
        picture.tell(&out).await;
        out.written().await;
    });
    out.failure().or_fail(Exit::Failed, "standard output").map(|()| Exit::Ok)
}

/// See the module.
#[derive(Default)]
struct Picture {
    store: String,
    there: bool,
    /// None if nothing runs but the one that asks, in its own process.
    owner: Option<u32>,
    /// All but the one that asks.
    commands: Vec<Arc<Running>>,
    mounts: Vec<Place>,
    unmounted: Vec<Place>,
    drives: Vec<Open>,
    /// The drives that this store writes.
    names: Vec<(String, CoreKey)>,
    /// An `hdrive relay` on this store. It works beside its owner.
    relay: Option<Found>,
    /// None while it is not started.
    network: Option<SwarmStatus>,
}

/// An open drive.
struct Open {
    state: DriveState,
    version: u64,
    files: u64,
    bytes: u64,
    peers: usize,
    outlook: Outlook,
    /// Why what was saved in a mount is not published.
    trouble: Option<Trouble>,
}

/// Where a drive is mounted, or was and somebody has it still.
struct Place {
    at: PathBuf,
    drive: DriveId,
    mounted: bool,
    /// It is written.
    writes: bool,
}

fn places(running: &Arc<Running>) -> Vec<Place> {
    let Some((mount, drive)) = running.mount() else { return Vec::new() };
    let at = mount.mount_point().to_path_buf();
    let there = match mount.places() {
        Ok((Some(own), _)) => vec![own],
        Ok((None, copies)) => copies,
        // Who cannot tell has heard of no end.
        Err(_) => vec![at.clone()],
    };
    let (mounted, writes) = (!there.is_empty(), running.writes());
    let there = if mounted { there } else { vec![at] };
    there.into_iter().map(|at| Place { at, drive, mounted, writes }).collect()
}

impl Open {
    async fn of(state: DriveState, network: Option<&SwarmStatus>, cx: &Context) -> Self {
        let db = state.drive.db();
        let peers = cx.node.peers(db.discovery_key()).await.len();
        let index = state.drive.index().unwrap_or_default();
        let reach = *db.reach().borrow();
        let outlook = match reach.holders {
            0 => {
                let waited = cx.commands.since().elapsed();
                let blank = reach.peers == 0 && reach.blank > 0;
                let wait = Wait { waited, company: waited, blank, ..Wait::default() };
                Outlook::of(network, Topic::from(db.discovery_key()), db.core().writable(), wait)
            }
            _ => Outlook::Found,
        };
        let (version, files, bytes) = (index.version(), index.files(), index.bytes());
        let trouble = cx.node.draft_trouble(state.drive.key()).await;
        let trouble = trouble.filter(|_| state.version.is_none());
        Self { state, version, files, bytes, peers, outlook, trouble }
    }

    fn print(&self, out: &Output) {
        let served = match self.state.uses {
            0 => "closing",
            _ if self.state.served => "served",
            _ => "read",
        };
        let outlook = match &self.outlook {
            Outlook::Found => String::new(),
            outlook => format!(": {outlook}"),
        };
        let (key, at, version) = (self.state.drive.key(), fixed(self.state.version), self.version);
        let (files, size) = (count(self.files, "file"), bytes(self.bytes));
        let peers = count(self.peers as u64, "peer");
        out.line(format_args!(
            "drive: {key}{at} {served}, version {version}, {files}, {size}, {peers}{outlook}"
        ));
        if let Some(trouble) = &self.trouble {
            out.line(format_args!("drive: {key} {}", not_published(trouble)));
        }
    }
}

impl Picture {
    async fn of(cx: &Context) -> Result<Self> {
        let names = cx.node.names()?;
        let others = |running: &Arc<Running>| !Arc::ptr_eq(running, &cx.running);
        let commands: Vec<_> = cx.commands.all().into_iter().filter(others).collect();
        let (mounts, unmounted) = commands.iter().flat_map(places).partition(|place| place.mounted);
        let network = cx.node.network_status().await;
        let mut drives = Vec::new();
        for state in cx.node.open_drives() {
            drives.push(Open::of(state, network.as_ref(), cx).await);
        }
        let store = cx.node.config().store.clone();
        let relay = cx.ask_disk(move || relay::ask(&store)).await?;
        let store = cx.node.config().store.display().to_string();
        let own = std::process::id();
        let owner = (cx.running.pid != own || !commands.is_empty()).then_some(own);
        Ok(Self {
            store,
            there: true,
            owner,
            commands,
            mounts,
            unmounted,
            drives,
            names,
            relay,
            network,
        })
    }

    fn of_none(store: &Path) -> Self {
        let relay = relay::ask(store);
        Self { store: store.display().to_string(), relay, ..Self::default() }
    }

    async fn tell(&self, out: &Output) {
        match out.json {
            true => out.object(&self.json()),
            false => self.print(out).await,
        }
    }

    fn json(&self) -> Value {
        let name_of =
            |key| self.names.iter().find(|(_, known)| *known == key).map(|(name, _)| name);
        let drive = |open: &Open| {
            let (state, key) = (&open.state, open.state.drive.key());
            json!({
                "key": key.to_string(), "name": name_of(key), "at": state.version,
                "version": open.version, "files": open.files, "bytes": open.bytes,
                "served": state.served, "uses": state.uses, "peers": open.peers,
                "outlook": open.outlook.to_string(),
                "notPublished": open.trouble.as_ref().map(not_published),
            })
        };
        let place = |Place { at, drive: (key, version), writes, .. }: &Place| {
            json!({
                "mountpoint": at.display().to_string(), "key": key.to_string(), "at": version,
                "writable": writes,
            })
        };
        let command =
            |running: &Arc<Running>| json!({"pid": running.pid, "command": running.words});
        let name = |(name, key): &(String, CoreKey)| json!({"name": name, "key": key.to_string()});
        json!({
            "pid": self.owner, "store": self.store, "made": self.there, "relay": self.relay.as_ref().map(Found::json),
            "commands": self.commands.iter().map(command).collect::<Vec<_>>(),
            "mounts": self.mounts.iter().map(place).collect::<Vec<_>>(),
            "unmounted": self.unmounted.iter().map(place).collect::<Vec<_>>(),
            "drives": self.drives.iter().map(drive).collect::<Vec<_>>(),
            "names": self.names.iter().map(name).collect::<Vec<_>>(),
            "network": self.network.as_ref().map(network_json),
        })
    }

    async fn print(&self, out: &Output) {
        out.line(format_args!("store: {}", self.store));
        match self.owner {
            Some(pid) => out.line(format_args!("owner: process {pid}")),
            None if self.there => out.line("owner: none, no command runs on this store"),
            None => {
                out.line("owner: none, there is no store: the first command that needs it makes it")
            }
        }
        for running in &self.commands {
            out.room().await;
            out.line(format_args!("command: process {} {}", running.pid, running.words));
        }
        for line in self.relay.iter().flat_map(Found::lines) {
            out.room().await;
            out.line(line);
        }
        for (name, key) in &self.names {
            out.room().await;
            out.line(format_args!("own drive: {key} {name}"));
        }
        for Place { at, drive: (key, version), writes, .. } in &self.mounts {
            out.room().await;
            let how = if *writes { " rw" } else { "" };
            out.line(format_args!("mount: {} {key}{}{how}", at.display(), fixed(*version)));
        }
        for Place { at, drive: (key, version), .. } in &self.unmounted {
            out.room().await;
            let (at, fixed) = (at.display(), fixed(*version));
            let why = "in use still, by open files or in another mount namespace";
            out.line(format_args!("unmounted: {at} {key}{fixed} {why}"));
        }
        for open in &self.drives {
            out.room().await;
            open.print(out);
        }
        match &self.network {
            // Of a relay it was told above.
            None if !self.there => {}
            None => out.line("network: not started"),
            Some(network) => print_network(network, out).await,
        }
    }
}

/// How a version was asked for.
fn fixed(version: Option<u64>) -> String {
    version.map_or_else(String::new, |n| format!(" --at {n}"))
}

pub(super) fn network_json(network: &SwarmStatus) -> Value {
    let connections: Vec<_> = network.connections.iter().map(peer::json).collect();
    json!({
        "ready": network.ready && network.nodes > 0, "listening": network.listening,
        "reachable": access_name(network.standing.access), "nat": nat_name(network.standing.nat),
        "address": network.standing.address.map(|at| at.to_string()),
        "dhtNode": network.standing.is_node, "localNetworks": hearing::json(network),
        "portMapping": port_mapping_json(&network.port_mapping),
        "peers": connections,
        "relaying": network.relaying.as_ref().map(relaying_json),
    })
}

/// The same for programs.
pub(super) fn access_name(access: Access) -> &'static str {
    match access {
        Access::Unknown => "unknown",
        Access::Open => "open",
        Access::Closed => "closed",
    }
}

pub(super) fn nat_name(nat: Nat) -> &'static str {
    match nat {
        Nat::Unknown => "unknown",
        Nat::None => "none",
        Nat::Steady => "steady",
        Nat::Varying => "varying",
    }
}

fn port_mapping_json(status: &PortMappingStatus) -> Value {
    match status {
        PortMappingStatus::Off => json!({"state": "off"}),
        PortMappingStatus::Asking => json!({"state": "asking"}),
        PortMappingStatus::Not(why) => json!({"state": "none", "why": why.to_string()}),
        PortMappingStatus::Mapped(PortMapping { by, gateway, external, until }) => {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()).as_secs());
            json!({
                "state": "mapped", "by": by.to_string(), "gateway": gateway.to_string(),
                "external": external.to_string(), "secondsLeft": left,
            })
        }
    }
}

/// What became of a port of the router; none if nobody wants one.
fn port_mapping_words(status: &PortMappingStatus) -> Option<String> {
    Some(match status {
        PortMappingStatus::Off => return None,
        PortMappingStatus::Asking => "the router is being asked".to_string(),
        PortMappingStatus::Not(why) => format!("none: {why}"),
        PortMappingStatus::Mapped(PortMapping { by, gateway, external, .. }) => {
            let (ip, port) = (external.ip(), external.port());
            let behind = match bogon::is_private(ip) {
                true => {
                    format!(", and it is behind another NAT itself, at {ip}: that may be of no use")
                }
                false => String::new(),
            };
            format!("UDP port {port} of the router {gateway} leads here, it says ({by}){behind}")
        }
    })
}

/// So many nodes of the DHT tell whether this machine is reached, and which NAT there is.
const TELL_ACCESS: usize = 2;
pub(super) const TELL_NAT: usize = 3;

/// How reachable this machine is, and the NAT that it seems to be behind. `nodes` of the DHT that answer, if that is known.
pub(super) fn standing_words(standing: &Standing, nodes: Option<usize>) -> (String, String) {
    let unknown = |needed| match nodes.filter(|nodes| *nodes < needed) {
        None => "not known yet".to_string(),
        Some(n) => {
            let answer = match n {
                0 => "none answers".to_string(),
                1 => "one answers".to_string(),
                n => format!("{n} answer"),
            };
            format!("not known: it takes {needed} nodes of the DHT to tell, and {answer}")
        }
    };
    let at = |at: SocketAddrV4| match at.port() {
        0 => at.ip().to_string(),
        _ => at.to_string(),
    };
    let address = standing.address.map_or_else(|| "an address not known yet".to_string(), at);
    let node = if standing.is_node { "; it is a node of the DHT for others" } else { "" };
    let reachable = match standing.access {
        Access::Unknown if standing.asks_later => {
            "not known yet: every node of the DHT was written to already; one is left alone now, and asked in ten minutes"
                .to_string()
        }
        Access::Unknown => unknown(TELL_ACCESS),
        Access::Open => format!("yes, by everybody, at {address}{node}"),
        Access::Closed => {
            "not directly: a firewall or NAT lets in only peers that this machine writes to as well"
                .to_string()
        }
    };
    let nat = match standing.nat {
        Nat::Unknown => unknown(TELL_NAT),
        Nat::None => "none: others see this machine's own address".to_string(),
        Nat::Steady => {
            format!(
                "one that shows everybody the same address, {address}: peers find a way through"
            )
        }
        Nat::Varying => format!(
            "one that shows each peer another port, at {address}: peers behind another such one find no direct way"
        ),
    };
    (reachable, nat)
}

async fn print_network(network: &SwarmStatus, out: &Output) {
    for line in network_lines(network) {
        out.line(line);
    }
    for peer in network.connections.iter().filter(|peer| peer.open) {
        out.room().await;
        out.line(peer::words(peer));
    }
}

/// How it stands, but for the peers.
pub(super) fn network_lines(network: &SwarmStatus) -> Vec<String> {
    let state = match (network.nodes, network.traffic.no_way) {
        (1.., _) => "connected",
        (0, Some(_)) if network.local_network => "no way beyond the local networks",
        (0, Some(_)) => "no way to any node of the DHT",
        (0, None) => "no DHT node answers",
    };
    let mut lines = vec![format!("network: {state}")];
    lines.extend(hearing::of_status(network).map(|words| format!("local network: {words}")));
    if network.nodes > 0 {
        let (reachable, nat) = standing_words(&network.standing, Some(network.nodes));
        lines.extend([format!("reachable: {reachable}"), format!("nat: {nat}")]);
    }
    let mapping = port_mapping_words(&network.port_mapping);
    lines.extend(mapping.map(|words| format!("port mapping: {words}")));
    lines.extend(network.relaying.as_ref().map(|relaying| {
        let RelayingStatus { customers, pairs, passed, passing, .. } = relaying;
        let (pairs, passed, now) = (count(*pairs as u64, "pair"), bytes(*passed), bytes(*passing));
        format!("customers: {customers}, {pairs}, {passed} passed on, now {now}/s")
    }));
    lines
}

/// What we are for others, for programs.
pub(super) fn relaying_json(relaying: &RelayingStatus) -> Value {
    let RelayingStatus { key, customers, pairs, passed, passing } = relaying;
    json!({
        "key": key.to_string(), "customers": customers, "pairs": pairs,
        "passed": passed, "passedPerSecond": passing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PublicKey;
    use crate::swarm::port_mapping::{By, NotMapped};

    #[test]
    fn a_relay_tells_for_how_many_it_is_one_and_what_it_passes_on() {
        let relaying = RelayingStatus {
            key: PublicKey([1; 32]),
            customers: 3,
            pairs: 1,
            passed: 12 << 20,
            passing: 1 << 20,
        };
        let network = SwarmStatus { relaying: Some(relaying), ..SwarmStatus::default() };
        let lines = network_lines(&network);
        assert_eq!(lines[0], "network: no DHT node answers");
        assert_eq!(lines[1], "customers: 3, 1 pair, 12.0 MiB passed on, now 1.0 MiB/s");
        assert_eq!(network_json(&network)["relaying"]["passedPerSecond"], 1 << 20);
        assert_eq!(network_lines(&SwarmStatus::default()).len(), 1);
    }

    #[test]
    fn people_are_told_what_became_of_a_port_of_the_router() {
        let words = |status| port_mapping_words(&status);
        assert_eq!(words(PortMappingStatus::Off), None);
        let gateway = [192, 168, 1, 1].into();
        let at = |ip: [u8; 4]| {
            let external = SocketAddrV4::new(ip.into(), 5);
            PortMappingStatus::Mapped(PortMapping { by: By::Upnp, gateway, external, until: None })
        };
        let good = "UDP port 5 of the router 192.168.1.1 leads here, it says (UPnP)";
        assert_eq!(words(at([20, 0, 0, 1])).as_deref(), Some(good));
        assert!(
            words(at([100, 64, 0, 1]))
                .unwrap()
                .contains("behind another NAT itself, at 100.64.0.1")
        );
        let silent = words(PortMappingStatus::Not(NotMapped::Silent(gateway))).unwrap();
        assert!(silent.starts_with("none: the router 192.168.1.1 does not answer"), "{silent}");
        assert_eq!(port_mapping_json(&at([20, 0, 0, 1]))["external"], "20.0.0.1:5");
    }

    #[test]
    fn people_are_told_how_reachable_the_machine_is_and_which_nat_there_is() {
        let address = Some(SocketAddrV4::new([20, 0, 0, 1].into(), 5));
        let own = Standing { address, ..Standing::default() };
        let open = Standing { access: Access::Open, nat: Nat::None, is_node: true, ..own };
        let (reachable, nat) = standing_words(&open, Some(3));
        assert_eq!(
            reachable,
            "yes, by everybody, at 20.0.0.1:5; it is a node of the DHT for others"
        );
        assert!(nat.starts_with("none"));
        let address = Some(SocketAddrV4::new([20, 0, 0, 1].into(), 0));
        let closed =
            Standing { access: Access::Closed, nat: Nat::Varying, address, ..Standing::default() };
        let (reachable, nat) = standing_words(&closed, Some(3));
        assert!(
            reachable.starts_with("not directly") && nat.contains("another port, at 20.0.0.1:")
        );
        // Nodes that are not missing are not asked for.
        let unknown = |nodes| standing_words(&Standing::default(), nodes);
        let yet = ("not known yet".to_string(), "not known yet".to_string());
        assert_eq!(unknown(Some(3)), yet);
        assert_eq!(unknown(None), yet);
        let few = "not known: it takes 3 nodes of the DHT to tell, and 2 answer";
        assert_eq!(unknown(Some(2)), ("not known yet".to_string(), few.to_string()));
        let one = "not known: it takes 2 nodes of the DHT to tell, and one answers";
        assert_eq!(unknown(Some(1)).0, one);
        let later = Standing { asks_later: true, ..Standing::default() };
        assert!(standing_words(&later, Some(3)).0.ends_with("asked in ten minutes"));
    }
}
