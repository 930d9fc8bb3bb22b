//! A relay: matches tokens, and has two streams joined for each match.
//!
//! ```text
//!   pair(token, role, stream) ──▶ pending ──▶ the same token in the other role ──▶ a link of two legs
//! ```
//!
//! It knows no streams itself: whoever owns it joins legs ([`Joiner`]), and brings what comes on the channels of its
//! customers, which are called sessions here. Everything that one of them can pile up has a bound.
//!
//! Source: blind-relay/index.js:Server (the bounds are ours)

use super::messages::{Pair, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Tokens that wait for their other half, and links, of one session. A peer has a few.
pub const MAX_PENDING: usize = 64;
pub const MAX_LINKS: usize = 64;

/// How long a token waits. The peers of the reference wait for 15 s.
pub const PENDING_WAIT: Duration = Duration::from_secs(20);

/// A leg for which nothing comes for so long is taken away. Every stream has a keep-alive of 5 s.
pub const LEG_IDLE: Duration = Duration::from_secs(60);

/// The name of a session.
pub type SessionId = u32;

/// Who makes legs, and takes them away.
pub trait Joiner {
    /// Joins the streams of two sessions, the initiator's second; gives the legs that they send to.
    fn join(&mut self, ends: [(SessionId, u32); 2]) -> [u32; 2];
    fn remove(&mut self, leg: u32);
    /// When something last came for a leg; `None` if it is gone.
    fn used(&self, leg: u32) -> Option<Instant>;
}

/// The halves of a pair that are there: of the one who did not name the relay, and of the one who did.
#[derive(Debug)]
struct Pending {
    ends: [Option<(SessionId, u32)>; 2],
    until: Instant,
}

#[derive(Debug)]
struct Link {
    session: SessionId,
    leg: u32,
    other: u32,
    /// When it is looked whether the leg is used.
    look_at: Instant,
}

#[derive(Debug, Default)]
struct Session {
    pending: BTreeSet<Token>,
    /// A session may hold both halves of a pair.
    links: Vec<(Token, u32)>,
}

#[derive(Debug, Default)]
pub struct Server {
    sessions: BTreeMap<SessionId, Session>,
    pending: BTreeMap<Token, Pending>,
    /// By leg.
    links: BTreeMap<u32, Link>,
}

impl Server {
    pub fn open(&mut self, session: SessionId) {
        self.sessions.entry(session).or_default();
    }

    /// Whether a session waits for nobody and has no link.
    pub fn is_idle(&self, session: SessionId) -> bool {
        let session = self.sessions.get(&session);
        session.is_none_or(|session| session.pending.is_empty() && session.links.is_empty())
    }

    /// Whether anything is passed on for a session.
    pub fn has_links(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|session| !session.links.is_empty())
    }

    /// Links there are.
    pub fn links(&self) -> usize {
        self.links.len() / 2
    }

    /// The legs of a session.
    pub fn legs(&self, session: SessionId) -> impl Iterator<Item = u32> {
        self.sessions.get(&session).into_iter().flat_map(|s| s.links.iter().map(|(_, leg)| *leg))
    }

    /// Answers to be sent, in their order.
    pub fn pair(
        &mut self,
        from: SessionId,
        pair: Pair,
        joiner: &mut impl Joiner,
        now: Instant,
    ) -> Vec<(SessionId, Pair)> {
        let Some(session) = self.sessions.get_mut(&from) else { return Vec::new() };
        if session.links.len() >= MAX_LINKS {
            return Vec::new();
        }
        let role = usize::from(pair.initiator);
        let new = !self.pending.contains_key(&pair.token);
        if new && session.pending.len() >= MAX_PENDING {
            return Vec::new();
        }
        let waits = || Pending { ends: [None; 2], until: now + PENDING_WAIT };
        let pending = self.pending.entry(pair.token).or_insert_with(waits);
        let Some(end) = pending.ends.get_mut(role).filter(|end| end.is_none()) else {
            return Vec::new();
        };
        *end = Some((from, pair.id));
        session.pending.insert(pair.token);
        let [Some(passive), Some(initiator)] = pending.ends else { return Vec::new() };
        self.forget(&pair.token);
        let legs = joiner.join([passive, initiator]);
        let [a, b] = legs;
        let ends = [(passive.0, a, b, false), (initiator.0, b, a, true)];
        for (session, leg, other, _) in ends {
            self.links.insert(leg, Link { session, leg, other, look_at: now + LEG_IDLE });
            if let Some(session) = self.sessions.get_mut(&session) {
                session.links.push((pair.token, leg));
            }
        }
        let answer = |(session, leg, _, initiator)| {
            (session, Pair { initiator, token: pair.token, id: leg, seq: 0 })
        };
        ends.map(answer).into()
    }

    /// Takes a token back: a pending one, whoever sent it; of a link of this session both legs go.
    pub fn unpair(&mut self, from: SessionId, token: &Token, joiner: &mut impl Joiner) {
        if self.pending.contains_key(token) {
            return self.forget(token);
        }
        let session = self.sessions.get(&from);
        let leg = session.and_then(|s| s.links.iter().find(|(of, _)| of == token)).map(|(_, l)| *l);
        let Some(link) = leg.and_then(|leg| self.links.get(&leg)) else { return };
        for leg in [link.leg, link.other] {
            self.end_leg(leg);
            joiner.remove(leg);
        }
    }

    /// A session is gone, and its legs with it. Those that they were joined with pass nothing on any more.
    pub fn close(&mut self, session: SessionId, joiner: &mut impl Joiner) {
        let Some(Session { pending, links }) = self.sessions.remove(&session) else { return };
        pending.iter().for_each(|token| self.forget(token));
        for (_, leg) in links {
            self.links.remove(&leg);
            joiner.remove(leg);
        }
    }

    /// A leg is gone.
    pub fn end_leg(&mut self, leg: u32) {
        let Some(link) = self.links.remove(&leg) else { return };
        if let Some(session) = self.sessions.get_mut(&link.session) {
            session.links.retain(|(_, of)| *of != leg);
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let pending = self.pending.values().map(|pending| pending.until);
        pending.chain(self.links.values().map(|link| link.look_at)).min()
    }

    pub fn handle_timeout(&mut self, joiner: &mut impl Joiner, now: Instant) {
        let over = self.pending.iter().filter(|(_, pending)| pending.until <= now);
        for token in over.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.forget(&token);
        }
        let mut idle = Vec::new();
        for link in self.links.values_mut().filter(|link| link.look_at <= now) {
            match joiner.used(link.leg).map(|at| at + LEG_IDLE) {
                Some(at) if at > now => link.look_at = at,
                _ => idle.push(link.leg),
            }
        }
        for leg in idle {
            self.end_leg(leg);
            joiner.remove(leg);
        }
    }

    fn forget(&mut self, token: &Token) {
        let Some(pending) = self.pending.remove(token) else { return };
        for (session, _) in pending.ends.into_iter().flatten() {
            if let Some(session) = self.sessions.get_mut(&session) {
                session.pending.remove(token);
            }
        }
    }
}

#[cfg(test)]
mod tests;
