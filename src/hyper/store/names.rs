//! Key derivation of a Corestore: one primary key, and every named core's key pair follows from it.
//!
//! Source: corestore/index.js (deriveSeed, createKeyPair, generateNamespace)

use crate::crypto::{Hash, KeyPair, hash, namespace};

/// A chain of names under which cores are derived; the root is 32 zero bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace(pub Hash);

impl Namespace {
    pub const ROOT: Self = Self([0; 32]);

    /// The namespace `name` inside this one.
    pub fn child(&self, name: &[u8]) -> Self {
        Self(hash::hash(&[&self.0, name]))
    }
}

/// The key pair of the core called `name` in `space`.
pub fn key_pair(primary: &[u8; 32], space: &Namespace, name: &str) -> KeyPair {
    let context = namespace("corestore", 0);
    let seed = hash::keyed(primary, &[&context, &space.0, name.as_bytes()]);
    KeyPair::from_seed(&seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::hex;

    #[test]
    fn namespaces_and_key_pairs_are_the_references() {
        let text = include_str!("../../../tests/vectors/drive.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let keys = &vectors["keys"];
        let primary = crate::key::parse_key(keys["primaryKey"].as_str().unwrap()).unwrap();
        let space = |path: &str| {
            path.split('/')
                .filter(|name| !name.is_empty())
                .fold(Namespace::ROOT, |space, name| space.child(name.as_bytes()))
        };
        for (path, want) in keys["namespaces"].as_object().unwrap() {
            assert_eq!(hex(&space(path).0), want.as_str().unwrap());
        }
        let pairs = keys["keyPairs"].as_array().unwrap();
        assert!(!pairs.is_empty());
        for pair in pairs {
            let text = |name: &str| pair[name].as_str().unwrap();
            let made = key_pair(&primary, &space(text("namespace")), text("name"));
            assert_eq!(hex(&made.public()), text("publicKey"));
            assert_eq!(hex(&made.seed()), text("secretSeed"));
        }
    }
}
