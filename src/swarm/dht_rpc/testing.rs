//! Reading the vector files in tests.

use serde_json::Value;
use std::net::SocketAddrV4;

/// `tests/vectors/swarm.json`.
pub(crate) fn vectors() -> Value {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/swarm.json"));
    serde_json::from_str(text).unwrap()
}

pub(crate) fn bytes(v: &Value) -> Vec<u8> {
    crate::key::unhex(v.as_str().unwrap()).unwrap()
}

pub(crate) fn bytes32(v: &Value) -> Option<[u8; 32]> {
    v.as_str().map(|text| crate::key::unhex(text).unwrap().try_into().unwrap())
}

/// An address written `host:port`.
pub(crate) fn addr(v: &Value) -> SocketAddrV4 {
    v.as_str().unwrap().parse().unwrap()
}

/// An address written `{ host, port }`.
pub(crate) fn host_port(v: &Value) -> SocketAddrV4 {
    let host = v["host"].as_str().unwrap().parse().unwrap();
    SocketAddrV4::new(host, v["port"].as_u64().unwrap() as u16)
}
