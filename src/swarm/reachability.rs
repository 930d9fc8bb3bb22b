//! How the peers of each topic stand: what a person wants to know who waits for the first of them.

use super::connections::Connections;
use super::peers::Peers;
use super::topic::TopicStatus;
use crate::key::Topic;
use std::collections::BTreeMap;

/// The peers that were found under a joined topic, as far as they are remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reachability {
    /// Connections that are open.
    pub connected: usize,
    /// Dials under way or queued.
    pub dialling: usize,
    /// Peers that were dialled in vain, last.
    pub failed: usize,
    /// Why the last of those could not be reached.
    pub why: Option<String>,
}

/// The same for all of `topics`.
pub fn of_topics(
    topics: &[TopicStatus],
    peers: &Peers,
    connections: &Connections,
) -> BTreeMap<Topic, Reachability> {
    let mut found: BTreeMap<Topic, Reachability> =
        topics.iter().map(|topic| (topic.topic, Reachability::default())).collect();
    for connection in connections.iter() {
        let Some(peer) = peers.get(&connection.remote) else { continue };
        for topic in &peer.topics {
            let Some(reach) = found.get_mut(topic) else { continue };
            match connection.is_open() {
                true => reach.connected += 1,
                false => reach.dialling += 1,
            }
        }
    }
    for peer in peers.iter() {
        for topic in &peer.topics {
            let Some(reach) = found.get_mut(topic) else { continue };
            reach.dialling += usize::from(peer.is_queued());
            if let Some(why) = &peer.failure {
                reach.failed += 1;
                reach.why = Some(why.clone());
            }
        }
    }
    found
}
