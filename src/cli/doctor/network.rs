//! The network, as a peer sees it: one is started for a moment, which shares nothing, looks for nothing and touches no store.
//!
//! It tells what others say of this machine, as `status` does. Where a process works on the store that knows it already,
//! what that says counts: its port is the one that peers come to.

use super::Setup;
use super::finding::{Finding, Report};
use super::lan::Near;
use super::nodes::{self, Seen};
use super::owner::Owner;
use super::{peers, router, way};
use crate::cli::status::{TELL_NAT, access_name, nat_name, standing_words};
use crate::crypto::KeyPair;
use crate::key::PublicKey;
use crate::swarm::driver::{BootstrapNode, Network, NetworkConfig, NetworkHandle};
use crate::swarm::{Access, Limits, Nat, RelayStatus, Standing, SwarmEvent, SwarmStatus};
use crate::threads::RAISE;
use serde_json::json;
use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

pub const CHECK: &str = "network";

/// So long after the beginning nobody waits for what nodes say of us any more. That everybody is let in is known within a
/// second; that nobody is after three datagrams to some nodes.
const STANDING: Duration = Duration::from_secs(8);
/// The same where the DHT has fewer nodes than tell what a NAT does: that is never known. Two tell whether we are reached.
const STANDING_OF_FEW: Duration = Duration::from_secs(5);
/// And for relays.
const RELAYS: Duration = Duration::from_secs(9);
/// How often it is looked, and a relay that was not found gone to again.
pub const LOOK: Duration = Duration::from_millis(50);
const AGAIN: Duration = Duration::from_millis(500);

/// A peer of a moment. It ends when it is dropped, or its events are.
pub struct Peer {
    pub network: NetworkHandle,
    _events: UnboundedReceiver<Vec<SwarmEvent>>,
}

pub async fn look(
    setup: Setup,
    owner: watch::Receiver<Option<Owner>>,
    near: watch::Receiver<Option<Near>>,
    report: Report,
) {
    let Setup { nodes, named, bind, relays, peers, peer: place, maps, begun, .. } = setup;
    let named_relays = relays.clone();
    let (found, peer) = match begin(nodes, bind).await {
        Ok(begun) => begun,
        Err(error) => {
            let (words, next) = match error.kind() {
                io::ErrorKind::WouldBlock => (error.to_string(), RAISE),
                _ => (
                    format!("UDP {bind} cannot be used: {error}"),
                    "pass --local with an address of this machine, or none",
                ),
            };
            return report.one(Finding::bad(CHECK, words, next));
        }
    };
    // Its end is not that of this task: what the router gave is given back first.
    let network = &place.get_or_init(|| peer).network;
    if maps {
        network.map_port(true);
    }
    let (known, asks) = (owner.clone(), network.clone());
    let reaching = tokio::spawn(async move {
        let owner = wait_for(known, begun + STANDING).await;
        let named = all_relays(&relays, owner.as_ref());
        let keys = named.iter().map(|(key, _)| *key).collect();
        (named, reach(asks, keys, begun + RELAYS).await)
    });
    let mut asked = JoinSet::new();
    for (i, (node, seen)) in found.into_iter().enumerate() {
        let ask = nodes::ask(node, seen, *bind.ip());
        asked.spawn(async move { (i, ask.await) });
    }
    let mut peers_asked = JoinSet::new();
    for (i, address) in peers.into_iter().enumerate() {
        peers_asked.spawn(async move { (i, peers::ask(address, *bind.ip()).await) });
    }
    let seen = in_order(asked, |seen| report.one(nodes::judge(seen))).await;
    let asked = in_order(peers_asked, |asked| report.one(peers::judge(asked))).await;
    let mut way = way::find(network, &seen, named, begun).await;
    way.peers = asked.iter().filter(|asked| asked.seen.answered.is_some()).count();
    if !way.leads_on() {
        way.near = wait_for(near, begun + STANDING).await.unwrap_or_default();
    }
    report.one(way::judge(&way));
    let port = async {
        match maps {
            true => Some(router::wait(network, begun + STANDING).await),
            false => None,
        }
    };
    let stand = async {
        match way.leads_on() {
            true => settle(network, begun).await,
            false => (Standing::default(), 0),
        }
    };
    let (port, (standing, met)) = tokio::join!(port, stand);
    let owner = wait_for(owner, begun + STANDING).await;
    report.all(router::judge(port.as_ref(), owner.as_ref()).into_iter().collect());
    let (pid, its) = match &owner {
        Some(Owner::Answers { pid, standing, .. }) => (Some(*pid), *standing),
        _ => (None, None),
    };
    report.all(judge_port(bind.port(), network.local_addr().port(), pid));
    let (standing, met, pid) = match its {
        Some(its) => (its, None, pid),
        None => (standing, Some(met), None),
    };
    report.all(judge_standing(&standing, met, pid, maps));
    let (named, serving) = match way.leads_on() {
        true => reaching.await.unwrap_or_default(),
        false => {
            reaching.abort();
            (all_relays(&named_relays, owner.as_ref()), Vec::new())
        }
    };
    report.all(judge_relays(&named, &serving));
}

/// Finds the addresses of all nodes, and starts a peer that knows them.
async fn begin(
    nodes: Vec<BootstrapNode>,
    bind: SocketAddrV4,
) -> io::Result<(Vec<(BootstrapNode, Seen)>, Peer)> {
    let mut looks = JoinSet::new();
    for (i, node) in nodes.into_iter().enumerate() {
        looks.spawn(async move { (i, nodes::find(node).await) });
    }
    let found = in_order(looks, |_| {}).await;
    // By address where there was only a name: what becomes of names is told node by node.
    let known = found.iter().flat_map(|(node, seen)| match node.address() {
        Some(_) => vec![node.clone()],
        None => seen.asked.iter().map(|at| (*at).into()).collect(),
    });
    let config = NetworkConfig {
        key_pair: KeyPair::generate(),
        bind,
        bootstrap: known.collect(),
        persistent: false,
        address: None,
        limits: Limits::default(),
        relays: Vec::new(),
        lan: false,
    };
    let (network, events) = Network::start(config)?;
    Ok((found, Peer { network, _events: events }))
}

/// What each of some tasks brought, in their order; each is told as soon as those before it are.
async fn in_order<T: 'static>(mut tasks: JoinSet<(usize, T)>, tell: impl Fn(&T)) -> Vec<T> {
    let mut brought: Vec<Option<T>> = (0..tasks.len()).map(|_| None).collect();
    let mut told = 0;
    while let Some(done) = tasks.join_next().await {
        let Ok((i, what)) = done else { continue };
        brought[i] = Some(what);
        while let Some(Some(next)) = brought.get(told) {
            tell(next);
            told += 1;
        }
    }
    brought.into_iter().flatten().collect()
}

/// Waits until it is known how others see us, or clear that it will not be.
async fn settle(network: &NetworkHandle, begun: Instant) -> (Standing, usize) {
    loop {
        let SwarmStatus { standing, nodes, .. } = network.status().await.unwrap_or_default();
        let known = standing.access != Access::Unknown && standing.nat != Nat::Unknown;
        let patience = if nodes < TELL_NAT { STANDING_OF_FEW } else { STANDING };
        if known || begun.elapsed() >= patience {
            return (standing, nodes);
        }
        sleep(LOOK).await;
    }
}

async fn wait_for<T: Clone>(mut what: watch::Receiver<Option<T>>, until: Instant) -> Option<T> {
    let known = timeout_at(until, what.wait_for(Option::is_some)).await;
    known.ok()?.ok()?.clone()
}

/// Relays that were typed, and those of the process that works on the store.
fn all_relays(typed: &[PublicKey], owner: Option<&Owner>) -> Vec<(PublicKey, Option<i32>)> {
    let typed_ones = typed.iter().map(|key| (*key, None));
    typed_ones.chain(owner.into_iter().flat_map(|owner| owner.more_relays(typed))).collect()
}

/// Goes to relays, again and again, until all of them serve or the time is over. Tells those that do.
async fn reach(network: NetworkHandle, relays: Vec<PublicKey>, until: Instant) -> Vec<RelayStatus> {
    let mut gone_to: Option<Instant> = None;
    loop {
        let status = network.status().await.unwrap_or_default();
        let serving: Vec<_> = status.visited.iter().filter(|relay| relay.serves).cloned().collect();
        if serving.len() >= relays.len() || Instant::now() >= until {
            return serving;
        }
        if status.nodes > 0 && gone_to.is_none_or(|at| at.elapsed() >= AGAIN) {
            // Whoever is being gone to already is left alone.
            relays.iter().for_each(|relay| network.visit(*relay));
            gone_to = Some(Instant::now());
        }
        sleep(LOOK).await;
    }
}

/// `owner`: a process that works on the store, which has the port then.
fn judge_port(wanted: u16, got: u16, owner: Option<i32>) -> Vec<Finding> {
    let taken = wanted != 0 && wanted != got && owner.is_none();
    let finding = || {
        let words = format!(
            "UDP port {wanted} is taken by another program: what is forwarded to it does not come here"
        );
        Finding::note("port", words, "end that program, or pass another port")
            .with(json!({ "port": wanted }))
    };
    taken.then(finding).into_iter().collect()
}

/// `owner`: the process that sees it so. `nodes` of the DHT that answer, if
/// that is known. `maps`: the router was asked for a port.
fn judge_standing(
    standing: &Standing,
    nodes: Option<usize>,
    owner: Option<i32>,
    maps: bool,
) -> Vec<Finding> {
    let (mut reachable, nat) = standing_words(standing, nodes);
    if standing.access == Access::Open && standing.address.is_none() {
        reachable = "yes, by everybody".into();
    }
    let by_itself = match maps {
        true => "",
        false => {
            ", or pass --port-mapping, which does where the router answers to PCP, NAT-PMP or UPnP (`hdrive doctor \
             --port-mapping` tries)"
        }
    };
    let by = owner.map_or_else(String::new, |pid| format!(", as process {pid} sees it"));
    let (reachable, nat) = (format!("{reachable}{by}"), format!("{nat}{by}"));
    let first = match standing.access {
        Access::Unknown => Finding::unknown("reachable", reachable),
        Access::Open => Finding::good("reachable", reachable),
        Access::Closed => {
            let next = format!(
                "to be reached by everybody, forward a UDP port to this machine and pass --port with it{by_itself}; \
                 peers find a way in most cases all the same"
            );
            Finding::note("reachable", reachable, next)
        }
    };
    let second = match standing.nat {
        Nat::Unknown => Finding::unknown("nat", nat),
        Nat::None | Nat::Steady => Finding::good("nat", nat),
        Nat::Varying => {
            let next = format!(
                "forward a UDP port and pass --port{by_itself}, or have a relay: any `hdrive seed` of the drive that \
                 both sides reach, or --relay"
            );
            Finding::note("nat", nat, next)
        }
    };
    let address = standing.address.map(|at| at.to_string());
    let access = access_name(standing.access);
    vec![
        first.with(json!({ "reachable": access, "address": address, "owner": owner })),
        second.with(json!({ "nat": nat_name(standing.nat), "owner": owner })),
    ]
}

/// Of each relay the process that was told of it, if it was not typed.
fn judge_relays(named: &[(PublicKey, Option<i32>)], serving: &[RelayStatus]) -> Vec<Finding> {
    if named.is_empty() {
        let words = "none is named: where there is no direct way, seeds of the same drive serve";
        return vec![Finding::good("relay", words)];
    }
    let judge = |(key, owner): &(PublicKey, Option<i32>)| {
        let of = owner.map_or_else(String::new, |pid| format!(", which process {pid} was told of"));
        match serving.iter().find(|relay| relay.key == *key) {
            Some(RelayStatus { addr, rtt, .. }) => {
                let at = addr.map_or_else(String::new, |addr| format!(" at {addr}"));
                let ms = rtt.map(|rtt| rtt.as_secs_f64() * 1000.0);
                let rtt = ms.map_or_else(String::new, |ms| format!(", {ms:.1} ms"));
                Finding::good("relay", format!("{key} serves{at}{rtt}{of}"))
                .with(json!({ "key": key.to_string(), "address": addr.map(|a| a.to_string()), "rttMs": ms }))
            }
            None => {
                let next = "see that the key is that of a relay, and that `hdrive relay` runs where everybody can reach it";
                Finding::bad("relay", format!("{key} is not found, or does not serve{of}"), next)
                    .with(json!({ "key": key.to_string() }))
            }
        }
    };
    named.iter().map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn what_is_between_this_machine_and_others_has_its_next_step() {
        let address = Some("20.0.0.1:5".parse().unwrap());
        let judge = |access, nat| {
            let standing = Standing { access, nat, address, ..Standing::default() };
            judge_standing(&standing, None, Some(7), false)
        };
        let open = judge(Access::Open, Nat::None);
        assert_eq!([open[0].verdict, open[1].verdict], [Verdict::Good; 2]);
        assert!(open[0].words.contains("20.0.0.1:5, as process 7 sees it"));
        let closed = judge(Access::Closed, Nat::Varying);
        assert_eq!([closed[0].verdict, closed[1].verdict], [Verdict::Note; 2]);
        assert!(closed[0].next.as_ref().unwrap().contains("forward a UDP port"));
        assert!(closed[0].next.as_ref().unwrap().contains("or pass --port-mapping"));
        assert!(closed[1].next.as_ref().unwrap().contains("--relay"));
        assert_eq!(judge(Access::Closed, Nat::Steady)[1].verdict, Verdict::Good);
        let unaddressed = Standing { access: Access::Open, ..Standing::default() };
        let open = judge_standing(&unaddressed, Some(1), None, false);
        assert_eq!(open[0].words, "yes, by everybody");
        let one = "not known: it takes 3 nodes of the DHT to tell, and one answers";
        assert_eq!(open[1].words, one, "more of the same is not to come");
        let unknown = judge_standing(&Standing::default(), Some(1), None, true);
        assert!(unknown[0].words.ends_with("and one answers"), "{}", unknown[0].words);
        assert_eq!([unknown[0].verdict, unknown[1].verdict], [Verdict::Unknown; 2]);
        // A process that has a port of the router is reached there, or not; what a peer beside it sees says nothing of it.
        let owner = judge_standing(&Standing::default(), None, Some(7), false);
        assert_eq!(owner[0].words, "not known yet, as process 7 sees it");
    }

    #[test]
    fn a_port_that_is_taken_is_told_unless_the_owner_has_it() {
        assert!(judge_port(0, 4000, None).is_empty() && judge_port(5, 5, None).is_empty());
        assert!(judge_port(5, 4000, Some(7)).is_empty());
        assert_eq!(judge_port(5, 4000, None)[0].verdict, Verdict::Note);
    }

    #[test]
    fn a_relay_that_was_named_has_to_serve() {
        let (one, other) = (PublicKey([1; 32]), PublicKey([2; 32]));
        assert_eq!(judge_relays(&[], &[])[0].verdict, Verdict::Good);
        let addr = Some("20.0.0.1:5".parse().unwrap());
        let rtt = Some(Duration::from_millis(12));
        let serving = [RelayStatus { key: other, serves: true, addr, rtt }];
        let found = judge_relays(&[(one, None), (other, None)], &serving);
        assert_eq!([found[0].verdict, found[1].verdict], [Verdict::Bad, Verdict::Good]);
        assert!(found[1].words.ends_with("serves at 20.0.0.1:5, 12.0 ms"), "{}", found[1].words);
        // Those of a process that works on the store are tried as well.
        let owner = Owner::Answers { pid: 7, standing: None, relays: vec![one, other], port: None };
        let all = all_relays(&[one], Some(&owner));
        assert_eq!(all, [(one, None), (other, Some(7))]);
        assert!(judge_relays(&all, &serving)[1].words.ends_with("which process 7 was told of"));
    }
}
