//! All streams, each in a slot of its own for as long as it lives, and found by its id.

use super::stream::Stream;
use std::collections::BTreeMap;

#[derive(Debug)]
pub struct Slots {
    slots: Vec<Option<Box<Stream>>>,
    free: Vec<usize>,
    ids: BTreeMap<u32, usize>,
    /// The stream that was asked for last: a batch is mostly of one.
    last: (u32, usize),
}

impl Default for Slots {
    fn default() -> Self {
        Self { slots: vec![], free: vec![], ids: BTreeMap::new(), last: (0, usize::MAX) }
    }
}

impl Slots {
    /// Streams there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Slots there are, the empty ones included.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    pub fn has(&self, id: u32) -> bool {
        self.ids.contains_key(&id)
    }

    /// Takes a stream whose id nobody has.
    pub fn insert(&mut self, stream: Stream) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.ids.insert(stream.id, slot);
        self.slots[slot] = Some(Box::new(stream));
    }

    pub fn remove(&mut self, slot: usize) -> Option<Box<Stream>> {
        let stream = self.slots.get_mut(slot)?.take()?;
        self.ids.remove(&stream.id);
        self.last = (0, usize::MAX);
        self.free.push(slot);
        Some(stream)
    }

    pub fn slot(&mut self, id: u32) -> Option<usize> {
        if self.last.0 != id || self.last.1 == usize::MAX {
            self.last = (id, *self.ids.get(&id)?);
        }
        Some(self.last.1)
    }

    pub fn at(&mut self, slot: usize) -> Option<&mut Stream> {
        self.slots.get_mut(slot)?.as_deref_mut()
    }

    pub fn get(&self, id: u32) -> Option<&Stream> {
        self.slots[*self.ids.get(&id)?].as_deref()
    }

    pub fn get_mut(&mut self, id: u32) -> Option<(usize, &mut Stream)> {
        let slot = self.slot(id)?;
        Some((slot, self.at(slot)?))
    }
}
