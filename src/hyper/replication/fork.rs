//! Forks that cores follow: proven here, stored by another thread, since that waits for the device.

use crate::hyper::core::{Applied, CoreError, Following, SharedCore};
use crate::key::DiscoveryKey;
use crate::lock::lock;

/// A fork that a peer has proven. To be stored: until then its core takes no changes.
pub struct Fork {
    pub(super) core: SharedCore,
    pub(super) following: Following,
}

/// What came of it, for [`Hub::handle_stored`](super::Hub::handle_stored).
pub struct Stored {
    pub(super) discovery: DiscoveryKey,
    pub(super) result: Result<Applied, CoreError>,
}

impl Fork {
    /// Stores it. Others get at the core while the device works.
    pub fn store(self) -> Stored {
        let discovery = *lock(&self.core).discovery_key();
        Stored { discovery, result: self.following.store(&self.core) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AttachOptions, ConnId, ConnInfo, Hub, HubEvent, Limits};
    use super::*;
    use crate::crypto::KeyPair;
    use crate::hyper::core::storage::memory::MemoryMedium;
    use crate::hyper::core::storage::{
        Durability, FileKind, Medium, RawFile, Result as StorageResult, Staged, Storage, Table,
        Writes, memory,
    };
    use crate::hyper::core::{Core, CreateOptions};
    use crate::key::{PublicKey, Topic};
    use crate::sim::epoch;
    use bytes::Bytes;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Sender, channel};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    const CONN: ConnId = ConnId(1);
    /// After this nothing comes any more: somebody waits who must not.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A device that, once it is slow, makes each sync wait until it is let go.
    struct SlowDevice {
        memory: MemoryMedium,
        slow: Arc<AtomicBool>,
        waits: Sender<Sender<()>>,
    }

    impl SlowDevice {
        fn wait(&self) {
            if self.slow.load(Ordering::Acquire) {
                let (go, wait) = channel();
                self.waits.send(go).unwrap();
                wait.recv_timeout(PATIENCE).expect("to be let go");
            }
        }
    }

    impl Medium for SlowDevice {
        fn get(&self, table: Table, key: &[u8]) -> StorageResult<Option<Vec<u8>>> {
            self.memory.get(table, key)
        }
        fn scan(&self, table: Table, prefix: &[u8]) -> StorageResult<Vec<(Vec<u8>, Vec<u8>)>> {
            self.memory.scan(table, prefix)
        }
        fn apply(&self, writes: &Writes) -> StorageResult<()> {
            self.wait();
            self.memory.apply(writes)
        }
        fn file(&self, core: &DiscoveryKey, kind: FileKind) -> Box<dyn RawFile> {
            self.memory.file(core, kind)
        }
        fn remove_file(&self, core: &DiscoveryKey, kind: FileKind) -> StorageResult<()> {
            self.memory.remove_file(core, kind)
        }

        fn cores_with_files(&self) -> StorageResult<Vec<(DiscoveryKey, u64)>> {
            self.memory.cores_with_files()
        }
    }

    fn shared(core: Core) -> SharedCore {
        Arc::new(Mutex::new(core))
    }

    /// Hands frames over until there are none.
    fn exchange(hubs: [&mut Hub; 2], now: Instant) {
        let mut quiet = 0;
        for (from, to) in [(0, 1), (1, 0)].into_iter().cycle() {
            quiet += 1;
            while let Some((conn, frame)) = hubs[from].poll_transmit() {
                hubs[from].handle_queued(conn, 0, now);
                hubs[to].handle_frame(CONN, frame.payload().to_vec().into(), now);
                quiet = 0;
            }
            if quiet == 2 {
                return;
            }
        }
    }

    fn events(hub: &mut Hub) -> Vec<HubEvent> {
        std::iter::from_fn(|| hub.poll_event()).collect()
    }

    #[test]
    fn while_a_fork_waits_for_the_device_all_else_goes_on() {
        let (slow, (waits, waiting)) = (Arc::new(AtomicBool::new(false)), channel());
        let device = SlowDevice { memory: MemoryMedium::default(), slow: slow.clone(), waits };
        let ours: Arc<dyn Storage> = Arc::new(Staged::new(device).unwrap());
        let theirs = memory::memory();
        let (mut us, mut them) = (Hub::new(Limits::default()), Hub::new(Limits::default()));
        let (mut now, mut pairs) = (epoch(), Vec::new());
        let options = AttachOptions { downloading: true, small_blocks: false };
        for seed in [1, 2] {
            let pair = CreateOptions::writer(KeyPair::from_seed(&[seed; 32]));
            let reader = Core::create(&ours, CreateOptions::reader(pair.key)).unwrap();
            let (writer, reader) = (shared(Core::create(&theirs, pair).unwrap()), shared(reader));
            append(&writer, 8);
            let here = us.attach(reader.clone(), options, now);
            let there = them.attach(writer.clone(), options, now);
            us.want_range(here, 0..u64::MAX, true, now);
            pairs.push((here, reader, there, writer));
        }
        for (hub, initiator) in [(&mut us, true), (&mut them, false)] {
            let remote = PublicKey([u8::from(initiator); 32]);
            let info = ConnInfo { handshake_hash: [7; 64], initiator, remote };
            hub.handle_connected(CONN, info, now);
            for (_, reader, ..) in &pairs {
                hub.handle_met(CONN, Topic::from(*lock(reader).discovery_key()), now);
            }
        }
        exchange([&mut us, &mut them], now);
        let [(forked, copy, far, writer), (other, second, second_far, second_writer)] = &pairs[..]
        else {
            panic!("two cores");
        };
        assert_eq!((here(copy), here(second)), (8, 8));
        lock(copy).flush(Durability::Durable).unwrap();
        events(&mut us);

        slow.store(true, Ordering::Release);
        lock(writer).truncate(5, 1).unwrap();
        append(writer, 1);
        them.core_changed(*far, now);
        exchange([&mut us, &mut them], now);
        let fork = us.poll_fork().expect("proven and to be stored");
        let storing = std::thread::spawn(move || fork.store());
        let device = waiting.recv_timeout(PATIENCE).expect("it waits for the device");

        // Another core gets its blocks, and the forked one is asked about and looked after.
        append(second_writer, 1);
        them.core_changed(*second_far, now);
        exchange([&mut us, &mut them], now);
        assert!(events(&mut us).contains(&HubEvent::Block { core: *other, index: 8 }));
        append(writer, 1);
        them.core_changed(*far, now);
        us.want_block(*forked, 2, true, now);
        now += Duration::from_secs(1);
        us.handle_timeout(now);
        exchange([&mut us, &mut them], now);
        assert_eq!(lock(copy).fork(), 0);
        assert!(lock(copy).get(2).unwrap().is_some());

        slow.store(false, Ordering::Release);
        device.send(()).unwrap();
        let stored = storing.join().unwrap();
        us.handle_stored(stored, now);
        exchange([&mut us, &mut them], now);
        assert_eq!(lock(copy).head(), lock(writer).head());
        assert_eq!(here(copy), 7);
        let told = events(&mut us);
        assert!(
            told.contains(&HubEvent::Truncated { core: *forked, length: 4, fork: 1 }),
            "{told:?}"
        );
        let failed = |event: &HubEvent| {
            matches!(event, HubEvent::Violation { .. } | HubEvent::StorageFailed { .. })
        };
        assert!(!told.iter().any(failed), "{told:?}");
    }

    fn append(core: &SharedCore, blocks: usize) {
        let mut core = lock(core);
        let blocks: Vec<Bytes> = (0..blocks)
            .map(|i| format!("{} {}", core.length() as usize + i, core.fork()).into())
            .collect();
        core.append(&blocks, Durability::Buffered).unwrap();
    }

    fn here(core: &SharedCore) -> u64 {
        lock(core).contiguous_length()
    }
}
