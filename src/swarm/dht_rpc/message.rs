//! The two datagrams of dht-rpc: a request and its response.
//!
//! | Request (`0x03`) | Response (`0x13`) |
//! |---|---|
//! | uint flags: 1 id, 2 token, 4 internal, 8 target, 16 value | uint flags: 1 id, 2 token, 4 closer, 8 error, 16 value |
//! | u16 tid | u16 tid, copied |
//! | ipv4 `to`: where this datagram is sent | ipv4 `to`: the requester as the responder sees it |
//! | \[32 id\] \[32 token\] | \[32 id\] \[32 token\] |
//! | uint command | \[array(ipv4) closer nodes\] |
//! | \[32 target\] \[buffer value\] | \[uint error\] \[buffer value\] |
//!
//! The low nibble of the first byte is the version (3). An empty value reads as none.
//!
//! Source: dht-rpc/lib/io.js:Request.decode, decodeReply

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::K;
use crate::codec::{Put, Reader, Result, net};
use crate::key::NodeId;
use std::net::SocketAddrV4;

/// First byte of a request.
pub const REQUEST: u8 = 0x03;
/// First byte of a response.
pub const RESPONSE: u8 = 0x13;

/// Proof that a requester receives at the address it sends from.
pub type Token = [u8; 32];

/// Commands every node answers itself (flag 4).
pub mod internal {
    pub const PING: u64 = 0;
    pub const PING_NAT: u64 = 1;
    pub const FIND_NODE: u64 = 2;
    pub const DOWN_HINT: u64 = 3;
    pub const DELAYED_PING: u64 = 4;
}

/// Error codes of a response.
pub mod error {
    pub const NONE: u64 = 0;
    pub const UNKNOWN_COMMAND: u64 = 1;
    pub const INVALID_TOKEN: u64 = 2;
}

const ID: u64 = 1;
const TOKEN: u64 = 2;
const INTERNAL: u64 = 4;
const CLOSER: u64 = 4;
const TARGET: u64 = 8;
const ERROR: u64 = 8;
const VALUE: u64 = 16;

/// A question to one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub tid: u16,
    /// The address this datagram is sent to.
    pub to: SocketAddrV4,
    /// The sender's claim of its own id; see [`super::Incoming`] for the checked one.
    pub id: Option<NodeId>,
    pub token: Option<Token>,
    /// Whether `command` is one of [`internal`].
    pub internal: bool,
    pub command: u64,
    pub target: Option<NodeId>,
    pub value: Option<Vec<u8>>,
}

/// The answer to a [`Request`] of the same `tid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub tid: u16,
    /// The requester's address as the responder sees it.
    pub to: SocketAddrV4,
    pub id: Option<NodeId>,
    pub token: Option<Token>,
    /// Nodes near the target, at most [`K`].
    pub closer: Vec<SocketAddrV4>,
    pub error: u64,
    pub value: Option<Vec<u8>>,
}

/// Either datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Request(Request),
    Response(Response),
}

impl Message {
    /// Reads a datagram; bytes behind the last field are ignored.
    ///
    /// # Errors
    /// If it is neither kind, or shorter than its flags say.
    pub fn decode(data: &[u8]) -> Result<Self> {
        let mut r = Reader::new(data);
        match r.u8()? {
            REQUEST => Request::decode(&mut r).map(Self::Request),
            RESPONSE => Response::decode(&mut r).map(Self::Response),
            _ => Err(crate::codec::DecodeError::Invalid("dht-rpc version")),
        }
    }
}

fn flagged<T>(flags: u64, bit: u64, read: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    if flags & bit == 0 { Ok(None) } else { read().map(Some) }
}

fn value(r: &mut Reader<'_>) -> Result<Option<Vec<u8>>> {
    let bytes = r.buffer()?;
    Ok((!bytes.is_empty()).then(|| bytes.to_vec()))
}

fn bit(on: bool, flag: u64) -> u64 {
    if on { flag } else { 0 }
}

impl Request {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let flags = r.uint()?;
        Ok(Self {
            tid: r.u16()?,
            to: net::ipv4(r)?,
            id: flagged(flags, ID, || r.fixed().map(NodeId))?,
            token: flagged(flags, TOKEN, || r.fixed())?,
            internal: flags & INTERNAL != 0,
            command: r.uint()?,
            target: flagged(flags, TARGET, || r.fixed().map(NodeId))?,
            value: flagged(flags, VALUE, || value(r))?.flatten(),
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.value.as_ref().map_or(0, Vec::len));
        out.put_u8(REQUEST);
        out.put_uint(
            bit(self.id.is_some(), ID)
                | bit(self.token.is_some(), TOKEN)
                | bit(self.internal, INTERNAL)
                | bit(self.target.is_some(), TARGET)
                | bit(self.value.is_some(), VALUE),
        );
        out.put_u16(self.tid);
        net::put_ipv4(&mut out, &self.to);
        put_fixed(&mut out, self.id.as_ref().map(|id| &id.0));
        put_fixed(&mut out, self.token.as_ref());
        out.put_uint(self.command);
        put_fixed(&mut out, self.target.as_ref().map(|id| &id.0));
        if let Some(value) = &self.value {
            out.put_buffer(value);
        }
        out
    }
}

impl Response {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let flags = r.uint()?;
        Ok(Self {
            tid: r.u16()?,
            to: net::ipv4(r)?,
            id: flagged(flags, ID, || r.fixed().map(NodeId))?,
            token: flagged(flags, TOKEN, || r.fixed())?,
            closer: flagged(flags, CLOSER, || closer(r))?.unwrap_or_default(),
            error: flagged(flags, ERROR, || r.uint())?.unwrap_or(error::NONE),
            value: flagged(flags, VALUE, || value(r))?.flatten(),
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.value.as_ref().map_or(0, Vec::len));
        out.put_u8(RESPONSE);
        out.put_uint(
            bit(self.id.is_some(), ID)
                | bit(self.token.is_some(), TOKEN)
                | bit(!self.closer.is_empty(), CLOSER)
                | bit(self.error != error::NONE, ERROR)
                | bit(self.value.is_some(), VALUE),
        );
        out.put_u16(self.tid);
        net::put_ipv4(&mut out, &self.to);
        put_fixed(&mut out, self.id.as_ref().map(|id| &id.0));
        put_fixed(&mut out, self.token.as_ref());
        if !self.closer.is_empty() {
            net::put_ipv4_list(&mut out, &self.closer);
        }
        if self.error != error::NONE {
            out.put_uint(self.error);
        }
        if let Some(value) = &self.value {
            out.put_buffer(value);
        }
        out
    }
}

/// The first [`K`] addresses of a list; a node that follows the protocol sends no more.
fn closer(r: &mut Reader<'_>) -> Result<Vec<SocketAddrV4>> {
    let mut nodes = net::ipv4_list(r)?;
    nodes.truncate(K);
    Ok(nodes)
}

fn put_fixed(out: &mut Vec<u8>, bytes: Option<&[u8; 32]>) {
    if let Some(bytes) = bytes {
        out.put(bytes);
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::swarm::dht_rpc::testing::{addr, bytes, bytes32, vectors};
    use proptest::prelude::*;

    #[test]
    fn request_vectors_encode_and_decode() {
        for v in vectors()["dht_rpc"]["requests"].as_array().unwrap() {
            let request = Request {
                tid: v["tid"].as_u64().unwrap() as u16,
                to: addr(&v["to"]),
                id: bytes32(&v["id"]).map(NodeId),
                token: bytes32(&v["token"]),
                internal: v["internal"].as_bool().unwrap(),
                command: v["command"].as_u64().unwrap(),
                target: bytes32(&v["target"]).map(NodeId),
                value: v["value"].as_str().map(|_| bytes(&v["value"])),
            };
            let encoded = bytes(&v["encoded"]);
            assert_eq!(request.encode(), encoded, "{}", v["name"]);
            assert_eq!(Message::decode(&encoded), Ok(Message::Request(request)));
        }
    }

    #[test]
    fn reply_vectors_decode_and_encode_back() {
        for v in vectors()["dht_rpc"]["replies"].as_array().unwrap() {
            for reply in v["replies"].as_array().unwrap() {
                let encoded = bytes(&reply["buf"]);
                let Message::Response(response) = Message::decode(&encoded).unwrap() else {
                    panic!("{} is a response", v["name"]);
                };
                assert_eq!(response.to, addr(&reply["to"]));
                assert_eq!(response.encode(), encoded, "{}", v["name"]);
            }
        }
    }

    fn address() -> impl Strategy<Value = SocketAddrV4> {
        (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddrV4::new(ip.into(), port))
    }

    fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 1..300))
    }

    prop_compose! {
        fn request()(
            (tid, to, id, token) in (any::<u16>(), address(), any::<Option<[u8; 32]>>(), any::<Option<[u8; 32]>>()),
            (internal, command, target, value) in (any::<bool>(), 0..1u64 << 40, any::<Option<[u8; 32]>>(), value()),
        ) -> Request {
            Request { tid, to, id: id.map(NodeId), token, internal, command, target: target.map(NodeId), value }
        }
    }

    prop_compose! {
        fn response()(
            (tid, to, id, token) in (any::<u16>(), address(), any::<Option<[u8; 32]>>(), any::<Option<[u8; 32]>>()),
            (closer, error, value) in (proptest::collection::vec(address(), 0..=K), 0..300u64, value()),
        ) -> Response {
            Response { tid, to, id: id.map(NodeId), token, closer, error, value }
        }
    }

    proptest! {
        #[test]
        fn requests_round_trip(request in request()) {
            prop_assert_eq!(Message::decode(&request.encode()), Ok(Message::Request(request)));
        }

        #[test]
        fn responses_round_trip(response in response()) {
            prop_assert_eq!(Message::decode(&response.encode()), Ok(Message::Response(response)));
        }

        #[test]
        fn any_bytes_decode_or_err(mut data in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..3u8) {
            if let Some(first) = data.first_mut() && kind < 2 {
                *first = [REQUEST, RESPONSE][kind as usize];
            }
            let _ = Message::decode(&data);
        }

        #[test]
        fn cut_messages_are_refused(request in request(), cut in 0..100usize) {
            let encoded = request.encode();
            let cut = cut % encoded.len();
            prop_assert!(Message::decode(&encoded[..cut]).is_err());
        }
    }

    #[test]
    fn a_list_of_more_than_k_nodes_is_cut() {
        let mut r = Response {
            tid: 1,
            to: SocketAddrV4::new([1, 2, 3, 4].into(), 5),
            id: None,
            token: None,
            closer: vec![SocketAddrV4::new([1, 2, 3, 4].into(), 5); 50],
            error: 0,
            value: None,
        };
        let Ok(Message::Response(back)) = Message::decode(&r.encode()) else { panic!() };
        r.closer.truncate(K);
        assert_eq!(back, r);
    }
}
