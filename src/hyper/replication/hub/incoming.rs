//! What connections bring: frames, the messages in them, and which core each is for.

use super::Hub;
use crate::crypto::hash::{self, Hash};
use crate::hyper::core::{Core, Proof};
use crate::hyper::replication::connection::Ctx;
use crate::hyper::replication::replica::Replica;
use crate::hyper::replication::tags;
use crate::hyper::replication::violation::Violation;
use crate::hyper::replication::wire::{self, Message};
use crate::hyper::replication::{ConnId, CoreId};
use crate::mux::{self, MuxEvent};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::time::Instant;

/// Blocks that are hashed side by side: as many as the hash has lanes.
const LANES: usize = 4;

impl Hub {
    /// Decrypted frames arrived together. Their blocks are hashed side by side, which is half as fast
    /// again as one by one.
    pub fn handle_frames(&mut self, conn: ConnId, frames: &[Bytes], now: Instant) {
        for group in frames.chunks(LANES) {
            let mut leaves = self.hash_ahead(conn, group).into_iter();
            for frame in group {
                self.leaf = leaves.next().flatten();
                self.handle_frame(conn, frame.clone(), now);
            }
        }
        self.leaf = None;
    }

    /// Leaf hashes of the blocks in these frames, of those that were asked for.
    fn hash_ahead(&self, conn: ConnId, frames: &[Bytes]) -> Vec<Option<Hash>> {
        let asked: Vec<Option<&[u8]>> = frames.iter().map(|f| self.asked_block(conn, f)).collect();
        let values: Vec<&[u8]> = asked.iter().flatten().copied().collect();
        if values.len() < 2 {
            return Vec::new();
        }
        let mut leaves = hash::leaves(&values).into_iter();
        asked.into_iter().map(|value| value.and_then(|_| leaves.next())).collect()
    }

    /// The block in a frame, if the frame is the answer to an open request for it.
    fn asked_block<'a>(&self, conn: ConnId, frame: &'a [u8]) -> Option<&'a [u8]> {
        let (remote, kind, body) = mux::split(frame)?;
        let (request, value) = wire::peek_block(kind, body)?;
        let state = self.conns.get(&conn)?;
        let core = state.channels.get(&state.mux.local_of(remote)?)?;
        self.replicas.get(core)?.flights.get(request).filter(|f| f.conn == conn)?;
        Some(value)
    }

    /// A decrypted frame arrived.
    pub fn handle_frame(&mut self, conn: ConnId, frame: Bytes, now: Instant) {
        let Some(state) = self.conns.get_mut(&conn).filter(|state| !state.closing) else { return };
        // One decision for all that a frame says: a request may then carry what two would have.
        self.batch = frame.starts_with(&[0, 0]).then(BTreeSet::new);
        let queued = state.begin_frame();
        if let Err(error) = state.mux.handle_frame(frame) {
            self.strike(conn, error.into(), now);
        }
        while let Some(state) = self.conns.get_mut(&conn).filter(|state| !state.closing) {
            match state.mux.poll_event() {
                Ok(Some(event)) => self.on_mux_event(conn, event, now),
                Ok(None) => break,
                Err(error) => self.strike(conn, error.into(), now),
            }
        }
        self.end_batch(now);
        if self.conns.get_mut(&conn).is_some_and(|state| !state.said_at_once(queued)) {
            self.strike(conn, Violation::NotReading, now);
        }
        self.dirty.insert(conn);
        self.serve(conn, now);
        self.finish(now);
    }

    fn end_batch(&mut self, now: Instant) {
        for id in self.batch.take().unwrap_or_default() {
            self.with(id, now, |replica, ctx, core| {
                let due = std::mem::take(&mut replica.deferred);
                if due.pump {
                    replica.pump(ctx, core);
                }
                if due.pump || due.synced {
                    replica.check_synced(ctx, core);
                }
            });
        }
    }

    fn on_mux_event(&mut self, conn: ConnId, event: MuxEvent, now: Instant) {
        match event {
            MuxEvent::Asked { remote, id, handshake, .. } => {
                self.on_asked(conn, remote, &id, &handshake, now);
            }
            MuxEvent::Opened { channel, handshake } => {
                self.with_channel(conn, channel, now, |replica, ctx, core| {
                    replica.on_opened(ctx, core, conn, &handshake);
                });
            }
            MuxEvent::Closed { channel, rejected } => {
                self.on_channel_closed(conn, channel, rejected, now);
            }
            MuxEvent::Message { channel, kind, body } => {
                self.on_message(conn, channel, kind, &body, now);
            }
        }
    }

    fn on_channel_closed(&mut self, conn: ConnId, channel: u64, rejected: bool, now: Instant) {
        let state = self.conns.get_mut(&conn);
        let Some(id) = state.and_then(|state| state.channels.remove(&channel)) else { return };
        self.with(id, now, |replica, ctx, core| {
            let reopen = !rejected && replica.should_reopen(conn);
            replica.on_closed(ctx, core, conn);
            if reopen {
                replica.open_on(ctx, conn);
            }
        });
        self.drop_idle(id);
    }

    fn on_message(&mut self, conn: ConnId, channel: u64, kind: u64, body: &Bytes, now: Instant) {
        let message = match Message::decode(kind, body) {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => {
                return self.strike(conn, Violation::Message { kind, error }, now);
            }
        };
        let id = self.conns.get(&conn).and_then(|state| state.channels.get(&channel)).copied();
        let Some(id) = id else { return };
        match message {
            Message::Data { request, proof } => self.on_data(conn, id, request, proof, now),
            Message::Request(request) => {
                self.unlocked(id, now, |replica, ctx| replica.on_request(ctx, conn, request));
            }
            Message::Cancel { request } => {
                self.unlocked(id, now, |replica, _| replica.on_cancel(conn, request));
            }
            Message::Want(want) => {
                self.unlocked(id, now, |replica, ctx| replica.on_want(ctx, conn, want));
            }
            Message::Unwant(want) => {
                self.unlocked(id, now, |replica, _| replica.on_unwant(conn, want));
            }
            Message::Sync(sync) => {
                self.with(id, now, |replica, ctx, core| replica.on_sync(ctx, core, conn, sync));
                self.forget_channel(conn, channel, id);
            }
            Message::NoData { request, reason } => self.with(id, now, |replica, ctx, core| {
                replica.on_no_data(ctx, core, conn, request, reason);
            }),
            Message::Bitfield { start, words } => self.with(id, now, |replica, ctx, core| {
                replica.on_bitfield(ctx, core, conn, start, &words);
            }),
            Message::Range { drop, start, length } => self.with(id, now, |replica, ctx, core| {
                replica.on_range(ctx, core, conn, (drop, start, length));
            }),
            Message::Extension { name, payload } if name == tags::NAME => {
                self.on_tags(conn, id, &payload, now);
            }
            Message::Extension { .. } => {}
        }
    }

    /// An idle channel was closed while its message was handled.
    fn forget_channel(&mut self, conn: ConnId, channel: u64, id: CoreId) {
        let open = self.conns.get(&conn).is_some_and(|state| state.channels.contains_key(&channel));
        if !open {
            self.drop_idle(id);
        }
    }

    fn on_data(&mut self, conn: ConnId, id: CoreId, request: u64, proof: Proof, now: Instant) {
        let mut landing = None;
        self.unlocked(id, now, |replica, ctx| {
            landing = replica.match_data(ctx, conn, request, proof);
        });
        let Some(landing) = landing else { return };
        // The long part of the work, outside of the lock.
        let ahead = self.leaf.take();
        let leaf = || landing.proof.block.as_ref().map(|block| hash::leaf(&block.value));
        let leaf = ahead.or_else(leaf);
        self.with(id, now, |replica, ctx, core| replica.on_data(ctx, core, landing, leaf));
    }

    fn with_channel(
        &mut self,
        conn: ConnId,
        channel: u64,
        now: Instant,
        f: impl FnOnce(&mut Replica, &mut Ctx, &mut Core),
    ) {
        let id = self.conns.get(&conn).and_then(|state| state.channels.get(&channel)).copied();
        if let Some(id) = id {
            self.with(id, now, f);
        }
    }
}
