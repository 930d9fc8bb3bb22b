//! Rounds of the joined topics: what the DHT is asked, and what its answers mean for peers and owner.

use super::connections::{Connection, Connections};
use super::peers::Peers;
use super::topic::Action;
use super::{Swarm, SwarmEvent};
use crate::key::Topic;
use crate::swarm::dht_rpc::QueryId;
use std::time::{Duration, Instant};

/// What came to nothing so long ago, for want of anybody to ask, will most likely do so again.
const IN_VAIN: Duration = Duration::from_secs(30);

impl Swarm {
    /// Starts the next round of a topic that is due.
    pub(super) fn start_round(&mut self, now: Instant) -> bool {
        // Neighbours find us whatever becomes of the DHT.
        if self.entering && !self.lan.is_on() {
            return false;
        }
        if !self.listening && self.topics.is_server() {
            // Records of topics name our relays, so those come first; DhtEvent::Listening says when.
            self.listening = true;
            self.dht.listen(self.key_pair.clone(), now);
            return true;
        }
        if self.entering {
            return false;
        }
        let (connections, peers) = (&self.connections, &self.peers);
        let due = self.topics.poll(now, |topic| has_peer(connections, peers, topic));
        let Some((topic, action)) = due else { return false };
        let query = match action {
            Action::Announce => self.dht.announce(topic, now),
            Action::Lookup => self.dht.lookup(topic, now),
            Action::Glance => self.dht.glance(topic, now),
            Action::Unannounce => self.dht.unannounce(topic, now),
            Action::Cancel(query) => {
                self.dht.cancel_topic_query(query);
                return true;
            }
        };
        self.topics.started(topic, action, query);
        true
    }

    pub(super) fn round_finished(&mut self, query: QueryId, now: Instant) {
        self.in_vain = self.is_alone().then_some(now);
        let (connections, peers) = (&self.connections, &self.peers);
        let has_peer = |topic: &Topic| has_peer(connections, peers, topic);
        if let Some(round) = self.topics.finished(query, has_peer, now, &mut self.rng) {
            let announced = round.announced;
            let (topic, found) = (round.topic, round.found);
            self.events.push_back(SwarmEvent::Round { topic, found, announced });
            self.unsettled.insert(topic);
        }
    }

    /// Whether the last round, of whatever topic, found nobody to ask, and that just now.
    pub(super) fn is_known_alone(&self, now: Instant) -> bool {
        self.is_alone() && self.in_vain.is_some_and(|at| now < at + IN_VAIN)
    }

    /// Tells of topics whose last dial is over.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.unsettled.is_empty() && self.alone.is_empty() {
            return;
        }
        let (connections, peers, lan) = (&self.connections, &self.peers, &self.lan);
        let (events, told) = (&mut self.events, &self.told);
        let dials = connections.iter().filter(|c| c.initiator && !c.is_open());
        let dialled: Vec<_> = dials.filter_map(|c| peers.get(&c.remote)).collect();
        let waits = |topic: &Topic| {
            let dialling = dialled.iter().any(|peer| peer.topics.contains(topic));
            let asking = lan.is_asking(topic) || told.may_answer(topic, now);
            dialling || asking || peers.is_queued(topic)
        };
        self.alone.retain(|&topic| {
            let waits = waits(&topic);
            if !waits && !has_peer(connections, peers, &topic) {
                events.push_back(SwarmEvent::Alone { topic });
            }
            waits
        });
        self.unsettled.retain(|&topic| {
            let of_topic = |c: &&Connection| shares(peers, c, &topic);
            let unsettled = waits(&topic);
            if !unsettled {
                let connected = connections.iter().filter(of_topic).filter(|c| c.is_peer()).count();
                events.push_back(SwarmEvent::Settled { topic, connected });
            }
            unsettled
        });
    }
}

/// Whether a connection leads to a peer of `topic`.
pub(super) fn has_peer(connections: &Connections, peers: &Peers, topic: &Topic) -> bool {
    connections.iter().any(|connection| connection.is_peer() && shares(peers, connection, topic))
}

/// Whether the peer at the other end was found under `topic`.
fn shares(peers: &Peers, connection: &Connection, topic: &Topic) -> bool {
    peers.get(&connection.remote).is_some_and(|peer| peer.topics.contains(topic))
}
