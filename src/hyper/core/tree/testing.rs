//! What tests of the tree and its neighbours share: the vectors, trees made of their blocks, nodes in a map.

use super::{Batch, Head, Node, NodeSource};
use crate::crypto::{KeyPair, hash};
use crate::hyper::core::manifest::{Manifest, Prologue, Signer};
use crate::hyper::core::verifier::Verifier;
use crate::key::unhex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// `tests/vectors/hypercore.json`
pub(crate) fn vectors() -> &'static Value {
    static VECTORS: OnceLock<Value> = OnceLock::new();
    VECTORS.get_or_init(|| {
        let text =
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/hypercore.json"));
        serde_json::from_str(text).unwrap()
    })
}

/// `tests/vectors/drive.json`
pub(crate) fn drive_vectors() -> &'static Value {
    static VECTORS: OnceLock<Value> = OnceLock::new();
    VECTORS.get_or_init(|| {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/drive.json"));
        serde_json::from_str(text).unwrap()
    })
}

pub(crate) fn bytes(hex: &Value) -> Vec<u8> {
    unhex(hex.as_str().unwrap()).unwrap()
}

pub(crate) fn bytes32(hex: &Value) -> [u8; 32] {
    bytes(hex).try_into().unwrap()
}

pub(crate) fn node(v: &Value) -> Node {
    let number = |name: &str| v[name].as_u64().unwrap();
    Node { index: number("index"), size: number("size"), hash: bytes32(&v["hash"]) }
}

pub(crate) fn nodes(v: &Value) -> Vec<Node> {
    v.as_array().unwrap().iter().map(node).collect()
}

pub(crate) fn manifest(v: &Value) -> Manifest {
    let signer = |s: &Value| Signer {
        namespace: bytes32(&s["namespace"]),
        public_key: bytes32(&s["publicKey"]),
    };
    let prologue =
        |p: &Value| Prologue { hash: bytes32(&p["hash"]), length: p["length"].as_u64().unwrap() };
    Manifest {
        version: v["version"].as_u64().unwrap(),
        allow_patch: v["allowPatch"].as_bool().unwrap(),
        quorum: v["quorum"].as_u64().unwrap(),
        signers: v["signers"].as_array().unwrap().iter().map(signer).collect(),
        prologue: v["prologue"].is_object().then(|| prologue(&v["prologue"])),
        linked: v["linked"].as_array().map_or(Vec::new(), |l| l.iter().map(bytes32).collect()),
        user_data: v["userData"].is_string().then(|| bytes(&v["userData"])),
    }
}

/// Key pair `i` of the vectors: seed 01.., 02.., …
pub(crate) fn key_pair(i: u8) -> KeyPair {
    KeyPair::from_seed(&[i + 1; 32])
}

/// The verifier of a v1 core signed by key pair 0.
pub(crate) fn verifier() -> Verifier {
    let manifest = Manifest::single(key_pair(0).public());
    Verifier::new(&manifest.key(), &manifest).unwrap()
}

/// Block `i` by the rule of the vectors.
pub(crate) fn block(i: u64) -> Vec<u8> {
    (0..(i * 7) % 23 + 1).map(|j| ((i * 31 + j) % 256) as u8).collect()
}

/// The tree of the first `length` blocks by that rule, signed by key pair 0.
pub(crate) fn tree(length: u64) -> (Head, MapSource) {
    let mut batch = Batch::new(&Head::default());
    for i in 0..length {
        let block = block(i);
        batch.push(block.len() as u64, hash::leaf(&block));
    }
    let (mut head, nodes) = batch.finish();
    if length > 0 {
        head.signature = verifier().sign(&head, &key_pair(0)).unwrap();
    }
    (head, MapSource::from(nodes))
}

/// The unsigned head of that tree.
pub(crate) fn head(length: u64) -> Head {
    Head { signature: Vec::new(), ..tree(length).0 }
}

/// Nodes in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MapSource(pub BTreeMap<u64, Node>);

impl MapSource {
    pub(crate) fn store(&mut self, nodes: &[Node]) {
        self.0.extend(nodes.iter().map(|node| (node.index, *node)));
    }
}

impl From<Vec<Node>> for MapSource {
    fn from(nodes: Vec<Node>) -> Self {
        let mut source = Self::default();
        source.store(&nodes);
        source
    }
}

impl NodeSource for MapSource {
    fn node(&self, index: u64) -> std::io::Result<Option<Node>> {
        Ok(self.0.get(&index).copied())
    }
}
