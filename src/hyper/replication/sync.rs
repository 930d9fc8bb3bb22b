//! Lengths and forks: what we tell peers, what they tell us, and whom to ask for an upgrade.
//!
//! A peer proves an upgrade only from a length that it has acknowledged (`remote length` of its sync)
//! while saying that it can. So after each change of our head every peer gets a sync, and whoever is
//! longer answers with one that acknowledges.
//!
//! Source: hypercore/lib/replicator.js:onsync, sendSync, _canUpgrade, _shouldUpgrade, _updateFork

use super::connection::Ctx;
use super::peer::Peer;
use super::replica::Replica;
use super::violation::{MAX_LENGTH, Violation};
use super::wire::{Message, Sync};
use super::{ConnId, HubEvent};
use crate::hyper::core::Core;
use std::time::{Duration, Instant};

/// How long a longer peer may take to acknowledge our length. One that cannot prove the upgrade stays
/// silent, so nobody may wait for it for long.
const ACK_PATIENCE: Duration = Duration::from_millis(1000);

impl Replica {
    /// Tells a peer our state, unless that is what it was told last.
    pub fn send_sync(&mut self, ctx: &mut Ctx, core: &Core, conn: ConnId) {
        let downloading = self.is_downloading();
        let Some(peer) = self.peers.get_mut(&conn).filter(|peer| peer.open) else { return };
        let head = core.head();
        let remote = peer.remote.filter(|remote| remote.fork == head.fork);
        let can_upgrade = match (&peer.remote, &remote) {
            (None, _) => true,
            (Some(_), Some(remote)) => can_prove(core, remote.length),
            (Some(_), None) => false,
        };
        let sync = Sync {
            fork: head.fork,
            length: head.length,
            remote_length: remote.map_or(0, |remote| remote.length),
            can_upgrade,
            uploading: true,
            downloading,
            has_manifest: core.told_manifest().is_some(),
            allow_push: false,
        };
        let shorter = remote.is_some_and(|remote| remote.length < head.length);
        self.unprovable |= shorter && !can_upgrade;
        if peer.told == Some(sync) {
            return;
        }
        peer.told = Some(sync);
        let channel = peer.channel;
        ctx.send(conn, channel, &Message::Sync(sync));
    }

    pub fn on_sync(&mut self, ctx: &mut Ctx, core: &mut Core, conn: ConnId, sync: Sync) {
        let now = ctx.now;
        let head = core.head();
        let (fork, length) = (head.fork, head.length);
        let Some(peer) = self.peers.get_mut(&conn).filter(|peer| peer.open) else { return };
        let before = peer.remote;
        if let Some(wrong) = implausible(before.as_ref(), &sync) {
            return ctx.strike(conn, Some(self.id), wrong);
        }
        let moved = before.is_none_or(|b| (b.fork, b.length) != (sync.fork, sync.length));
        if moved {
            peer.refused = None;
            peer.denied.clear();
        }
        if moved || before.is_some_and(|b| b.remote_length != sync.remote_length) {
            peer.synced_at = now;
        }
        peer.remote = Some(sync);
        peer.acked = if sync.fork == fork { sync.remote_length } else { 0 };
        self.hear(ctx, &sync);
        if before.map(|before| before.knows_core()) != Some(sync.knows_core()) {
            ctx.emit(HubEvent::PeerTold { core: self.id });
        }
        if !sync.downloading && !self.is_downloading() {
            return self.close_on(ctx, core, conn);
        }
        // An acknowledgement is news only for somebody shorter; silence means that we cannot prove it.
        let shorter = sync.fork == fork && sync.length < length;
        if shorter && can_prove(core, sync.length) {
            self.send_sync(ctx, core, conn);
        }
        self.unprovable |= shorter;
        if moved {
            self.stir(now, 0, u64::MAX);
        }
        self.synced_told = false;
        self.pump(ctx, core);
        self.check_synced(ctx, core);
    }

    /// A peer with nothing but the key knows no more than we do.
    fn hear(&mut self, ctx: &mut Ctx, sync: &Sync) {
        let empty = sync.length == 0;
        let news = if empty { self.heard_empty.is_none() } else { self.heard_empty != Some(false) };
        if news && sync.knows_core() {
            self.heard_empty = Some(empty);
            ctx.emit(HubEvent::Heard { core: self.id, empty });
        }
    }

    /// Whoever attached the core has heard nothing of its peers yet.
    pub fn tell_again(&mut self, ctx: &mut Ctx) {
        self.synced_told = false;
        self.heard_empty = None;
        let said: Vec<Sync> = self.peers.values().filter_map(|peer| peer.remote).collect();
        said.iter().for_each(|sync| self.hear(ctx, sync));
    }

    /// We hold more than before: peers that we could prove nothing to may be told otherwise now.
    pub fn tell_provable(&mut self, ctx: &mut Ctx, core: &Core) {
        let head = core.head();
        self.unprovable = false;
        for conn in self.conns() {
            let remote = self.peers.get(&conn).and_then(|peer| peer.remote);
            let shorter = |r: &Sync| r.fork == head.fork && r.length < head.length;
            let Some(remote) = remote.filter(shorter) else { continue };
            if can_prove(core, remote.length) {
                self.send_sync(ctx, core, conn);
            } else {
                self.unprovable = true;
            }
        }
    }

    /// Whether this core follows its peers at all.
    pub fn wants_upgrade(&self, core: &Core) -> bool {
        let length = core.length();
        (self.options.downloading && !core.waits_for_names())
            || self.upgrade_wanted
            || self.blocks.between(length, u64::MAX).next().is_some()
            || self.ranges.values().any(|range| range.end > length)
            || !self.seeks.is_empty()
    }

    /// Says whether all peers are in sync, once for each time they are.
    pub fn check_synced(&mut self, ctx: &mut Ctx, core: &Core) {
        self.deferred.synced |= ctx.defer;
        if self.synced_told || self.following || ctx.defer {
            return;
        }
        let announced = (self.announced.fork, self.announced.length);
        let untaken = core.waits_for_names() && !self.wants_upgrade(core);
        let settled = self
            .peers
            .values()
            .all(|peer| is_settled(ctx, peer, announced) || (untaken && peer.remote.is_some()));
        if settled && (self.upgrade_wanted || !self.peers.is_empty()) {
            if core.doubt().is_some() {
                // Who wants to write it waits for more than lengths: whether all have the same history.
                self.ask_histories(ctx, core);
                if self.flights.iter().any(|(_, flight)| flight.history) {
                    return;
                }
            }
            self.synced_told = true;
            self.upgrade_wanted = false;
            ctx.emit(HubEvent::PeersSynced { core: self.id });
            self.end_seeks(ctx);
            self.ask_histories(ctx, core);
        }
    }
}

/// "I can prove an upgrade from there": not to somebody as long as we are, and for a sparse copy only if
/// it has the roots at that length.
fn can_prove(core: &Core, length: u64) -> bool {
    let own = core.head().length;
    length == 0 || (length < own && core.can_prove_from(length))
}

fn implausible(before: Option<&Sync>, sync: &Sync) -> Option<Violation> {
    if sync.length > MAX_LENGTH {
        return Some(Violation::TooLong(sync.length));
    }
    let before = before?;
    if sync.fork < before.fork {
        return Some(Violation::ForkBack { from: before.fork, to: sync.fork });
    }
    let shrunk = sync.fork == before.fork && sync.length < before.length;
    shrunk.then_some(Violation::Shrunk { from: before.length, to: sync.length })
}

/// Whether nothing is to be expected of a peer but what it will say by itself.
fn is_settled(ctx: &Ctx, peer: &Peer, (fork, length): (u64, u64)) -> bool {
    let late = |since: Instant, patience| ctx.now >= since + patience;
    let Some(remote) = &peer.remote else { return late(peer.since, ctx.limits.patience) };
    if !remote.uploading || peer.refused == Some((remote.fork, remote.length)) {
        return true;
    }
    let offers = if remote.fork == fork { remote.length > length } else { remote.fork > fork };
    if !offers || remote.length == 0 {
        return true;
    }
    let asked = remote.fork > fork || (remote.can_upgrade && peer.acked == length);
    // What is asked for ends by itself: applied, refused, or overdue, which counts as refused.
    !asked && late(peer.synced_at, ACK_PATIENCE)
}
