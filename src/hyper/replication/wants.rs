//! Windows of blocks that one side wants to hear about.
//!
//! A peer that is not contiguous does not tell everybody about each block it gets; it tells those that
//! want the window around it. [`LocalWants`] is what we told a peer, [`RemoteWants`] what it told us.
//!
//! Source: hypercore/lib/wants.js

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::held::ENTRY;
use super::wire::{SEGMENT, Want};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Windows per peer in either direction.
const MAX_WINDOWS: usize = 512;
/// Window sizes of one peer.
const MAX_SIZES: usize = 4;
/// Ranges of which one block is enough.
const MAX_ANY: usize = 16;
const MIN_WINDOW: u64 = 32;

/// What we want to hear from a peer: windows of [`SEGMENT`] blocks by number.
#[derive(Debug, Default)]
pub struct LocalWants {
    windows: BTreeMap<u64, Asked>,
}

#[derive(Debug)]
struct Asked {
    at: Instant,
    answered: bool,
}

impl LocalWants {
    /// Notes a want of the window around `block`. The messages to send: a want, and before it an unwant
    /// if the table was full.
    pub fn add(&mut self, block: u64, now: Instant) -> Option<(Option<Want>, Want)> {
        let window = block / SEGMENT;
        if self.windows.contains_key(&window) {
            return None;
        }
        let oldest = if self.windows.len() < MAX_WINDOWS {
            None
        } else {
            self.windows.iter().min_by_key(|(_, asked)| asked.at).map(|(w, _)| *w)
        };
        if let Some(old) = oldest {
            self.windows.remove(&old);
        }
        self.windows.insert(window, Asked { at: now, answered: false });
        Some((oldest.map(want_of), want_of(window)))
    }

    /// The peer told about the blocks from `start`.
    pub fn answered(&mut self, start: u64) {
        if let Some(asked) = self.windows.get_mut(&(start / SEGMENT)) {
            asked.answered = true;
        }
    }

    /// The peer told about all it has.
    pub fn all_answered(&mut self) {
        self.windows.values_mut().for_each(|asked| asked.answered = true);
    }

    /// When the window around `block` was asked for, if the answer is still due.
    pub fn due(&self, block: u64) -> Option<Instant> {
        self.windows.get(&(block / SEGMENT)).filter(|a| !a.answered).map(|a| a.at)
    }

    #[cfg(test)]
    fn covers(&self, block: u64) -> bool {
        self.windows.contains_key(&(block / SEGMENT))
    }
}

fn want_of(window: u64) -> Want {
    Want { start: window * SEGMENT, length: SEGMENT, any: false }
}

/// What a peer wants to hear from us. Beyond its bounds it counts as wanting everything, as in the
/// reference.
#[derive(Debug, Default)]
pub struct RemoteWants {
    all: bool,
    any: Vec<Want>,
    /// Window size → numbers of windows.
    windows: BTreeMap<u64, BTreeSet<u64>>,
    count: usize,
}

impl RemoteWants {
    /// False if the want is to be ignored.
    pub fn add(&mut self, want: Want) -> bool {
        if want.any {
            if self.any.len() < MAX_ANY {
                self.any.push(want);
            } else {
                self.all = true;
            }
            return true;
        }
        if want.length > SEGMENT {
            return false;
        }
        let new_size = !self.windows.contains_key(&want.length);
        let full = self.count >= MAX_WINDOWS || (new_size && self.windows.len() >= MAX_SIZES);
        if !regular(&want) || full {
            self.all = true;
        } else if self.windows.entry(want.length).or_default().insert(want.start / want.length) {
            self.count += 1;
        }
        true
    }

    pub fn remove(&mut self, want: Want) {
        if want.any {
            if let Some(i) = self.any.iter().position(|w| *w == want) {
                self.any.swap_remove(i);
            }
            return;
        }
        let Some(numbers) = self.windows.get_mut(&want.length).filter(|_| regular(&want)) else {
            return;
        };
        if numbers.remove(&(want.start / want.length)) {
            self.count -= 1;
        }
        if numbers.is_empty() {
            self.windows.remove(&want.length);
        }
    }

    /// Bytes that this holds, about.
    pub fn held(&self) -> usize {
        (self.count + self.any.len()) * ENTRY
    }

    #[cfg(test)]
    fn wants_everything(&self) -> bool {
        self.all
    }

    /// Whether a block of `start..start + length` is wanted; it may answer yes too often.
    pub fn touches(&self, start: u64, length: u64) -> bool {
        let end = start.saturating_add(length);
        self.all
            || self.any.iter().any(|w| w.start < end && start < w.start.saturating_add(w.length))
            || self.windows.iter().any(|(size, numbers)| {
                numbers.range(start / size..end.div_ceil(*size)).next().is_some()
            })
    }
}

fn regular(want: &Want) -> bool {
    (MIN_WINDOW..=SEGMENT).contains(&want.length)
        && want.length.is_power_of_two()
        && want.start.is_multiple_of(want.length)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::sim::epoch;
    use serde_json::Value;
    use std::time::Duration;

    #[test]
    fn wants_are_taken_as_by_the_reference() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/hypercore.json");
        let v: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for case in v["remote_wants"].as_array().unwrap() {
            let mut wants = RemoteWants::default();
            let want = Want {
                start: case["start"].as_u64().unwrap(),
                length: case["length"].as_u64().unwrap(),
                any: case["any"].as_bool().unwrap(),
            };
            assert_eq!(wants.add(want), case["accepted"].as_bool().unwrap(), "{want:?}");
            let all = case["degrades_to_everything"].as_bool().unwrap();
            assert_eq!(wants.wants_everything(), all, "{want:?}");
        }
    }

    #[test]
    fn a_window_is_wanted_until_it_is_unwanted() {
        let mut wants = RemoteWants::default();
        let want = Want { start: 4096, length: 4096, any: false };
        wants.add(want);
        assert!(wants.touches(4096, 1) && wants.touches(0, 5000) && wants.touches(8191, 1));
        assert!(!wants.touches(4095, 1) && !wants.touches(8192, 10));
        wants.remove(want);
        assert!(!wants.touches(4096, 1));
    }

    #[test]
    fn more_windows_than_the_bound_mean_everything() {
        let mut wants = RemoteWants::default();
        for i in 0..MAX_WINDOWS as u64 + 1 {
            assert!(!wants.wants_everything());
            wants.add(Want { start: 32 * i, length: 32, any: false });
        }
        assert!(wants.wants_everything());
    }

    #[test]
    fn a_full_table_gives_up_its_oldest_window() {
        let start = epoch();
        let mut wants = LocalWants::default();
        for i in 0..MAX_WINDOWS as u64 {
            let (unwant, want) =
                wants.add(i * SEGMENT + 5, start + Duration::from_secs(i)).expect("new");
            assert_eq!((unwant, want.start), (None, i * SEGMENT));
        }
        assert!(wants.add(7, start).is_none());
        let (unwant, _) = wants.add(600 * SEGMENT, start + Duration::from_secs(999)).expect("new");
        assert_eq!(unwant.map(|w| w.start), Some(0));
        assert!(wants.due(600 * SEGMENT).is_some());
        wants.answered(600 * SEGMENT);
        assert!(wants.due(600 * SEGMENT).is_none() && wants.covers(600 * SEGMENT));
    }
}
