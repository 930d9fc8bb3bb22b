//! Why no peer of a drive is there: one of a few pictures, made of what the network knows, each with its words.

use super::hearing;
use crate::key::{PublicKey, Topic};
use crate::swarm::lan::Hearing;
use crate::swarm::{Reachability, SwarmStatus};
use std::fmt;
use std::time::Duration;

/// A DHT that has not answered for this long is called silent. Its nodes are asked anew within a second or two.
pub(super) const SILENCE: Duration = Duration::from_secs(4);
/// A peer that is connected tells within this whether it has the drive, or it never does.
pub(super) const HAS_IT: Duration = Duration::from_secs(3);

/// How long there has been no peer that has the drive.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wait {
    pub waited: Duration,
    /// Rounds of looking that had ended when the last peer went; they tell nothing of now.
    pub rounds_before: u64,
    /// How long somebody has been connected.
    pub company: Duration,
    /// Whoever is connected has said that he does not have it.
    pub blank: bool,
}

/// Rounds of looking for a topic that have ended.
pub(super) fn rounds(status: &SwarmStatus, topic: Topic) -> u64 {
    status.topics.iter().find(|known| known.topic == topic).map_or(0, |known| known.rounds)
}

/// Why no peer of a drive is there, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// Nothing is known yet.
    Looking,
    /// The system has no way to send anything; its words.
    NoNetwork(String),
    /// No node of the DHT answers.
    NoDht,
    /// The same, of a drive of our own, which neighbours find all the same.
    Near,
    /// The same, and no neighbour has it.
    NobodyNear,
    /// The same, and a firewall keeps neighbours from finding each other.
    Unheard,
    /// The DHT answers, and nobody has announced the drive.
    Nobody,
    /// So many announced it and cannot be reached; why the last could not.
    Unreachable(usize, String),
    /// Peers are connected that announced the drive, and do not have it.
    NotThere,
    /// A peer has it, or, for a drive of our own, others can find it.
    Found,
}

impl Outlook {
    /// The picture after `wait`; `own` if it is a drive of this store, which needs no peer.
    pub fn of(status: Option<&SwarmStatus>, topic: Topic, own: bool, wait: Wait) -> Self {
        let Some(status) = status else { return Self::Looking };
        let Wait { waited, rounds_before, company, blank } = wait;
        let searched = rounds(status, topic) > rounds_before;
        let none = Reachability::default();
        let reach = status.reachability.get(&topic).unwrap_or(&none);
        let no_way = status.traffic.no_way;
        let silent = no_way.is_some() || searched || waited >= SILENCE;
        if status.nodes == 0 && (reach.connected == 0 || own) {
            // Whoever was met there and cannot be reached is told of nowhere else yet.
            let met = reach.failed + reach.dialling > 0;
            return match no_way {
                _ if !silent => Self::Looking,
                // What leads to neighbours is a network.
                _ if status.local_network => match status.hearing() {
                    Hearing::Unknown if waited < SILENCE => Self::Looking,
                    Hearing::Unheard => Self::Unheard,
                    _ if own => Self::Near,
                    _ if met => Self::NoDht,
                    _ => Self::NobodyNear,
                },
                Some(errno) => Self::NoNetwork(nix::errno::Errno::from_raw(errno).desc().into()),
                None => Self::NoDht,
            };
        }
        match reach {
            _ if own => Self::Found,
            Reachability { connected: 1.., .. } if company >= HAS_IT => Self::NotThere,
            Reachability { connected: 1.., dialling: 0, .. } if blank => Self::NotThere,
            Reachability { connected: 1.., .. } => Self::Looking,
            // Some are tried again and again.
            Reachability { failed: failed @ 1.., why, dialling, .. }
                if *dialling == 0 || waited >= SILENCE =>
            {
                let why = why.clone().unwrap_or_default();
                Self::Unreachable(*failed, why + &relays_gone(&status.absent_relays))
            }
            Reachability { dialling: 1.., .. } => Self::Looking,
            _ if searched => Self::Nobody,
            _ => Self::Looking,
        }
    }

    /// What may help, for an error that ends a command.
    pub(super) fn advice(&self) -> String {
        const RUNS: &str = "; check the key, and that a peer that shares it is running";
        const NEAR: &str = "; check the key, that a peer that shares it is running, and that the firewalls of both \
                            machines let in UDP of the local network";
        const ELSEWHERE: &str = "; for peers elsewhere the network, or --bootstrap";
        match self {
            Self::NoDht | Self::Near => "; check the network, or --bootstrap".into(),
            Self::NobodyNear => format!("{NEAR}{ELSEWHERE}"),
            Self::Unheard => format!("; {}", hearing::advice()),
            Self::Nobody => RUNS.into(),
            _ => String::new(),
        }
    }
}

/// Of relays that were named and are of no use.
fn relays_gone(relays: &[PublicKey]) -> String {
    let gone = |relay| {
        format!(
            "; the relay {relay} that was named is not found, or does not serve: see `hdrive doctor --relay {relay}`"
        )
    };
    relays.iter().map(gone).collect()
}

impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Looking => f.write_str("no peer yet"),
            Self::NoNetwork(why) => write!(f, "no network: {why}"),
            Self::NoDht => f.write_str("no DHT node answers"),
            Self::Near => {
                f.write_str("no DHT node answers: only the local network finds the drive")
            }
            Self::NobodyNear => {
                f.write_str("nobody on the local network has it, and no DHT node answers")
            }
            Self::Unheard => f.write_str(
                "no DHT node answers, and calls on the local network are not heard by this machine: peers do not find \
                 each other there",
            ),
            Self::Nobody => f.write_str("no peer has it: nobody announces this drive"),
            Self::Unreachable(1, why) => {
                write!(f, "a peer that has it was found but cannot be reached: {why}")
            }
            Self::Unreachable(n, why) => {
                write!(f, "{n} peers that have it were found but cannot be reached: {why}")
            }
            Self::NotThere => f.write_str("the peers that announce this drive do not have it"),
            Self::Found => f.write_str("peer found"),
        }
    }
}

/// That nobody is where we were told either, if that is so, and what tells more of it.
pub(super) fn nor_where_told(
    status: Option<&SwarmStatus>,
    topic: Topic,
    outlook: &Outlook,
) -> String {
    let Some(status) = status else { return String::new() };
    let silent = status.reachability.get(&topic).map_or(&[][..], |reach| &reach.silent);
    match outlook {
        Outlook::NoNetwork(_)
        | Outlook::NoDht
        | Outlook::NobodyNear
        | Outlook::Unheard
        | Outlook::Nobody
        | Outlook::Unreachable(..) => {}
        Outlook::Looking | Outlook::Near | Outlook::NotThere | Outlook::Found => {
            return String::new();
        }
    }
    let mut told = String::new();
    if let [first, more @ ..] = silent {
        let more = match more.len() {
            0 => String::new(),
            n => format!(", nor at {n} more addresses"),
        };
        told += &format!(
            ", and nobody who has it answers at {first}{more}: check that and the key, see `hdrive doctor --peer {first}`"
        );
    }
    if !status.nameless.is_empty() {
        told += &format!(", and no address is known of the peer {}", status.nameless.join(", "));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::lan::LinkStatus;
    use crate::swarm::{JoinOptions, TopicStatus};

    const TOPIC: Topic = Topic([1; 32]);

    fn status(nodes: usize, rounds: u64, reach: Reachability) -> SwarmStatus {
        let options = JoinOptions { server: false, client: true };
        let topic = TopicStatus { topic: TOPIC, options, announced: false, found: 0, rounds };
        let reachability = [(TOPIC, reach)].into();
        SwarmStatus { nodes, topics: vec![topic], reachability, ..SwarmStatus::default() }
    }

    fn after(status: &SwarmStatus, seconds: u64) -> Outlook {
        Outlook::of(Some(status), TOPIC, false, wait(seconds))
    }

    fn wait(seconds: u64) -> Wait {
        let waited = Duration::from_secs(seconds);
        Wait { waited, company: waited, ..Wait::default() }
    }

    fn heard(hearing: Hearing) -> Vec<LinkStatus> {
        vec![LinkStatus { addr: [10, 0, 0, 1].into(), hearing }]
    }

    #[test]
    fn of_peers_that_were_named_it_is_said_where_and_what_tells_more() {
        let silent = vec!["10.0.0.1:5".parse().unwrap(), "10.0.0.2:5".parse().unwrap()];
        let mut status = status(0, 1, Reachability { silent, ..Reachability::default() });
        status.nameless = vec!["nosuch.invalid:4000".into()];
        let said = nor_where_told(Some(&status), TOPIC, &Outlook::NoDht);
        assert!(said.contains("answers at 10.0.0.1:5, nor at 1 more addresses: check"), "{said}");
        assert!(said.contains("`hdrive doctor --peer 10.0.0.1:5`"), "{said}");
        assert!(said.ends_with("of the peer nosuch.invalid:4000"), "{said}");
        assert_eq!(nor_where_told(Some(&status), TOPIC, &Outlook::Found), "");
        status.reachability.clear();
        let said = nor_where_told(Some(&status), TOPIC, &Outlook::Nobody);
        assert_eq!(said, ", and no address is known of the peer nosuch.invalid:4000");
    }

    #[test]
    fn each_reason_has_its_picture() {
        let none = Reachability::default;
        assert_eq!(Outlook::of(None, TOPIC, false, wait(9)), Outlook::Looking);
        let mut offline = status(0, 0, none());
        assert_eq!(after(&offline, 1), Outlook::Looking);
        assert_eq!(after(&offline, 4), Outlook::NoDht);
        offline.traffic.no_way = Some(nix::errno::Errno::ENETUNREACH as i32);
        assert_eq!(after(&offline, 1), Outlook::NoNetwork("Network is unreachable".into()));
        assert_eq!(after(&status(0, 1, none()), 1), Outlook::NoDht);
        assert_eq!(after(&status(3, 0, none()), 9), Outlook::Looking);
        assert_eq!(after(&status(3, 1, none()), 1), Outlook::Nobody);
        let why = Some("it is behind a NAT".to_string());
        let failed = Reachability { failed: 2, why, ..none() };
        assert_eq!(
            after(&status(3, 1, failed.clone()), 1),
            Outlook::Unreachable(2, "it is behind a NAT".into())
        );
        let mut relayed = status(3, 1, failed.clone());
        relayed.absent_relays = vec![PublicKey([1; 32])];
        let line = after(&relayed, 1).to_string();
        assert!(line.contains("NAT; the relay ") && line.contains("is not found"), "{line}");
        let again = Reachability { dialling: 1, ..failed };
        let again = status(3, 1, again);
        assert_eq!(after(&again, 1), Outlook::Looking);
        assert!(matches!(after(&again, 4), Outlook::Unreachable(2, _)), "they are tried on");
        let strange = status(3, 1, Reachability { connected: 1, ..none() });
        assert_eq!(after(&strange, 1), Outlook::Looking);
        assert_eq!(after(&strange, 3), Outlook::NotThere);
        let company = Duration::from_secs(1);
        let just_come = |blank| Wait { company, blank, ..wait(60) };
        let of = |status, wait| Outlook::of(Some(status), TOPIC, false, wait);
        assert_eq!(of(&strange, just_come(false)), Outlook::Looking, "it has not said a word");
        assert_eq!(of(&strange, just_come(true)), Outlook::NotThere);
        let others = Reachability { connected: 1, dialling: 1, ..none() };
        assert_eq!(of(&status(3, 1, others), just_come(true)), Outlook::Looking);
        let own = Outlook::of(Some(&status(3, 1, none())), TOPIC, true, wait(9));
        assert_eq!(own, Outlook::Found);
        // A network that leads to neighbours alone is one.
        offline.local_network = true;
        assert_eq!(after(&offline, 1), Outlook::Looking, "nobody was called yet");
        assert_eq!(after(&offline, 4), Outlook::NobodyNear);
        offline.links = heard(Hearing::Heard);
        assert_eq!(after(&offline, 1), Outlook::NobodyNear);
        offline.reachability.insert(TOPIC, Reachability { failed: 1, ..none() });
        assert_eq!(after(&offline, 1), Outlook::NoDht, "somebody has it");
        let visited = status(0, 0, Reachability { connected: 1, ..none() });
        for (mut status, waited) in [(offline, 1), (visited, 4)] {
            status.local_network = true;
            status.links = heard(Hearing::Unheard);
            let own = Outlook::of(Some(&status), TOPIC, true, wait(waited));
            assert_eq!(own, Outlook::Unheard, "nobody finds it there");
            status.links = heard(Hearing::Heard);
            let own = |waited| Outlook::of(Some(&status), TOPIC, true, wait(waited));
            assert_eq!(own(waited), Outlook::Near);
            status.local_network = false;
            assert_ne!(Outlook::of(Some(&status), TOPIC, true, wait(waited)), Outlook::Near);
        }
        let again = Wait { rounds_before: 1, ..wait(9) };
        let anew = |rounds| Outlook::of(Some(&status(3, rounds, none())), TOPIC, false, again);
        assert_eq!((anew(1), anew(2)), (Outlook::Looking, Outlook::Nobody));
    }
}
