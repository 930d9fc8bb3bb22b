//! The nodes to enter the DHT by: as people write them, and when their names are looked up.
//!
//! A node is `host:port` or `ip@host:port`; the address in front spares a look-up. A name without one is looked
//! up at once, and all names again while we know no node of the DHT: an address that does not answer may be
//! out of date, and a laptop may start before its network does. [`Bootstrap`] says when and takes what was
//! found; the look-up itself, which may block, is [`look_up`], run by a thread for each name.
//!
//! Source: hyperdht/lib/constants.js, dht-rpc/index.js:_bootstrap

use crate::swarm::dht_rpc::bogon::is_bogon;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The public network's own nodes.
const PUBLIC: [&str; 3] = [
    "88.99.3.86@node1.hyperdht.org:49737",
    "142.93.90.113@node2.hyperdht.org:49737",
    "138.68.147.8@node3.hyperdht.org:49737",
];

/// How long known addresses have to answer before names are looked up, and the first pause between look-ups.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause: a resolver that comes late is asked within half a minute.
const LAST_PAUSE: Duration = Duration::from_secs(20);
/// How long a first look-up keeps everybody waiting.
const LOOK_UP_PATIENCE: Duration = Duration::from_secs(10);
/// Addresses taken from one name.
const MAX_ADDRESSES: usize = 8;

/// One node as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapNode {
    /// The address that was given.
    given: Option<Ipv4Addr>,
    /// The name that was given.
    name: Option<String>,
    port: u16,
}

/// Not the form of a node.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no bootstrap node: write host:port or ip@host:port")]
pub struct BootstrapError(String);

impl BootstrapNode {
    /// The nodes of the public network.
    pub fn public() -> Vec<Self> {
        PUBLIC.iter().filter_map(|text| text.parse().ok()).collect()
    }
}

impl BootstrapNode {
    /// The address that was given.
    pub fn address(&self) -> Option<SocketAddrV4> {
        self.given.map(|ip| SocketAddrV4::new(ip, self.port))
    }

    /// The name that was given, and the port.
    pub fn name(&self) -> Option<(&str, u16)> {
        self.name.as_deref().map(|name| (name, self.port))
    }
}

impl From<SocketAddrV4> for BootstrapNode {
    fn from(addr: SocketAddrV4) -> Self {
        Self { given: Some(*addr.ip()), name: None, port: addr.port() }
    }
}

impl FromStr for BootstrapNode {
    type Err = BootstrapError;

    fn from_str(text: &str) -> Result<Self, BootstrapError> {
        let text = text.trim();
        let form = || BootstrapError(text.to_string());
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let port: u16 = port.parse().map_err(|_| form())?;
        let (given, name) = match host.split_once('@') {
            Some((ip, name)) => (Some(ip.parse().map_err(|_| form())?), Some(name)),
            None => match host.parse::<Ipv4Addr>() {
                Ok(ip) => (Some(ip), None),
                Err(_) => (None, Some(host)),
            },
        };
        if port == 0 || name.is_some_and(|name| !is_name(name)) {
            return Err(form());
        }
        Ok(Self { given, name: name.map(str::to_string), port })
    }
}

/// Whether a resolver may be asked for this.
pub(super) fn is_name(text: &str) -> bool {
    let letter =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') || !c.is_ascii();
    !text.is_empty() && text.len() <= 253 && text.chars().all(letter)
}

/// The IPv4 addresses of a name. May block for long.
pub fn look_up(name: &str, port: u16) -> io::Result<Vec<Ipv4Addr>> {
    let found = (name, port).to_socket_addrs()?.filter_map(|addr| match addr {
        SocketAddr::V4(addr) => Some(*addr.ip()),
        SocketAddr::V6(_) => None,
    });
    let mut found: Vec<_> = found.collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(MAX_ADDRESSES);
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no IPv4 address"));
    }
    Ok(found)
}

/// A name to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookUp {
    /// Which node it is for.
    pub node: usize,
    pub name: String,
    pub port: u16,
}

/// The nodes, and what is known of their addresses.
#[derive(Debug)]
pub struct Bootstrap {
    nodes: Vec<(BootstrapNode, Vec<Ipv4Addr>)>,
    /// Look-ups under way.
    running: usize,
    /// When the next one is due, if we know no node by then.
    look_at: Instant,
    pause: Duration,
    /// Nothing has been looked up so far.
    first: bool,
    /// Nobody can be asked before one name has an address; waited for until then.
    patience: Option<Instant>,
    /// The nodes whose failure was told.
    told: Vec<usize>,
}

impl Bootstrap {
    pub fn new(nodes: Vec<BootstrapNode>, now: Instant) -> Self {
        let nodes: Vec<_> = nodes.into_iter().map(|n| (n, Vec::new())).collect();
        let unknown = nodes.iter().any(|(node, _)| node.given.is_none());
        let mut bootstrap = Self {
            nodes,
            running: 0,
            look_at: if unknown { now } else { now + FIRST_PAUSE },
            pause: FIRST_PAUSE,
            first: unknown,
            patience: None,
            told: Vec::new(),
        };
        let nobody = unknown && bootstrap.addresses().is_empty();
        bootstrap.patience = nobody.then_some(now + LOOK_UP_PATIENCE);
        bootstrap
    }

    /// The addresses known now.
    pub fn addresses(&self) -> Vec<SocketAddrV4> {
        let mut all = Vec::new();
        for (node, found) in &self.nodes {
            for ip in node.given.iter().chain(found) {
                let addr = SocketAddrV4::new(*ip, node.port);
                if !all.contains(&addr) {
                    all.push(addr);
                }
            }
        }
        all
    }

    /// Whether nobody can be asked yet, but a look-up may change that.
    pub fn is_pending(&self) -> bool {
        self.patience.is_some()
    }

    /// When [`Self::due`] has something, or [`Self::is_pending`] changes. `alone`: we know no node.
    pub fn poll_timeout(&self, alone: bool) -> Option<Instant> {
        let names = self.nodes.iter().any(|(node, _)| node.name.is_some());
        let next = (alone && names && self.running == 0).then_some(self.look_at);
        next.into_iter().chain(self.patience).min()
    }

    /// What is to be looked up now; each must come back by [`Self::found`].
    pub fn due(&mut self, alone: bool, now: Instant) -> Vec<LookUp> {
        if self.patience.is_some_and(|until| until <= now) {
            self.patience = None;
        }
        if !alone || self.running > 0 || self.look_at > now {
            return Vec::new();
        }
        let first = std::mem::take(&mut self.first);
        let due = self.nodes.iter().enumerate().filter_map(|(i, (node, _))| {
            let name = node.name.clone().filter(|_| !first || node.given.is_none())?;
            Some(LookUp { node: i, name, port: node.port })
        });
        let due: Vec<_> = due.collect();
        self.running = due.len();
        self.look_at = now + self.pause;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        due
    }

    /// What a look-up found. True if the addresses have changed.
    pub fn found(&mut self, look_up: &LookUp, found: io::Result<Vec<Ipv4Addr>>) -> bool {
        self.running = self.running.saturating_sub(1);
        let i = look_up.node;
        let Some((node, known)) = self.nodes.get_mut(i) else { return false };
        let changed = match found {
            Ok(mut found) => {
                // A hotel's resolver must not lead a public node's users into its own network.
                let public = node.given.is_some_and(|ip| !is_bogon(&ip));
                found.retain(|ip| !public || !is_bogon(ip));
                self.told.retain(|told| *told != i);
                !found.is_empty() && std::mem::replace(known, found.clone()) != found
            }
            Err(error) => {
                if node.given.is_none() && !self.told.contains(&i) {
                    self.told.push(i);
                    let name = &look_up.name;
                    tracing::warn!("the DHT node '{name}' has no address yet: {error}; trying on");
                }
                false
            }
        };
        if self.running == 0 || !self.addresses().is_empty() {
            self.patience = None;
        }
        changed
    }

    /// The network changed or the machine slept: look soon, if we are alone then.
    pub fn hurry(&mut self, now: Instant) {
        self.pause = FIRST_PAUSE;
        self.look_at = self.look_at.min(now + Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;

    const SECOND: Duration = Duration::from_secs(1);

    fn nodes(texts: &[&str]) -> Vec<BootstrapNode> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn names(due: &[LookUp]) -> Vec<&str> {
        due.iter().map(|d| d.name.as_str()).collect()
    }

    fn fail() -> io::Result<Vec<Ipv4Addr>> {
        Err(io::ErrorKind::NotFound.into())
    }

    #[test]
    fn addresses_need_no_look_up() {
        let now = epoch();
        let mut one = Bootstrap::new(nodes(&["127.0.0.1:49737"]), now);
        assert_eq!(one.addresses(), ["127.0.0.1:49737".parse().unwrap()]);
        assert_eq!((one.poll_timeout(true), one.is_pending()), (None, false));
        assert!(one.due(true, now + 100 * SECOND).is_empty());
    }

    #[test]
    fn what_is_no_node_is_refused() {
        let wrong =
            ["", "localhost", "a:b", ":1", "1.2.3.4:0", "1.2.3.4:65536", "x@y:1", "1.2.3.4@:1"];
        for text in wrong.into_iter().chain(["http://a:1", "a b:1", "user@host@x:1", "[::1]:5"]) {
            let refused = text.parse::<BootstrapNode>().unwrap_err();
            assert!(refused.to_string().contains("host:port"), "{text}");
        }
    }

    #[test]
    fn the_public_nodes_are_asked_by_address_first_and_by_name_where_that_does_not_answer() {
        let now = epoch();
        let mut public = Bootstrap::new(BootstrapNode::public(), now);
        let given: Vec<_> = public.addresses();
        let hosts: Vec<_> = given.iter().map(|a| a.to_string()).collect();
        assert_eq!(hosts, ["88.99.3.86:49737", "142.93.90.113:49737", "138.68.147.8:49737"]);
        assert!(!public.is_pending() && public.due(true, now).is_empty());
        assert_eq!(public.poll_timeout(true), Some(now + FIRST_PAUSE));
        assert_eq!(public.poll_timeout(false), None, "they answer");
        let due = public.due(true, now + FIRST_PAUSE);
        assert_eq!(names(&due), ["node1.hyperdht.org", "node2.hyperdht.org", "node3.hyperdht.org"]);
        assert!(public.found(&due[0], Ok(vec![ip("88.99.3.99")])));
        assert_eq!(public.addresses().len(), 4, "the new one beside those that were given");
        assert!(!public.found(&due[1], Ok(vec![ip("192.168.1.1")])), "a captive portal");
        assert!(!public.found(&due[2], fail()));
    }

    #[test]
    fn a_name_is_looked_up_again_until_somebody_is_there() {
        let now = epoch();
        let mut named = Bootstrap::new(nodes(&["example.org:5"]), now);
        assert!(named.is_pending() && named.addresses().is_empty());
        let mut at = now;
        let mut times = Vec::new();
        for _ in 0..7 {
            let due = named.due(true, at);
            assert_eq!(names(&due), ["example.org"]);
            times.push((at - now).as_secs());
            assert_eq!(named.poll_timeout(true).filter(|_| !named.is_pending()), None);
            named.found(&due[0], fail());
            assert!(!named.is_pending(), "whoever waits may be told now");
            at = named.poll_timeout(true).unwrap();
        }
        assert_eq!(times, [0, 5, 15, 35, 55, 75, 95]);
        named.hurry(at - 15 * SECOND);
        assert_eq!(named.poll_timeout(true), Some(at - 14 * SECOND), "the network changed");
        let due = named.due(true, at);
        assert!(named.found(&due[0], Ok(vec![ip("10.0.0.1")])));
        assert_eq!(named.addresses(), ["10.0.0.1:5".parse().unwrap()]);
        assert_eq!(named.poll_timeout(false), None);
        // Its address changes later.
        let due = named.due(true, at + LAST_PAUSE);
        assert!(named.found(&due[0], Ok(vec![ip("10.0.0.2")])));
        assert_eq!(named.addresses(), ["10.0.0.2:5".parse().unwrap()]);
    }

    #[test]
    fn a_resolver_that_hangs_keeps_nobody_waiting_for_long() {
        let now = epoch();
        let mut named = Bootstrap::new(nodes(&["a:5", "b:5"]), now);
        let due = named.due(true, now);
        assert_eq!(named.poll_timeout(true), Some(now + LOOK_UP_PATIENCE));
        assert!(named.due(true, now + LOOK_UP_PATIENCE).is_empty(), "one at a time");
        assert!(!named.is_pending());
        named.found(&due[0], fail());
        assert_eq!(named.poll_timeout(true), None);
        named.found(&due[1], fail());
        assert!(named.poll_timeout(true).is_some());
    }
}
