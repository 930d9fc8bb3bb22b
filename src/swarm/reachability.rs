//! How the peers of each topic stand: what a person wants to know who waits for the first of them.

use super::connections::Connections;
use super::event::Reachability;
use super::peers::Peers;
use super::told::Told;
use super::topic::TopicStatus;
use crate::key::Topic;
use std::collections::BTreeMap;

/// Counts it for all of `topics`.
pub fn of_topics(
    topics: &[TopicStatus],
    peers: &Peers,
    connections: &Connections,
    told: &Told,
) -> BTreeMap<Topic, Reachability> {
    let mut found: BTreeMap<Topic, Reachability> =
        topics.iter().map(|topic| (topic.topic, silent(told, &topic.topic))).collect();
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

fn silent(told: &Told, topic: &Topic) -> Reachability {
    Reachability { silent: told.silent(topic), ..Reachability::default() }
}
