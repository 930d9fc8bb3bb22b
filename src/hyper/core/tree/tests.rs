//! Proofs against the reference's vectors, and against themselves: what is made is accepted, what is changed
//! is not.

mod laws;

use super::testing::{
    MapSource, block, bytes, bytes32, key_pair, node, nodes, tree, vectors, verifier,
};
use super::*;
use crate::codec::Reader;
use crate::crypto::hash;
use crate::hyper::core::manifest::{Manifest, Prologue};
use crate::hyper::core::message::{
    BlockProof, HashProof, NodeRequest, Proof, Request, SeekProof, SeekRequest, UpgradeProof,
    UpgradeRequest,
};
use crate::hyper::core::verifier::Verifier;
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeSet;

/// A reader's store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Store {
    head: Head,
    nodes: MapSource,
}

impl Store {
    fn full(length: u64) -> Self {
        let (head, nodes) = tree(length);
        Self { head, nodes }
    }

    fn serve(&self, request: &Request) -> Result<Proof, ProofError> {
        let mut proof = make_proof(&self.head, &self.nodes, request)?;
        if let Some(b) = &mut proof.block {
            b.value = block(b.index).into();
        }
        Ok(proof)
    }

    fn check(&self, proof: &Proof) -> Result<Verified, VerifyError> {
        verify_proof(&self.head, &self.nodes, proof, None, &verifier())
    }

    fn commit(&mut self, verified: Verified) {
        self.nodes.store(&verified.nodes);
        self.head = verified.head.unwrap_or(self.head.clone());
    }

    fn apply(&mut self, proof: &Proof) -> Result<(), VerifyError> {
        let verified = self.check(proof)?;
        self.commit(verified);
        Ok(())
    }

    fn upgrade_from(&mut self, server: &Store) {
        let (start, length) = (self.head.length, server.head.length - self.head.length);
        let upgrade = Some(UpgradeRequest { start, length });
        self.apply(&server.serve(&Request { upgrade, ..Request::default() }).unwrap()).unwrap();
    }

    fn block_request(&self, index: u64) -> Request {
        let nodes = missing_nodes(&self.head, &self.nodes, index).unwrap();
        Request { block: Some(NodeRequest { index, nodes }), ..Request::default() }
    }
}

fn request(v: &Value) -> Request {
    let part = |v: &Value| {
        v.is_object().then(|| NodeRequest {
            index: v["index"].as_u64().unwrap(),
            nodes: v["nodes"].as_u64().unwrap(),
        })
    };
    Request {
        block: part(&v["block"]),
        hash: part(&v["hash"]),
        seek: v["seek"].is_object().then(|| SeekRequest {
            bytes: v["seek"]["bytes"].as_u64().unwrap(),
            padding: v["seek"]["padding"].as_u64().unwrap_or(0),
        }),
        upgrade: v["upgrade"].is_object().then(|| UpgradeRequest {
            start: v["upgrade"]["start"].as_u64().unwrap(),
            length: v["upgrade"]["length"].as_u64().unwrap(),
        }),
        ..Request::default()
    }
}

/// Decodes a data message, as `replication/wire.rs` does.
fn data(hex: &Value) -> Proof {
    let bytes = bytes(hex);
    let r = &mut Reader::new(&bytes);
    let flags = r.uint().unwrap();
    let _id = r.uint().unwrap();
    let list = |r: &mut Reader| -> Vec<Node> {
        let count = r.count(Node::MIN_ENCODED).unwrap();
        (0..count).map(|_| Node::decode(r).unwrap()).collect()
    };
    let mut proof = Proof { fork: r.uint().unwrap(), ..Proof::default() };
    if flags & 1 != 0 {
        let index = r.uint().unwrap();
        let value = Bytes::copy_from_slice(r.buffer().unwrap());
        proof.block = Some(BlockProof { index, value, nodes: list(r) });
    }
    if flags & 2 != 0 {
        proof.hash = Some(HashProof { index: r.uint().unwrap(), nodes: list(r) });
    }
    if flags & 4 != 0 {
        proof.seek = Some(SeekProof { bytes: r.uint().unwrap(), nodes: list(r) });
    }
    if flags & 8 != 0 {
        let (start, length) = (r.uint().unwrap(), r.uint().unwrap());
        let (nodes, additional) = (list(r), list(r));
        let signature = r.buffer().unwrap().to_vec();
        proof.upgrade = Some(UpgradeProof { start, length, nodes, additional, signature });
    }
    if flags & 16 != 0 {
        proof.manifest = Some(Manifest::decode(r).unwrap());
    }
    assert!(r.is_empty());
    proof
}

/// First occurrences, without what `stored` has.
fn fresh(indexes: impl Iterator<Item = u64>, stored: &MapSource) -> Vec<u64> {
    let mut seen: BTreeSet<u64> = stored.0.keys().copied().collect();
    indexes.filter(|&i| seen.insert(i)).collect()
}

#[test]
fn vectors_of_proofs() {
    for v in vectors()["proofs"].as_array().unwrap() {
        let name = v["name"].as_str().unwrap();
        let server = Store::full(v["server_length"].as_u64().unwrap());
        let mut client = Store::default();
        for step in v["client_setup"].as_array().unwrap() {
            let from = Store::full(step["from_server_length"].as_u64().unwrap());
            client.apply(&from.serve(&request(&step["request"])).unwrap()).unwrap();
        }
        let before = &v["client_before"];
        assert_eq!(client.head.length, before["length"], "{name}");
        let stored: Vec<u64> = client.nodes.0.keys().copied().collect();
        assert_eq!(serde_json::to_value(&stored).unwrap(), before["nodes"], "{name}");

        let proof = server.serve(&request(&v["request"])).unwrap();
        let mut want = data(&v["data_hex"]);
        want.manifest = None;
        assert_eq!(proof, want, "{name}");

        let verified = client.check(&proof).unwrap();
        let order = v["batch_nodes_in_order"].as_array().unwrap();
        assert_eq!(
            fresh(verified.nodes.iter().map(|n| n.index), &client.nodes),
            fresh(order.iter().map(|i| i.as_u64().unwrap()), &client.nodes),
            "{name}"
        );
        client.commit(verified);
        let after = &v["client_after"];
        assert_eq!(client.head.length, after["length"], "{name}");
        assert_eq!(client.head.byte_length(), after["byteLength"], "{name}");
        assert_eq!(client.head.roots, nodes(&after["roots"]), "{name}");
        assert_eq!(client.head.tree_hash(), bytes32(&after["treeHash"]), "{name}");
        let stored: Vec<u64> = client.nodes.0.keys().copied().collect();
        assert_eq!(serde_json::to_value(&stored).unwrap(), after["nodes"], "{name}");
    }
}

#[test]
fn vectors_of_request_rejections() {
    for v in vectors()["proof_request_rejections"].as_array().unwrap() {
        let server = Store::full(v["server_length"].as_u64().unwrap());
        let result = server.serve(&request(&v["request"]));
        match v["error"].as_str() {
            Some(_) => assert!(matches!(result, Err(ProofError::Invalid(_))), "{}", v["name"]),
            None => assert_eq!(result.unwrap().block.unwrap().nodes, [], "{}", v["name"]),
        }
    }
}

#[test]
fn vectors_of_verify_failures() {
    for v in vectors()["proof_verify_failures"].as_array().unwrap() {
        let mut client = Store::default();
        if v["client_length"] != 0 {
            client.upgrade_from(&Store::full(v["client_length"].as_u64().unwrap()));
        }
        let error = client.check(&data(&v["data_hex"])).unwrap_err();
        let name = &v["name"];
        match (v["tree_error"].as_str(), &error) {
            (Some("INVALID_CHECKSUM"), VerifyError::Checksum(_)) => {}
            (Some("INVALID_OPERATION"), VerifyError::Invalid(_)) => {}
            (None, VerifyError::Signature) if v["signature_valid"] == false => {}
            (None, VerifyError::Fork(1)) => assert!(name.as_str().unwrap().contains("fork")),
            _ => panic!("{name}: {error}"),
        }
    }
}

#[test]
fn vectors_of_offsets_and_seeks() {
    let Store { head, nodes } = Store::full(20);
    let mut cursor = SpanCursor::default();
    let mut spans = Vec::new();
    for (i, v) in vectors()["byte_offsets_of_length_20"].as_array().unwrap().iter().enumerate() {
        // The vectors have no offset where the reference gave none (under the second root).
        let end = spans.last().copied().flatten().map_or(0, |(offset, size)| offset + size);
        let want = Some((v[0].as_u64().unwrap_or(end), v[1].as_u64().unwrap()));
        assert_eq!(block_span(&head, &nodes, i as u64).unwrap(), want);
        assert_eq!(cursor.span(&head, &nodes, i as u64).unwrap(), want);
        spans.push(want);
    }
    for i in [3, 4, 19, 0, 20, 7, 8] {
        assert_eq!(
            cursor.span(&head, &nodes, i).unwrap(),
            spans.get(i as usize).copied().flatten()
        );
    }
    assert_eq!(byte_offset(&head, &nodes, 40).unwrap(), Some(head.byte_length()));
    assert_eq!(byte_offset(&head, &nodes, 42).unwrap(), None);
    assert_eq!(byte_offset(&head, &nodes, 35).unwrap(), Some(189));
    for v in vectors()["seeks_of_length_20"].as_array().unwrap() {
        let want = SeekResult::Found {
            block: v["result"][0].as_u64().unwrap(),
            offset: v["result"][1].as_u64().unwrap(),
        };
        assert_eq!(seek(&head, &nodes, v["bytes"].as_u64().unwrap(), 0).unwrap(), want);
    }
    assert_eq!(seek(&head, &nodes, 247, 0).unwrap(), SeekResult::PastEnd);
}

#[test]
fn vectors_of_missing_nodes() {
    for v in vectors()["missing_nodes"]["max"].as_array().unwrap() {
        let number = |name: &str| v[name].as_u64().unwrap();
        let (block, length) = (number("block"), number("length"));
        assert_eq!(max_missing_nodes(block, length), v["nodes"]);
        let mut client = Store::default();
        if length > 0 {
            client.upgrade_from(&Store::full(length));
        }
        assert_eq!(missing_nodes(&client.head, &client.nodes, block).unwrap(), v["nodes"]);
    }
}

#[test]
fn a_sparse_reader_does_not_know_offsets_until_it_has_the_path() {
    let server = Store::full(20);
    let mut client = Store::default();
    client.upgrade_from(&server);
    assert_eq!(block_span(&client.head, &client.nodes, 7).unwrap(), None);
    let need = SeekResult::Need { node: 15, start: 0, end: 16 };
    assert_eq!(seek(&client.head, &client.nodes, 100, 0).unwrap(), need);
    let proof = server.serve(&client.block_request(7)).unwrap();
    let verified = client.check(&proof).unwrap();
    assert_eq!(verified.block, Some((7, 4)));
    let offset = verified.block_offset(&client.head, &client.nodes).unwrap();
    client.commit(verified);
    let span = block_span(&client.head, &client.nodes, 7).unwrap();
    assert_eq!(span, block_span(&server.head, &server.nodes, 7).unwrap());
    assert_eq!(span.map(|s| s.0), offset);
    assert_eq!(missing_nodes(&client.head, &client.nodes, 6).unwrap(), 0);
}

#[test]
fn a_sparse_server_says_what_it_lacks() {
    let mut server = Store::default();
    server.upgrade_from(&Store::full(20));
    let block = Some(NodeRequest { index: 3, nodes: 4 });
    let error = server.serve(&Request { block, ..Request::default() }).unwrap_err();
    assert!(matches!(error, ProofError::Missing(4)), "{error}");
    let hash = Some(NodeRequest { index: 200, nodes: 0 });
    let error = server.serve(&Request { hash, ..Request::default() }).unwrap_err();
    assert!(matches!(error, ProofError::Missing(200)), "{error}");
}

/// The server's truncation to 13 and two further blocks, as in the vectors.
fn forked() -> Store {
    let v = &vectors()["fork"];
    let Store { head, nodes: mut source } = Store::full(20);
    let roots = truncated_roots(&head, &source, 13).unwrap().unwrap();
    let mut head = Head { fork: 1, length: 13, roots, signature: Vec::new() };
    assert_eq!(head.roots, nodes(&v["truncated"]["roots"]));
    let signature = verifier().sign(&head, &key_pair(0)).unwrap();
    assert_eq!(signature, bytes(&v["truncated"]["signature"]));
    head.signature = signature;
    let mut batch = Batch::new(&head);
    for block in [b"fork-a", b"fork-b"] {
        batch.push(6, hash::leaf(block));
    }
    let (mut head, new) = batch.finish();
    head.signature = verifier().sign(&head, &key_pair(0)).unwrap();
    source.store(&new);
    Store { head, nodes: source }
}

#[test]
fn vectors_of_a_fork() {
    let v = &vectors()["fork"];
    let server = forked();
    assert_eq!(server.head.tree_hash(), bytes32(&v["after"]["treeHash"]));
    assert_eq!(server.head.signature, bytes(&v["after"]["signature"]));
    let upgrade = Some(UpgradeRequest { start: 0, length: 15 });
    let proof = server.serve(&Request { upgrade, ..Request::default() }).unwrap();
    assert_eq!(proof, data(&v["fork_proof_data_hex"]));

    let local = Store::full(20);
    assert!(matches!(local.check(&proof), Err(VerifyError::Fork(1))));
    let reorg = verify_reorg(&local.head, &local.nodes, &proof, &verifier()).unwrap();
    assert_eq!((reorg.ancestors, &reorg.head), (12, &server.head));
    assert_eq!(reorg.nodes.iter().map(|n| n.index).collect::<Vec<_>>(), [25, 28]);

    // A reader who has only the roots shares none of them.
    let mut sparse = Store::default();
    sparse.upgrade_from(&local);
    let reorg = verify_reorg(&sparse.head, &sparse.nodes, &proof, &verifier()).unwrap();
    assert_eq!((reorg.ancestors, reorg.nodes.len()), (0, 4));

    let empty = Store::default();
    let reorg = verify_reorg(&empty.head, &empty.nodes, &proof, &verifier()).unwrap();
    assert_eq!(reorg.ancestors, 0);

    let behind = verify_reorg(&server.head, &server.nodes, &proof, &verifier());
    assert!(matches!(behind, Err(VerifyError::Fork(1))));
    let mut wrong = proof.clone();
    wrong.fork = 2;
    let wrong = verify_reorg(&local.head, &local.nodes, &wrong, &verifier());
    assert!(matches!(wrong, Err(VerifyError::Signature)));
}

#[test]
fn a_fork_proof_with_additional_nodes_shares_what_its_nodes_show() {
    let mut server = forked();
    let mut batch = Batch::new(&server.head);
    for i in 15..40 {
        batch.push(block(i).len() as u64, hash::leaf(&block(i)));
    }
    let (mut head, new) = batch.finish();
    head.signature = verifier().sign(&head, &key_pair(0)).unwrap();
    server.head = head;
    server.nodes.store(&new);
    let local = Store::full(20);
    let upgrade = Some(UpgradeRequest { start: 0, length: 13 });
    let proof = server.serve(&Request { upgrade, ..Request::default() }).unwrap();
    let reorg = verify_reorg(&local.head, &local.nodes, &proof, &verifier()).unwrap();
    // The new roots are 31 and 71; ours begins to differ at block 13.
    assert_eq!((reorg.ancestors, &reorg.head), (13, &server.head));
}

#[test]
fn sizes_shifted_between_siblings_are_put_right_by_the_first_block() {
    let server = Store::full(20);
    let mut client = Store::default();
    client.upgrade_from(&server);
    let hash = Some(NodeRequest { index: 12, nodes: 4 });
    let mut proof = server.serve(&Request { hash, ..Request::default() }).unwrap();
    // Nodes 12 and 14: only the sum of their sizes is in the hash of 13.
    let lie = &mut proof.hash.as_mut().unwrap().nodes;
    lie[0].size -= 3;
    lie[1].size += 3;
    client.apply(&proof).unwrap();
    assert_ne!(client.nodes, server.nodes);

    let proof = server.serve(&client.block_request(6)).unwrap();
    assert_eq!(proof.block.as_ref().unwrap().nodes, []);
    let verified = client.check(&proof).unwrap();
    let offset = verified.block_offset(&client.head, &client.nodes).unwrap();
    client.commit(verified);
    for (index, node) in &client.nodes.0 {
        assert_eq!(server.nodes.0.get(index), Some(node));
    }
    let span = block_span(&server.head, &server.nodes, 6).unwrap();
    assert_eq!(offset, span.map(|s| s.0));
    assert_eq!(block_span(&client.head, &client.nodes, 6).unwrap(), span);
}

#[test]
fn shifted_sizes_do_not_replace_stored_ones() {
    let server = Store::full(20);
    let mut client = Store::default();
    client.upgrade_from(&server);
    let hash = Some(NodeRequest { index: 12, nodes: 4 });
    let mut proof = server.serve(&Request { hash, ..Request::default() }).unwrap();
    client.apply(&server.serve(&client.block_request(6)).unwrap()).unwrap();
    let before = client.clone();
    let lie = &mut proof.hash.as_mut().unwrap().nodes;
    lie[0].size -= 3;
    lie[1].size += 3;
    client.apply(&proof).unwrap();
    assert_eq!(client, before);
}

#[test]
fn hostile_lists_are_refused() {
    let server = Store::full(20);
    let many = vec![node(&vectors()["tree_nodes_of_length_20"][0]); MAX_NODES + 1];
    let request = Request {
        block: Some(NodeRequest { index: 5, nodes: 0 }),
        upgrade: Some(UpgradeRequest { start: 0, length: 8 }),
        ..Request::default()
    };
    let good = server.serve(&request).unwrap();
    let client = Store::default();
    client.check(&good).unwrap();
    let change: [fn(&mut Proof) -> &mut Vec<Node>; 3] = [
        |p| &mut p.block.as_mut().unwrap().nodes,
        |p| &mut p.upgrade.as_mut().unwrap().nodes,
        |p| &mut p.upgrade.as_mut().unwrap().additional,
    ];
    for list in change {
        let mut proof = good.clone();
        list(&mut proof).extend_from_slice(&many);
        assert!(matches!(client.check(&proof), Err(VerifyError::Invalid(_))));
    }
    for (start, length) in [(u64::MAX, u64::MAX), (0, 1 << 53), (0, 0), (8, 1)] {
        let mut proof = good.clone();
        let upgrade = proof.upgrade.as_mut().unwrap();
        (upgrade.start, upgrade.length) = (start, length);
        assert!(client.check(&proof).is_err());
    }
}

#[test]
fn an_upgrade_that_adds_nothing_leaves_the_head() {
    let server = Store::full(20);
    let mut proof = server
        .serve(&Request {
            upgrade: Some(UpgradeRequest { start: 7, length: 13 }),
            ..Request::default()
        })
        .unwrap();
    proof.upgrade.as_mut().unwrap().nodes.clear();
    assert_eq!(server.check(&proof).unwrap(), Verified::default());
}

#[test]
fn a_core_with_a_prologue_is_read_from_its_start() {
    let mut manifest = Manifest::single(key_pair(0).public());
    let hash = Store::full(8).head.tree_hash();
    manifest.prologue = Some(Prologue { hash, length: 8 });
    let check = |manifest: &Manifest, request: &Request, length| {
        let verifier = Verifier::new(&manifest.key(), manifest).unwrap();
        let mut server = Store::full(length);
        server.head.signature = match length > 8 {
            true => verifier.sign(&server.head, &key_pair(0)).unwrap(),
            false => Vec::new(),
        };
        let proof = server.serve(request).unwrap();
        let empty = Store::default();
        verify_proof(&empty.head, &empty.nodes, &proof, None, &verifier).map(|v| v.head.unwrap())
    };
    let upgrade = |start, length| {
        let upgrade = Some(UpgradeRequest { start, length });
        Request { upgrade, ..Request::default() }
    };
    assert_eq!(check(&manifest, &upgrade(0, 8), 8).unwrap().length, 8);
    assert_eq!(check(&manifest, &upgrade(0, 8), 13).unwrap().length, 13);
    assert!(check(&manifest, &upgrade(0, 5), 13).is_err());
    let mut other = manifest.clone();
    other.prologue = Some(Prologue { hash: [1; 32], length: 8 });
    assert!(check(&other, &upgrade(0, 8), 8).is_err());
    assert!(check(&other, &upgrade(0, 8), 13).is_err());
}
