//! Addresses of peers as people write them, and looking their names up.
//!
//! A name is looked up when it is told, and again as long as it has no address: a laptop may start before its network does,
//! and a name may be given an address later. One that has one is looked up anew when the network changes.

use super::bootstrap::is_name;
use crate::swarm::socket::plain;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Names that are looked up; of more, the one that was told first is forgotten.
const MAX_NAMES: usize = 16;
/// Addresses taken from one name.
const MAX_ADDRESSES: usize = 8;
/// Pauses between look-ups of a name without an address.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Where somebody may be: a name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerAddress {
    host: String,
    port: u16,
}

/// Not the form of such an address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no address of a peer: write host:port, 1.2.3.4:port, [2001:db8::1]:port or [fe80::1%eth0]:port"
)]
pub struct PeerAddressError(String);

impl FromStr for PeerAddress {
    type Err = PeerAddressError;

    fn from_str(text: &str) -> Result<Self, PeerAddressError> {
        let text = text.trim();
        let form = || PeerAddressError(text.to_string());
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let port: u16 = port.parse().map_err(|_| form())?;
        let host_is_fine = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            // With a zone, as in fe80::1%eth0, that the resolver knows.
            Some(inner) => {
                let (ip, zone) = inner.split_once('%').unwrap_or((inner, ""));
                // A link-local address is on every interface: nothing is sent there without one.
                let whole = |ip: Ipv6Addr| !ip.is_unicast_link_local() || !zone.is_empty();
                ip.parse().is_ok_and(whole)
            }
            None => is_name(host),
        };
        if port == 0 || !host_is_fine {
            return Err(form());
        }
        let address = Self { host: host.to_string(), port };
        // No one peer is there, and what is sent there may go to many.
        let is_one = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
        };
        if address.literal().is_some_and(|addr| !is_one(addr.ip())) {
            return Err(form());
        }
        Ok(address)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl From<PeerAddress> for String {
    fn from(address: PeerAddress) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for PeerAddress {
    type Error = PeerAddressError;

    fn try_from(text: String) -> Result<Self, PeerAddressError> {
        text.parse()
    }
}

impl PeerAddress {
    /// What it says without a look-up.
    fn literal(&self) -> Option<SocketAddr> {
        self.to_string().parse().ok().map(plain)
    }

    /// Its addresses. May block for long.
    pub fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let mut found: Vec<_> = (host, self.port).to_socket_addrs()?.map(plain).collect();
        found.sort_unstable();
        found.dedup();
        found.truncate(MAX_ADDRESSES);
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
        }
        Ok(found)
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// It is looked up then.
    Due(Instant),
    LookedUp,
    Known,
}

#[derive(Debug)]
struct Name {
    address: PeerAddress,
    state: State,
    pause: Duration,
    /// That it has no address was said.
    told: bool,
}

/// The names that were told.
#[derive(Debug, Default)]
pub struct PeerNames(Vec<Name>);

impl PeerNames {
    /// Peers may be there. Answers the addresses that need no look-up.
    pub fn tell(&mut self, addresses: Vec<PeerAddress>, now: Instant) -> Vec<SocketAddr> {
        let mut literal = Vec::new();
        for address in addresses {
            if let Some(addr) = address.literal() {
                literal.push(addr);
                continue;
            }
            match self.0.iter_mut().find(|name| name.address == address) {
                Some(name) => name.hurry(now),
                None => {
                    if self.0.len() >= MAX_NAMES {
                        self.0.remove(0);
                    }
                    let state = State::Due(now);
                    self.0.push(Name { address, state, pause: FIRST_PAUSE, told: false });
                }
            }
        }
        literal
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.0.iter().filter_map(Name::due).min()
    }

    /// What is to be looked up now; each must come back by [`Self::found`].
    pub fn due(&mut self, now: Instant) -> Vec<PeerAddress> {
        let due = self.0.iter_mut().filter(|name| name.due().is_some_and(|at| at <= now));
        due.map(|name| {
            name.state = State::LookedUp;
            name.address.clone()
        })
        .collect()
    }

    /// What a look-up found, which is answered.
    pub fn found(
        &mut self,
        address: &PeerAddress,
        found: io::Result<Vec<SocketAddr>>,
        now: Instant,
    ) -> Vec<SocketAddr> {
        let Some(name) = self.0.iter_mut().find(|name| name.address == *address) else {
            return Vec::new();
        };
        match found {
            Ok(found) => {
                (name.state, name.pause, name.told) = (State::Known, FIRST_PAUSE, false);
                found
            }
            Err(error) => {
                if !std::mem::replace(&mut name.told, true) {
                    tracing::warn!("the peer '{address}' has no address yet: {error}; trying on");
                }
                name.state = State::Due(now + name.pause);
                name.pause = (name.pause * 2).min(LAST_PAUSE);
                Vec::new()
            }
        }
    }

    /// Those that were looked up in vain last.
    pub fn nameless(&self) -> Vec<String> {
        self.0.iter().filter(|name| name.told).map(|name| name.address.to_string()).collect()
    }

    /// The network changed: names may have other addresses.
    pub fn hurry(&mut self, now: Instant) {
        self.0.iter_mut().for_each(|name| name.hurry(now));
    }
}

impl Name {
    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Due(at) => Some(at),
            State::LookedUp | State::Known => None,
        }
    }

    /// It is looked up now, unless that is being done.
    fn hurry(&mut self, now: Instant) {
        if !matches!(self.state, State::LookedUp) {
            self.state = State::Due(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for good in ["example.org:1", "1.2.3.4:65535", "[::1]:49737", "[fe80::1%lo]:9", " a-b:7 "] {
            let read: PeerAddress = good.parse().unwrap();
            assert_eq!(read.to_string(), good.trim());
        }
        for bad in [
            "",
            "example.org",
            "example.org:0",
            ":1",
            "::1:5",
            "[::1]",
            "[::g]:5",
            "a b:5",
            "a:99999",
            "0.0.0.0:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "[::ffff:224.0.0.1]:1",
            "[::]:1",
            "[fe80::1]:1",
            "[fe80::1%]:1",
            "[ff02::1]:1",
        ] {
            assert_eq!(bad.parse::<PeerAddress>(), Err(PeerAddressError(bad.into())), "{bad}");
        }
    }

    #[test]
    fn an_address_needs_no_look_up_and_a_name_is_looked_up_until_it_has_one() {
        let (now, mut names) = (crate::sim::epoch(), PeerNames::default());
        let parse = |text: &str| text.parse::<PeerAddress>().unwrap();
        let told = ["[::ffff:1.2.3.4]:5", "[::1]:5", "peer.test:5"].map(parse).to_vec();
        let literal = names.tell(told, now);
        assert_eq!(literal, ["1.2.3.4:5", "[::1]:5"].map(|text| text.parse().unwrap()));
        assert_eq!((names.due(now), names.poll_timeout()), (vec![parse("peer.test:5")], None));
        let nothing = || Err(io::Error::from(io::ErrorKind::NotFound));
        assert!(names.found(&parse("peer.test:5"), nothing(), now).is_empty());
        assert_eq!(names.nameless(), ["peer.test:5"]);
        let later = names.poll_timeout().unwrap();
        assert_eq!((later, names.due(later).len()), (now + FIRST_PAUSE, 1));
        let addr: SocketAddr = "9.9.9.9:5".parse().unwrap();
        assert_eq!(names.found(&parse("peer.test:5"), Ok(vec![addr]), later), [addr]);
        assert_eq!((names.poll_timeout(), names.nameless().len()), (None, 0));
        names.hurry(later);
        assert_eq!(names.due(later).len(), 1);
        names.hurry(later);
        assert_eq!(names.due(later).len(), 0, "that is being done");
        names.found(&parse("peer.test:5"), Ok(vec![addr]), later);
        names.tell(vec![parse("peer.test:5")], later);
        assert_eq!(names.due(later).len(), 1, "told again, it is asked again");
    }
}
