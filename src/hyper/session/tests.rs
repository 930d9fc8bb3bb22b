//! What a handle waits for, with its replicator played by hand.

use super::*;
use crate::hyper::core::message::{Request, UpgradeRequest};
use crate::hyper::core::storage::crash::CrashMedium;
use crate::hyper::core::storage::memory::memory;
use crate::hyper::core::storage::{Staged, Storage};
use crate::hyper::core::tree::testing::key_pair;
use crate::hyper::core::{CreateOptions, Durability, Provable};
use crate::hyper::source::{BlockLog, BlockSource};
use std::time::Duration;

fn handle() -> (CoreHandle, mpsc::UnboundedReceiver<Wish>) {
    handle_of(Core::create(&memory(), CreateOptions::writer(key_pair(0))).unwrap())
}

fn handle_of(core: Core) -> (CoreHandle, mpsc::UnboundedReceiver<Wish>) {
    handle_with(core, Patience::default())
}

fn handle_with(core: Core, patience: Patience) -> (CoreHandle, mpsc::UnboundedReceiver<Wish>) {
    let (wish, wishes) = mpsc::unbounded_channel();
    let cache = Arc::new(BlockCache::new(1 << 20));
    (CoreHandle::new(Arc::new(Mutex::new(core)), cache, wish, patience), wishes)
}

const LIMIT: Duration = Duration::from_secs(5);

/// An update that has asked the replicator, and is waiting.
async fn updating(
    handle: &CoreHandle,
    wishes: &mut mpsc::UnboundedReceiver<Wish>,
) -> tokio::task::JoinHandle<bool> {
    let asked = handle.clone();
    let task = tokio::spawn(async move { asked.update(LIMIT).await });
    assert!(matches!(wishes.recv().await, Some(Wish::Update { .. })));
    tokio::task::yield_now().await;
    assert!(!task.is_finished());
    task
}

fn synced(reach: &mut Reach) {
    (reach.syncs, reach.synced) = (reach.syncs + 1, true);
}

#[tokio::test]
async fn nobody_is_there_only_once_those_connected_have_answered() {
    let lonely = Duration::from_millis(5);
    let (handle, _wishes) = reader_with(Patience { lonely, ..Patience::default() });
    handle.set_reach(|reach| (reach.discovered, reach.coming) = (true, 1));
    let waiting = handle.clone();
    let task = tokio::spawn(async move { waiting.deserted().await });
    tokio::time::sleep(lonely * 20).await;
    assert!(!task.is_finished());
    // It has not got the core.
    handle.set_reach(|reach| reach.coming = 0);
    task.await.unwrap();
}

#[tokio::test]
async fn an_update_waits_for_channels_that_are_being_opened() {
    let (handle, mut wishes) = handle();
    // Discovery is long over: somebody else uses the connection.
    handle.set_reach(|reach| reach.discovered = true);
    let task = updating(&handle, &mut wishes).await;
    handle.set_reach(|reach| (reach.peers, reach.synced) = (1, false));
    tokio::task::yield_now().await;
    assert!(!task.is_finished(), "the peer has not told its length");
    handle.set_reach(synced);
    assert!(task.await.unwrap());
    // What was in sync once need not be now.
    let task = updating(&handle, &mut wishes).await;
    handle.set_reach(synced);
    assert!(task.await.unwrap());
}

#[tokio::test]
async fn an_update_with_nobody_there_ends_with_discovery() {
    let (handle, mut wishes) = handle();
    let task = updating(&handle, &mut wishes).await;
    handle.set_reach(synced);
    tokio::task::yield_now().await;
    assert!(!task.is_finished(), "somebody may be found yet");
    handle.set_reach(|reach| reach.discovered = true);
    assert!(matches!(wishes.recv().await, Some(Wish::Update { .. })));
    handle.set_reach(synced);
    assert!(!task.await.unwrap());
    assert!(!handle.update(Duration::ZERO).await, "no replicator answers");
}

/// A handle of a core of three blocks of which only the head is here, by a copy of the writer's proof.
fn reader() -> (CoreHandle, mpsc::UnboundedReceiver<Wish>) {
    reader_with(Patience::default())
}

fn reader_with(patience: Patience) -> (CoreHandle, mpsc::UnboundedReceiver<Wish>) {
    let mut writer = Core::create(&memory(), CreateOptions::writer(key_pair(0))).unwrap();
    let blocks: Vec<Bytes> = (0..3u8).map(|i| Bytes::from(vec![i; 10])).collect();
    writer.append(&blocks, Durability::Durable).unwrap();
    let request = Request {
        upgrade: Some(UpgradeRequest { start: 0, length: 3 }),
        manifest: true,
        ..Request::default()
    };
    let Ok(Provable::Proof(mut proof)) = writer.create_proof(&request) else { panic!("no proof") };
    proof.manifest = writer.manifest().cloned();
    let mut core = Core::create(&memory(), CreateOptions::reader(*writer.key())).unwrap();
    core.apply_proof(&proof, None).unwrap();
    handle_with(core, patience)
}

/// What a waiter asked for, and what is wished for once it has gone.
async fn asked_and_taken_back<T>(
    wishes: &mut mpsc::UnboundedReceiver<Wish>,
    wait: impl Future<Output = T>,
) -> (Wish, Vec<Wish>) {
    let asked = tokio::select! {
        biased;
        _ = wait => panic!("nothing has come"),
        asked = wishes.recv() => asked.unwrap(),
    };
    (asked, std::iter::from_fn(|| wishes.try_recv().ok()).collect())
}

#[tokio::test]
async fn whatever_was_asked_is_taken_back_when_its_waiter_goes() {
    let (handle, mut wishes) = reader();
    let (asked, after) = asked_and_taken_back(&mut wishes, handle.block(1)).await;
    assert!(matches!(asked, Wish::Block { index: 1, urgent: true, .. }));
    assert!(matches!(after[..], [Wish::ForgetBlock { index: 1, .. }]), "{after:?}");
    let (asked, after) = asked_and_taken_back(&mut wishes, handle.seek(15)).await;
    assert!(matches!(asked, Wish::Seek { bytes: 15, .. }));
    assert!(matches!(after[..], [Wish::ForgetSeek { bytes: 15, .. }]), "{after:?}");
    let (asked, after) = asked_and_taken_back(&mut wishes, handle.download(0..3, true)).await;
    let Wish::Range { id, .. } = asked else { panic!("{asked:?}") };
    assert!(matches!(after[..], [Wish::ForgetRange { id: gone, .. }] if gone == id), "{after:?}");
}

#[tokio::test]
async fn a_block_that_the_disk_does_not_take_is_handed_to_who_waits() {
    let (handle, mut wishes) = reader();
    let waits = tokio::spawn(handle.block(1));
    assert!(matches!(wishes.recv().await, Some(Wish::Block { index: 1, .. })));
    handle.on_unstored(1, Bytes::from_static(&[1; 10]));
    assert_eq!(waits.await.unwrap().unwrap(), [1; 10][..]);
    assert!(wishes.try_recv().is_err(), "the wish is fulfilled");
    assert!(!handle.has(1));
}

#[tokio::test]
async fn whoever_has_a_patience_of_his_own_waits_that_long() {
    let (handle, _wishes) = reader();
    let (short, long) = (Duration::from_millis(100), Duration::from_millis(400));
    let (shared, _other) = reader_with(Patience { read: short, ..Patience::default() });
    for (handle, patience) in [(handle, short), (shared, long)] {
        let started = std::time::Instant::now();
        let done = with_patience(patience, handle.block(1)).await;
        assert!(matches!(done, Err(SourceError::TimedOut(1))));
        let waited = started.elapsed();
        assert!(waited >= patience && waited < 20 * long, "{waited:?}");
    }
}

#[tokio::test]
async fn two_histories_end_reading_with_that_reason() {
    let (handle, mut wishes) = reader();
    let waits = tokio::spawn(handle.block(1));
    wishes.recv().await.unwrap();
    handle.on_two_histories();
    assert!(matches!(waits.await.unwrap(), Err(SourceError::TwoHistories)));
    assert!(matches!(handle.try_block(0), Err(SourceError::TwoHistories)));
    assert!(matches!(handle.seek(15).await, Err(SourceError::TwoHistories)));
}

#[tokio::test]
async fn a_wish_stands_until_its_last_waiter_goes() {
    let (handle, mut wishes) = reader();
    let (mut first, mut second) = (handle.seek(15), handle.seek(15));
    for wait in [&mut first, &mut second] {
        assert!(tokio::time::timeout(Duration::ZERO, wait).await.is_err());
    }
    assert!(matches!(wishes.try_recv(), Ok(Wish::Seek { .. })));
    drop(first);
    assert!(wishes.try_recv().is_err(), "asked once, and somebody still waits");
    drop(second);
    assert!(matches!(wishes.try_recv(), Ok(Wish::ForgetSeek { .. })));
}

#[test]
fn an_append_whose_bytes_were_not_written_is_never_committed() {
    let medium = CrashMedium::default();
    let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).unwrap());
    let core = Core::create(&storage, CreateOptions::writer(key_pair(0))).unwrap();
    let (wish, _wishes) = mpsc::unbounded_channel();
    let cache = Arc::new(BlockCache::new(1 << 20));
    let handle = CoreHandle::new(Arc::new(Mutex::new(core)), cache, wish, Patience::default());
    for size in [100, 3 << 20] {
        let mut append = Arc::new(handle.clone()).begin().unwrap();
        append.push(vec![Bytes::from(vec![1; size])]).unwrap();
        medium.set_full(true);
        // A long piece fails behind the caller's back, at the latest when the next is handed on.
        let lost = append.push(vec![Bytes::from(vec![2; size])]);
        let lost = lost.and_then(|()| append.commit().map(drop));
        medium.set_full(false);
        assert!(lost.is_err());
        assert!(append.commit().is_err(), "{size}");
        drop(append);
        assert_eq!(handle.length(), 0);
    }
    handle.append(vec![Bytes::from_static(b"first")]).unwrap();
    assert_eq!(handle.try_block(0).unwrap().unwrap(), "first");
}

/// A power cut at any moment of it leaves contents with their names, or neither.
#[test]
fn contents_and_their_names_are_committed_at_one_moment() {
    let create = |storage: &Arc<dyn Storage>, n| {
        handle_of(Core::create(storage, CreateOptions::writer(key_pair(n))).unwrap())
    };
    let mut kinds = [0; 2];
    for seed in 0.. {
        let medium = CrashMedium::default();
        let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).unwrap());
        let ((contents, _wishes), (names, _other)) = (create(&storage, 0), create(&storage, 1));
        contents.append(vec![Bytes::from_static(b"old")]).unwrap();
        names.append(vec![Bytes::from_static(b"name of the old")]).unwrap();
        let before = medium.operations();
        medium.stop_after(seed / 2, seed % 2 == 0);
        let mut append = Arc::new(contents.clone()).begin().unwrap();
        let pushed = append.push(vec![Bytes::from_static(b"new"), Bytes::from(vec![7; 9000])]);
        let name = vec![Bytes::from_static(b"name of the new")];
        let done = pushed.and_then(|()| {
            append.commit_with(&names, name, crate::hyper::core::storage::Writes::default())
        });
        if medium.operations() <= before + seed / 2 {
            assert_eq!((done.unwrap(), contents.length(), names.length()), (1, 3, 2));
            break;
        }
        let medium = medium.after_power_loss(seed);
        let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium).unwrap());
        let keys = [contents.discovery_key(), names.discovery_key()];
        let opened = keys.map(|key| Core::open(&storage, &key).unwrap().unwrap());
        let lengths = opened.each_ref().map(Core::length);
        assert!([[1, 1], [3, 2]].contains(&lengths), "{seed}: {lengths:?}");
        kinds[usize::from(lengths == [3, 2])] += 1;
    }
    assert!(kinds.iter().all(|n| *n > 0), "{kinds:?}: both were seen");
}
