//! Proofs against the reference's vectors, and against themselves: what is made is accepted, what is changed
//! is not.

use super::testing::{
    MapSource, block, bytes, bytes32, key_pair, node, nodes, tree, vectors, verifier,
};
use super::*;
use crate::codec::Reader;
use crate::hyper::core::manifest::{Manifest, Prologue};
use crate::hyper::core::message::{
    BlockProof, HashProof, NodeRequest, Proof, Request, SeekProof, SeekRequest, UpgradeProof,
    UpgradeRequest,
};
use crate::hyper::core::verifier::Verifier;
use bytes::Bytes;
use proptest::prelude::*;
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

/// A request that an honest reader at some state could make, the state given by blocks it read before.
#[derive(Debug, Clone)]
struct Case {
    old: u64,
    new: u64,
    read: Vec<u64>,
    index: u64,
    hash: Option<u32>,
    seek: Option<u64>,
    upgrade_to: Option<u64>,
}

fn case() -> impl Strategy<Value = Case> {
    (0u64..70, 0u64..70, proptest::collection::vec(any::<u64>(), 0..5)).prop_flat_map(
        |(old, more, read)| {
            let new = (old + more).max(1);
            (
                Just((old, new, read)),
                any::<u64>(),
                proptest::option::of(0u32..4),
                proptest::option::of(any::<u64>()),
                proptest::option::of(any::<u64>()),
            )
                .prop_map(|((old, new, read), index, hash, seek, to)| Case {
                    old,
                    new,
                    read,
                    index,
                    hash,
                    seek,
                    upgrade_to: to.filter(|_| new > old).map(|to| old + 1 + to % (new - old)),
                })
        },
    )
}

impl Case {
    fn parties(&self) -> (Store, Store) {
        let server = Store::full(self.new);
        let mut client = Store::default();
        if self.old > 0 {
            let old = Store::full(self.old);
            client.upgrade_from(&old);
            for block in &self.read {
                let request = client.block_request(block % self.old);
                client.apply(&old.serve(&request).unwrap()).unwrap();
            }
        }
        (server, client)
    }

    fn request(&self, client: &Store) -> Option<Request> {
        let mut request = Request::default();
        let upgrade = |to| UpgradeRequest { start: self.old, length: to - self.old };
        request.upgrade = self.upgrade_to.map(upgrade);
        let reach = self.upgrade_to.unwrap_or(self.old);
        if reach == 0 {
            return None;
        }
        let index = self.index % reach;
        if index >= self.old && self.hash.is_none() && self.seek.is_none() {
            request.block = Some(NodeRequest { index, nodes: 0 });
        } else if let Some(levels) = self.hash {
            // A node of some depth within the old tree, or within the new one.
            let mut at = 2 * index;
            let length = if index < self.old { self.old } else { reach };
            for _ in 0..levels {
                let parent = flat::parent(at);
                // A node over both the old tree and the new part is nobody's to ask for.
                let straddles = index >= self.old && flat::left_span(parent) < 2 * self.old;
                if flat::end(parent) > length || straddles {
                    break;
                }
                at = flat::parent(at);
            }
            let mut nodes = 0;
            let mut top = at;
            while index < self.old && client.nodes.node(top).unwrap().is_none() {
                nodes += 1;
                top = flat::parent(top);
            }
            request.hash = Some(NodeRequest { index: at, nodes });
            if let Some(seek) = self.seek
                && index < self.old
            {
                // Somewhere under the node that the hash part climbs to.
                let full = Store::full(self.old);
                let start = byte_offset(&full.head, &full.nodes, top).unwrap().unwrap();
                let size = full.nodes.node(top).unwrap().unwrap().size;
                request.seek = Some(SeekRequest { bytes: start + seek % size, padding: 0 });
            }
        } else if let Some(seek) = self.seek
            && request.upgrade.is_some()
        {
            request.seek = Some(SeekRequest { bytes: seek % 1000, padding: 0 });
        } else {
            return Some(client.block_request(self.index % self.old.max(1)))
                .filter(|_| self.old > 0);
        }
        Some(request)
    }
}

/// Every list of nodes in a proof.
fn lists(proof: &mut Proof) -> Vec<&mut Vec<Node>> {
    let mut out = Vec::new();
    out.extend(proof.block.as_mut().map(|b| &mut b.nodes));
    out.extend(proof.hash.as_mut().map(|h| &mut h.nodes));
    out.extend(proof.seek.as_mut().map(|s| &mut s.nodes));
    if let Some(upgrade) = &mut proof.upgrade {
        out.push(&mut upgrade.nodes);
        out.push(&mut upgrade.additional);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_proof_made_is_a_proof_accepted(case in case()) {
        let (server, mut client) = case.parties();
        let Some(request) = case.request(&client) else { return Ok(()) };
        let proof = match server.serve(&request) {
            // The two are exclusive for what is new.
            Err(ProofError::Invalid(_)) if request.seek.is_some() && request.hash.is_some() => return Ok(()),
            other => other.unwrap(),
        };
        let verified = client.check(&proof).unwrap();
        prop_assert_eq!(verified.head.is_some(), request.upgrade.is_some());
        prop_assert_eq!(verified.block.map(|b| b.0), request.block.map(|b| b.index));
        client.commit(verified);
        prop_assert_eq!(client.head.length, if request.upgrade.is_some() { case.new } else { case.old });
        // Nothing is stored but the server's own nodes, and each can be proven on.
        for (&index, node) in &client.nodes.0 {
            prop_assert_eq!(server.nodes.0.get(&index), Some(node));
            if !client.head.roots.contains(node) {
                prop_assert!(client.nodes.0.contains_key(&flat::sibling(index)));
                prop_assert!(client.nodes.0.contains_key(&flat::parent(index)));
            }
        }
    }

    #[test]
    fn a_changed_proof_is_refused_or_changes_nothing(
        case in case(), list in any::<usize>(), at in any::<usize>(), bit in 0usize..300, what in 0..5,
    ) {
        let (server, client) = case.parties();
        let Some(request) = case.request(&client) else { return Ok(()) };
        let Ok(good) = server.serve(&request) else { return Ok(()) };
        let mut bad = good.clone();
        let mut all = lists(&mut bad);
        let count = all.len().max(1);
        match (what, all.get_mut(list % count)) {
            (0, _) => match &mut bad.block {
                Some(block) => {
                    let mut value = block.value.to_vec();
                    let at = at % value.len();
                    value[at] ^= 1 << (bit % 8);
                    block.value = value.into();
                }
                None => return Ok(()),
            },
            (1, _) => match &mut bad.upgrade {
                Some(upgrade) => {
                    let at = at % upgrade.signature.len();
                    upgrade.signature[at] ^= 1 << (bit % 8);
                }
                None => return Ok(()),
            },
            (2, Some(nodes)) if !nodes.is_empty() => {
                nodes.remove(at % nodes.len());
            }
            (_, Some(nodes)) if !nodes.is_empty() => {
                let at = at % nodes.len();
                let node = &mut nodes[at];
                match bit / 8 {
                    0..32 => node.hash[bit / 8] ^= 1 << (bit % 8),
                    32 => node.index ^= 1 << (bit % 8),
                    _ => node.size ^= 1 << (bit % 44),
                }
            }
            _ => return Ok(()),
        }
        if let Ok(verified) = client.check(&bad) {
            // Only bytes that nothing hangs on may differ: the patch field of a signature that allows none, and
            // the size of a lone node whose hash is known.
            let mut after = client.clone();
            after.commit(verified);
            for (index, node) in &after.nodes.0 {
                prop_assert_eq!(server.nodes.0.get(index), Some(node));
            }
            prop_assert!(after.head == client.head || after.head.roots == server.head.roots);
            prop_assert!(what != 0, "a changed block was accepted");
        }
    }

    #[test]
    fn requests_never_panic(
        length in 0u64..40, block in any::<Option<(u64, u64)>>(), hash in any::<Option<(u64, u64)>>(),
        seek in any::<Option<(u64, u64)>>(), upgrade in any::<Option<(u64, u64)>>(), small in any::<bool>(),
    ) {
        let cut = |(a, b): (u64, u64)| if small { (a % 50, b % 50) } else { (a, b) };
        let server = Store::full(length);
        let request = Request {
            block: block.map(cut).map(|(index, nodes)| NodeRequest { index, nodes }),
            hash: hash.map(cut).filter(|_| block.is_none()).map(|(index, nodes)| NodeRequest { index, nodes }),
            seek: seek.map(cut).map(|(bytes, padding)| SeekRequest { bytes, padding }),
            upgrade: upgrade.map(cut).map(|(start, length)| UpgradeRequest { start, length }),
            ..Request::default()
        };
        if let Ok(proof) = server.serve(&request) {
            let mut proof = proof;
            prop_assert!(lists(&mut proof).iter().all(|list| list.len() <= MAX_NODES));
        }
        let _ = seek_any(&server, &request);
    }

    #[test]
    fn proofs_of_noise_never_panic(
        length in 0u64..40,
        parts in proptest::collection::vec(proptest::collection::vec((any::<u64>(), any::<u64>(), any::<bool>()), 0..6), 5),
        numbers in any::<[u64; 6]>(), mask in 0u8..16, small in any::<bool>(),
    ) {
        let client = Store::full(length);
        let number = |i: usize| if small { numbers[i] % 60 } else { numbers[i] };
        let list = |i: usize| parts[i].iter().map(|&(index, size, tiny)| {
            let (index, size) = if tiny { (index % 80, size % 80) } else { (index, size) };
            Node { index, size, hash: [1; 32] }
        }).collect::<Vec<_>>();
        let part = |bit: u8| mask & bit != 0;
        let proof = Proof {
            fork: 0,
            block: part(1).then(|| BlockProof { index: number(0), value: Bytes::new(), nodes: list(0) }),
            hash: part(2).then(|| HashProof { index: number(1), nodes: list(1) }),
            seek: part(4).then(|| SeekProof { bytes: number(2), nodes: list(2) }),
            upgrade: part(8).then(|| UpgradeProof {
                start: number(3), length: number(4), nodes: list(3), additional: list(4), signature: vec![1; 68],
            }),
            manifest: None,
        };
        let _ = client.check(&proof);
        let fork = Proof { fork: 1, ..proof };
        let _ = verify_reorg(&client.head, &client.nodes, &fork, &verifier());
    }

    #[test]
    fn seeks_agree_with_offsets(length in 1u64..60, bytes in any::<u64>(), padding in 0u64..2) {
        let Store { head, nodes } = Store::full(length);
        // No block of the rule is empty, so that a padding of 1 leaves none below zero.
        let size = |i| block(i).len() as u64 - padding;
        let total: u64 = (0..length).map(size).sum();
        let bytes = bytes % (total + 2);
        let found = seek(&head, &nodes, bytes, padding).unwrap();
        if bytes > total {
            prop_assert_eq!(found, SeekResult::PastEnd);
        } else {
            let SeekResult::Found { block, offset } = found else { panic!("{found:?}") };
            prop_assert_eq!((0..block).map(size).sum::<u64>() + offset, bytes);
            prop_assert!(offset == 0 || offset < size(block));
        }
    }
}

/// What a reader does while one peer lies about sizes as far as hashes let it.
#[derive(Debug, Clone)]
enum Step {
    Block(u64),
    /// Asks for the hash of a node so many levels above a block; the sizes of its pair come shifted.
    Hash {
        block: u64,
        levels: u32,
        shift: u64,
    },
    /// The same two ways, asked before the answer that came first.
    Crossing {
        block: u64,
        other: u64,
        shift: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<u64>().prop_map(Step::Block),
        (any::<u64>(), 0u32..4, 1u64..9).prop_map(|(block, levels, shift)| Step::Hash {
            block,
            levels,
            shift
        }),
        (any::<u64>(), any::<u64>(), 1u64..9).prop_map(|(block, other, shift)| Step::Crossing {
            block,
            other,
            shift
        }),
    ]
}

impl Store {
    fn hash_request(&self, block: u64, levels: u32) -> Request {
        let mut index = 2 * block;
        for _ in 0..levels {
            if flat::end(flat::parent(index)) <= self.head.length {
                index = flat::parent(index);
            }
        }
        let (mut top, mut nodes) = (index, 0);
        while !self.nodes.0.contains_key(&top) {
            top = flat::parent(top);
            nodes += 1;
        }
        Request { hash: Some(NodeRequest { index, nodes }), ..Request::default() }
    }
}

/// Moves up to `by` bytes from the first node to the second.
fn shift(list: &mut [Node], by: u64) {
    if let [a, b, ..] = list {
        let by = by.min(a.size);
        a.size -= by;
        b.size += by;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_liar_about_sizes_moves_no_stored_block(
        length in 1u64..60, first in 1u64..60, by in 0u64..9, steps in proptest::collection::vec(step(), 0..30),
    ) {
        let server = Store::full(length);
        let mut client = Store::default();
        let upgrade = Some(UpgradeRequest { start: 0, length: first.min(length) });
        let proof = server.serve(&Request { upgrade, ..Request::default() }).unwrap();
        let mut lying = proof.clone();
        if let Some(UpgradeProof { nodes, additional, .. }) = &mut lying.upgrade
            && let ([.., a], [b, ..]) = (nodes.as_mut_slice(), additional.as_mut_slice())
        {
            let by = by.min(a.size);
            a.size -= by;
            b.size += by;
        }
        let proof = if client.check(&lying).is_ok() { lying } else { proof };
        client.apply(&proof).unwrap();

        let mut held = BTreeSet::new();
        let mut read = |client: &mut Store, request: &Request| {
            let proof = server.serve(request).unwrap();
            let verified = client.check(&proof).unwrap();
            let (block, size) = verified.block.unwrap();
            let offset = verified.block_offset(&client.head, &client.nodes).unwrap();
            client.commit(verified);
            assert_eq!(offset.map(|o| (o, size)), block_span(&server.head, &server.nodes, block).unwrap());
            held.insert(block);
            for &block in &held {
                let here = block_span(&client.head, &client.nodes, block).unwrap();
                assert_eq!(here, block_span(&server.head, &server.nodes, block).unwrap());
            }
        };
        let lie = |client: &mut Store, request: &Request, by| {
            let mut proof = server.serve(request).unwrap();
            shift(&mut proof.hash.as_mut().unwrap().nodes, by);
            client.apply(&proof).unwrap();
        };
        for step in steps {
            match step {
                Step::Block(block) => {
                    let request = client.block_request(block % length);
                    read(&mut client, &request);
                }
                Step::Hash { block, levels, shift } => {
                    let request = client.hash_request(block % length, levels);
                    lie(&mut client, &request, shift);
                }
                Step::Crossing { block, other, shift } => {
                    let block = client.block_request(block % length);
                    let hash = client.hash_request(other % length, 0);
                    if other % 2 == 0 {
                        lie(&mut client, &hash, shift);
                        read(&mut client, &block);
                    } else {
                        read(&mut client, &block);
                        lie(&mut client, &hash, shift);
                    }
                }
            }
        }
        for block in 0..length {
            let request = client.block_request(block);
            read(&mut client, &request);
        }
        prop_assert_eq!(&client.nodes, &server.nodes);
    }
}

fn seek_any(server: &Store, request: &Request) -> Option<SeekResult> {
    let asked = request.seek?;
    let _ = byte_offset(&server.head, &server.nodes, asked.bytes);
    let _ = block_span(&server.head, &server.nodes, asked.bytes);
    let _ = missing_nodes(&server.head, &server.nodes, asked.bytes);
    let _ = max_missing_nodes(asked.bytes, asked.padding);
    let _ = truncated_roots(&server.head, &server.nodes, asked.bytes);
    seek(&server.head, &server.nodes, asked.bytes, asked.padding).ok()
}
