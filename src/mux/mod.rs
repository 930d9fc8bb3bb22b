//! Protomux: many channels over one stream of frames.
//!
//! [`Mux`] belongs to one connection. Its owner feeds it each decrypted frame and then asks for events
//! until there are none; what it sends is corked, and [`Mux::poll_transmit`] uncorks it, so everything
//! that one received frame caused leaves as one frame. Large messages go out in a frame of their own.
//!
//! An incoming open that pairs with nothing becomes [`MuxEvent::Asked`], and the owner answers it before it asks
//! for the next event, or puts the answer off. Who opens a channel says nothing on it before it is answered, so,
//! unlike the reference, nothing is buffered for a channel that is not paired.
//!
//! Source: protomux/index.js

mod channel;
mod frame;

pub use channel::ChannelError;

use crate::codec::{DecodeError, FrameBuf, Put, Reader};
use bytes::Bytes;
use channel::{PairKey, Paired, Table};
use frame::{Cork, Item, Items};
use std::collections::VecDeque;

/// Messages below this many bytes share a frame; a copy of them costs less than a frame does.
const SMALL: usize = 4096;
/// A batch is sent when it has grown to this, far below the frame limit of 16 777 198 bytes.
const MAX_BATCH: usize = 64 * 1024;

/// The remote broke the rules; the connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    #[error("malformed frame: {0}")]
    Frame(#[from] DecodeError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// What a received frame means for the owner. Channels are named by our local ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MuxEvent {
    /// Both sides have opened this channel.
    Opened {
        channel: u64,
        handshake: Bytes,
    },
    /// The remote opens a channel that we have not opened. Answer with [`Mux::accept`] or [`Mux::refuse`] before
    /// the next poll, or say [`Mux::defer`].
    Asked {
        remote: u64,
        protocol: &'static str,
        id: Vec<u8>,
        handshake: Bytes,
    },
    Message {
        channel: u64,
        kind: u64,
        body: Bytes,
    },
    /// The remote closed this channel, or rejected it while it was opening.
    Closed {
        channel: u64,
        rejected: bool,
    },
}

/// Remote channel, type and body of a frame with a single message; `None` for controls and batches.
pub fn split(frame: &[u8]) -> Option<(u64, u64, &[u8])> {
    let mut r = Reader::new(frame);
    let channel = r.uint().ok().filter(|channel| *channel != 0)?;
    Some((channel, r.uint().ok()?, r.rest()))
}

/// A protocol that we speak, with other names that a remote may use for it.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
}

/// The multiplexer of one connection.
#[derive(Debug)]
pub struct Mux {
    protocols: &'static [Protocol],
    table: Table,
    items: Option<Items>,
    /// A remote id that was asked for and not answered yet.
    asked: Option<(u64, PairKey)>,
    cork: Cork,
    out: VecDeque<FrameBuf>,
    out_bytes: usize,
}

impl Mux {
    pub fn new(protocols: &'static [Protocol]) -> Self {
        Self {
            protocols,
            table: Table::default(),
            items: None,
            asked: None,
            cork: Cork::default(),
            out: VecDeque::new(),
            out_bytes: 0,
        }
    }

    /// Takes a frame. The events of the frame before must all have been polled.
    pub fn handle_frame(&mut self, frame: Bytes) -> Result<(), MuxError> {
        debug_assert!(self.items.is_none(), "events of the last frame were not polled");
        self.items = Some(Items::new(frame)?);
        Ok(())
    }

    /// The next thing that the frame brought.
    pub fn poll_event(&mut self) -> Result<Option<MuxEvent>, MuxError> {
        if let Some((remote, _)) = self.asked.take() {
            self.put_reject(remote);
        }
        while let Some(mut items) = self.items.take() {
            let Some(item) = items.next()? else { break };
            self.items = Some(items);
            let event = self.handle_item(item).inspect_err(|_| self.items = None)?;
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn handle_item(&mut self, item: Item) -> Result<Option<MuxEvent>, MuxError> {
        Ok(match item {
            Item::Message { channel, kind, body } => {
                // A message for a closed channel may have been on its way when we closed it.
                self.table.local_of(channel).map(|channel| MuxEvent::Message {
                    channel,
                    kind,
                    body,
                })
            }
            Item::Open { remote: 0, .. } => {
                self.put_reject(0);
                None
            }
            Item::Open { remote, protocol, id, handshake } => {
                self.handle_open(remote, &protocol, id, handshake)?
            }
            Item::Reject { local } => self
                .table
                .remote_reject(local)?
                .then_some(MuxEvent::Closed { channel: local, rejected: true }),
            Item::Close { remote } => self
                .table
                .remote_close(remote)
                .map(|channel| MuxEvent::Closed { channel, rejected: false }),
            Item::Unknown => None,
        })
    }

    fn handle_open(
        &mut self,
        remote: u64,
        protocol: &str,
        id: Vec<u8>,
        handshake: Bytes,
    ) -> Result<Option<MuxEvent>, MuxError> {
        let known =
            self.protocols.iter().find(|p| p.name == protocol || p.aliases.contains(&protocol));
        let key = known.map(|p| PairKey { protocol: p.name, id });
        Ok(match (self.table.remote_open(key.as_ref(), remote)?, key) {
            (Paired::With(channel), _) => Some(MuxEvent::Opened { channel, handshake }),
            (Paired::Stale, _) => None,
            (Paired::No, None) => {
                self.put_reject(remote);
                None
            }
            (Paired::No, Some(key)) => {
                let (protocol, id) = (key.protocol, key.id.clone());
                self.asked = Some((remote, key));
                Some(MuxEvent::Asked { remote, protocol, id, handshake })
            }
        })
    }

    /// Opens a channel. `None` if there is one of that name already, or too many.
    pub fn open(&mut self, protocol: &'static str, id: &[u8], handshake: &[u8]) -> Option<u64> {
        let channel = self.table.open(PairKey { protocol, id: id.to_vec() })?;
        self.put_open(channel, protocol, id, handshake);
        Some(channel)
    }

    /// Answers the open that was just asked about: the channel is open at once. `None` as for `open`.
    pub fn accept(&mut self, handshake: &[u8]) -> Option<u64> {
        let (remote, key) = self.asked.take()?;
        self.accept_as(remote, key, handshake)
    }

    /// Puts the answer off: [`Mux::accept_deferred`] or [`Mux::refuse_deferred`] gives it, unless the remote closes
    /// the channel before.
    pub fn defer(&mut self) {
        if let Some((remote, key)) = self.asked.take() {
            self.table.defer(key, remote);
        }
    }

    /// Opens that were put off and not answered yet.
    pub fn deferred(&self) -> usize {
        self.table.deferred()
    }

    /// Accepts an open of channel `id` that was put off.
    pub fn accept_deferred(&mut self, remote: u64, id: &[u8], handshake: &[u8]) -> Option<u64> {
        let key = self.table.take_deferred(remote, id)?;
        self.accept_as(remote, key, handshake)
    }

    /// Refuses an open of channel `id` that was put off. False if it was closed meanwhile.
    pub fn refuse_deferred(&mut self, remote: u64, id: &[u8]) -> bool {
        let waits = self.table.take_deferred(remote, id).is_some();
        if waits {
            self.put_reject(remote);
        }
        waits
    }

    fn accept_as(&mut self, remote: u64, key: PairKey, handshake: &[u8]) -> Option<u64> {
        let Some(channel) = self.table.accept(key.clone(), remote) else {
            self.put_reject(remote);
            return None;
        };
        self.put_open(channel, key.protocol, &key.id, handshake);
        Some(channel)
    }

    /// Refuses the open that was just asked about.
    pub fn refuse(&mut self) {
        if let Some((remote, _)) = self.asked.take() {
            self.put_reject(remote);
        }
    }

    /// Closes a channel; nothing happens if it is closed.
    pub fn close(&mut self, channel: u64) {
        if self.table.close(channel) {
            self.cork.push(0, |out| frame::put_close(out, channel));
        }
    }

    /// Queues a small message; `encode` writes its body.
    pub fn send(&mut self, channel: u64, kind: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        self.cork.push(channel, |out| {
            out.put_uint(kind);
            encode(out);
        });
        if self.cork.len() >= MAX_BATCH {
            self.uncork();
        }
    }

    /// Queues a message of `len` body bytes; a large one is written straight into a frame of its own.
    pub fn send_sized(
        &mut self,
        channel: u64,
        kind: u64,
        len: usize,
        encode: impl FnOnce(&mut dyn Put),
    ) {
        if len < SMALL {
            return self.send(channel, kind, |out| encode(out));
        }
        self.uncork();
        let mut frame = frame::message_frame(channel, kind, len);
        encode(&mut frame);
        self.push_frame(frame);
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<FrameBuf> {
        if self.out.is_empty() {
            return self.cork.take();
        }
        let frame = self.out.pop_front()?;
        self.out_bytes -= frame.len();
        Some(frame)
    }

    /// Our id of the remote's channel `remote`.
    pub fn local_of(&self, remote: u64) -> Option<u64> {
        self.table.local_of(remote)
    }

    /// Bytes that [`Mux::poll_transmit`] has yet to give.
    pub fn queued(&self) -> usize {
        self.out_bytes + self.cork.len()
    }

    fn put_open(&mut self, channel: u64, protocol: &str, id: &[u8], handshake: &[u8]) {
        self.cork.push(0, |out| frame::put_open(out, channel, protocol, id, handshake));
    }

    fn put_reject(&mut self, remote: u64) {
        self.cork.push(0, |out| frame::put_reject(out, remote));
    }

    fn uncork(&mut self) {
        if let Some(frame) = self.cork.take() {
            self.push_frame(frame);
        }
    }

    fn push_frame(&mut self, frame: FrameBuf) {
        self.out_bytes += frame.len();
        self.out.push_back(frame);
    }
}

#[cfg(test)]
mod tests;
