//! What a node lets go of when nobody uses it any more.

mod slow_device;

use super::forget::tests::forget;
use super::*;
use std::task::Poll;
use std::time::Instant;

async fn node(dir: &Path) -> Arc<Node> {
    let mut config = NodeConfig::new(dir);
    config.local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    // Nobody answers there.
    config.bootstrap = vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9).into()];
    Node::start(config).await.unwrap()
}

fn key(n: u32) -> CoreKey {
    CoreKey(crate::crypto::hash::hash(&[&n.to_le_bytes()]))
}

async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while !done().await {
        assert!(Instant::now() < give_up, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Nothing is open, no topic is joined.
async fn is_empty(node: &Node) -> bool {
    let topics = node.network_status().await.unwrap().topics.len();
    node.open_drives().is_empty() && topics == 0 && node.store().handles().is_empty()
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// A thousand drives, some at a time; each is served, so it closes with its use.
async fn open_and_close_a_thousand(node: &Arc<Node>, first: u32) {
    for group in 0..10 {
        let mut uses = Vec::new();
        for n in 0..100 {
            uses.push(node.drive(key(first + 100 * group + n), None, None, true).await.unwrap());
        }
        assert_eq!(node.open_drives().len(), uses.len());
        drop(uses);
        eventually("closed", async || node.open_drives().is_empty()).await;
    }
    eventually("all is let go", async || is_empty(node).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_drives_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    open_and_close_a_thousand(&node, 0).await;
    let (files, memory) = (open_files(), resident());
    for round in 1..4 {
        open_and_close_a_thousand(&node, 1000 * round).await;
    }
    let grown = resident().saturating_sub(memory);
    println!(
        "3,000 drives more: {} KiB, {} files",
        grown >> 10,
        open_files() as i64 - files as i64
    );
    assert!(node.store().handles().is_empty() && node.open_drives().is_empty());
    // Other tests run beside this one in the same process; 3,000 drives that stay would be more.
    assert!(grown < 96 << 20, "{grown} bytes");
    assert!(open_files() < files + 1000, "{files} files, then {}", open_files());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_is_announced_while_somebody_serves_it_and_open_while_somebody_uses_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let key = key(1);
    let reads = node.drive(key, None, None, false).await.unwrap();
    let serves = node.drive(key, None, None, true).await.unwrap();
    let old = node.drive(key, None, Some(3), false).await.unwrap();
    let roles = async || {
        let topics = node.network_status().await.unwrap().topics;
        topics.first().map(|topic| (topic.options.server, topic.options.client))
    };
    eventually("announced", async || roles().await == Some((true, true))).await;
    let states: Vec<_> = node.open_drives().iter().map(|s| (s.version, s.served, s.uses)).collect();
    assert_eq!(states, [(None, true, 2), (Some(3), false, 1)]);

    drop(serves);
    eventually("only looked for", async || roles().await == Some((false, true))).await;
    drop(reads);
    // A drive that was read waits for the next command.
    let again = node.drive_offline(key, None, None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(node.open_drives().len(), 2);
    drop((again, old));
    assert_eq!(node.open_drives().iter().map(|s| s.uses).sum::<usize>(), 0);
    eventually("nothing is left", async || is_empty(&node).await).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_about_to_be_named_is_no_garbage_while_the_drive_is_in_use() {
    use crate::hyper::source::BlockSource;
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let key = node.create_drive("mine", None).await.unwrap().key();
    let used = node.drive_offline(key, None, None).await.unwrap();
    let drive = used.drive().await.unwrap();
    let path = crate::path::DrivePath::from_user("/file").unwrap();
    drive.put(&path, &b"the file"[..], Default::default()).unwrap();
    drive.blobs().put(&b"without a name yet"[..]).unwrap();
    assert_eq!(used.blobs().unwrap().length(), 2);
    let garbage = async || {
        let stored = node.stored_drive(key).await.unwrap().unwrap();
        let mut survey = Survey::default();
        node.garbage(&stored, Keep::Newest(1), &mut survey, None).await.unwrap().blocks
    };
    let only = std::slice::from_ref(&(1..2));
    assert_eq!(garbage().await, []);
    // Who has the drive alone knows that nobody is about to.
    {
        let alone = node.turn_to_clear(key).await.unwrap();
        let stored = node.stored_drive(key).await.unwrap().unwrap();
        let all = node
            .garbage(&stored, Keep::Newest(1), &mut Survey::default(), Some(&alone))
            .await
            .unwrap();
        assert_eq!(all.blocks, only);
    }
    drop((drive, used));
    // Whoever wrote it has gone without giving it a name.
    assert_eq!(garbage().await, only);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_comes_to_be_shown_while_the_drive_is_cleared_keeps_its_contents() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let key = node.create_drive("mine", None).await.unwrap().key();
    let path = crate::path::DrivePath::from_user("/file").unwrap();
    let used = node.drive_offline(key, None, None).await.unwrap();
    let drive = used.drive().await.unwrap();
    drive.put(&path, &b"the first"[..], Default::default()).unwrap();
    let first = drive.version();
    drive.put(&path, &b"the second"[..], Default::default()).unwrap();
    drop((drive, used));
    let stored = node.stored_drive(key).await.unwrap().unwrap();
    let blobs = stored.blobs.clone().unwrap();
    let turn = node.turn_to_clear(key).await.unwrap();
    let mut survey = Survey::default();
    // The drive that was used a moment ago may show the first version yet.
    eventually("nothing that needs the first", async || {
        let mut survey = Survey::default();
        let look = node.garbage(&stored, Keep::Newest(1), &mut survey, Some(&turn));
        look.await.unwrap().blocks == std::slice::from_ref(&(0..1))
    })
    .await;
    let garbage = node.garbage(&stored, Keep::Newest(1), &mut survey, Some(&turn)).await.unwrap();
    // Somebody mounts it now.
    let shown = node.drive_offline(key, None, Some(first)).await.unwrap();
    let turn = node.give_back(blobs.clone(), &garbage, turn).await.unwrap();
    let turn = turn.expect("another look is due");
    assert!(blobs.core().has(0));
    let garbage = node.garbage(&stored, Keep::Newest(1), &mut survey, Some(&turn)).await.unwrap();
    assert_eq!(garbage.blocks, []);
    drop(shown);
    let garbage = node.garbage(&stored, Keep::Newest(1), &mut survey, Some(&turn)).await.unwrap();
    assert!(node.give_back(blobs.clone(), &garbage, turn).await.unwrap().is_none());
    assert!(!blobs.core().has(0) && blobs.core().has(1));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_was_used_without_a_network_is_let_go_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path()).await;
    let key = node.create_drive("mine", None).await.unwrap().key();
    let used = node.drive_offline(key, None, None).await.unwrap();
    let drive = used.drive().await.unwrap();
    let path = crate::path::DrivePath::from_user("/file").unwrap();
    drive.put(&path, &b"the file"[..], Default::default()).unwrap();
    drop((drive, used));
    // What it wished of peers who were never looked for holds nothing.
    forget(&node, key).await.unwrap();
    assert!(node.store().handles().is_empty());
    // The network finds what stands.
    let key = node.create_drive("other", None).await.unwrap().key();
    let used = node.drive_offline(key, None, None).await.unwrap();
    let serves = node.drive(key, None, None, true).await.unwrap();
    assert!(
        !used.db().update(Duration::from_secs(1)).await,
        "the hub answers that nobody is there"
    );
    assert!(used.db().reach().borrow().syncs > 0);
    drop((used, serves));
    node.shutdown().await;
}

/// What a future gives when it is looked at so often, with time for others in between; none if that was not enough.
async fn looked_at<T>(times: u32, pause: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    for _ in 0..times {
        let look = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx)));
        if let Poll::Ready(done) = look.await {
            return Some(done);
        }
        tokio::time::sleep(pause).await;
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_called_off_on_the_way_to_the_network_leaves_it_to_the_next() {
    // At each of its steps, as far as the threads that it waits for let it be told.
    let pauses = [0, 200, 1000].map(Duration::from_micros);
    for (pause, times) in pauses.into_iter().flat_map(|pause| (0..6).map(move |n| (pause, n))) {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path()).await;
        let _ = looked_at(times, pause, node.online()).await;
        let one = node.drive(key(1), None, None, true);
        let other = node.drive(key(2), None, None, false);
        let (one, other) = tokio::join!(one, other);
        assert!(one.is_ok() && other.is_ok(), "called off after {times} looks, {pause:?} apart");
        assert_eq!(node.network_status().await.unwrap().topics.len(), 2);
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_cannot_start_is_tried_again_and_one_that_is_shut_down_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = NodeConfig::new(dir.path());
    // No machine has it (RFC 5737).
    config.local = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 0);
    let node = Node::start(config).await.unwrap();
    for _ in 0..2 {
        let error = node.drive(key(1), None, None, false).await.err();
        assert!(matches!(error, Some(NodeError::Socket { .. })));
    }
    node.shutdown().await;
    assert!(matches!(node.drive(key(1), None, None, false).await, Err(NodeError::Ends)));
}
