//! What each transaction leaves in the database, so that an older copy of it is told from the newest: a count and a
//! random tag, with the tag of the transaction before.
//!
//! The [witness](super::witness) notes the turn after each transaction. A process that is killed between the two leaves
//! the database one turn ahead of the note, and a machine that stops perhaps more, never one behind: a transaction is
//! durable before it is noted.
//!
//! | [`super::Table::Meta`] | layout |
//! |---|---|
//! | `turn` | u64 count (LE), tag\[16\], tag of the turn before\[16\] |

use crate::codec::{Put, Reader};
use crate::crypto::sign;

pub(super) const KEY: &[u8] = b"turn";

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) count: u64,
    pub(super) tag: [u8; 16],
}

/// The last turn of a database, and the tag of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastTurn {
    pub(super) turn: Turn,
    before: [u8; 16],
}

impl LastTurn {
    /// The turn after this one, or the first.
    pub(super) fn next(last: Option<Self>) -> Self {
        let (count, before) = last.map_or((0, [0; 16]), |last| (last.turn.count, last.turn.tag));
        let tag = *sign::random().first_chunk().unwrap_or(&[1; 16]);
        Self { turn: Turn { count: count.saturating_add(1), tag }, before }
    }

    /// Whether a database with this turn has all that was there when `noted` was, and no more than one turn since;
    /// any number of them where `lost_notes`.
    pub(super) fn goes_on_from(&self, noted: &Turn, lost_notes: bool) -> bool {
        let next = noted.count.checked_add(1) == Some(self.turn.count);
        self.turn == *noted
            || (next && self.before == noted.tag)
            || (lost_notes && !next && self.turn.count > noted.count)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.turn.count.to_le_bytes().to_vec();
        out.put(&self.turn.tag);
        out.put(&self.before);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let count = u64::from_le_bytes(r.fixed().ok()?);
        let (tag, before) = (r.fixed().ok()?, r.fixed().ok()?);
        Some(Self { turn: Turn { count, tag }, before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_the_noted_one_or_one_ahead() {
        let mut turns = vec![LastTurn::next(None)];
        for _ in 0..4 {
            turns.push(LastTurn::next(turns.last().copied()));
        }
        let branch = LastTurn::next(Some(turns[1]));
        for (noted, held) in (0..5).flat_map(|noted| (0..5).map(move |held| (noted, held))) {
            let noted_turn = turns[noted].turn;
            let ok = |lost| turns[held].goes_on_from(&noted_turn, lost);
            assert_eq!(ok(false), held == noted || held == noted + 1, "{noted} {held}");
            assert_eq!(ok(true), held >= noted, "{noted} {held}");
            assert_eq!(LastTurn::decode(&turns[held].encode()), Some(turns[held]));
        }
        assert!(branch.goes_on_from(&turns[1].turn, false));
        for lost in [false, true] {
            assert!(!branch.goes_on_from(&turns[2].turn, lost), "as long, another history");
        }
        assert!(LastTurn::decode(&[0; 39]).is_none());
    }
}
