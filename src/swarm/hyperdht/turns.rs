//! Who may punch at a time, of those for whom it takes many datagrams or sockets, and how much of that a host gets.
//!
//! Nobody but a relay says where a peer is; so what goes to one host is bounded, whoever led us there: one turn at a time
//! in each role, and tries as the reference has them on average. Others wait for their turn, where the reference turns
//! them away. A turn for which sockets are open lasts until they are closed.

use crate::swarm::dht_rpc::bucket::{HostBuckets, Limit};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// At a time, in each role: those for whom ports are tried, 670 datagrams a second each for 1.5 s and 200
/// afterwards, and those for whom many sockets are open.
const MAX_TRYING: usize = 8;
const MAX_FROM_MANY: usize = 2;

/// Sockets of one turn.
pub const SOCKETS: usize = 256;
/// Sockets that are open, with those that are about to be closed and those that streams go through. Strangers leave one turn
/// to ourselves.
const MAX_SOCKETS: usize = 3 * SOCKETS + 128;

/// What one host gets: as much as a turn of the reference, and each 55 s as much again.
const TRIES: Limit = Limit { burst: 1750.0, rate: 1750.0 / 55.0 };
/// As many have to be there for a turn to begin: most come to their end with fewer.
const FIRST_TRIES: f64 = 500.0;
/// Buckets of hosts, 40 bytes each.
const BUCKETS: usize = 1024;

/// Who waits asks again within that time.
const WAITS: Duration = Duration::from_secs(1);

/// On which side we are: strangers do not use up what we need to reach others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// What it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Some datagrams to known addresses.
    Few,
    /// Tries of ports of a host.
    Ports(Ipv4Addr),
    /// Many sockets that send to a host.
    Sockets(Ipv4Addr),
}

impl Sort {
    fn host(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Few => None,
            Self::Ports(host) | Self::Sockets(host) => Some(*host),
        }
    }
}

/// The right to punch, which has to be [given back](Turns::give_back).
#[derive(Debug, PartialEq, Eq)]
pub struct Turn {
    pub role: Role,
    pub sort: Sort,
}

pub struct Turns {
    taken: Vec<(Role, Sort)>,
    tries: HostBuckets,
    /// Sockets that are open.
    sockets: usize,
    /// When somebody was last told to wait until sockets are free.
    waits: Option<Instant>,
}

impl Turns {
    pub fn new(key: [u8; 32], now: Instant) -> Self {
        let tries = HostBuckets::new(key, TRIES, BUCKETS, now);
        Self { taken: Vec::new(), tries, sockets: 0, waits: None }
    }

    /// A turn, unless one has to wait for it.
    pub fn take(&mut self, role: Role, sort: Sort, now: Instant) -> Option<Turn> {
        let Some(host) = sort.host() else { return Some(Turn { role, sort }) };
        let of_role = || self.taken.iter().filter(|(r, _)| *r == role).map(|(_, sort)| sort);
        let ports = of_role().filter(|sort| matches!(sort, Sort::Ports(_))).count();
        let room = match sort {
            Sort::Sockets(_) => {
                let reserve = if role == Role::Server { SOCKETS } else { 0 };
                let room = of_role().count() - ports < MAX_FROM_MANY
                    && self.sockets + SOCKETS + reserve <= MAX_SOCKETS;
                if !room {
                    self.waits = Some(now);
                }
                room
            }
            _ => ports < MAX_TRYING,
        };
        let alone = of_role().all(|sort| sort.host() != Some(host));
        let free = room && alone && self.tries.of(&host).has(FIRST_TRIES, now);
        free.then(|| {
            self.taken.push((role, sort));
            Turn { role, sort }
        })
    }

    pub fn give_back(&mut self, turn: Turn) {
        if let Some(at) = self.taken.iter().position(|taken| *taken == (turn.role, turn.sort)) {
            self.taken.swap_remove(at);
        }
    }

    /// Whether one more datagram may go to a host that may be anybody's, and counts it.
    pub fn try_at(&mut self, host: &Ipv4Addr, now: Instant) -> bool {
        self.tries.of(host).take(1.0, now)
    }

    /// Whether somebody waits for sockets.
    pub fn are_sockets_wanted(&self, now: Instant) -> bool {
        self.waits.is_some_and(|at| now < at + WAITS)
    }

    pub fn opened(&mut self, sockets: usize) {
        self.sockets += sockets;
    }

    pub fn closed(&mut self, sockets: usize) {
        self.sockets = self.sockets.saturating_sub(sockets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;

    fn host(n: u8) -> Ipv4Addr {
        [20, 0, 0, n].into()
    }

    fn turns() -> Turns {
        Turns::new([1; 32], epoch())
    }

    fn taken(turns: &mut Turns, role: Role, sort: fn(Ipv4Addr) -> Sort) -> usize {
        (0..50).filter(|n| turns.take(role, sort(host(*n)), epoch()).is_some()).count()
    }

    #[test]
    fn there_are_so_many_at_a_time_in_each_role() {
        for role in [Role::Client, Role::Server] {
            let mut turns = turns();
            assert_eq!(taken(&mut turns, role, Sort::Ports), MAX_TRYING);
            assert_eq!(taken(&mut turns, role, Sort::Sockets), MAX_FROM_MANY);
        }
        let mut turns = turns();
        assert_eq!(taken(&mut turns, Role::Server, Sort::Ports), MAX_TRYING);
        assert_eq!(taken(&mut turns, Role::Client, Sort::Ports), MAX_TRYING, "strangers took all");
    }

    #[test]
    fn a_host_has_one_turn_at_a_time_until_it_is_given_back() {
        let mut turns = turns();
        let sort = Sort::Ports(host(1));
        let turn = turns.take(Role::Client, sort, epoch()).unwrap();
        assert_eq!(turns.take(Role::Client, sort, epoch()), None);
        turns.give_back(turn);
        assert!(turns.take(Role::Client, sort, epoch()).is_some());
    }

    #[test]
    fn a_host_gets_what_the_reference_sends_it() {
        let (mut turns, now) = (turns(), epoch());
        let victim = host(1);
        let tried = |turns: &mut Turns, now| {
            let Some(turn) = turns.take(Role::Client, Sort::Ports(victim), now) else { return 0 };
            turns.give_back(turn);
            (0..1750).filter(|_| turns.try_at(&victim, now)).count()
        };
        assert_eq!(tried(&mut turns, now), 1750);
        let minute = (0..60).map(|s| tried(&mut turns, now + Duration::from_secs(s)));
        let minute: usize = minute.sum();
        assert!((1000..=1910).contains(&minute), "{minute}");
    }

    #[test]
    fn a_turn_lasts_until_its_sockets_are_closed() {
        let mut turns = turns();
        let now = epoch();
        let cycle = |turns: &mut Turns, n| {
            let turn = turns.take(Role::Server, Sort::Sockets(host(n)), now);
            let turn = turn.inspect(|_| turns.opened(SOCKETS));
            turn.map(|turn| turns.give_back(turn)).is_some()
        };
        assert_eq!((0..20).filter(|n| cycle(&mut turns, *n)).count(), 2);
        assert!(turns.are_sockets_wanted(now));
        assert!(turns.take(Role::Client, Sort::Sockets(host(30)), now).is_some());
        turns.closed(SOCKETS);
        assert!(cycle(&mut turns, 40));
    }
}
