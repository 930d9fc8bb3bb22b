//! Putting and getting immutable and mutable values.
//!
//! A put is a get query whose nearest nodes are then given the value. Of mutable values the one with the
//! highest sequence number wins; whatever is not signed or does not hash to its name is not heard.
//!
//! Source: hyperdht/index.js:immutableGet, immutablePut, mutableGet, mutablePut

use super::event::DhtEvent;
use super::messages::{MutablePut, MutableValue, command};
use super::net::Net;
use super::owner::{Owner, ValueStep as Step};
use super::signatures::verify_mutable;
use crate::codec::Put;
use crate::crypto::hash;
use crate::key::{NodeId, PublicKey};
use crate::swarm::dht_rpc::message::error;
use crate::swarm::dht_rpc::{Ask, QueryId, QuerySpec, Reply};
use std::time::Instant;

/// A value and its name.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Immutable { put: Option<Vec<u8>> },
    Mutable { key: PublicKey, seq: u64, put: Option<MutableValue> },
}

/// One put or get.
#[derive(Debug)]
pub(super) struct ValueQuery {
    target: NodeId,
    kind: Kind,
    best: Option<(u64, Vec<u8>)>,
    waiting: usize,
    stored: usize,
    committing: bool,
}

impl ValueQuery {
    pub fn new(kind: Kind, target: NodeId) -> Self {
        Self { target, kind, best: None, waiting: 0, stored: 0, committing: false }
    }

    pub fn spec(&self) -> QuerySpec {
        match &self.kind {
            Kind::Immutable { .. } => QuerySpec::new(command::IMMUTABLE_GET, self.target),
            Kind::Mutable { seq, put, .. } => {
                let mut value = Vec::new();
                value.put_uint(if put.is_some() { 0 } else { *seq });
                QuerySpec {
                    value: Some(value),
                    ..QuerySpec::new(command::MUTABLE_GET, self.target)
                }
            }
        }
    }

    pub fn on_reply(&mut self, reply: &Reply) {
        let Some(value) = &reply.value else { return };
        match &self.kind {
            Kind::Immutable { .. } => {
                if hash::hash(&[value]) == self.target.0 {
                    self.best = Some((0, value.clone()));
                }
            }
            Kind::Mutable { key, seq, .. } => {
                let Ok(found) = MutableValue::decode(value) else { return };
                let newer = self.best.as_ref().is_none_or(|(best, _)| found.seq > *best);
                if newer && found.seq >= *seq && verify_mutable(&found, key) {
                    self.best = Some((found.seq, found.value));
                }
            }
        }
    }

    pub fn on_query_done(&mut self, id: QueryId, closest: &[Reply], net: &mut Net, now: Instant) {
        self.committing = true;
        let (command, value) = match &self.kind {
            Kind::Immutable { put: Some(value) } => (command::IMMUTABLE_PUT, value.clone()),
            Kind::Mutable { key, put: Some(value), .. } => {
                let put = MutablePut { public_key: *key, value: value.clone() };
                (command::MUTABLE_PUT, put.encode())
            }
            _ => return,
        };
        for reply in closest.iter().filter(|r| r.token.is_some()) {
            let ask = Ask {
                target: Some(self.target),
                token: reply.token,
                value: Some(value.clone()),
                ..Ask::new(reply.from, command)
            };
            net.ask(ask, Owner::Value(id, Step::Put), now);
            self.waiting += 1;
        }
    }

    pub fn on_answer(&mut self, reply: Option<&Reply>) {
        self.waiting -= 1;
        self.stored += usize::from(reply.is_some_and(|r| r.error == error::NONE));
    }

    pub fn is_done(&self) -> bool {
        self.committing && self.waiting == 0
    }

    pub fn into_event(self, query: QueryId) -> DhtEvent {
        match self.kind {
            Kind::Immutable { put: None } | Kind::Mutable { put: None, .. } => {
                let (seq, value) = self.best.unzip();
                DhtEvent::Value { query, seq: seq.unwrap_or(0), value }
            }
            _ => DhtEvent::Stored { query, nodes: self.stored },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::signatures::sign_mutable;
    use super::*;
    use crate::crypto::KeyPair;
    use std::net::SocketAddrV4;
    use std::time::Duration;

    fn reply(value: Vec<u8>) -> Reply {
        let at = SocketAddrV4::new([20, 0, 0, 1].into(), 1);
        Reply {
            from: at,
            id: None,
            to: at,
            token: None,
            closer: vec![],
            error: error::NONE,
            value: Some(value),
            rtt: Duration::ZERO,
        }
    }

    /// What a get comes to when it is shown these.
    fn got(kind: Kind, target: NodeId, shown: Vec<Vec<u8>>) -> (u64, Option<Vec<u8>>) {
        let mut query = ValueQuery::new(kind, target);
        shown.into_iter().for_each(|value| query.on_reply(&reply(value)));
        match query.into_event(QueryId(1)) {
            DhtEvent::Value { seq, value, .. } => (seq, value),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_immutable_value_is_what_hashes_to_its_name() {
        let target = NodeId(hash::hash(&[b"true"]));
        let get = |shown: &[&[u8]]| {
            let shown = shown.iter().map(|value| value.to_vec()).collect();
            got(Kind::Immutable { put: None }, target, shown)
        };
        assert_eq!(get(&[b"false"]), (0, None));
        assert_eq!(get(&[b"true", b"false"]), (0, Some(b"true".to_vec())));
    }

    #[test]
    fn a_mutable_value_is_signed_and_as_new_as_asked_for_and_the_newest_wins() {
        let (pair, other) = (KeyPair::from_seed(&[1; 32]), KeyPair::from_seed(&[2; 32]));
        let key = PublicKey(pair.public());
        let target = NodeId(hash::hash(&[&key.0]));
        let signed = |seq, pair| sign_mutable(seq, vec![seq as u8], pair).encode();
        let get =
            |seq, shown: Vec<Vec<u8>>| got(Kind::Mutable { key, seq, put: None }, target, shown);
        assert_eq!(get(0, vec![signed(9, &other)]), (0, None));
        assert_eq!(get(3, vec![signed(2, &pair)]), (0, None));
        let shown = vec![signed(4, &pair), signed(5, &pair), signed(3, &pair), signed(9, &other)];
        assert_eq!(get(3, shown), (5, Some(vec![5])));
    }
}
