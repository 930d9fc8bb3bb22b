//! Stopping at every operation of the medium, then looking at what is left.

use super::super::storage::Staged;
use super::super::storage::crash::CrashMedium;
use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn second_writer(storage: &Arc<dyn Storage>) -> Core {
    Core::create(storage, CreateOptions::writer(key_pair(1))).unwrap()
}

/// Appends to a core of contents and one of entries together; each entry tells how many contents there are.
/// Returns how many entries were acknowledged as durable.
fn write_entries(storage: &Arc<dyn Storage>) -> Result<u64> {
    let mut contents = Core::create(storage, CreateOptions::writer(key_pair(0)))?;
    let mut entries = Core::create(storage, CreateOptions::writer(key_pair(1)))?;
    let mut acknowledged = 0;
    for round in 0..8u64 {
        let durability = if round % 3 == 2 { Durability::Durable } else { Durability::Buffered };
        let count = contents.length() + round % 4;
        let content = contents.prepare_append(&blocks(contents.length()..count))?;
        let entry = entries.prepare_append(&[Bytes::from(count.to_le_bytes().to_vec())])?;
        let mut both = [(&mut contents, content), (&mut entries, entry)];
        if let Err(error) = commit(storage, &mut both, durability) {
            // The rest of the program must not see what failed.
            assert_eq!(entries.length(), round);
            assert_eq!(entries.contiguous_length(), round);
            return if acknowledged == 0 { Err(error) } else { Ok(acknowledged) };
        }
        if durability == Durability::Durable {
            acknowledged = round + 1;
        }
    }
    Ok(acknowledged)
}

#[test]
fn no_entry_ever_names_contents_that_are_not_there() {
    let whole = CrashMedium::default();
    let storage: Arc<dyn Storage> = Arc::new(Staged::new(whole.clone()).unwrap());
    assert_eq!(write_entries(&storage).unwrap(), 6);
    for stop in 0..whole.operations() {
        for lands in [false, true] {
            let medium = CrashMedium::default();
            let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).unwrap());
            medium.stop_after(stop, lands);
            let acknowledged = write_entries(&storage).unwrap_or(0);
            let mut left = vec![medium.after_kill()];
            left.extend((0..5).map(|seed| medium.after_power_loss(seed)));
            for medium in left {
                let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium).unwrap());
                let (mut contents, mut entries) = (writer(&storage), second_writer(&storage));
                assert!(entries.length() >= acknowledged, "stop {stop}");
                assert_eq!(entries.contiguous_length(), entries.length());
                for i in 0..entries.length() {
                    assert_eq!(is_sound(&entries, i), Some(true));
                    let entry = entries.get(i).unwrap().unwrap();
                    let count = u64::from_le_bytes(entry[..].try_into().unwrap());
                    assert!(contents.length() >= count, "stop {stop} entry {i}");
                }
                assert_reads(&contents, 0..contents.length());
                // It goes on from there.
                let next = contents.length();
                contents.append(&blocks(next..next + 20), Durability::Durable).unwrap();
                entries.append(&blocks(0..3), Durability::Durable).unwrap();
                assert_reads(&contents, 0..next + 20);
            }
        }
    }
}

/// A writer in memory that forks now and then, and all it ever had.
struct Source {
    core: Core,
    counter: u64,
}

impl Source {
    fn new() -> Self {
        let mut source = Self { core: writer(&memory()), counter: 0 };
        source.grow(30);
        source
    }

    fn grow(&mut self, blocks: u64) {
        let new: Vec<Bytes> = (0..blocks)
            .map(|i| {
                self.counter += 1;
                vec![self.counter as u8; 1 + (i as usize * 371) % 2000].into()
            })
            .collect();
        self.core.append(&new, Durability::Buffered).unwrap();
    }

    fn fork(&mut self, rng: &mut StdRng) {
        let keep = rng.random_range(0..=self.core.length());
        self.core.truncate(keep, self.core.fork() + 1).unwrap();
        self.grow(rng.random_range(1..40));
    }
}

/// Brings a copy to the source's head, by upgrade or by following its fork.
fn follow(copy: &mut Core, source: &Core) -> std::result::Result<(), ApplyError> {
    if source.fork() > copy.fork() && copy.length() > 0 {
        let upgrade = Some(UpgradeRequest { start: 0, length: source.length() });
        let request = Request { upgrade, manifest: true, ..Request::default() };
        apply_reorg(copy, &proof(source, request))?;
    } else if source.fork() == copy.fork() && source.length() > copy.length() {
        let (start, length) = (copy.length(), source.length() - copy.length());
        let upgrade = Some(UpgradeRequest { start, length });
        let request = Request { upgrade, manifest: true, ..Request::default() };
        copy.apply_proof(&proof(source, request), None)?;
    } else if source.fork() > copy.fork() {
        let upgrade = Some(UpgradeRequest { start: 0, length: source.length() });
        let request = Request { upgrade, manifest: true, ..Request::default() };
        apply_reorg(copy, &proof(source, request))?;
    }
    Ok(())
}

fn take(copy: &mut Core, source: &Core, index: u64) -> std::result::Result<(), ApplyError> {
    let block = Some(NodeRequest { index, nodes: copy.missing_nodes(index)? });
    copy.apply_proof(&proof(source, Request { block, ..Request::default() }), None).map(drop)
}

fn same_head(copy: &Core, source: &Core) -> bool {
    copy.fork() == source.fork() && copy.length() == source.length()
}

/// One operation on a copy of the source.
fn step(
    copy: &mut Core,
    source: &mut Source,
    rng: &mut StdRng,
) -> std::result::Result<(), ApplyError> {
    match rng.random_range(0..24) {
        0 => source.grow(rng.random_range(1..60)),
        1 => source.fork(rng),
        2 => copy.flush(Durability::Durable)?,
        3 => copy.flush(Durability::Buffered)?,
        4 => {
            if let Some(flush) = copy.begin_flush()? {
                if same_head(copy, &source.core) && rng.random_bool(0.5) {
                    take(copy, &source.core, rng.random_range(0..copy.length()))?;
                }
                if rng.random_bool(0.3) {
                    copy.clear(0..5)?;
                }
                let synced = flush.sync();
                copy.finish_flush(flush, synced)?;
            }
        }
        5 => {
            let start = rng.random_range(0..100);
            copy.clear(start..start + rng.random_range(0..20))?;
        }
        6..9 => follow(copy, &source.core)?,
        _ if same_head(copy, &source.core) => {
            take(copy, &source.core, rng.random_range(0..copy.length()))?;
        }
        _ => follow(copy, &source.core)?,
    }
    Ok(())
}

fn assert_sound(copy: &Core) {
    for block in 0..copy.length() {
        if copy.has(block) {
            assert_eq!(is_sound(copy, block), Some(true), "block {block}");
        }
    }
    assert_eq!(copy.next_present(copy.length()..u64::MAX), None);
}

#[test]
fn a_copy_survives_any_crash_and_can_be_completed() {
    let seeds = std::env::var("CRASH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(120);
    for seed in 0..seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut source = Source::new();
        let key = *source.core.key();
        let mut medium = CrashMedium::default();
        for _ in 0..4 {
            let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).unwrap());
            let mut copy = Core::create(&storage, CreateOptions::reader(key)).unwrap();
            assert_sound(&copy);
            if copy.fork() == source.core.fork() && copy.length() <= source.core.length() {
                for block in (0..copy.length()).filter(|&block| copy.has(block)) {
                    assert_eq!(copy.get(block).unwrap(), source.core.get(block).unwrap());
                }
            }
            medium.stop_after(rng.random_range(0..80), rng.random());
            for _ in 0..60 {
                if let Err(error) = step(&mut copy, &mut source, rng) {
                    let local = matches!(error, ApplyError::Local(_) | ApplyError::Unstored(_));
                    assert!(local, "seed {seed}: {error}");
                    break;
                }
            }
            medium = match rng.random() {
                true => medium.after_kill(),
                false => medium.after_power_loss(rng.random()),
            };
        }
        let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium).unwrap());
        let mut copy = Core::create(&storage, CreateOptions::reader(key)).unwrap();
        follow(&mut copy, &source.core).unwrap();
        assert!(same_head(&copy, &source.core));
        for block in 0..copy.length() {
            if !copy.has(block) {
                take(&mut copy, &source.core, block).unwrap();
            }
            assert_eq!(copy.get(block).unwrap(), source.core.get(block).unwrap());
        }
        // And it serves all of it.
        let mut third = reader(&memory(), &copy);
        follow(&mut third, &copy).unwrap();
        (0..copy.length()).for_each(|block| take(&mut third, &copy, block).unwrap());
        assert_eq!(third.contiguous_length(), copy.length());
    }
}

#[test]
fn what_was_flushed_durably_is_there() {
    let mut source = Source::new();
    let medium = CrashMedium::default();
    let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).unwrap());
    let mut copy = reader(&storage, &source.core);
    follow(&mut copy, &source.core).unwrap();
    (0..10).for_each(|block| take(&mut copy, &source.core, block).unwrap());
    let flush = copy.begin_flush().unwrap().unwrap();
    take(&mut copy, &source.core, 20).unwrap();
    let synced = flush.sync();
    copy.finish_flush(flush, synced).unwrap();
    source.grow(5);
    follow(&mut copy, &source.core).unwrap();
    for medium in [medium.after_kill(), medium.after_power_loss(3)] {
        let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium).unwrap());
        let copy = reader(&storage, &source.core);
        assert_eq!((copy.length(), copy.contiguous_length(), copy.blocks_here()), (30, 10, 10));
        assert_sound(&copy);
    }
    // A flush that was overtaken by a commit is not lost.
    let flush = copy.begin_flush().unwrap().unwrap();
    copy.clear(0..1).unwrap();
    let synced = flush.sync();
    copy.finish_flush(flush, synced).unwrap();
    copy.flush(Durability::Durable).unwrap();
    let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.after_power_loss(4)).unwrap());
    let copy = reader(&storage, &source.core);
    assert_eq!((copy.length(), copy.blocks_here(), copy.has(20)), (35, 10, true));
}

#[test]
fn damaged_files_are_named_and_can_be_cleared_up() {
    let storage = memory();
    let mut core = writer(&storage);
    core.append(&blocks(0..200), Durability::Durable).unwrap();
    let key = *core.discovery_key();
    drop(core);
    let files = storage.files(&key);
    files.blocks.truncate(1000).unwrap();
    files.blocks.write_at(3, b"damage").unwrap();
    let core = Core::open(&storage, &key).unwrap().unwrap();
    assert_eq!(is_sound(&core, 1), Some(false));
    assert_eq!(core.get(199).unwrap(), None);
    let block = Some(NodeRequest { index: 199, nodes: 0 });
    let proof = core.create_proof(&Request { block, ..Request::default() }).unwrap();
    assert!(matches!(proof, Provable::NotHere));
    drop(core);
    files.tree.truncate(400).unwrap();
    let mut core = Core::open(&storage, &key).unwrap().unwrap();
    assert!(!core.has(199));
    assert_eq!((core.get(150).unwrap(), core.heed()), (None, vec![150]));
    assert!(!core.has(150));
    assert!(matches!(core.seek(2000).unwrap(), SeekResult::Need { .. }));
    drop(core.clear(150..151));
    drop(core);
    let mut writes = Writes::default();
    writes.put(Table::Heads, *key.as_bytes(), vec![1, 1, 0, 0xff]);
    storage.commit(writes, &[], Durability::Durable).unwrap();
    let error = Core::open(&storage, &key).err().unwrap().to_string();
    assert!(error.contains("Heads") && error.contains("damaged"), "{error}");
}

/// A device that refuses to sync, after an end in the middle: what was committed is read, and nothing is changed.
#[test]
fn what_cannot_be_repeated_after_an_unclean_end_is_read() {
    for kind in [std::io::ErrorKind::StorageFull, std::io::ErrorKind::Other] {
        let medium = CrashMedium::default();
        let open = || -> Arc<dyn Storage> { Arc::new(Staged::new(medium.clone()).unwrap()) };
        let storage = open();
        let mut core = writer(&storage);
        core.append(&blocks(0..3), Durability::Durable).unwrap();
        std::mem::forget((core, storage));
        medium.fail_sync(kind);
        let storage = open();
        let mut core = writer(&storage);
        for block in 0..3 {
            assert_eq!(
                core.get(block).unwrap().as_ref(),
                blocks(block..block + 1).first(),
                "{kind}"
            );
        }
        assert!(core.append(&blocks(0..1), Durability::Durable).is_err(), "{kind}");
        std::mem::forget((core, storage));
        let mut core = writer(&open());
        assert_eq!((core.length(), core.blocks_here()), (3, 3), "{kind}");
        core.append(&blocks(0..1), Durability::Durable).unwrap();
    }
}
