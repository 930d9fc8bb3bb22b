//! Whether anything leads from this machine to others: to nodes of the DHT, to neighbours, to peers that were named.

use super::finding::Finding;
use super::lan::Near;
use super::network::{CHECK, LOOK};
use super::nodes::Seen;
use crate::cli::hearing;
use crate::swarm::SwarmStatus;
use crate::swarm::driver::NetworkHandle;
use nix::errno::Errno;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A node that was not asked by itself may answer the peer all the same, a little later.
const SILENCE: Duration = Duration::from_millis(2500);

/// What was seen of it.
#[derive(Debug, Clone, Default)]
pub struct Way {
    /// Nodes that were asked one by one, and those that answered.
    asked: usize,
    answered: usize,
    /// Nodes that the peer of a moment met.
    met: usize,
    /// Why nothing can be sent.
    no_way: Option<String>,
    /// The network was named.
    named: bool,
    pub near: Near,
    /// Those of --peer that answer.
    pub peers: usize,
}

/// Whether anybody of the DHT answers, as soon as it is clear.
pub async fn find(network: &NetworkHandle, seen: &[Seen], named: bool, begun: Instant) -> Way {
    let answered = seen.iter().filter(|seen| seen.answered.is_some()).count();
    let unsent = seen.iter().find_map(|seen| seen.unsent.clone());
    loop {
        let SwarmStatus { nodes: met, traffic, .. } = network.status().await.unwrap_or_default();
        let asked = seen.len();
        let way = Way { asked, answered, met, no_way: None, named, near: Near::Alone, peers: 0 };
        if way.leads_on() || begun.elapsed() >= SILENCE {
            let no_way = traffic.no_way.map(|errno| Errno::from_raw(errno).desc().to_string());
            let no_way = unsent.or(no_way).filter(|_| !way.leads_on());
            return Way { no_way, ..way };
        }
        sleep(LOOK).await;
    }
}

impl Way {
    /// Whether somebody of the DHT answers.
    pub fn leads_on(&self) -> bool {
        self.answered + self.met > 0
    }
}

pub fn judge(way: &Way) -> Finding {
    let Way { asked, answered, near, peers, .. } = *way;
    let finding = match (&way.no_way, way.leads_on()) {
        (_, true) => Finding::good(CHECK, "connected: UDP goes out, and answers come back"),
        // Whoever has chosen no more than neighbours or these peers has a mount that works. Where there is more, and nobody
        // answers, it is not what was chosen.
        (Some(why), false) if near == Near::Heard || peers > 0 => {
            let place = if near == Near::Alone { "" } else { " beyond the local networks" };
            let only = match (near, peers) {
                (Near::Heard, _) => "peers there and of --peer",
                _ => "peers of --peer",
            };
            let words = format!("no way{place}: only {only} are found: {why}");
            let next = "for peers elsewhere connect this machine to the Internet, or to nodes of --bootstrap";
            Finding::note(CHECK, words, next)
        }
        (Some(why), false) if near == Near::Unheard => {
            let words =
                format!("no way beyond the local networks, and calls are not heard there: {why}");
            let next = format!(
                "for peers of the local networks {}; for others connect this machine to the Internet",
                hearing::advice()
            );
            Finding::bad(CHECK, words, next)
        }
        (Some(why), false) => {
            let next = "connect this machine to a network, and let UDP out through its firewall";
            Finding::bad(CHECK, format!("no way to send anything: {why}"), next)
        }
        (None, false) => {
            let next = match way.named {
                true => {
                    "see that --bootstrap names the nodes of your network, that `hdrive dht` runs there, and that \
                     firewalls let UDP through"
                }
                false => {
                    "see that this machine is online, and that its firewall and its network let UDP out to any port: \
                     many guest and company networks do not"
                }
            };
            let only = match near {
                Near::Heard => "of the local networks and of --peer",
                Near::Alone | Near::Unheard => "of --peer",
            };
            let next = match near {
                Near::Heard => {
                    format!("{next}; a network that is meant to lead nowhere is fine so")
                }
                Near::Alone | Near::Unheard => next.to_string(),
            };
            let words = format!("no DHT node answers: only peers {only} are found");
            // A peer that was named is enough for its drives.
            let finding = if peers > 0 { Finding::note } else { Finding::bad };
            finding(CHECK, words, next)
        }
    };
    let facts = json!({
        "asked": asked, "answered": answered, "noWay": way.no_way, "localNetwork": near == Near::Heard,
        "peers": peers,
    });
    finding.with(facts)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn way(answered: usize, met: usize) -> Way {
        Way { asked: 3, answered, met, no_way: None, named: false, near: Near::Alone, peers: 0 }
    }

    #[test]
    fn one_node_that_answers_is_a_network_and_none_is_not() {
        assert_eq!(judge(&way(1, 0)).verdict, Verdict::Good);
        assert_eq!(judge(&way(0, 7)).verdict, Verdict::Good);
        let silent = judge(&way(0, 0));
        assert!(silent.verdict == Verdict::Bad && silent.words.starts_with("no DHT node answers"));
        assert!(silent.next.unwrap().contains("let UDP out"));
        let own = judge(&Way { named: true, ..way(0, 0) });
        assert!(own.next.unwrap().contains("`hdrive dht` runs there"));
        let no_way = Some("Network is unreachable".to_string());
        let cut_off = judge(&Way { no_way: no_way.clone(), ..way(0, 0) });
        assert!(cut_off.words.ends_with("no way to send anything: Network is unreachable"));
        let deaf = judge(&Way { no_way: no_way.clone(), near: Near::Unheard, ..way(0, 0) });
        assert!(deaf.verdict == Verdict::Bad && deaf.words.contains("calls are not heard there"));
        assert!(deaf.next.unwrap().contains("firewall of this machine"));
        let told = judge(&Way { no_way: no_way.clone(), peers: 1, ..way(0, 0) });
        assert!(told.verdict == Verdict::Note && told.words.contains("only peers of --peer"));
        let near = judge(&Way { no_way, near: Near::Heard, ..way(0, 0) });
        assert!(near.verdict == Verdict::Note && near.words.contains("only peers"), "{near:?}");
        // As where UDP is blocked.
        let silent = judge(&Way { near: Near::Heard, ..way(0, 0) });
        assert!(
            silent.verdict == Verdict::Bad && silent.words.contains("only peers"),
            "{silent:?}"
        );
        assert!(silent.next.as_ref().is_some_and(|next| next.contains("meant to lead nowhere")));
    }
}
