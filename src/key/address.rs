//! A key with addresses where somebody may be found who has what it names, as hyperdht-address writes it.
//!
//! ```text
//! 32 key | [ uint flags (1: nodes follow) | [ uint count | count × (IPv4 4, port u16 little endian) ] ]
//! ```
//!
//! JavaScript takes the bytes. As text it is z-base-32, as keys are; such a text is taken only if it is written as it
//! would be written here, so that no name of a drive is mistaken for one. Whoever makes such a key may name any addresses:
//! they are hints, and nothing that comes from there is believed for it.
//!
//! Source: hyperdht-address/spec/hyperschema

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::{BARE, CoreKey, KeyError, parse_key, unz32, z32_of};
use crate::codec::{self, Put, Reader, net};
use std::fmt;
use std::net::SocketAddrV4;
use std::str::FromStr;

/// Addresses that are taken from one key, and written into one. More are left out.
pub const MAX_NODES: usize = 16;

const NODES: u64 = 1;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub key: CoreKey,
    pub nodes: Vec<SocketAddrV4>,
}

impl Address {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.key.0.to_vec();
        if !self.nodes.is_empty() {
            out.put_uint(NODES);
            let nodes = self.nodes.get(..MAX_NODES).unwrap_or(&self.nodes);
            net::put_ipv4_list(&mut out, nodes);
        }
        out
    }

    /// As the reference reads it: what follows, and flags that are not known, mean nothing.
    ///
    /// # Errors
    /// It is too short.
    pub fn decode(bytes: &[u8]) -> codec::Result<Self> {
        let mut r = Reader::new(bytes);
        let key = CoreKey(r.fixed()?);
        let flags = if r.is_empty() { 0 } else { r.uint()? };
        let mut nodes = if flags & NODES == 0 { Vec::new() } else { net::ipv4_list(&mut r)? };
        nodes.truncate(MAX_NODES);
        Ok(Self { key, nodes })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&z32_of(&self.encode()))
    }
}

impl FromStr for Address {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let plain = match parse_key(text) {
            Ok(key) => return Ok(Self { key: CoreKey(key), nodes: Vec::new() }),
            Err(error) => error,
        };
        let address = unz32(text).and_then(|bytes| {
            let address = Self::decode(&bytes).ok()?;
            (address.encode() == bytes).then_some(address)
        });
        address.ok_or_else(|| {
            let length = text.chars().count();
            let bare: String = text.chars().take(BARE).collect();
            // One of 64 may be hex with a wrong character.
            let hex = length == 64 && bare.chars().all(|c| c.is_ascii_hexdigit());
            match length > BARE && !hex && parse_key(&bare).is_ok() {
                true => KeyError::Hints(length),
                false => plain,
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::key::{hex, unhex};
    use proptest::prelude::*;
    use serde_json::Value;

    fn nodes(value: &Value) -> Vec<SocketAddrV4> {
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let node = |node: &Value| {
            let host = node["host"].as_str().unwrap().parse().unwrap();
            SocketAddrV4::new(host, node["port"].as_u64().unwrap() as u16)
        };
        list.iter().map(node).collect()
    }

    #[test]
    fn a_key_whose_hints_were_cut_is_told_from_a_text_that_is_no_key() {
        let key = CoreKey([7; 32]);
        for count in [1, 2] {
            let nodes = vec!["20.0.0.1:5".parse().unwrap(); count];
            let text = Address { key, nodes }.to_string();
            assert!(text.starts_with(&key.to_string()));
            for cut in
                [&text[..text.len() - 1], &text[..53], &format!("{text}y"), &format!("{key}L")]
            {
                let error = cut.parse::<Address>().unwrap_err();
                assert_eq!(error, KeyError::Hints(cut.chars().count()), "{cut}");
                assert!(error.to_string().contains("only those 52"), "{error}");
            }
        }
        assert!(matches!("a".repeat(51).parse::<Address>(), Err(KeyError::Length(51))));
        let hex_typo = format!("{}g", "a".repeat(63));
        assert!(matches!(hex_typo.parse::<Address>(), Err(KeyError::Character { .. })));
    }

    /// Each was written by the reference.
    #[test]
    fn addresses_are_read_and_written_as_by_the_reference() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/address.json");
        let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let good = vectors["addresses"].as_array().unwrap();
        let bad = vectors["addresses_bad"].as_array().unwrap();
        assert!(good.len() >= 5 && bad.len() >= 4);
        for case in good {
            let (name, encoded) = (&case["name"], case["encoded"].as_str().unwrap());
            let address = Address::decode(&unhex(encoded).unwrap()).unwrap();
            assert_eq!(hex(&address.key.0), case["key"].as_str().unwrap(), "{name}");
            assert_eq!(address.nodes, nodes(&case["nodes"]), "{name}");
            if !address.nodes.is_empty() {
                assert_eq!(hex(&address.encode()), encoded, "{name}");
                let text = case["z32"].as_str().unwrap();
                assert_eq!((address.to_string().as_str(), text.parse()), (text, Ok(address)));
            }
        }
        for case in bad {
            let read = Address::decode(&unhex(case["encoded"].as_str().unwrap()).unwrap());
            assert_eq!(read.is_err(), case["error"].is_string(), "{}", case["name"]);
            if let Ok(address) = read {
                assert_eq!(address.nodes, nodes(&case["nodes"]), "{}", case["name"]);
            }
        }
    }

    #[test]
    fn a_key_without_nodes_is_a_plain_key() {
        let plain = Address { key: CoreKey([7; 32]), nodes: Vec::new() };
        assert_eq!(plain.to_string(), CoreKey([7; 32]).to_string());
        assert_eq!(plain.to_string().parse(), Ok(plain.clone()));
        assert_eq!(hex(&[7; 32]).parse(), Ok(plain));
    }

    /// With one node it has as many characters as a key in hex.
    #[test]
    fn only_whole_addresses_are_read() {
        let node = SocketAddrV4::new([1, 2, 3, 4].into(), 5);
        let address = Address { key: CoreKey([0xab; 32]), nodes: vec![node] };
        let text = address.to_string();
        assert_eq!((text.len(), text.parse()), (64, Ok(address)));
        for len in 53..text.len() {
            assert!(text[..len].parse::<Address>().is_err(), "{len}");
        }
        assert!(format!("{text}y").parse::<Address>().is_err());
        let name = "many_drives_have_names_that_are_as_long_as_a_key_or_longer";
        for name in [name.to_string(), "y".repeat(60), "backup".repeat(12)] {
            assert!(name.parse::<Address>().is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(key in any::<[u8; 32]>(), nodes in prop::collection::vec(any::<(u32, u16)>(), 0..20)) {
            let nodes: Vec<_> = nodes.into_iter().map(|(ip, port)| SocketAddrV4::new(ip.into(), port)).collect();
            let address = Address { key: CoreKey(key), nodes: nodes[..nodes.len().min(MAX_NODES)].to_vec() };
            let whole = Address { nodes, ..address.clone() };
            prop_assert_eq!(whole.to_string().parse::<Address>(), Ok(address));
        }

        #[test]
        fn any_bytes_and_texts_are_read_or_refused(bytes: Vec<u8>, text in "[ybndrfg8ejkmcpqxot1uwisza345h769]{0,120}") {
            let _ = Address::decode(&bytes);
            let _ = text.parse::<Address>();
        }
    }
}
