//! Drives that are made, written and forgotten by a process that is killed at any point of that.

use super::*;
use crate::hyper::core::storage::crash::CrashMedium;
use crate::hyper::core::storage::{Durability, Records, Staged, Storage, open_disk};
use crate::hyper::drive::Entry;
use crate::node::NodeConfig;
use crate::path::DrivePath;
use std::collections::BTreeMap;
use std::path::Path;

/// Forgets a drive that nothing else goes with.
pub(in crate::node) async fn forget(
    node: &Arc<Node>,
    key: CoreKey,
) -> Result<Forgotten, ForgetError> {
    node.forget(key, Arc::new(|| Ok(Writes::default())), std::future::pending()).await
}

async fn start(medium: &CrashMedium) -> Option<Arc<Node>> {
    let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).ok()?);
    Node::start_on(storage, NodeConfig::new(Path::new("/nowhere"))).await.ok()
}

/// A record of a share's ledger, as far as a node is concerned.
const NOTE: &str = "a note beside";

fn also() -> Also {
    Arc::new(|| {
        let mut writes = Writes::default();
        Records::change(&mut writes, NOTE, None);
        Ok(writes)
    })
}

/// Every block that was ever shown to anyone, by core and number.
#[derive(Default, Clone)]
struct Published(BTreeMap<(CoreKey, u64), Vec<u8>>);

impl Published {
    /// Adds what a drive holds. No number of a log has ever two blocks.
    fn take(&mut self, node: &Node, cores: &[CoreKey], why: &str) {
        for key in cores {
            let Some(core) = node.store().stored(&key.discovery_key()).unwrap() else { continue };
            let core = core.core();
            for block in 0..core.length() {
                let Some(bytes) = core.stored_block(block).unwrap() else { continue };
                let known = self.0.entry((*key, block)).or_insert_with(|| bytes.to_vec());
                assert!(*known == bytes, "{why}: block {block} of {key} has two contents");
            }
        }
    }

    fn has(&self, key: &CoreKey) -> bool {
        self.0.keys().any(|(known, _)| known == key)
    }
}

/// Makes the drive, or finds it, and puts something into it that nobody else ever does. Its cores.
async fn write(node: &Arc<Node>) -> Option<[CoreKey; 2]> {
    let key = node.create_drive("d", None).await.ok()?.key();
    let used = node.drive_offline(key, None, None).await.ok()?;
    let drive = used.drive().await.ok()?;
    let cores = [key, used.blobs()?.key()];
    let content = crate::crypto::sign::random().repeat(3_000);
    let path = DrivePath::from_user("/file").unwrap();
    drive.put(&path, &content[..], Entry::default()).ok()?;
    node.store().records().put_record(NOTE, b"1", Durability::Durable).ok()?;
    Some(cores)
}

/// Writes and forgets two drives of one name. None where the machine stops.
async fn story(medium: &CrashMedium, published: &mut Published) -> Option<()> {
    let node = start(medium).await?;
    for _ in 0..2 {
        let cores = write(&node).await;
        if let Some(cores) = &cores {
            published.take(&node, cores, "story");
        }
        let forgotten = node.forget(cores?[0], also(), std::future::pending()).await;
        if forgotten.is_err() {
            return None;
        }
    }
    Some(())
}

/// A drive is there whole, or nothing of it is.
async fn look(node: &Arc<Node>, published: &Published, why: &str) {
    let names = node.names().unwrap();
    let stored = node.store().records().cores().unwrap();
    match names.as_slice() {
        [] => {
            assert_eq!(stored, [], "{why}: cores without a name");
            let records = node.store().records();
            assert_eq!(records.get_record(NOTE).unwrap(), None, "{why}: a note without a drive");
            assert_eq!(node.store().storage().cores_with_files().unwrap(), [], "{why}: bytes");
        }
        [(_, key)] => {
            assert_eq!(stored.len(), 2, "{why}: {stored:?}");
            assert!(node.store().writes(key).unwrap(), "{why}: a name without its secret");
            if published.has(key) {
                let used = node.drive_offline(*key, None, None).await.unwrap();
                let drive = used.drive().await.unwrap();
                let path = DrivePath::from_user("/file").unwrap();
                let entry = drive.entry(&path).await.unwrap();
                assert!(entry.is_some(), "{why}: a published file is gone");
            }
        }
        more => panic!("{why}: {more:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_is_there_or_forgotten_wherever_the_process_is_killed() {
    let whole = CrashMedium::default();
    story(&whole, &mut Published::default()).await.unwrap();
    let operations = whole.operations();
    println!("{operations} operations");
    assert!(operations > 20, "{operations}");
    for stop in 0..operations {
        for lands in [false, true] {
            let medium = CrashMedium::default();
            let mut published = Published::default();
            medium.stop_after(stop, lands);
            let _ = story(&medium, &mut published).await;
            for (way, left) in
                [medium.after_kill(), medium.after_power_loss(stop)].into_iter().enumerate()
            {
                let why = format!("stop {stop}, lands {lands}, way {way}");
                let mut published = published.clone();
                let node = start(&left).await.unwrap();
                look(&node, &published, &why).await;
                // Everybody looks at what there was, as `ls KEY` does: that makes empty cores of those keys.
                let keys: Vec<CoreKey> = published.0.keys().map(|(key, _)| *key).collect();
                for key in keys {
                    drop(node.drive_offline(key, None, None).await.unwrap());
                }
                let cores = write(&node).await.unwrap();
                published.take(&node, &cores, &why);
                forget(&node, cores[0]).await.unwrap();
                assert!(matches!(forget(&node, cores[0]).await, Err(ForgetError::Unknown)));
                let again = write(&node).await.unwrap();
                assert!(!published.has(&again[0]), "{why}: the key came back");
                published.take(&node, &again, &why);
                node.shutdown().await;
            }
        }
    }
}

/// What a version of this program left that removed the cores first, the names later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_without_its_drive_never_gives_the_key_again() {
    for looked_at in [false, true] {
        for forgotten in [false, true] {
            let node = start(&CrashMedium::default()).await.unwrap();
            let mut published = Published::default();
            let cores = write(&node).await.unwrap();
            published.take(&node, &cores, "before");
            let ids = cores.map(|key| key.discovery_key());
            assert!(node.drives.close_unused(cores[0]));
            node.until_closed(&ids, Instant::now() + CLOSING).await.unwrap();
            assert!(node.store().remove(&ids, Writes::default()).unwrap());
            if looked_at {
                drop(node.drive_offline(cores[0], None, None).await.unwrap());
            }
            if forgotten {
                forget(&node, cores[0]).await.unwrap();
                assert_eq!(node.names().unwrap(), []);
            }
            let again = write(&node).await.unwrap();
            assert_ne!(again[0], cores[0]);
            published.take(&node, &again, "after");
            assert!(!node.store().writes(&cores[0]).unwrap());
            node.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_means_another_drive_by_now_stays() {
    let node = start(&CrashMedium::default()).await.unwrap();
    let first = write(&node).await.unwrap();
    let doomed = loop {
        match node.doomed(first[0], Instant::now() + CLOSING).await {
            Ok(doomed) => break doomed,
            Err(ForgetError::InUse) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    };
    forget(&node, first[0]).await.unwrap();
    let second = write(&node).await.unwrap();
    // One that had found the first before goes on now.
    let removed = node.remove(&doomed, &|| Ok(Writes::default())).unwrap();
    assert_eq!(removed.unwrap().names, Vec::<String>::new());
    assert_eq!(node.drive_named("d").unwrap(), Some(second[0]));
    assert!(node.store().writes(&second[0]).unwrap());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_before_it_begins_has_removed_nothing() {
    let node = start(&CrashMedium::default()).await.unwrap();
    let cores = write(&node).await.unwrap();
    let held = node.store().stored(&cores[0].discovery_key()).unwrap();
    let given_up = tokio::time::sleep(Duration::from_millis(100));
    let error = node.forget(cores[0], also(), given_up).await.unwrap_err();
    assert!(matches!(error, ForgetError::GivenUp), "{error}");
    drop(held);
    look(&node, &Published::default(), "given up").await;
    assert_eq!(node.names().unwrap().len(), 1);
    node.shutdown().await;
}

/// As `ls` of either key does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_core_that_somebody_looked_at_as_at_a_drive_is_not_waited_for() {
    let node = start(&CrashMedium::default()).await.unwrap();
    let cores = write(&node).await.unwrap();
    for key in cores {
        drop(node.drive_offline(key, None, None).await.unwrap());
    }
    let looked = Instant::now();
    forget(&node, cores[0]).await.unwrap();
    assert!(looked.elapsed() < CLOSING / 2, "{:?}", looked.elapsed());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_without_a_core_are_strays() {
    let node = start(&CrashMedium::default()).await.unwrap();
    let cores = write(&node).await.unwrap();
    let stray = CoreKey([9; 32]).discovery_key();
    node.store().storage().files(&stray).blocks.write_at(0, &[7; 100_000]).unwrap();
    assert!(node.store().remove_strays(true).unwrap() >= Some(100_000));
    assert!(node.store().remove_strays(false).unwrap() >= Some(100_000));
    assert_eq!(node.store().remove_strays(true).unwrap(), Some(0));
    let kept: Vec<DiscoveryKey> =
        node.store().storage().cores_with_files().unwrap().into_iter().map(|(id, _)| id).collect();
    assert!(cores.iter().all(|key| kept.contains(&key.discovery_key())) && kept.len() == 2);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_an_older_copy_knows_nothing_of_stay() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("store.redb");
    let open = || Node::start(NodeConfig::new(dir.path()));
    // Who ends leaves the file a moment later.
    let close = async |node: Arc<Node>| {
        node.shutdown().await;
        drop(node);
        while open_disk(dir.path()).is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let node = open().await.unwrap();
    node.create_drive("a", None).await.unwrap();
    close(node).await;
    let old = std::fs::read(&database).unwrap();
    let node = open().await.unwrap();
    let cores = write(&node).await.unwrap();
    close(node).await;
    std::fs::write(&database, old).unwrap();

    let node = open().await.unwrap();
    assert_eq!(node.store().remove_strays(false).unwrap(), None);
    // Another drive, though it has the name: it touches nothing of the one that is there.
    let key = node.create_drive("d", None).await.unwrap().key();
    assert!(!cores.contains(&key));
    let used = node.drive_offline(key, None, None).await.unwrap();
    node.may_write(&used, &|text| panic!("{text}")).await.unwrap();
    let files = node.store().storage().cores_with_files().unwrap();
    for key in &cores {
        assert!(files.iter().any(|(id, bytes)| *id == key.discovery_key() && *bytes > 0));
    }
    // Somebody says that they are nothing.
    node.trust_store().await.unwrap();
    assert!(node.store().remove_strays(true).unwrap() > Some(0));
    node.create_drive("d", None).await.unwrap();
    node.shutdown().await;
}
