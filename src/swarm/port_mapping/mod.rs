//! A UDP port of the gateway that leads to our main socket, as the gateway itself is asked for it.
//!
//! [`Mapper`] decides when the gateway is asked, when what it granted is renewed, and when that is given back; it does no
//! I/O and is told the time. Its tasks are done by `swarm::driver::gateway`, which speaks PCP, NAT-PMP ([`pcp`]) and UPnP
//! ([`upnp`] over [`http`]), in this order. There are crates for both. `igd-next` brings 54 new ones (an HTTP client with
//! HTTP/2, URLs with all of Unicode) for four short messages; `crab_nat` opens its socket itself, so that what it sends could
//! neither be kept to our address on the gateway's network nor to that network.
//!
//! What a gateway says is worth nothing until it is seen to be true: a mapping makes the DHT node look anew whether others
//! can send to it unasked (`dht_rpc::probe`), and only that makes it reachable.

pub mod http;
pub mod pcp;
#[cfg(test)]
mod tests;
pub mod upnp;

use super::dht_rpc::bogon;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// How long a mapping is asked for: it outlives us by an hour if we end in disorder.
pub const LEASE: Duration = Duration::from_secs(3600);
/// Where a gateway grants longer, this counts.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// It is asked again so often, if not sooner: a router that was restarted has forgotten all, and nothing need tell us. One or
/// two datagrams, or three questions over TCP, to our own router.
const CHECK: Duration = Duration::from_secs(300);
/// It is not asked more often than this, however short what it grants.
const SHORTEST_PAUSE: Duration = Duration::from_secs(15);
/// The pause after the first failure, doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(60);
const LAST_RETRY: Duration = Duration::from_secs(3600);
/// After a change of the network: the route comes a moment after the address.
const SETTLING: Duration = Duration::from_secs(1);

/// The protocol that a mapping was granted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Pcp,
    NatPmp,
    Upnp,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// A port of the gateway that leads to us, by the gateway's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMapping {
    pub by: By,
    pub gateway: Ipv4Addr,
    /// The address is 0.0.0.0 if the gateway did not tell it.
    pub external: SocketAddrV4,
    /// None if it stays until it is removed.
    pub until: Option<Instant>,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotMapped {
    #[error(
        "there is no router on a local network to ask: this machine has none, a public address, or a VPN"
    )]
    NoGateway,
    #[error("the router {0} does not answer to PCP, NAT-PMP or UPnP")]
    Silent(Ipv4Addr),
    #[error("the router {gateway} refuses it ({by} error {code})")]
    Refused { gateway: Ipv4Addr, by: By, code: u32 },
    #[error("what the router {0} answers makes no sense")]
    Nonsense(Ipv4Addr),
    #[error("the system does not let this process ask")]
    System,
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PortMappingStatus {
    /// Nobody wants one.
    #[default]
    Off,
    Asking,
    Mapped(PortMapping),
    Not(NotMapped),
}

/// Who is asked, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub gateway: Ipv4Addr,
    /// Our address on its network.
    pub own: Ipv4Addr,
}

impl Place {
    /// Whether anything may be sent there: both are on one private network, and not this machine's own.
    pub fn may_be_asked(&self, prefix: u8) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
        let private = |ip: &Ipv4Addr| bogon::is_private(ip) && !ip.is_loopback();
        private(&self.own)
            && private(&self.gateway)
            && self.own != self.gateway
            && self.own.to_bits() & mask == self.gateway.to_bits() & mask
    }
}

/// What a gateway granted, with all that it takes to renew and to remove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub place: Place,
    pub internal_port: u16,
    pub external: SocketAddrV4,
    /// None if it stays until it is removed.
    pub lifetime: Option<Duration>,
    pub how: How,
}

/// What the protocol wants to see again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    Pcp(pcp::Nonce),
    NatPmp,
    Upnp(upnp::Service),
}

impl Held {
    fn by(&self) -> By {
        match self.how {
            How::Pcp(_) => By::Pcp,
            How::NatPmp => By::NatPmp,
            How::Upnp(_) => By::Upnp,
        }
    }
}

/// What is to be done at the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Ask for a mapping, if possible for what was granted before.
    Ask(Option<Held>),
    Remove(Held),
}

/// See the module. One task at a time; [`Self::done`] must follow each.
#[derive(Debug, Default)]
pub struct Mapper {
    wanted: bool,
    /// What was granted, and until when it counts.
    held: Option<(Held, Instant)>,
    why: Option<NotMapped>,
    /// When the gateway is asked next.
    due: Option<Instant>,
    /// When it last was to be asked because the network changed.
    hurried: Option<Instant>,
    busy: bool,
    failures: u32,
}

impl Mapper {
    /// Somebody wants a mapping, or nobody any more.
    pub fn want(&mut self, wanted: bool, now: Instant) {
        if std::mem::replace(&mut self.wanted, wanted) != wanted {
            (self.failures, self.why) = (0, None);
            self.due = wanted.then_some(now);
        }
    }

    /// There may be another gateway, or this one may have forgotten.
    pub fn network_changed(&mut self, now: Instant) {
        self.failures = 0;
        // Others may bring it about that it seems to have changed, again and again.
        let at = self.hurried.map_or(now, |at| now.max(at + SHORTEST_PAUSE)) + SETTLING;
        if self.wanted && self.due.is_none_or(|due| at < due) {
            (self.hurried, self.due) = (Some(at - SETTLING), Some(at));
        }
    }

    /// What is to be done now. What was begun is to be broken off when it [is in vain](Self::is_in_vain).
    pub fn poll_task(&mut self, now: Instant) -> Option<Task> {
        self.expire(now);
        if self.busy {
            return None;
        }
        let task = match &self.held {
            Some((held, _)) if !self.wanted => Task::Remove(held.clone()),
            held if self.due.is_some_and(|at| at <= now) => {
                Task::Ask(held.as_ref().map(|(held, _)| held.clone()))
            }
            _ => return None,
        };
        (self.busy, self.due) = (true, None);
        Some(task)
    }

    /// Whether a mapping is being asked for that nobody wants any more.
    pub fn is_in_vain(&self) -> bool {
        !self.wanted
    }

    /// The gateway was asked.
    pub fn asked(&mut self, outcome: Result<Held, NotMapped>, now: Instant) {
        self.busy = false;
        match outcome {
            Ok(held) => {
                let life = held.lifetime.unwrap_or(LEASE).min(LONGEST);
                self.plan(now + (life / 2).clamp(SHORTEST_PAUSE, CHECK));
                (self.failures, self.why) = (0, None);
                self.held = Some((held, now + life));
            }
            Err(why) => {
                self.why = Some(why);
                self.failures += 1;
                let doubled = FIRST_RETRY * 2u32.saturating_pow(self.failures - 1).min(1024);
                let pause = match &self.held {
                    // It may not have heard us, or be starting again.
                    Some((_, until)) if *until > now => doubled.min((*until - now) / 2).min(CHECK),
                    _ => doubled.min(LAST_RETRY),
                };
                self.plan(now + pause.max(SHORTEST_PAUSE));
            }
        }
        self.expire(now);
    }

    /// Asking was broken off; by then this may have been granted.
    pub fn broken_off(&mut self, maybe: Option<Held>, now: Instant) {
        self.busy = false;
        if let Some(held) = maybe {
            self.held = Some((held, now + LEASE));
        }
    }

    /// The gateway was told that we are done, as far as it listened.
    pub fn removed(&mut self, now: Instant) {
        self.busy = false;
        self.held = None;
        self.due = self.wanted.then_some(now);
    }

    /// Nothing is left to be done for somebody who wants none.
    pub fn is_over(&self) -> bool {
        !self.wanted && !self.busy && self.held.is_none()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let expires = self.held.as_ref().filter(|(held, _)| held.lifetime.is_some());
        let expires = expires.map(|(_, until)| *until);
        self.due.into_iter().chain(expires).min().filter(|_| !self.busy)
    }

    pub fn status(&self) -> PortMappingStatus {
        match (&self.held, self.why) {
            _ if self.is_over() => PortMappingStatus::Off,
            (Some((held, until)), _) => PortMappingStatus::Mapped(PortMapping {
                by: held.by(),
                gateway: held.place.gateway,
                external: held.external,
                until: held.lifetime.map(|_| *until),
            }),
            (None, Some(why)) => PortMappingStatus::Not(why),
            (None, None) => PortMappingStatus::Asking,
        }
    }

    /// Asks then, if not sooner: the network may have changed meanwhile.
    fn plan(&mut self, at: Instant) {
        let planned = self.due.unwrap_or(at).min(at);
        self.due = self.wanted.then_some(planned);
    }

    fn expire(&mut self, now: Instant) {
        // What a gateway keeps for good is removed at the end all the same.
        let over = |(held, until): &mut (Held, Instant)| held.lifetime.is_some() && *until <= now;
        if !self.busy {
            self.held.take_if(over);
        }
    }
}
