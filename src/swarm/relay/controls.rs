//! Control connections: those to relays that we go through, and those of peers that go through us.
//!
//! They are made as other connections are, and never told to the owner. Each has a multiplexer with one channel.

use super::messages::{self, Pair, Token};
use crate::mux::{Mux, MuxError};
use crate::swarm::connections::{Connection, Connections};
use std::collections::BTreeMap;

/// What one says to a relay at once has 90 bytes. A longer frame is no honest one.
pub const MAX_FRAME: usize = 16 << 10;

pub struct Control {
    pub mux: Mux,
    /// Once it is open on both sides; for one of ours once it was asked for.
    pub channel: Option<u64>,
    /// The relay has opened it as well: it is one.
    pub serves: bool,
}

/// All of them, by stream.
#[derive(Default)]
pub struct Controls {
    pub table: Connections,
    controls: BTreeMap<u32, Control>,
}

impl Controls {
    pub fn insert(&mut self, connection: Connection) {
        let stream = connection.id.stream();
        self.controls.insert(
            stream,
            Control { mux: Mux::new(messages::PROTOCOLS), channel: None, serves: false },
        );
        self.table.insert(connection);
    }

    pub fn remove(&mut self, stream: u32) -> Option<Connection> {
        self.controls.remove(&stream);
        self.table.remove(stream)
    }

    pub fn has(&self, stream: u32) -> bool {
        self.controls.contains_key(&stream)
    }

    pub fn get(&mut self, stream: u32) -> Option<&mut Control> {
        self.controls.get_mut(&stream)
    }

    /// Those to relays, and whether each serves.
    pub fn to_relays(&self) -> impl Iterator<Item = (&Connection, bool)> {
        let ours = self.table.iter().filter(|c| c.initiator);
        ours.map(|c| (c, self.controls.get(&c.id.stream()).is_some_and(|control| control.serves)))
    }

    /// Those of customers.
    pub fn customers(&self) -> impl Iterator<Item = &Connection> {
        self.table.iter().filter(|c| !c.initiator)
    }

    /// Those to relays.
    pub fn ours(&self) -> usize {
        self.table.iter().filter(|c| c.initiator).count()
    }
}

impl Control {
    /// Opens the channel, for the one who comes to a relay with `key`.
    pub fn open(&mut self, key: &[u8; 32]) {
        self.channel = self.mux.open(messages::PROTOCOL, key, &[]);
    }

    pub fn handle_frame(&mut self, frame: bytes::Bytes) -> Result<(), MuxError> {
        self.mux.handle_frame(frame)
    }

    pub fn say_pair(&mut self, pair: &Pair) {
        if let Some(channel) = self.channel {
            self.mux.send(channel, messages::PAIR, |out| pair.encode(out));
        }
    }

    pub fn say_unpair(&mut self, token: &Token) {
        if let Some(channel) = self.channel {
            self.mux.send(channel, messages::UNPAIR, |out| messages::encode_unpair(token, out));
        }
    }
}
