//! Keys that are right, wrong, early and late, and headers that lie.

use super::*;
use crate::hyper::bee::{Bee, Metadata};
use crate::hyper::cache::BlockCache;
use crate::hyper::core::message::{NodeRequest, Request, UpgradeRequest};
use crate::hyper::core::storage::{Writes, memory};
use crate::hyper::core::{Provable, storage::Storage};
use crate::hyper::drive::{Drive, Entry, LiveDrive};
use crate::hyper::session::Patience;
use crate::hyper::source::{BlockLog, BlockSource};
use crate::hyper::store::Namespace;
use crate::key::CoreKey;
use crate::path::DrivePath;
use std::sync::Arc;
use std::time::Duration;

const RIGHT: [u8; 32] = [1; 32];
const WRONG: [u8; 32] = [2; 32];

fn store_on(storage: &Arc<dyn Storage>) -> Arc<Store> {
    let cache = Arc::new(BlockCache::new(1 << 20));
    let (wishes, nobody) = tokio::sync::mpsc::unbounded_channel();
    std::mem::forget(nobody);
    let patience = Patience { read: Duration::from_millis(50), ..Patience::default() };
    Arc::new(Store::open(storage.clone(), cache, wishes, patience).unwrap())
}

fn store() -> Arc<Store> {
    store_on(&memory())
}

fn create(store: &Store, key: Option<[u8; 32]>) -> CoreHandle {
    let db = store.named(&Namespace::ROOT.child(b"drive"), "db", None).unwrap();
    fix_key(store, &db, key).unwrap();
    db
}

fn live(
    store: &Arc<Store>,
    key: CoreKey,
    secret: Option<[u8; 32]>,
) -> Result<LiveDrive, LiveError> {
    LiveDrive::open(store.clone(), key, secret, None, |_| ())
}

async fn put(live: &LiveDrive, name: &str, content: &[u8]) {
    let drive = live.drive().await.unwrap();
    let path = DrivePath::root().join(name).unwrap();
    let put = move |content: Vec<u8>| drive.put(&path, &content[..], Entry::default());
    put(content.to_vec()).unwrap();
}

async fn get(drive: &Drive, name: &str) -> Vec<u8> {
    let path = DrivePath::root().join(name).unwrap();
    let (_, entry) = drive.entry(&path).await.unwrap().unwrap();
    let reader = drive.blobs().reader(entry.blob.unwrap(), None);
    reader.read(0, 1000).await.unwrap().concat()
}

/// Copies all blocks of a core to another store, as a peer would send them.
fn copy(from: &CoreHandle, to: &CoreHandle) {
    let ask = |request: Request| match from.core().create_proof(&request).unwrap() {
        Provable::Proof(proof) => proof,
        other => panic!("{other:?}"),
    };
    let start = to.core().length();
    let length = from.core().length() - start;
    if length > 0 {
        let upgrade = Some(UpgradeRequest { start, length });
        let proof = ask(Request { upgrade, manifest: true, ..Request::default() });
        to.core().apply_proof(&proof, None).unwrap();
    }
    for index in 0..start + length {
        let nodes = to.core().missing_nodes(index).unwrap();
        let block = Some(NodeRequest { index, nodes });
        let proof = ask(Request { block, ..Request::default() });
        to.core().apply_proof(&proof, None).unwrap();
    }
    to.on_version();
}

fn is_wrong<T>(result: Result<T, LiveError>) -> bool {
    matches!(result, Err(LiveError::EncryptionKey(e)) if matches!(*e, CoreError::OtherEncryptionKey))
}

fn is_plain<T>(result: Result<T, LiveError>) -> bool {
    matches!(result, Err(LiveError::EncryptionKey(e)) if matches!(*e, CoreError::Unencrypted))
}

#[tokio::test]
async fn a_wrong_key_for_a_drive_of_ours_changes_nothing_of_it() {
    let (storage, theirs) = (memory(), store());
    let ours = store_on(&storage);
    let db = create(&ours, Some(RIGHT));
    let drive = live(&ours, db.key(), None).unwrap();
    put(&drive, "a", b"one").await;
    // Also for whoever comes while it is open, and whoever would make it anew.
    assert!(is_wrong(live(&ours, db.key(), Some(WRONG))));
    assert!(is_wrong(drive.offer_key(Some(WRONG))));
    assert!(is_wrong(offer_key(&ours, &db, Some(WRONG))));
    assert!(ours.by_key(db.key(), Some(WRONG)).is_err());
    put(&drive, "b", b"two").await;
    let blobs = drive.blobs().unwrap().clone();
    drop(drive);
    drop(ours);
    assert!(is_wrong(live(&store_on(&storage), db.key(), Some(WRONG))));
    // A reader with the right key sees all of it.
    let copy_of = live(&theirs, db.key(), Some(RIGHT)).unwrap();
    copy(&db, copy_of.db());
    let read = copy_of.drive().await.unwrap();
    copy(&blobs, copy_of.blobs().unwrap());
    assert_eq!((get(&read, "a").await, get(&read, "b").await), (b"one".to_vec(), b"two".to_vec()));
}

#[tokio::test]
async fn contents_are_encrypted_as_the_names_are_without_the_key_being_passed_again() {
    let storage = memory();
    let db = create(&store_on(&storage), Some(RIGHT)).key();
    let ours = store_on(&storage);
    let drive = live(&ours, db, None).unwrap();
    put(&drive, "a", b"secret").await;
    assert_eq!(drive.blobs().unwrap().core().encryption_key(), Some(&RIGHT));
    let stored = drive.blobs().unwrap().core().stored_block(0).unwrap().unwrap();
    assert!(!stored.windows(6).any(|part| part == b"secret"));
}

#[tokio::test]
async fn a_drive_of_ours_that_has_blocks_never_becomes_an_encrypted_one() {
    let ours = store();
    let db = create(&ours, None);
    let drive = live(&ours, db.key(), None).unwrap();
    put(&drive, "a", b"one").await;
    assert!(is_plain(live(&ours, db.key(), Some(RIGHT))));
    assert!(ours.by_key(db.key(), Some(RIGHT)).is_err());
    assert_eq!(db.core().secrecy(), Secrecy::Known(None));
    // Contents count, though no name does yet.
    let ours = store();
    let db = ours.named(&Namespace::ROOT.child(b"drive"), "db", None).unwrap();
    let manifest = db.core().manifest().cloned();
    let found = BlobsCore::of(&db.key(), manifest.as_ref(), None).unwrap();
    let blobs = contents(&ours, &db, found).unwrap();
    blobs.append(vec!["content".into()]).unwrap();
    assert!(is_plain(fix_key(&ours, &db, Some(RIGHT))));
}

#[tokio::test]
async fn what_a_drive_of_ours_is_made_with_stays_while_it_is_empty() {
    let ours = store();
    let db = create(&ours, None);
    assert!(is_plain(offer_key(&ours, &db, Some(RIGHT))));
    assert!(is_plain(fix_key(&ours, &db, Some(RIGHT))));
    assert!(is_plain(live(&ours, db.key(), Some(RIGHT))));
    let ours = store();
    let db = create(&ours, Some(RIGHT));
    fix_key(&ours, &db, None).unwrap();
    assert_eq!(db.core().secrecy(), Secrecy::Known(Some(RIGHT)));
    assert!(is_wrong(fix_key(&ours, &db, Some(WRONG))));
    // One that an older version made says nothing of itself: no key was given to it.
    let ours = store();
    let db = ours.named(&Namespace::ROOT.child(b"drive"), "db", None).unwrap();
    assert!(is_plain(live(&ours, db.key(), Some(RIGHT))));
}

#[tokio::test]
async fn what_cannot_be_read_is_held_as_it_is_and_read_with_the_key_later() {
    let (ours, theirs) = (store(), store());
    let db = create(&ours, Some(RIGHT));
    let drive = live(&ours, db.key(), None).unwrap();
    put(&drive, "a", b"one").await;
    let held = live(&theirs, db.key(), None).unwrap();
    assert!(held.unread_contents().await.unwrap().is_none(), "nothing is known yet");
    copy(&db, held.db());
    assert!(matches!(held.drive().await, Err(LiveError::Encrypted)));
    let contents = held.unread_contents().await.unwrap().unwrap();
    assert_eq!(contents.key(), drive.blobs().unwrap().key());
    copy(drive.blobs().unwrap(), &contents);
    let stored = |core: &CoreHandle| core.core().stored_block(0).unwrap();
    assert_eq!(stored(&contents), stored(drive.blobs().unwrap()));
    held.offer_key(Some(RIGHT)).unwrap();
    assert_eq!(get(&held.drive().await.unwrap(), "a").await, b"one");
}

#[tokio::test]
async fn a_reader_s_key_is_what_opens_block_0() {
    let ours = store();
    let db = create(&ours, Some(RIGHT));
    put(&live(&ours, db.key(), None).unwrap(), "a", b"one").await;
    let (storage, without) = (memory(), store());
    let theirs = store_on(&storage);
    // Nobody can tell yet; then the block comes.
    let early = live(&theirs, db.key(), Some(WRONG)).unwrap();
    copy(&db, early.db());
    assert!(is_wrong(early.drive().await));
    early.offer_key(Some(RIGHT)).unwrap();
    early.drive().await.unwrap();
    assert!(is_wrong(early.offer_key(Some(WRONG))));
    assert!(is_wrong(live(&theirs, db.key(), Some(WRONG))));
    theirs.flush().unwrap();
    drop(early);
    drop(theirs);
    // It is remembered.
    live(&store_on(&storage), db.key(), None).unwrap().drive().await.unwrap();
    // Without one it is called encrypted, with one found out to be plain.
    let none = live(&without, db.key(), None).unwrap();
    copy(&db, none.db());
    assert!(matches!(none.drive().await, Err(LiveError::Encrypted)));
    none.offer_key(Some(RIGHT)).unwrap();
    none.drive().await.unwrap();
    let plain = store();
    let db = create(&plain, None);
    put(&live(&plain, db.key(), None).unwrap(), "a", b"one").await;
    let theirs = live(&without, db.key(), Some(RIGHT)).unwrap();
    copy(&db, theirs.db());
    // Whoever passed a key in vain is told; the drive is shown to the others.
    theirs.drive().await.unwrap();
    assert!(is_plain(theirs.offer_key(Some(RIGHT))));
}

/// A drive whose header names `contents`, written in a store of its own.
fn hostile(contents: CoreKey, key: Option<[u8; 32]>) -> CoreHandle {
    let db = create(&store(), key);
    let metadata = Metadata { content_feed: Some(contents.0.to_vec()), user_data: None };
    let bee = Bee::writable(Arc::new(db.clone()), Some(metadata));
    let mut batch = bee.batch().unwrap();
    batch.put(&b"k"[..], &b"v"[..]).unwrap();
    batch.flush().unwrap();
    db
}

#[tokio::test]
async fn a_header_cannot_reach_a_core_of_ours() {
    let ours = store();
    let db = create(&ours, None);
    let drive = live(&ours, db.key(), None).unwrap();
    put(&drive, "a", b"one").await;
    let blobs = drive.blobs().unwrap().clone();
    for key in [None, Some(WRONG)] {
        for victim in [&db, &blobs] {
            let hostile = hostile(victim.key(), key);
            let theirs = live(&ours, hostile.key(), key).unwrap();
            copy(&hostile, theirs.db());
            let refused = theirs.drive().await;
            assert!(matches!(refused, Err(LiveError::Drive(DriveError::ForeignContents))));
            assert_eq!(victim.core().encryption_key(), None);
        }
    }
    put(&drive, "b", b"two").await;
    assert_eq!(&blobs.block(1).await.unwrap()[..], b"two");
}

#[tokio::test]
async fn a_header_cannot_spoil_a_drive_that_is_followed() {
    let origin = store();
    let db = create(&origin, None);
    let writer = live(&origin, db.key(), None).unwrap();
    put(&writer, "a", b"one").await;
    let blobs = writer.blobs().unwrap().clone();
    // Whichever is opened first.
    for hostile_first in [false, true] {
        let mine = store();
        let hostile = hostile(blobs.key(), Some(WRONG));
        let bad = live(&mine, hostile.key(), Some(WRONG)).unwrap();
        let good = live(&mine, db.key(), None).unwrap();
        copy(&hostile, bad.db());
        copy(&db, good.db());
        if hostile_first {
            bad.drive().await.unwrap();
        }
        let drive = good.drive().await.unwrap();
        copy(&blobs, good.blobs().unwrap());
        assert_eq!(bad.drive().await.is_ok(), hostile_first);
        assert_eq!(get(&drive, "a").await, b"one");
    }
}

#[test]
fn contents_that_are_lost_do_not_begin_anew_with_our_key() {
    let store = store();
    let db = store.named(&Namespace::ROOT.child(b"drive"), "db", None).unwrap();
    let manifest = db.core().manifest().cloned();
    let found = || BlobsCore::of(&db.key(), manifest.as_ref(), None).unwrap();
    // Somebody's look at them made them to be read.
    let read = store.by_key(found().unwrap().key().unwrap(), None).unwrap();
    assert!(!contents(&store, &db, found()).unwrap().writable());
    let id = read.discovery_key();
    drop(read);
    store.flush().unwrap();
    store.close_unused();
    assert!(store.remove(&[id], Writes::default()).unwrap());
    // A drive without names has had no contents.
    let blobs = contents(&store, &db, found()).unwrap();
    assert!(blobs.writable());
    drop(blobs);
    db.append(vec![Header::new(None).encode().into()]).unwrap();
    assert!(contents(&store, &db, found()).unwrap().writable(), "they are here");
    store.flush().unwrap();
    store.close_unused();
    assert!(store.remove(&[id], Writes::default()).unwrap());
    assert!(!contents(&store, &db, found()).unwrap().writable(), "they are lost");
}
