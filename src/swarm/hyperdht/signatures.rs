//! What HyperDHT signs: announcements and mutable values.
//!
//! Signed are 64 bytes: a namespace and a hash of what is claimed. The hash of an announcement covers the
//! storing node's id and the token it gave, so it is good for that node and that moment only.
//!
//! Source: hyperdht/lib/persistent.js:annSignable, signMutable

use super::messages::{Announce, MutableValue, PeerRecord, command};
use crate::codec::Put;
use crate::crypto::{Hash, KeyPair, hash, sign};
use crate::key::{NodeId, PublicKey};
use crate::swarm::dht_rpc::Token;

/// The constant that separates the uses of HyperDHT's signatures and prologues, by command.
pub fn namespace(command: u64) -> Hash {
    hash::namespace("hyperswarm/dht", command as u8)
}

/// What an announcement is about besides its record.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Topic, or hash of the announcing key.
    pub target: &'a NodeId,
    /// The storing node.
    pub node: &'a NodeId,
    /// What that node gave us just before.
    pub token: &'a Token,
}

impl Place<'_> {
    fn signable(&self, command: u64, peer: &PeerRecord, refresh: Option<&[u8; 32]>) -> [u8; 64] {
        let refresh = refresh.map_or(&[][..], |r| r);
        let parts = [&self.target.0[..], &self.node.0, self.token, &peer.encode(), refresh];
        join(namespace(command), hash::hash(&parts))
    }

    /// An ANNOUNCE of `peer`, signed.
    pub fn announce(&self, peer: PeerRecord, key_pair: &KeyPair) -> Announce {
        self.signed(command::ANNOUNCE, peer, key_pair)
    }

    /// An UNANNOUNCE of whatever `key_pair` announced, signed.
    pub fn unannounce(&self, key_pair: &KeyPair) -> Announce {
        let public_key = PublicKey(key_pair.public());
        let peer = PeerRecord { public_key, relay_addresses: Vec::new() };
        self.signed(command::UNANNOUNCE, peer, key_pair)
    }

    fn signed(&self, command: u64, peer: PeerRecord, key_pair: &KeyPair) -> Announce {
        let signature = Some(key_pair.sign(&self.signable(command, &peer, None)));
        Announce { peer: Some(peer), signature, ..Announce::default() }
    }

    /// Whether the announcement (or, by `command`, its withdrawal) is signed by the peer it names.
    pub fn verify(&self, command: u64, announce: &Announce) -> bool {
        let (Some(peer), Some(signature)) = (&announce.peer, &announce.signature) else {
            return false;
        };
        let signable = self.signable(command, peer, announce.refresh.as_ref());
        sign::verify(&peer.public_key.0, &signable, signature)
    }
}

fn mutable_signable(seq: u64, value: &[u8]) -> [u8; 64] {
    let mut bytes = Vec::with_capacity(value.len() + 16);
    bytes.put_uint(seq);
    bytes.put_buffer(value);
    join(namespace(command::MUTABLE_PUT), hash::hash(&[&bytes]))
}

/// A mutable value, signed. We keep those of others and have none of our own.
#[cfg(test)]
pub fn sign_mutable(seq: u64, value: Vec<u8>, key_pair: &KeyPair) -> MutableValue {
    let signature = key_pair.sign(&mutable_signable(seq, &value));
    MutableValue { seq, value, signature }
}

pub fn verify_mutable(value: &MutableValue, key: &PublicKey) -> bool {
    sign::verify(&key.0, &mutable_signable(value.seq, &value.value), &value.signature)
}

fn join(a: Hash, b: Hash) -> [u8; 64] {
    let mut out = [0; 64];
    out[..32].copy_from_slice(&a);
    out[32..].copy_from_slice(&b);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::hex;
    use crate::swarm::dht_rpc::testing::{bytes, bytes32, vectors};
    use crate::swarm::hyperdht::messages::MutablePut;

    #[test]
    fn namespaces_match_the_vectors() {
        let all = vectors();
        let v = &all["namespaces"]["hyperswarm/dht"];
        for (name, command) in [
            ("ANNOUNCE", command::ANNOUNCE),
            ("UNANNOUNCE", command::UNANNOUNCE),
            ("MUTABLE_PUT", command::MUTABLE_PUT),
            ("PEER_HANDSHAKE", command::PEER_HANDSHAKE),
            ("PEER_HOLEPUNCH", command::PEER_HOLEPUNCH),
            ("PLUGIN", command::PLUGIN),
        ] {
            assert_eq!(Some(namespace(command)), bytes32(&v[name]), "{name}");
        }
    }

    #[test]
    fn signatures_match_the_vectors() {
        let all = vectors();
        let server = KeyPair::from_seed(&bytes32(&all["keys"]["server"]["seed"]).unwrap());
        for v in all["hyperdht_signatures"].as_array().unwrap() {
            let name = v["name"].as_str().unwrap();
            let wire = bytes(&v["wire"]);
            if name == "mutable put" {
                let value = sign_mutable(v["seq"].as_u64().unwrap(), bytes(&v["value"]), &server);
                let signable = mutable_signable(value.seq, &value.value);
                assert_eq!(hex(&signable), v["signable"].as_str().unwrap());
                let public_key = PublicKey(server.public());
                assert!(verify_mutable(&value, &public_key));
                assert_eq!(MutablePut { public_key, value }.encode(), wire);
                continue;
            }
            let command =
                if name.starts_with("un") { command::UNANNOUNCE } else { command::ANNOUNCE };
            let (target, node) = (bytes32(&v["target"]).unwrap(), bytes32(&v["nodeId"]).unwrap());
            let (target, node) = (NodeId(target), NodeId(node));
            let token = bytes32(&v["token"]).unwrap();
            let place = Place { target: &target, node: &node, token: &token };
            let announce = Announce::decode(&wire).unwrap();
            let peer = announce.peer.clone().unwrap();
            let signable = place.signable(command, &peer, announce.refresh.as_ref());
            assert_eq!(hex(&signable), v["signable"].as_str().unwrap(), "{name}");
            assert!(place.verify(command, &announce), "{name}");
            if announce.refresh.is_none() {
                let ours = place.signed(command, peer, &server);
                assert_eq!(ours.encode(), wire, "{name}");
            }
            let other = Place { node: &target, ..place };
            assert!(!other.verify(command, &announce), "good for one node only");
        }
    }
}
