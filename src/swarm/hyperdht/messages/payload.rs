//! What stands in the Noise payloads of a handshake, and in the sealed ones of a holepunch.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::relay_offer::{RELAY_MARK, RelayOffer, relay_offer};
use super::{MAX_ADDRESSES, addresses, bit, flagged, put_address};
use crate::codec::{DecodeError, Put, Reader, Result, net};
use crate::key::PublicKey;
use std::net::{SocketAddrV4, SocketAddrV6};

/// Bit of the Noise payload's UDX features: the socket may be used for a later connection.
const FEATURE_REUSABLE: u64 = 1;
/// Our own bit: "I take datagrams up to the UDP limit". Others ignore it.
const FEATURE_BIG_DATAGRAMS: u64 = 0x10;

/// What a side knows of its own reachability. Zero is "unknown", not "open".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Firewall {
    Unknown,
    Open,
    /// A NAT that keeps one port for all destinations.
    Consistent,
    /// A NAT with a new port for each destination.
    Random,
}

impl Firewall {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(match r.uint()? {
            0 => Self::Unknown,
            1 => Self::Open,
            2 => Self::Consistent,
            3 => Self::Random,
            _ => return Err(DecodeError::Invalid("firewall")),
        })
    }
}

/// A relay of a server, and the server's address as that relay sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayInfo {
    pub relay: SocketAddrV4,
    pub peer: SocketAddrV4,
}

/// How to punch to a server: uint id, array(ipv4 relay, ipv4 peer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolepunchInfo {
    pub id: u64,
    pub relays: Vec<RelayInfo>,
}

impl HolepunchInfo {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let id = r.uint()?;
        let count = r.count(2 * net::IPV4_LEN)?;
        let mut relays = Vec::with_capacity(count.min(MAX_ADDRESSES));
        for _ in 0..count {
            let info = RelayInfo { relay: net::ipv4(r)?, peer: net::ipv4(r)? };
            if relays.len() < MAX_ADDRESSES {
                relays.push(info);
            }
        }
        Ok(Self { id, relays })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_uint(self.id);
        out.put_uint(self.relays.len() as u64);
        for info in &self.relays {
            net::put_ipv4(out, &info.relay);
            net::put_ipv4(out, &info.peer);
        }
    }
}

/// The UDX end of a side: uint version 1, uint features, uint stream id, uint seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdxInfo {
    pub reusable_socket: bool,
    /// Datagrams above the Ethernet size are welcome. Only we say this.
    pub big_datagrams: bool,
    pub id: u32,
    pub seq: u64,
}

impl UdxInfo {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let _version = r.uint()?;
        let features = r.uint()?;
        Ok(Self {
            reusable_socket: features & FEATURE_REUSABLE != 0,
            big_datagrams: features & FEATURE_BIG_DATAGRAMS != 0,
            id: u32::try_from(r.uint()?).map_err(|_| DecodeError::Invalid("stream id"))?,
            seq: r.uint()?,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_uint(1);
        out.put_uint(
            bit(self.reusable_socket, FEATURE_REUSABLE)
                | bit(self.big_datagrams, FEATURE_BIG_DATAGRAMS),
        );
        out.put_uint(self.id.into());
        out.put_uint(self.seq);
    }
}

/// A blind relay to go through: uint version 1, uint flags 0, 32 key, 32 token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayThrough {
    pub public_key: PublicKey,
    pub token: [u8; 32],
}

impl RelayThrough {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let (_version, _flags) = (r.uint()?, r.uint()?);
        Ok(Self { public_key: PublicKey(r.fixed()?), token: r.fixed()? })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_uint(1);
        out.put_uint(0);
        out.put(&self.public_key.0);
        out.put(&self.token);
    }
}

/// Payload of both Noise messages.
///
/// | part | flag | encoding |
/// |---|---|---|
/// | version | | uint 1; behind another version nothing is read |
/// | flags | | uint |
/// | error | | uint: 0 none, 1 aborted, 2 version mismatch, 3 try later |
/// | firewall | | uint, [`Firewall`] |
/// | holepunch | 1 | [`HolepunchInfo`] |
/// | addresses4, addresses6 | 2, 4 | arrays |
/// | udx | 8 | [`UdxInfo`] |
/// | secretStream | 16 | uint version 1 |
/// | relayThrough | 32 | [`RelayThrough`] |
/// | relayAddresses | 64 | array(ipv4) |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoisePayload {
    pub version: u64,
    pub error: u64,
    pub firewall: Firewall,
    pub holepunch: Option<HolepunchInfo>,
    pub addresses4: Vec<SocketAddrV4>,
    pub addresses6: Vec<SocketAddrV6>,
    pub udx: Option<UdxInfo>,
    pub secret_stream: bool,
    pub relay_through: Option<RelayThrough>,
    /// Where to find this server next time.
    pub relay_addresses: Option<Vec<SocketAddrV4>>,
    /// A relay that the sender is for others. Only we say this, behind everything else, where the reference does not read.
    pub relay: Option<RelayOffer>,
}

impl NoisePayload {
    /// The version we speak.
    pub const VERSION: u64 = 1;
    pub const ERROR_NONE: u64 = 0;
    pub const ERROR_ABORTED: u64 = 1;
    pub const ERROR_VERSION: u64 = 2;
    pub const ERROR_TRY_LATER: u64 = 3;

    /// A payload that says nothing.
    pub fn empty(version: u64) -> Self {
        Self {
            version,
            error: Self::ERROR_NONE,
            firewall: Firewall::Unknown,
            holepunch: None,
            addresses4: Vec::new(),
            addresses6: Vec::new(),
            udx: None,
            secret_stream: false,
            relay_through: None,
            relay_addresses: None,
            relay: None,
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let version = r.uint()?;
        if version != Self::VERSION {
            return Ok(Self::empty(version));
        }
        let flags = r.uint()?;
        Ok(Self {
            version,
            error: r.uint()?,
            firewall: Firewall::decode(&mut r)?,
            holepunch: flagged(flags, 1, || HolepunchInfo::decode(&mut r))?,
            addresses4: flagged(flags, 2, || addresses(&mut r))?.unwrap_or_default(),
            addresses6: flagged(flags, 4, || addresses6(&mut r))?.unwrap_or_default(),
            udx: flagged(flags, 8, || UdxInfo::decode(&mut r))?,
            secret_stream: flagged(flags, 16, || r.uint())?.is_some(),
            relay_through: flagged(flags, 32, || RelayThrough::decode(&mut r))?,
            relay_addresses: flagged(flags, 64, || addresses(&mut r))?,
            relay: relay_offer(r.rest()),
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.put_uint(Self::VERSION);
        out.put_uint(
            bit(self.holepunch.is_some(), 1)
                | bit(!self.addresses4.is_empty(), 2)
                | bit(!self.addresses6.is_empty(), 4)
                | bit(self.udx.is_some(), 8)
                | bit(self.secret_stream, 16)
                | bit(self.relay_through.is_some(), 32)
                | bit(self.relay_addresses.is_some(), 64),
        );
        out.put_uint(self.error);
        out.put_uint(self.firewall as u64);
        if let Some(holepunch) = &self.holepunch {
            holepunch.encode(&mut out);
        }
        if !self.addresses4.is_empty() {
            net::put_ipv4_list(&mut out, &self.addresses4);
        }
        if !self.addresses6.is_empty() {
            out.put_uint(self.addresses6.len() as u64);
            self.addresses6.iter().for_each(|a| net::put_ipv6(&mut out, a));
        }
        if let Some(udx) = &self.udx {
            udx.encode(&mut out);
        }
        if self.secret_stream {
            out.put_uint(1);
        }
        if let Some(relay) = &self.relay_through {
            relay.encode(&mut out);
        }
        if let Some(relays) = &self.relay_addresses {
            net::put_ipv4_list(&mut out, relays);
        }
        if let Some(relay) = &self.relay {
            out.put(RELAY_MARK);
            out.put(&relay.key.0);
            out.put(&relay.proof);
        }
        out
    }
}

fn addresses6(r: &mut Reader<'_>) -> Result<Vec<SocketAddrV6>> {
    let mut list = net::ipv6_list(r)?;
    list.truncate(MAX_ADDRESSES);
    Ok(list)
}

/// What the two sides tell each other while punching: uint flags (1 connected, 2 punching, 4 addresses,
/// 8 remote address, 16 token, 32 remote token), uint error, uint firewall, uint round, \[array(ipv4)\],
/// \[ipv4\], \[32\], \[32\].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolepunchPayload {
    pub error: u64,
    pub firewall: Firewall,
    pub round: u64,
    pub connected: bool,
    pub punching: bool,
    pub addresses: Option<Vec<SocketAddrV4>>,
    pub remote_address: Option<SocketAddrV4>,
    pub token: Option<[u8; 32]>,
    pub remote_token: Option<[u8; 32]>,
}

impl HolepunchPayload {
    /// With a verdict on our own NAT, and nothing else.
    pub fn said(firewall: Firewall) -> Self {
        Self {
            error: NoisePayload::ERROR_NONE,
            firewall,
            round: 0,
            connected: false,
            punching: false,
            addresses: None,
            remote_address: None,
            token: None,
            remote_token: None,
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let flags = r.uint()?;
        Ok(Self {
            error: r.uint()?,
            firewall: Firewall::decode(&mut r)?,
            round: r.uint()?,
            connected: flags & 1 != 0,
            punching: flags & 2 != 0,
            addresses: flagged(flags, 4, || addresses(&mut r))?,
            remote_address: flagged(flags, 8, || net::ipv4(&mut r))?,
            token: flagged(flags, 16, || r.fixed())?,
            remote_token: flagged(flags, 32, || r.fixed())?,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        out.put_uint(
            bit(self.connected, 1)
                | bit(self.punching, 2)
                | bit(self.addresses.is_some(), 4)
                | bit(self.remote_address.is_some(), 8)
                | bit(self.token.is_some(), 16)
                | bit(self.remote_token.is_some(), 32),
        );
        out.put_uint(self.error);
        out.put_uint(self.firewall as u64);
        out.put_uint(self.round);
        if let Some(addresses) = &self.addresses {
            net::put_ipv4_list(&mut out, addresses);
        }
        put_address(&mut out, self.remote_address.as_ref());
        for token in [&self.token, &self.remote_token].into_iter().flatten() {
            out.put(token);
        }
        out
    }
}
