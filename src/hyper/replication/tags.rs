//! Which cores are open here, shown so that only who knows them learns it.
//!
//! Two who were met for one drive may both have another one, and no lookup tells them: it was shared after the other
//! looked, or nobody announces it. So who has opened a core with us is told a tag of each other core that we would open: a
//! hash of the core's key, of the connection and of our side of it. Who knows the key recognises it, and opens the channel.
//! To others it is noise, another one on each connection; they learn how many cores there are. A tag that comes back
//! shows nothing, for the sides differ.
//!
//! It goes as an extension of any channel that is open: `hdrive/cores`, and its body is tags of 16 bytes. The reference
//! ignores it, and needs no tags: it opens all that it has to everybody.

use super::CoreId;
use crate::crypto::hash;
use crate::key::CoreKey;
use std::collections::{BTreeSet, HashMap};

pub(super) const NAME: &str = "hdrive/cores";

/// Tags of one message.
pub(super) const AT_ONCE: usize = 4096;

/// How often a connection is told again what it may have missed.
pub(super) const MAX_AGAIN: u32 = 16;

pub(super) const LEN: usize = 16;
pub(super) type Tag = [u8; LEN];

/// The tag of a core that a side says, given whether *that side* was the Noise initiator.
pub(super) fn tag(handshake_hash: &[u8; 64], key: &CoreKey, initiator: bool) -> Tag {
    let namespace = hash::namespace(NAME, u8::from(initiator));
    let whole = hash::keyed(handshake_hash, &[&namespace, key.as_bytes()]);
    let mut tag = Tag::default();
    tag.iter_mut().zip(whole).for_each(|(to, byte)| *to = byte);
    tag
}

/// What one connection has to do with tags.
#[derive(Debug, Default)]
pub(super) struct Tags {
    /// The cores that it was told of.
    pub told: BTreeSet<CoreId>,
    /// It was told of all that were there when it first could be.
    pub up_to_date: bool,
    /// A core whose channel was open when it was last told something.
    pub via: Option<CoreId>,
    /// How often what it was told was forgotten.
    pub again: u32,
    /// Our cores by the tags that the peer would say; made when it first says some.
    pub known: Option<HashMap<Tag, CoreId>>,
}

impl Tags {
    /// The channel of `core` is closed, by either side: what was on its way there may be read by nobody. Whether it is to
    /// be said again.
    pub fn lose(&mut self, core: CoreId) -> bool {
        if self.via != Some(core) || self.again >= MAX_AGAIN {
            return false;
        }
        self.again += 1;
        self.told.clear();
        self.up_to_date = false;
        true
    }
}
