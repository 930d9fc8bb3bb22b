//! Bytes that are to be found: which peer is asked for the nodes on the way to them.
//!
//! Each look walks down the tree, so seeks are not looked at with every message, but when something has changed for
//! them: a new one, an answer, a longer tree, a peer that has more.
//!
//! Source: hypercore/lib/replicator.js:_requestSeek

use super::connection::Ctx;
use super::peer::Peer;
use super::replica::Replica;
use super::{ConnId, HubEvent, SeekId};
use crate::hyper::core::Core;
use crate::hyper::core::message::{NodeRequest, Request, SeekRequest};
use crate::hyper::core::tree::SeekResult;
use crate::hyper::flat_tree as flat;

impl Replica {
    pub fn pump_seeks(&mut self, ctx: &mut Ctx, core: &Core) {
        let idle = self.seeks.iter().filter(|(_, wish)| wish.flight.is_none());
        let idle: Vec<(SeekId, u64)> = idle.map(|(id, wish)| (*id, wish.bytes)).collect();
        for (seek, bytes) in idle {
            let found = core.seek(bytes).ok();
            if let Some(wish) = self.seeks.get_mut(&seek) {
                wish.past_end = found == Some(SeekResult::PastEnd);
            }
            match found {
                Some(SeekResult::Found { block, offset }) => {
                    self.seeks.remove(&seek);
                    let found = Some((block, offset));
                    ctx.emit(HubEvent::Seeked { core: self.id, seek, found });
                }
                Some(SeekResult::Need { node, start, end }) => {
                    let wanted = Sought { seek, bytes, node, start, end };
                    self.ask_seek(ctx, core, wanted);
                }
                Some(SeekResult::PastEnd) | None => {}
            }
        }
    }

    fn ask_seek(&mut self, ctx: &mut Ctx, core: &Core, sought: Sought) {
        let head = core.head();
        let Some(wish) = self.seeks.get(&sought.seek) else { return };
        let asked: Vec<ConnId> = wish.asked.iter().map(|(_, conn)| *conn).collect();
        let block_of = |peer: &Peer| {
            let remote = peer.asked_for().filter(|r| r.fork == head.fork && peer.seeks)?;
            if asked.contains(&peer.conn) {
                return None; // its answer is overdue, and still welcome
            }
            let known = remote.length >= head.length || core.can_prove_from(remote.length);
            let end = sought.end.min(remote.length);
            let block = peer.bits.next_set(sought.start, end).filter(|_| known)?;
            Some((peer.pace.load(), peer.conn, block))
        };
        let Some((_, conn, block)) = self.peers.values().filter_map(block_of).min() else {
            return self.want(ctx, sought.start);
        };
        let request = Request {
            hash: Some(NodeRequest { index: 2 * block, nodes: flat::depth(sought.node).into() }),
            seek: Some(SeekRequest { bytes: sought.bytes, padding: core.padding() }),
            priority: 1,
            ..Request::default()
        };
        let fork = head.fork;
        let flight = self.take_off(ctx, core, conn, request, fork, Some(sought.seek));
        if let Some(wish) = self.seeks.get_mut(&sought.seek) {
            wish.flight = flight;
            wish.asked.extend(flight.map(|flight| (flight, conn)));
        }
    }

    /// The head is as long as anybody knows: positions past it do not exist.
    pub fn end_seeks(&mut self, ctx: &mut Ctx) {
        let past: Vec<SeekId> =
            self.seeks.iter().filter(|(_, wish)| wish.past_end).map(|(id, _)| *id).collect();
        for seek in past {
            self.seeks.remove(&seek);
            ctx.emit(HubEvent::Seeked { core: self.id, seek, found: None });
        }
    }
}

/// A byte whose block is somewhere in `start..end`, under `node`.
struct Sought {
    seek: SeekId,
    bytes: u64,
    node: u64,
    start: u64,
    end: u64,
}
