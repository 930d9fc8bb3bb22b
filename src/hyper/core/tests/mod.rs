//! The core against the reference's vectors and against itself; [`model`] and [`crash`] draw sequences.

mod crash;
mod following;
mod freeing;
mod full;
mod model;
mod replaced;
mod soundness;
mod speed;
mod staging;

use super::message::{NodeRequest, SeekRequest, UpgradeRequest};
use super::storage::{Table, Writes, memory};
use super::tree::testing::{block, bytes, bytes32, key_pair, nodes, vectors};
use super::*;

/// A folder beside the program of these tests: on the disk, where /tmp may be in memory.
fn on_disk() -> tempfile::TempDir {
    let program = std::env::current_exe().unwrap();
    tempfile::tempdir_in(program.parent().unwrap()).unwrap()
}

fn blocks(range: Range<u64>) -> Vec<Bytes> {
    range.map(|i| block(i).into()).collect()
}

fn writer(storage: &Arc<dyn Storage>) -> Core {
    Core::create(storage, CreateOptions::writer(key_pair(0))).unwrap()
}

fn reader(storage: &Arc<dyn Storage>, of: &Core) -> Core {
    Core::create(storage, CreateOptions::reader(*of.key())).unwrap()
}

/// Whether the stored block hashes to its leaf; `None` if it is not here.
fn is_sound(core: &Core, block: u64) -> Option<bool> {
    let bytes = core.stored_block(block).unwrap()?;
    let leaf = tree::NodeSource::node(&core.view(), 2 * block).unwrap();
    Some(leaf.is_some_and(|leaf| leaf.hash == crate::crypto::hash::leaf(&bytes)))
}

fn proof(from: &Core, request: Request) -> Proof {
    match from.create_proof(&request).unwrap() {
        Provable::Proof(proof) => proof,
        other => panic!("{other:?} to {request:?}"),
    }
}

fn upgrade(to: &mut Core, from: &Core) -> Applied {
    let (start, length) = (to.length(), from.length() - to.length());
    let upgrade = Some(UpgradeRequest { start, length });
    to.apply_proof(&proof(from, Request { upgrade, manifest: true, ..Request::default() }), None)
        .unwrap()
}

fn fetch(to: &mut Core, from: &Core, index: u64) -> Applied {
    let nodes = to.missing_nodes(index).unwrap();
    let block = Some(NodeRequest { index, nodes });
    to.apply_proof(&proof(from, Request { block, ..Request::default() }), None).unwrap()
}

/// Follows a fork in one go.
fn apply_reorg(core: &mut Core, proof: &Proof) -> std::result::Result<Applied, ApplyError> {
    let mut following = core.begin_follow(proof)?;
    let stored = following.remove(core).and_then(|()| following.commit());
    Ok(core.finish_follow(following, stored)?)
}

fn assert_reads(core: &Core, range: Range<u64>) {
    for i in range {
        assert_eq!(core.get(i).unwrap().as_deref(), Some(&block(i)[..]), "block {i}");
        assert_eq!(is_sound(core, i), Some(true));
    }
}

#[test]
fn vectors_of_trees_by_appending() {
    let v = vectors();
    for kind in ["v1_single_default", "v0_single", "compat"] {
        let storage = memory();
        let pair = key_pair(0);
        let mut core = match kind {
            "compat" => {
                let key = CoreKey(pair.public());
                let options = CreateOptions { key_pair: Some(pair), ..CreateOptions::reader(key) };
                Core::create(&storage, options).unwrap()
            }
            _ => {
                let manifest = tree::testing::manifest(&v["manifests"][kind]["manifest"]);
                let key = manifest.key();
                let manifest = Some(manifest);
                let options =
                    CreateOptions { key, manifest, key_pair: Some(pair), encryption_key: None };
                Core::create(&storage, options).unwrap()
            }
        };
        assert_eq!(core.is_compat(), kind == "compat");
        for (length, tree) in v["trees"].as_array().unwrap().iter().enumerate().skip(1) {
            let last = length as u64 - 1;
            assert_eq!(core.append(&blocks(last..last + 1), Durability::Buffered).unwrap(), last);
            assert_eq!(core.head().signature, bytes(&tree[format!("signature_{kind}")]));
            assert_eq!(core.head().roots, nodes(&tree["roots"]));
            assert_eq!(core.byte_length(), tree["byteLength"]);
        }
        assert_reads(&core, 0..20);
    }
}

#[test]
fn vectors_of_offsets_and_seeks() {
    let v = vectors();
    let storage = memory();
    let mut core = writer(&storage);
    core.append(&blocks(0..20), Durability::Durable).unwrap();
    for (i, span) in v["byte_offsets_of_length_20"].as_array().unwrap().iter().enumerate() {
        let offset = core.block_offset(i as u64).unwrap().unwrap();
        if let Some(want) = span[0].as_u64() {
            assert_eq!(offset, want);
        }
        assert_eq!(core.get(i as u64).unwrap().unwrap().len() as u64, span[1].as_u64().unwrap());
    }
    for seek in v["seeks_of_length_20"].as_array().unwrap() {
        let want = |i: usize| seek["result"][i].as_u64().unwrap();
        let found = core.seek(seek["bytes"].as_u64().unwrap()).unwrap();
        assert_eq!(found, SeekResult::Found { block: want(0), offset: want(1) });
    }
}

#[test]
fn vectors_of_an_encrypted_core() {
    let v = &vectors()["encrypted_core"];
    let storage = memory();
    let mut options = CreateOptions::writer(key_pair(0));
    options.encryption_key = Some(bytes32(&v["encryptionKey"]));
    let mut core = Core::create(&storage, options).unwrap();
    assert_eq!(core.key().0, bytes32(&v["key"]));
    let plain: Vec<Bytes> =
        v["plaintext"].as_array().unwrap().iter().map(|b| bytes(b).into()).collect();
    core.append(&plain, Durability::Durable).unwrap();
    assert_eq!(core.head().tree_hash(), bytes32(&v["treeHash"]));
    assert_eq!(core.head().signature, bytes(&v["signature"]));
    assert_eq!(core.head().byte_length(), v["byteLength_of_tree"]);
    assert_eq!(core.byte_length(), v["byteLength_reported"]);
    for (i, stored) in v["stored_blocks"].as_array().unwrap().iter().enumerate() {
        assert_eq!(core.stored_block(i as u64).unwrap().unwrap(), bytes(stored));
        assert_eq!(core.get(i as u64).unwrap().unwrap(), plain[i]);
        let reading = core.locate(i as u64).unwrap().unwrap().read().unwrap();
        assert_eq!(reading, Reading::Block(plain[i].clone()));
    }
    let read = |i| core.get(i as u64).unwrap().unwrap();
    assert!((0..plain.len()).all(|i| read(i) == plain[i]));
    assert_eq!(core.seek(6).unwrap(), SeekResult::Found { block: 1, offset: 1 });
    let key = *core.key();
    drop(core);

    // A peer with the encryption key reads it, one without gets what is stored.
    let core = Core::open(&storage, &key.discovery_key()).unwrap().unwrap();
    let there = memory();
    let mut options = CreateOptions::reader(key);
    options.encryption_key = Some(bytes32(&v["encryptionKey"]));
    let mut copy = Core::create(&there, options).unwrap();
    upgrade(&mut copy, &core);
    fetch(&mut copy, &core, 1);
    assert_eq!(copy.get(1).unwrap().unwrap(), plain[1]);
    let mut blind = reader(&memory(), &core);
    upgrade(&mut blind, &core);
    fetch(&mut blind, &core, 1);
    assert_eq!(blind.get(1).unwrap(), core.stored_block(1).unwrap());
}

#[test]
fn vectors_of_a_fork() {
    let v = &vectors()["fork"];
    let storage = memory();
    let mut core = writer(&storage);
    core.append(&blocks(0..20), Durability::Buffered).unwrap();
    assert_eq!(core.head().signature, bytes(&v["signature_at_20_fork_0"]));
    let mut follower = reader(&memory(), &core);
    upgrade(&mut follower, &core);
    for i in [0, 3, 12, 13, 19] {
        fetch(&mut follower, &core, i);
    }
    follower.flush(Durability::Durable).unwrap();

    core.truncate(13, 1).unwrap();
    assert_eq!((core.length(), core.fork()), (13, 1));
    assert_eq!(core.head().roots, nodes(&v["truncated"]["roots"]));
    assert_eq!(core.head().signature, bytes(&v["truncated"]["signature"]));
    assert_eq!((core.contiguous_length(), core.get(13).unwrap()), (13, None));
    let appended = [Bytes::from("fork-a"), Bytes::from("fork-b")];
    core.append(&appended, Durability::Durable).unwrap();
    assert_eq!(core.head().roots, nodes(&v["after"]["roots"]));
    assert_eq!(core.head().signature, bytes(&v["after"]["signature"]));
    assert_reads(&core, 0..13);

    let asked = Some(UpgradeRequest { start: 0, length: 15 });
    let answer = proof(&core, Request { upgrade: asked, ..Request::default() });
    assert!(matches!(
        follower.apply_proof(&answer, None),
        Err(ApplyError::Rejected(tree::VerifyError::Fork(1)))
    ));
    let place = follower.locate(13).unwrap().unwrap();
    let applied = apply_reorg(&mut follower, &answer).unwrap();
    assert_eq!(applied.upgraded, Some((20, 15)));
    assert_eq!(follower.head(), core.head());
    // The proof carries roots 7, 19, 25, 28: of them 7 and 19 are common.
    assert_eq!(applied.ancestors, Some(12));
    assert_eq!(place.read().unwrap(), Reading::Moved);
    assert_reads(&follower, 0..1);
    assert_reads(&follower, 3..4);
    assert!([12, 13, 19].iter().all(|&i| !follower.has(i)));
    fetch(&mut follower, &core, 13);
    fetch(&mut follower, &core, 14);
    assert_eq!(follower.get(14).unwrap().unwrap(), "fork-b");
}

#[test]
fn a_sparse_copy_grows_and_serves() {
    let (here, there) = (memory(), memory());
    let mut core = writer(&here);
    core.append(&blocks(0..11), Durability::Buffered).unwrap();
    let mut copy = reader(&there, &core);
    assert!(copy.manifest().is_none());
    assert_eq!(upgrade(&mut copy, &core).upgraded, Some((0, 11)));
    assert_eq!(copy.manifest(), core.manifest());
    for i in [7, 6, 10, 0] {
        let applied = fetch(&mut copy, &core, i);
        assert_eq!((applied.block, applied.new_block), (Some(i), true));
        assert_reads(&copy, i..i + 1);
    }
    assert!(!fetch(&mut copy, &core, 7).new_block);
    core.append(&blocks(11..300), Durability::Buffered).unwrap();
    assert_eq!(upgrade(&mut copy, &core).upgraded, Some((11, 300)));
    (280..290).for_each(|i| assert!(fetch(&mut copy, &core, i).new_block));
    assert_eq!(copy.bits(0, 1000)[0], 0b100_1100_0001);
    assert_eq!(copy.bits(256, 1 << 30), [0x3f << 24 | 0xc0 << 24, 3]);
    assert_eq!((copy.blocks_here(), copy.contiguous_length()), (14, 1));
    assert_eq!(copy.next_missing(6..300), Some(8));
    assert_eq!(copy.next_present(11..300), Some(280));

    // A third party gets from the copy what it has, "not here" for the rest.
    let mut third = reader(&memory(), &copy);
    upgrade(&mut third, &copy);
    fetch(&mut third, &copy, 285);
    let absent = Some(NodeRequest { index: 100, nodes: 0 });
    let request = Request { block: absent, ..Request::default() };
    assert!(matches!(copy.create_proof(&request).unwrap(), Provable::NotHere));
    let seek = Some(SeekRequest { bytes: 5, padding: 0 });
    let sought = Some(NodeRequest { index: 1 << 30, nodes: 0 });
    let request = Request { hash: sought, seek, ..Request::default() };
    assert!(!matches!(copy.create_proof(&request).unwrap(), Provable::Proof(_)));

    // It is all there after reopening.
    let key = *copy.discovery_key();
    let head = copy.head().clone();
    drop(copy);
    let copy = Core::open(&there, &key).unwrap().unwrap();
    assert_eq!((copy.head(), copy.blocks_here()), (&head, 14));
    assert_reads(&copy, 280..290);
}

#[test]
fn a_false_block_changes_nothing() {
    let mut core = writer(&memory());
    core.append(&blocks(0..20), Durability::Buffered).unwrap();
    let mut copy = reader(&memory(), &core);
    upgrade(&mut copy, &core);
    let nodes = copy.missing_nodes(7).unwrap();
    let block = Some(NodeRequest { index: 7, nodes });
    let mut answer = proof(&core, Request { block, ..Request::default() });
    answer.block.as_mut().unwrap().value = Bytes::from_static(b"lies");
    assert!(matches!(copy.apply_proof(&answer, None), Err(ApplyError::Rejected(_))));
    assert_eq!((copy.has(7), copy.missing_nodes(7).unwrap()), (false, nodes));
    let mut longer = answer.clone();
    longer.manifest = Some(Manifest::single([9; 32]));
    let mut fresh = reader(&memory(), &core);
    assert!(matches!(fresh.apply_proof(&longer, None), Err(ApplyError::Manifest)));
}

#[test]
fn cleared_blocks_can_come_back() {
    let mut core = writer(&memory());
    core.append(&blocks(0..100), Durability::Buffered).unwrap();
    let mut copy = reader(&memory(), &core);
    upgrade(&mut copy, &core);
    for i in 0..100 {
        fetch(&mut copy, &core, i);
    }
    assert_eq!(copy.contiguous_length(), 100);
    let place = copy.locate(30).unwrap().unwrap();
    assert_eq!(copy.forget_blocks(&[10..20, 30..40, 35..50, 200..300]).unwrap(), 30);
    assert_eq!(copy.clear(10..20).unwrap(), 0);
    assert_eq!(place.read().unwrap(), Reading::Moved);
    assert_eq!((copy.contiguous_length(), copy.get(10).unwrap()), (10, None));
    assert_reads(&copy, 20..30);
    for i in (10..20).chain(30..50) {
        assert_eq!(copy.missing_nodes(i).unwrap(), 0);
        fetch(&mut copy, &core, i);
    }
    assert_eq!(copy.contiguous_length(), 100);
    assert_reads(&copy, 0..100);
}

#[test]
fn keys_that_do_not_belong_are_refused() {
    let storage = memory();
    let mut options = CreateOptions::writer(key_pair(0));
    options.key_pair = Some(key_pair(1));
    assert!(matches!(Core::create(&storage, options), Err(CoreError::NotTheKey("key pair"))));
    let mut options = CreateOptions::writer(key_pair(0));
    options.key = CoreKey([1; 32]);
    assert!(matches!(Core::create(&storage, options), Err(CoreError::NotTheKey("manifest"))));
    let key = CreateOptions::writer(key_pair(0)).key;
    let mut core = Core::create(&storage, CreateOptions::reader(key)).unwrap();
    let append = core.append(&blocks(0..1), Durability::Buffered);
    assert!(matches!(append, Err(CoreError::ReadOnly)));
    drop(core);
    // What was made to be read takes no key pair, be it empty: another log may have been written with that.
    let options = CreateOptions { key_pair: Some(key_pair(0)), ..CreateOptions::reader(key) };
    assert!(matches!(Core::create(&storage, options.clone()), Err(CoreError::ReadOnly)));
    let mut core = Core::open(&storage, &key.discovery_key()).unwrap().unwrap();
    assert!(matches!(core.learn(options.clone()), Err(CoreError::ReadOnly)));
    assert!(core.key_pair().is_none());
    drop(core);
    Core::remove_all(&storage, &[key.discovery_key()], Writes::default()).unwrap();
    let mut core = Core::create(&storage, options).unwrap();
    core.append(&blocks(0..1), Durability::Buffered).unwrap();
    let huge = Bytes::from(vec![0; MAX_BLOCK_SIZE as usize + 1]);
    let append = core.append(&[huge], Durability::Buffered);
    assert!(matches!(append, Err(CoreError::BlockTooLarge(_))));
    let stale = core.prepare_append(&blocks(1..2)).unwrap();
    core.append(&blocks(1..3), Durability::Buffered).unwrap();
    let late = commit(&storage, &mut [(&mut core, stale)], Durability::Buffered);
    assert!(matches!(late, Err(CoreError::Stale)));
    assert!(matches!(core.truncate(1, 0), Err(CoreError::BadTruncate { .. })));
    assert!(matches!(core.truncate(4, 1), Err(CoreError::BadTruncate { .. })));
    drop(core);
    Core::remove_all(&storage, &[key.discovery_key()], Writes::default()).unwrap();
    assert!(Core::open(&storage, &key.discovery_key()).unwrap().is_none());
}
