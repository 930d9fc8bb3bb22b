//! Who hears of which cores: peers that were met for a topic of theirs, that named them, or that know their keys.
//!
//! Nobody else does: a peer of one drive has no business with the others. See [`tags`](super::super::tags) for how two find
//! out that they have another one in common.

use super::Hub;
use crate::hyper::replication::replica::Replica;
use crate::hyper::replication::tags::{self, Tag};
use crate::hyper::replication::wire::Message;
use crate::hyper::replication::{ConnId, CoreId};
use crate::key::Topic;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::time::Instant;

impl Hub {
    /// The peer of a connection was found under `topic`: the channels of its cores are opened, those that it refused
    /// before too.
    pub fn handle_met(&mut self, conn: ConnId, topic: Topic, now: Instant) {
        self.meet(conn, topic, now);
        self.finish(now);
    }

    fn meet(&mut self, conn: ConnId, topic: Topic, now: Instant) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        state.meet(topic);
        let cores = self.by_topic.get(&topic).into_iter().flatten().copied();
        for id in cores.collect::<Vec<_>>() {
            self.unlocked(id, now, |replica, ctx| {
                if replica.is_downloading() {
                    replica.open_on(ctx, conn);
                }
            });
        }
    }

    /// Opens channels to who was met since, and says tags of what is here to who may know it.
    pub(super) fn introduce(&mut self, now: Instant) {
        while let Some((conn, topic)) = self.met.pop() {
            self.meet(conn, topic, now);
            if self.conns.get(&conn).is_some_and(|state| !state.tags.up_to_date) {
                self.tell(conn, &[], now);
            }
        }
        while let Some(conn) = self.untold.pop() {
            self.tell(conn, &[], now);
        }
        if !self.shown.is_empty() {
            let news: Vec<CoreId> = std::mem::take(&mut self.shown).into_iter().collect();
            for conn in self.conns.keys().copied().collect::<Vec<_>>() {
                self.tell(conn, &news, now);
            }
        }
    }

    /// Says tags of these cores, or of all to who was not told of all, of those that are not open on the connection, once each.
    fn tell(&mut self, conn: ConnId, news: &[CoreId], now: Instant) {
        let via = self.channel_to(conn);
        let Some(state) = self.conns.get_mut(&conn).filter(|state| !state.closing) else { return };
        let all = !std::mem::replace(&mut state.tags.up_to_date, via.is_some());
        state.tags.via = via;
        let Some(via) = via else { return };
        let cores: Vec<CoreId> = match all {
            true => self.replicas.keys().copied().collect(),
            false => news.to_vec(),
        };
        let mut said = Vec::new();
        for id in cores {
            let of_use = |r: &&Replica| r.is_downloading() && !r.peers.contains_key(&conn);
            let Some(replica) = self.replicas.get(&id).filter(of_use) else { continue };
            if state.tags.told.insert(id) {
                let info = &state.info;
                said.extend(tags::tag(&info.handshake_hash, &replica.key, info.initiator));
            }
        }
        for part in said.chunks(tags::AT_ONCE * tags::LEN) {
            let payload = Bytes::copy_from_slice(part);
            let message = Message::Extension { name: tags::NAME.to_string(), payload };
            self.unlocked(via, now, |replica, ctx| replica.send(ctx, conn, &message));
        }
    }

    /// A core whose channel is open on a connection.
    fn channel_to(&self, conn: ConnId) -> Option<CoreId> {
        let state = self.conns.get(&conn).filter(|state| !state.channels.is_empty())?;
        let is_open = |id: &CoreId| self.replicas.get(id).is_some_and(|r| r.is_open_on(conn));
        let open = || self.replicas.values().find(|replica| replica.is_open_on(conn));
        state.tags.via.filter(is_open).or_else(|| open().map(|replica| replica.id))
    }

    /// A peer says tags of cores that it has: those that are here are opened.
    pub(super) fn on_tags(&mut self, conn: ConnId, via: CoreId, said: &[u8], now: Instant) {
        if !self.replicas.get(&via).is_some_and(|replica| replica.is_open_on(conn)) {
            return;
        }
        let Some(state) = self.conns.get_mut(&conn) else { return };
        let (info, replicas) = (&state.info, &self.replicas);
        let known = state.tags.known.get_or_insert_with(|| {
            let tag = |r: &Replica| tags::tag(&info.handshake_hash, &r.key, !info.initiator);
            replicas.iter().map(|(id, replica)| (tag(replica), *id)).collect()
        });
        let tags = said.chunks_exact(tags::LEN).filter_map(|tag| Tag::try_from(tag).ok());
        let here: BTreeSet<CoreId> = tags.filter_map(|tag| known.get(&tag).copied()).collect();
        for id in here {
            self.unlocked(id, now, |replica, ctx| {
                replica.open_on(ctx, conn);
                ctx.met.push((conn, Topic::from(replica.discovery)));
            });
        }
    }

    /// A core comes: tags of it are known from now on.
    pub(super) fn expect_tags(&mut self, replica: &Replica) {
        for state in self.conns.values_mut() {
            if let Some(known) = &mut state.tags.known {
                let info = &state.info;
                let tag = tags::tag(&info.handshake_hash, &replica.key, !info.initiator);
                known.insert(tag, replica.id);
            }
        }
    }

    /// A core is gone.
    pub(super) fn forget_tags(&mut self, replica: &Replica) {
        for state in self.conns.values_mut() {
            state.tags.told.remove(&replica.id);
            if let Some(known) = &mut state.tags.known {
                let info = &state.info;
                known.remove(&tags::tag(&info.handshake_hash, &replica.key, !info.initiator));
            }
        }
    }
}
