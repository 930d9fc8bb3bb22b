//! Messages of HyperDHT: what stands in the values of its requests and in its Noise payloads.
//!
//! Each type lists its fields in wire order; `[x]` is there only if its flag is set. Lists of addresses
//! are cut to what anybody may need, so that a decoded message is never much larger than its bytes.
//!
//! Source: hyperdht/lib/messages.js, hyperdht-address/index.js

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

mod payload;
mod relay_offer;

pub use payload::{
    Firewall, HolepunchInfo, HolepunchPayload, NoisePayload, RelayInfo, RelayThrough, UdxInfo,
};
pub use relay_offer::RelayOffer;

use crate::codec::{DecodeError, Put, Reader, Result, net};
use crate::key::PublicKey;
use std::net::SocketAddrV4;

/// Commands of HyperDHT (without dht-rpc's internal flag).
pub mod command {
    pub const PEER_HANDSHAKE: u64 = 0;
    pub const PEER_HOLEPUNCH: u64 = 1;
    pub const FIND_PEER: u64 = 2;
    pub const LOOKUP: u64 = 3;
    pub const ANNOUNCE: u64 = 4;
    pub const UNANNOUNCE: u64 = 5;
    pub const MUTABLE_PUT: u64 = 6;
    pub const MUTABLE_GET: u64 = 7;
    pub const IMMUTABLE_PUT: u64 = 8;
    pub const IMMUTABLE_GET: u64 = 9;
    pub const PLUGIN: u64 = 10;
}

/// Error codes beyond those of dht-rpc.
pub mod error {
    pub const SEQ_REUSED: u64 = 16;
    pub const SEQ_TOO_LOW: u64 = 17;
}

/// Addresses kept of a list in a message: a machine's interfaces, a server's relays.
const MAX_ADDRESSES: usize = 16;
/// Records kept of a LOOKUP answer: the reference sends at most 20, and one for the target itself.
const MAX_RECORDS: usize = 32;

fn flagged<T>(flags: u64, bit: u64, read: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    if flags & bit == 0 { Ok(None) } else { read().map(Some) }
}

fn bit(on: bool, flag: u64) -> u64 {
    if on { flag } else { 0 }
}

fn addresses(r: &mut Reader<'_>) -> Result<Vec<SocketAddrV4>> {
    let mut list = net::ipv4_list(r)?;
    list.truncate(MAX_ADDRESSES);
    Ok(list)
}

fn put_address(out: &mut Vec<u8>, addr: Option<&SocketAddrV4>) {
    if let Some(addr) = addr {
        net::put_ipv4(out, addr);
    }
}

/// Where in its route a handshake or holepunch message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    FromClient,
    FromServer,
    FromRelay,
    FromSecondRelay,
    Reply,
}

impl Mode {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(match r.uint()? {
            0 => Self::FromClient,
            1 => Self::FromServer,
            2 => Self::FromRelay,
            3 => Self::FromSecondRelay,
            4 => Self::Reply,
            _ => return Err(DecodeError::Invalid("mode")),
        })
    }
}

/// Value of PEER_HANDSHAKE: uint flags (1 peer, 2 relay), uint mode, buffer noise, \[ipv4 peer\],
/// \[ipv4 relay\].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerHandshake {
    pub mode: Mode,
    pub noise: Vec<u8>,
    /// The other endpoint, as the first relay sees it.
    pub peer: Option<SocketAddrV4>,
    /// The relay that the answer has to pass.
    pub relay: Option<SocketAddrV4>,
}

impl PeerHandshake {
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let flags = r.uint()?;
        Ok(Self {
            mode: Mode::decode(&mut r)?,
            noise: r.buffer()?.to_vec(),
            peer: flagged(flags, 1, || net::ipv4(&mut r))?,
            relay: flagged(flags, 2, || net::ipv4(&mut r))?,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.noise.len() + 24);
        out.put_uint(bit(self.peer.is_some(), 1) | bit(self.relay.is_some(), 2));
        out.put_uint(self.mode as u64);
        out.put_buffer(&self.noise);
        put_address(&mut out, self.peer.as_ref());
        put_address(&mut out, self.relay.as_ref());
        out
    }
}

/// Value of PEER_HOLEPUNCH: uint flags (1 peer), uint mode, uint id, buffer payload, \[ipv4 peer\].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerHolepunch {
    pub mode: Mode,
    /// The server's number for the connection attempt.
    pub id: u64,
    /// A sealed [`HolepunchPayload`].
    pub payload: Vec<u8>,
    pub peer: Option<SocketAddrV4>,
}

impl PeerHolepunch {
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let flags = r.uint()?;
        Ok(Self {
            mode: Mode::decode(&mut r)?,
            id: r.uint()?,
            payload: r.buffer()?.to_vec(),
            peer: flagged(flags, 1, || net::ipv4(&mut r))?,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload.len() + 24);
        out.put_uint(bit(self.peer.is_some(), 1));
        out.put_uint(self.mode as u64);
        out.put_uint(self.id);
        out.put_buffer(&self.payload);
        put_address(&mut out, self.peer.as_ref());
        out
    }
}

/// Who announces, and where to reach it: 32 public key, array(ipv4 relay addresses).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    pub public_key: PublicKey,
    pub relay_addresses: Vec<SocketAddrV4>,
}

impl PeerRecord {
    /// Relay addresses of a record that anybody keeps.
    pub const MAX_RELAYS: usize = 3;

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::read(&mut Reader::new(bytes))
    }

    fn read(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { public_key: PublicKey(r.fixed()?), relay_addresses: addresses(r)? })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(33 + self.relay_addresses.len() * net::IPV4_LEN);
        self.put(&mut out);
        out
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put(&self.public_key.0);
        net::put_ipv4_list(out, &self.relay_addresses);
    }
}

/// Value of ANNOUNCE and UNANNOUNCE: uint flags (1 peer, 2 refresh, 4 signature, 8 bump), \[record\],
/// \[32\], \[64\], \[uint\].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Announce {
    pub peer: Option<PeerRecord>,
    pub refresh: Option<[u8; 32]>,
    pub signature: Option<[u8; 64]>,
    /// Milliseconds since 1970 of the last change the announcer tells of; 0 for none.
    pub bump: u64,
}

impl Announce {
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let flags = r.uint()?;
        Ok(Self {
            peer: flagged(flags, 1, || PeerRecord::read(&mut r))?,
            refresh: flagged(flags, 2, || r.fixed())?,
            signature: flagged(flags, 4, || r.fixed())?,
            bump: flagged(flags, 8, || r.uint())?.unwrap_or(0),
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(192);
        out.put_uint(
            bit(self.peer.is_some(), 1)
                | bit(self.refresh.is_some(), 2)
                | bit(self.signature.is_some(), 4)
                | bit(self.bump != 0, 8),
        );
        if let Some(peer) = &self.peer {
            peer.put(&mut out);
        }
        if let Some(refresh) = &self.refresh {
            out.put(refresh);
        }
        if let Some(signature) = &self.signature {
            out.put(signature);
        }
        if self.bump != 0 {
            out.put_uint(self.bump);
        }
        out
    }
}

/// Answer to LOOKUP: array(record), \[uint bump\].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupReply {
    pub peers: Vec<PeerRecord>,
    pub bump: u64,
}

impl LookupReply {
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let count = r.count(33)?;
        let mut peers = Vec::with_capacity(count.min(MAX_RECORDS));
        for _ in 0..count {
            let peer = PeerRecord::read(&mut r)?;
            if peers.len() < MAX_RECORDS {
                peers.push(peer);
            }
        }
        let bump = if r.is_empty() { 0 } else { r.uint()? };
        Ok(Self { peers, bump })
    }

    /// Encodes records that are encoded already.
    pub fn encode_raw(records: &[&[u8]], bump: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(records.iter().map(|r| r.len()).sum::<usize>() + 16);
        out.put_uint(records.len() as u64);
        records.iter().for_each(|record| out.put(record));
        out.put_uint(bump);
        out
    }
}

/// Value of MUTABLE_PUT: 32 key, uint seq, buffer value, 64 signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MutablePut {
    pub public_key: PublicKey,
    pub value: MutableValue,
}

impl MutablePut {
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        Ok(Self { public_key: PublicKey(r.fixed()?), value: MutableValue::read(&mut r)? })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.public_key.0.to_vec();
        self.value.put(&mut out);
        out
    }
}

/// Answer to MUTABLE_GET: uint seq, buffer value, 64 signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MutableValue {
    pub seq: u64,
    pub value: Vec<u8>,
    pub signature: [u8; 64],
}

impl MutableValue {
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::read(&mut Reader::new(bytes))
    }

    fn read(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { seq: r.uint()?, value: r.buffer()?.to_vec(), signature: r.fixed()? })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.value.len() + 80);
        self.put(&mut out);
        out
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_uint(self.seq);
        out.put_buffer(&self.value);
        out.put(&self.signature);
    }
}

/// A key with nodes to ask for it: 32 key, uint flags (1), \[array(ipv4)\].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressLink {
    pub public_key: PublicKey,
    pub nodes: Option<Vec<SocketAddrV4>>,
}

impl AddressLink {
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let public_key = PublicKey(r.fixed()?);
        let flags = if r.is_empty() { 0 } else { r.uint()? };
        Ok(Self { public_key, nodes: flagged(flags, 1, || addresses(&mut r))? })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.public_key.0.to_vec();
        out.put_uint(bit(self.nodes.is_some(), 1));
        if let Some(nodes) = &self.nodes {
            net::put_ipv4_list(&mut out, nodes);
        }
        out
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests;
