//! Telling nodes to forget an announcement: each first gives a token, then gets the UNANNOUNCE. One that is announced to
//! again meanwhile gets none.
//!
//! Source: hyperdht/lib/announcer.js:_unannounce

use super::messages::command;
use super::net::{Net, Withdrawal};
use super::owner::{LeaveStep as Step, Owner};
use super::signatures::Place;
use crate::crypto::KeyPair;
use crate::key::NodeId;
use crate::swarm::dht_rpc::{Ask, Reply};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Instant;

/// An announcement on its way out.
#[derive(Debug)]
pub(super) struct Leaving {
    key_pair: Arc<KeyPair>,
    target: NodeId,
    nodes: Vec<SocketAddrV4>,
    waiting: usize,
}

impl Leaving {
    pub fn new(Withdrawal { key_pair, target, nodes }: Withdrawal) -> Self {
        Self { key_pair, target, nodes, waiting: 0 }
    }

    pub fn start(&mut self, id: u64, net: &mut Net, now: Instant) {
        for node in std::mem::take(&mut self.nodes) {
            let ask = Ask { target: Some(self.target), ..Ask::new(node, command::FIND_PEER) };
            net.ask(ask, Owner::Leave(id, Step::Token, (self.target, node)), now);
            self.waiting += 1;
        }
    }

    /// One request is over.
    pub fn on_answer(
        &mut self,
        id: u64,
        step: Step,
        reply: Option<&Reply>,
        net: &mut Net,
        now: Instant,
    ) {
        self.waiting -= 1;
        let (Step::Token, Some(reply)) = (step, reply) else { return };
        // No value: the node has forgotten us already.
        let (Some(token), Some(node), Some(_)) = (reply.token, reply.id, &reply.value) else {
            return;
        };
        let place = Place { target: &self.target, node: &node, token: &token };
        let ask = Ask {
            target: Some(self.target),
            token: Some(token),
            value: Some(place.unannounce(&self.key_pair).encode()),
            ..Ask::new(reply.from, command::UNANNOUNCE)
        };
        net.ask(ask, Owner::Leave(id, Step::Unannounce, (self.target, reply.from)), now);
        self.waiting += 1;
    }

    pub fn is_done(&self) -> bool {
        self.waiting == 0
    }
}
