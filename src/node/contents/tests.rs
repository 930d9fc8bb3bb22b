//! Headers that name what is not theirs, and drives that share a core.

use super::*;
use crate::hyper::bee::Metadata;
use crate::hyper::cache::BlockCache;
use crate::hyper::core::Provable;
use crate::hyper::core::message::{NodeRequest, Request, UpgradeRequest};
use crate::hyper::core::storage::{Durability, Table, Writes, memory};
use crate::hyper::drive::{Drive, Entry, LiveDrive, fix_key};
use crate::hyper::session::Patience;
use crate::hyper::source::BlockLog;
use crate::hyper::store::{Namespace, Store};
use crate::node::forget::tests::forget;
use crate::node::{ForgetError, GcError, Keep, NodeConfig};
use crate::path::DrivePath;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::time::timeout;

async fn node() -> (tempfile::TempDir, Arc<Node>) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = NodeConfig::new(dir.path());
    config.local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    // Nobody answers there.
    config.bootstrap = vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9).into()];
    (dir, Node::start(config).await.unwrap())
}

fn elsewhere() -> Arc<Store> {
    let cache = Arc::new(BlockCache::new(1 << 20));
    let (wishes, nobody) = tokio::sync::mpsc::unbounded_channel();
    std::mem::forget(nobody);
    Arc::new(Store::open(memory(), cache, wishes, Patience::default()).unwrap())
}

fn names_of(store: &Store) -> CoreHandle {
    let db = store.named(&Namespace::ROOT.child(b"drive"), "db", None).unwrap();
    fix_key(store, &db, None).unwrap();
    db
}

/// A drive of somebody else with one file that was written twice: names and contents.
async fn strangers() -> (CoreHandle, CoreHandle) {
    let store = elsewhere();
    let live = LiveDrive::open(store.clone(), names_of(&store).key(), None, None, |_| ()).unwrap();
    put_twice(&live.drive().await.unwrap());
    (live.db().clone(), live.blobs().unwrap().clone())
}

fn put_twice(drive: &Drive) {
    let path = DrivePath::from_user("/file").unwrap();
    drive.put(&path, &b"the first"[..], Entry::default()).unwrap();
    drive.put(&path, &b"the second"[..], Entry::default()).unwrap();
}

/// Nothing but a header that names `contents`, and blocks that are no names if `more`.
fn hostile(contents: CoreKey, more: bool) -> CoreHandle {
    let db = names_of(&elsewhere());
    let metadata = Metadata { content_feed: Some(contents.0.to_vec()), user_data: None };
    let mut blocks = vec![Header::new(Some(metadata)).encode().into()];
    if more {
        blocks.push(bytes::Bytes::from_static(b"\xff\xff\xff\xff"));
    }
    db.append(blocks).unwrap();
    db
}

/// Takes all blocks of a core into the node's store, as a peer would send them.
fn take(node: &Node, from: &CoreHandle) -> CoreHandle {
    let to = node.store().by_key(from.key(), None).unwrap();
    let ask = |request: Request| match from.core().create_proof(&request).unwrap() {
        Provable::Proof(proof) => proof,
        other => panic!("{other:?}"),
    };
    let length = from.core().length();
    let upgrade = Some(UpgradeRequest { start: 0, length });
    let proof = ask(Request { upgrade, manifest: true, ..Request::default() });
    to.core().apply_proof(&proof, None).unwrap();
    for index in 0..length {
        let nodes = to.core().missing_nodes(index).unwrap();
        let block = Some(NodeRequest { index, nodes });
        let proof = ask(Request { block, ..Request::default() });
        to.core().apply_proof(&proof, None).unwrap();
    }
    to.on_version();
    to
}

/// Clears a drive as the command does; how many blocks that were.
async fn clear(node: &Node, key: CoreKey) -> Result<u64, GcError> {
    clear_one(node, key, &mut Survey::default()).await
}

async fn clear_one(node: &Node, key: CoreKey, survey: &mut Survey) -> Result<u64, GcError> {
    let turn = node.turn_to_clear(key).await.unwrap();
    let stored = node.stored_drive(key).await?.unwrap();
    let garbage = node.garbage(&stored, Keep::Newest(1), survey, Some(&turn)).await?;
    match stored.blobs {
        Some(blobs) => {
            assert!(node.give_back(blobs, &garbage, turn).await?.is_none());
            Ok(garbage.block_count())
        }
        None => Ok(0),
    }
}

fn here(node: &Node, core: &CoreKey) -> Option<u64> {
    let core = node.store().stored(&core.discovery_key()).unwrap()?;
    Some(core.core().blocks_here())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_names_our_cores_costs_us_nothing() {
    let (_dir, node) = node().await;
    let mine = node.create_drive("mine", None).await.unwrap().key();
    let live = node.drive_offline(mine, None, None).await.unwrap();
    put_twice(&live.drive().await.unwrap());
    let blobs = live.blobs().unwrap().key();
    drop(live);
    let (db, contents) = strangers().await;
    let (db, contents) = (take(&node, &db).key(), take(&node, &contents).key());
    let before: Vec<_> = [mine, blobs, db, contents].iter().map(|key| here(&node, key)).collect();
    for victim in [mine, blobs, db] {
        for more in [false, true] {
            let evil = take(&node, &hostile(victim, more)).key();
            assert_eq!(clear(&node, evil).await.unwrap(), 0);
            forget(&node, evil).await.unwrap();
            assert_eq!(here(&node, &evil), None);
        }
    }
    let after: Vec<_> = [mine, blobs, db, contents].iter().map(|key| here(&node, key)).collect();
    assert_eq!(before, after);
    // And cannot keep us from clearing what is ours.
    take(&node, &hostile(blobs, true));
    assert_eq!(clear(&node, mine).await.unwrap(), 1);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_that_several_drives_name_are_kept_for_each_of_them() {
    let (_dir, node) = node().await;
    let (db, contents) = strangers().await;
    let (db, contents) = (take(&node, &db).key(), take(&node, &contents).key());
    let evil = take(&node, &hostile(contents, false)).key();
    assert_eq!(clear(&node, evil).await.unwrap(), 1, "what nobody's newest version names");
    assert_eq!(here(&node, &contents), Some(1));
    // One that cannot be read may need anything. But these contents were made for another drive, and nobody uses it.
    let unread = take(&node, &hostile(contents, true)).key();
    assert!(clear(&node, unread).await.is_err());
    for key in [db, evil] {
        assert_eq!(clear(&node, key).await.unwrap(), 0);
    }
    // The contents go with the last of them, and not as a drive of their own.
    assert!(matches!(forget(&node, contents).await, Err(ForgetError::Contents)));
    forget(&node, evil).await.unwrap();
    forget(&node, db).await.unwrap();
    assert_eq!((here(&node, &db), here(&node, &contents)), (None, Some(1)));
    forget(&node, unread).await.unwrap();
    assert_eq!(here(&node, &contents), None);
    node.shutdown().await;
}

/// What a store holds when a record of it is damaged.
fn damage(node: &Node, id: DiscoveryKey) {
    let mut writes = Writes::default();
    writes.put(Table::Cores, *id.as_bytes(), vec![0xff; 3]);
    node.store().storage().commit(writes, &[], Durability::Durable).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_header_keeps_nothing_of_contents_that_prove_whose_they_are() {
    let (_dir, node) = node().await;
    let (db, contents) = strangers().await;
    let (db, contents) = (take(&node, &db).key(), take(&node, &contents).key());
    let unread = take(&node, &hostile(contents, true)).key();
    let used = node.drive_offline(unread, None, None).await.unwrap();
    let error = clear(&node, db).await.unwrap_err();
    assert!(matches!(error, GcError::HeldBy { by, .. } if by == unread), "{error}");
    drop(used);
    assert_eq!(clear(&node, db).await.unwrap(), 1, "{unread} keeps what is not its own");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_that_prove_nothing_are_kept_for_whoever_names_them_and_that_is_told() {
    let (_dir, node) = node().await;
    let (db, contents) = strangers().await;
    let contents = take(&node, &contents).key();
    let (first, names) = (take(&node, &hostile(contents, false)).key(), db.key());
    // As an older drive says it, though nothing here proves that it is the owner.
    let unread = take(&node, &hostile(contents, true)).key();
    let error = clear(&node, first).await.unwrap_err();
    assert!(matches!(error, GcError::HeldBy { by, .. } if by == unread), "{error}");
    assert!(error.to_string().contains(&format!("hdrive forget {unread}")), "{error}");
    forget(&node, unread).await.unwrap();
    // One that can be read keeps what it needs and no more.
    take(&node, &db);
    let stored = node.stored_drive(first).await.unwrap().unwrap();
    let mut survey = Survey::default();
    let garbage = node.garbage(&stored, Keep::Newest(1), &mut survey, None).await.unwrap();
    assert_eq!((garbage.block_count(), garbage.held_by), (1, vec![names]));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_opened_ends_nothing_for_the_others() {
    let (_dir, node) = node().await;
    let mine = node.create_drive("mine", None).await.unwrap().key();
    let live = node.drive_offline(mine, None, None).await.unwrap();
    put_twice(&live.drive().await.unwrap());
    drop(live);
    let (db, contents) = strangers().await;
    let (db, contents) = (take(&node, &db).key(), take(&node, &contents).key());
    damage(&node, DiscoveryKey([7; 32]));
    let (lost, evil) = (CoreKey([9; 32]), hostile(CoreKey([9; 32]), false));
    let evil = take(&node, &evil).key();
    damage(&node, lost.discovery_key());

    let found = node.stored_drives().await.unwrap();
    assert_eq!(found.closed.len(), 2);
    assert!([mine, db, evil].iter().all(|key| found.keys.contains(key)));
    assert!(clear(&node, evil).await.is_err(), "its contents cannot be opened");
    for key in [mine, db] {
        assert_eq!(clear(&node, key).await.unwrap(), 1);
    }
    // Contents that do not prove whose they are may be named by what cannot be opened.
    let (_, unproven) = strangers().await;
    let unproven = take(&node, &unproven).key();
    let first = take(&node, &hostile(unproven, false)).key();
    let error = clear(&node, first).await.unwrap_err();
    assert!(matches!(error, GcError::Closed(_)), "{error}");
    assert!(forget(&node, first).await.is_err());
    forget(&node, db).await.unwrap();
    assert_eq!((here(&node, &db), here(&node, &contents)), (None, None));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cleared_is_not_written_although_nobody_waits_for_it_any_more() {
    const MOMENT: Duration = Duration::from_millis(200);
    let (_dir, node) = node().await;
    let mine = node.create_drive("mine", None).await.unwrap().key();
    let live = node.drive_offline(mine, None, None).await.unwrap();
    put_twice(&live.drive().await.unwrap());
    let blobs = live.blobs().unwrap().clone();
    drop(live);
    let turn = node.turn_to_clear(mine).await.unwrap();
    let stored = node.stored_drive(mine).await.unwrap().unwrap();
    let garbage = loop {
        let found = node
            .garbage(&stored, Keep::Newest(1), &mut Survey::default(), Some(&turn))
            .await
            .unwrap();
        // The drive that has just been used shows its last version in a moment.
        if found.block_count() == 1 {
            break found;
        }
        tokio::time::sleep(MOMENT / 10).await;
    };
    // Somebody reads the core for a while.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (held, is_held) = std::sync::mpsc::channel();
    let reads = blobs.clone();
    let reader = std::thread::spawn(move || {
        let _core = reads.core();
        held.send(()).unwrap();
        wait.recv()
    });
    is_held.recv().unwrap();
    // As Ctrl-C does it.
    let gone = timeout(MOMENT, node.give_back(blobs.clone(), &garbage, turn)).await;
    assert!(gone.is_err());
    assert!(timeout(MOMENT, node.turn_to_write(mine)).await.is_err(), "it is being cleared");
    go.send(()).unwrap();
    reader.join().unwrap().unwrap();
    drop(node.turn_to_write(mine).await);
    assert_eq!(blobs.core().blocks_here(), 1);
    node.shutdown().await;
}

/// How long it takes to find out what there is to clear, which is nothing.
#[expect(clippy::disallowed_methods, reason = "measures")]
async fn look_at_all(node: &Node) -> Duration {
    let started = std::time::Instant::now();
    let mut survey = Survey::default();
    for key in node.stored_drives().await.unwrap().keys {
        let stored = node.stored_drive(key).await.unwrap().unwrap();
        let garbage = node.garbage(&stored, Keep::Newest(1), &mut survey, None).await.unwrap();
        assert_eq!(garbage.block_count(), 0);
    }
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and a busy machine spoils it"]
async fn four_times_the_drives_are_looked_at_in_about_four_times_the_time() {
    let node = Node::start_on(memory(), NodeConfig::new(std::path::Path::new("/nowhere")));
    let node = node.await.unwrap();
    let mut took = Vec::new();
    for drives in [0..40, 40..160] {
        for n in drives {
            let key = node.create_drive(&n.to_string(), None).await.unwrap().key();
            let live = node.drive_offline(key, None, None).await.unwrap();
            let path = DrivePath::from_user("/file").unwrap();
            live.drive().await.unwrap().put(&path, &b"x"[..], Entry::default()).unwrap();
        }
        while !node.open_drives().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut best = Duration::MAX;
        for _ in 0..3 {
            best = best.min(look_at_all(&node).await);
        }
        took.push(best);
    }
    println!("40 drives and 160: {took:?}");
    assert!(took[1] < 9 * took[0], "{took:?}");
    node.shutdown().await;
}

/// A drive whose header names the contents of another comes while many are cleared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_comes_after_the_survey_is_asked_as_well() {
    let (_dir, node) = node().await;
    let (db, contents) = strangers().await;
    let (db, contents) = (take(&node, &db).key(), take(&node, &contents).key());
    let mut survey = Survey::default();
    node.drives_in(&contents.discovery_key(), &mut survey).await.unwrap();
    let unread = take(&node, &hostile(contents, true)).key();
    let used = node.drive_offline(unread, None, None).await.unwrap();
    let error = clear_one(&node, db, &mut survey).await.unwrap_err();
    assert!(matches!(error, GcError::HeldBy { by, .. } if by == unread), "{error}");
    drop(used);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_opened_can_be_forgotten() {
    let (_dir, node) = node().await;
    let (lost, other) = (CoreKey([9; 32]), CoreKey([8; 32]));
    take(&node, &hostile(lost, false));
    for key in [lost, other] {
        damage(&node, key.discovery_key());
    }
    let done = forget(&node, lost).await.unwrap();
    assert!(!done.own && done.closed.unwrap().contains("damaged"));
    assert!(forget(&node, other).await.unwrap().closed.is_some());
    assert!(node.stored_drives().await.unwrap().closed.is_empty());
    assert!(matches!(forget(&node, lost).await, Err(ForgetError::Unknown)));

    let mine = node.create_drive("mine", None).await.unwrap().key();
    node.store().close_unused();
    damage(&node, mine.discovery_key());
    let done = forget(&node, mine).await.unwrap();
    assert!(done.own && done.closed.is_some());
    assert_eq!(done.names, ["mine"]);
    node.shutdown().await;
}

#[test]
fn cores_are_opened_where_nobody_waits_for_the_disk() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (_dir, node) = node().await;
        take(&node, &strangers().await.0);
        for turn in 0..2 {
            // The one thread for such work is busy, so nothing that waits for the disk can be done.
            let (done, busy) = std::sync::mpsc::channel::<()>();
            tokio::task::spawn_blocking(move || busy.recv());
            let mut work: crate::hyper::source::BoxFuture<'_, ()> = match turn {
                0 => Box::pin(async { drop(node.create_drive("mine", None).await.unwrap()) }),
                _ => Box::pin(async { drop(node.stored_drives().await.unwrap()) }),
            };
            let waits = std::future::poll_fn(|cx| std::task::Poll::Ready(work.as_mut().poll(cx)));
            assert!(waits.await.is_pending(), "turn {turn}: the worker opened it itself");
            done.send(()).unwrap();
            work.await;
        }
        node.shutdown().await;
    });
}
