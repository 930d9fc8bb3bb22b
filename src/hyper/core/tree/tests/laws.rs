//! What holds for any tree and any reader: what is made is accepted, what is changed is refused or changes nothing.

use super::*;
use crate::hyper::flat_tree as flat;
use proptest::prelude::*;

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
    #![proptest_config(crate::sim::cases(400))]

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
    #![proptest_config(crate::sim::cases(300))]

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
