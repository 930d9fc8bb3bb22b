//! A changed file against a vector.

use super::*;
use crate::hyper::bee::run;
use crate::hyper::blobs::BLOCK_SIZE;
use crate::hyper::core::storage::crash::CrashMedium;
use crate::hyper::core::storage::{Durability, Staged, Table, Writes, memory, open_disk};
use crate::hyper::source::memory::MemoryLog;
use proptest::prelude::*;
use std::io::{Read, Seek};

pub(super) fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 251 + i * 7) as u8).collect()
}

/// A base of that content: blocks in a row, or a map of blocks of several sizes.
pub(super) fn base(blobs: &Blobs, data: &[u8], mapped: bool) -> Base {
    let mut id = blobs.put(data).unwrap();
    if mapped {
        let middle = data.len() / 3;
        let parts = [&data[..middle], &data[middle..]].map(|part| blobs.put(part).unwrap());
        let mut map = crate::hyper::blobs::BlockMap::default();
        for part in parts {
            for n in 0..part.block_length {
                let length = (part.byte_length - n * BLOCK_SIZE).min(BLOCK_SIZE);
                map.push(part.block_offset + n, length).unwrap();
            }
        }
        id = blobs.put_map(&map).unwrap();
    }
    let size = data.len() as u64;
    Base { reader: blobs.reader(id, Some(size)), id, size }
}

pub(super) fn taken_up(
    record: &[u8],
    storage: &Arc<dyn Storage>,
    blobs: &Blobs,
) -> Result<LocalFile> {
    LocalFile::from_record(7, record, storage, &Memory::new(usize::MAX), blobs)
}

/// Everything is in a staging file from the start.
fn no_memory() -> Arc<Memory> {
    Memory::new(0)
}

struct Case {
    blobs: Blobs,
    memory: Arc<Memory>,
    file: Arc<LocalFile>,
    /// Something was written that has no place in memory, however much there is.
    is_large: bool,
    model: Vec<u8>,
    /// Which bytes are no hole.
    data: Vec<bool>,
    /// What the base holds.
    base: Vec<u8>,
}

impl Case {
    fn new(base_len: Option<usize>, mapped: bool, most: usize) -> Self {
        let blobs = Blobs::writable(MemoryLog::new());
        let data = content(base_len.unwrap_or(0));
        let base = base_len.map(|_| base(&blobs, &data, mapped));
        let (storage, memory) = (memory(), Memory::new(most));
        let file = Arc::new(LocalFile::new(&storage, &memory, base));
        let (model, all) = (data.clone(), vec![true; data.len()]);
        Self { blobs, memory, file, is_large: false, model, data: all, base: data }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if !bytes.is_empty() {
            self.is_large |= end as u64 > SMALL;
            self.resize(self.model.len().max(end));
            self.model[at..end].copy_from_slice(bytes);
            self.data[at..end].fill(true);
        }
    }

    fn resize(&mut self, len: usize) {
        self.model.resize(len, 0);
        self.data.resize(len, false);
    }

    fn apply(&mut self, op: u8, at: usize, len: usize, byte: u8) {
        let generation = self.file.generation();
        let bytes = vec![byte; len];
        match op {
            0..=3 => {
                self.file.write(at as u64, &bytes).unwrap();
                self.put(at, &bytes);
            }
            4 | 5 => {
                let end = self.model.len();
                assert_eq!(self.file.append(&bytes).unwrap(), end as u64);
                self.put(end, &bytes);
            }
            6 => {
                self.file.truncate(at as u64).unwrap();
                self.resize(at);
            }
            7 | 8 => {
                self.file.punch(at as u64..(at + len) as u64);
                let end = (at + len).min(self.model.len());
                self.model[at.min(end)..end].fill(0);
                self.data[at.min(end)..end].fill(false);
            }
            9 => {
                self.file.allocate(at as u64..(at + len) as u64, byte < 128).unwrap();
                if byte >= 128 {
                    self.resize(self.model.len().max(at + len));
                }
            }
            10 => self.recover(),
            _ => return self.publish(op, at, &bytes),
        }
        assert!(self.file.generation() >= generation || op == 10);
    }

    /// The process ends and another begins.
    fn recover(&mut self) {
        let Recorded { bytes, .. } = self.file.record().unwrap();
        let (storage, memory) = (self.file.storage.clone(), Memory::new(self.memory.most()));
        let again = LocalFile::from_record(7, &bytes, &storage, &memory, &self.blobs).unwrap();
        assert_eq!(again.staging(), self.file.staging());
        (self.file, self.memory) = (Arc::new(again), memory);
    }

    /// Publishes it while something else happens: nothing, an append, or a write before the end.
    fn publish(&mut self, op: u8, at: usize, bytes: &[u8]) {
        let mut snapshot = self.file.snapshot();
        let size = snapshot.size();
        let id = self.patch(&mut snapshot);
        let (published, end) = (self.model.clone(), self.model.len());
        match op {
            11 => {}
            12 => self.apply(4, 0, bytes.len(), 1),
            _ => self.apply(0, at, bytes.len(), 1),
        }
        let rewritten = op > 12 && at < end && !bytes.is_empty();
        let base = Base { reader: self.blobs.reader(id, Some(size)), id, size };
        let done = self.file.rebase(snapshot.generation(), base);
        assert_eq!(done == Rebased::Refused, rewritten);
        assert_eq!(snapshot.is_whole(), !rewritten);
        assert_eq!(snapshot.read(&mut [0]).is_err(), rewritten);
        if rewritten {
            return;
        }
        assert_eq!(matches!(done, Rebased::Whole(_)), self.model.len() == end);
        self.is_large &= self.model.len() != end;
        if let Rebased::Whole(Some(staging)) = done {
            assert!(self.file.is_base() && self.file.files().is_none());
            self.file.storage.remove_files(&staging).unwrap();
        }
        assert!(self.file.only_appended());
        self.data[..end].fill(true);
        self.base = published;
    }

    /// What a publisher does.
    fn patch(&self, snapshot: &mut Snapshot) -> BlobId {
        let mut writer = self.blobs.writer().unwrap();
        let (size, changed) = (snapshot.size(), snapshot.changed().to_vec());
        let patched = snapshot.base().and_then(|base| {
            let patched = writer.patch(&base, &changed, size, snapshot);
            patched.unwrap()
        });
        let id = patched.unwrap_or_else(|| match snapshot.block().unwrap() {
            Some(block) => writer.put_blocks([block]).unwrap(),
            None => {
                snapshot.rewind().unwrap();
                writer.put(snapshot).unwrap()
            }
        });
        writer.flush().unwrap();
        id
    }

    fn check(&self, at: usize, len: usize) {
        let Self { file, model, data, .. } = self;
        assert_eq!(file.size(), model.len() as u64);
        let (taken, most) = (self.memory.taken(), self.memory.most());
        match file.staging() {
            Some(_) => assert!(taken == 0 && (self.is_large || most < usize::MAX)),
            None => {
                let written = read(&file.state).layout.written.clone();
                assert!(
                    !self.is_large && (written.end() as usize..=SMALL as usize).contains(&taken)
                );
                assert!(written.is_empty() || most > 0);
                let block = file.snapshot().block().unwrap();
                let is_one = written.contains(&(0..model.len() as u64));
                assert!(block.as_deref() == is_one.then_some(&model[..]));
            }
        }
        for (at, len) in [(0, usize::MAX), (at, len)] {
            let part = &model[at.min(model.len())..at.saturating_add(len).min(model.len())];
            assert!(file.read_local(at as u64, len).unwrap().unwrap().concat() == part);
            assert!(run(file.read(at as u64, len)).unwrap().concat() == part);
        }
        let mut read = Vec::new();
        file.snapshot().read_to_end(&mut read).unwrap();
        assert!(read == *model);
        for at in [0, at, at + len] {
            let find = |is| (at..model.len()).find(|&at| data[at] == is).map(|at| at as u64);
            assert_eq!(file.next_data(at as u64), find(true));
            let hole = (at < model.len()).then(|| find(false).unwrap_or(model.len() as u64));
            assert_eq!(file.next_hole(at as u64), hole);
        }
        let changed: ranges::Ranges = file.changed().into_iter().collect();
        for kept in changed.gaps(0..model.len() as u64) {
            let kept = kept.start as usize..kept.end as usize;
            assert!(model[kept.clone()] == self.base[kept]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn a_changed_file_is_a_vector(
        base in proptest::option::of(0usize..200_000), mapped: bool, scale in 1usize..9,
        most in prop_oneof![Just(0), 0usize..60_000, Just(usize::MAX)],
        ops in proptest::collection::vec(
            (0u8..14, 0usize..260_000, prop_oneof![0usize..40, 0usize..90_000], 1u8..), 1..14),
    ) {
        let mut case = Case::new(base.map(|len| len / scale), mapped, most);
        for (op, at, len, byte) in ops {
            let (at, len) = (at / scale, len / scale);
            case.apply(op, at, len, byte);
            case.check(at / 2, len);
        }
        let Case { memory, file, .. } = case;
        drop(file);
        assert_eq!(memory.taken(), 0);
    }
}

proptest! {
    /// Whatever a record says that can be read, the file that it makes errs at worst.
    #[test]
    fn a_record_without_sense_is_an_error_or_a_file(
        (places, block_map, open, inline) in any::<([u64; 4], bool, bool, bool)>(),
        cuts in proptest::collection::vec(0u64..MAX_SIZE, 3..4), staged in 0u64..300_000,
        written in proptest::collection::vec((0u64..200_000, 1u64..50_000), 0..4),
    ) {
        let [block_offset, byte_offset, block_length, byte_length] = places.map(|n| n >> (n % 64));
        let id = BlobId { block_offset, byte_offset, block_length, byte_length, block_map };
        let mut layout = Layout::of_base(cuts[0]);
        layout.truncate(cuts[1].min(cuts[2]));
        layout.truncate(cuts[2]);
        let scale = if inline { 8 } else { 1 };
        for (at, len) in written {
            layout.write(at / scale..(at + len).div_ceil(scale));
        }
        let staging = DiscoveryKey([3; 32]);
        let kept = match inline {
            true => Kept::Inline(vec![1; layout.written.bytes() as usize]),
            false => Kept::File { id: staging, open },
        };
        let record = Record { kept, base: Some((id, cuts[0])), layout, mtime: 0 };
        let storage = memory();
        storage.files(&staging).blocks.write_at(staged, &[1]).unwrap();
        let blobs = Blobs::writable(MemoryLog::new());
        blobs.put(&content(100_000)[..]).unwrap();
        let record = record.encode().unwrap();
        let file = LocalFile::from_record(7, &record, &storage, &Memory::new(9_000), &blobs);
        let Ok(file) = file else { return Ok(()) };
        for at in [0, cuts[0], cuts[1], file.size() / 2, file.size()] {
            let _ = (file.read_local(at, 100_000), run(file.read(at, 100_000)));
            let _ = (file.next_data(at), file.next_hole(at), file.append(b"more"));
        }
        file.punch(cuts[0]..cuts[2]);
        file.truncate(cuts[1]).unwrap();
        prop_assert_eq!(file.size(), cuts[1]);
    }
}

#[test]
fn nothing_is_on_the_disk_before_the_first_write_and_little_after_a_cut() {
    let storage = memory();
    let file = LocalFile::new(&storage, &no_memory(), None);
    file.truncate(1 << 40).unwrap();
    file.punch(5..1 << 30);
    assert_eq!(file.read_local(1 << 39, 100_000).unwrap().unwrap().concat(), vec![0; 100_000]);
    assert!(storage.cores_with_files().unwrap().is_empty() && file.files().is_none());
    file.write(0, &[1; 1 << 20]).unwrap();
    file.punch(100_000..1 << 20);
    assert!(storage.cores_with_files().unwrap()[0].1 < 200_000);
    let before = file.record().unwrap();
    let staged = storage.files(&file.staging().unwrap());
    file.truncate(10).unwrap();
    // The record may be on the device, and speaks of all of it.
    assert_eq!(staged.blocks.read_at(99_999, &mut [0]).unwrap(), 1);
    let after = file.record().unwrap();
    file.recorded(before.version);
    assert_eq!(staged.blocks.read_at(99_999, &mut [0]).unwrap(), 1);
    file.recorded(after.version);
    assert_eq!(staged.blocks.read_at(10, &mut [0]).unwrap(), 0);
}

#[test]
fn what_is_not_here_is_fetched_and_a_snapshot_does_not_wait_for_it() {
    let remote = MemoryLog::new();
    let data = content(200_000);
    let id = base(&Blobs::writable(remote.clone()), &data, false).id;
    let blobs = Blobs::new(MemoryLog::sparse(&remote));
    let base = Base { reader: blobs.reader(id, None), id, size: 200_000 };
    let file = Arc::new(LocalFile::new(&memory(), &no_memory(), Some(base)));
    file.write(70_000, b"here").unwrap();
    assert_eq!(file.read_local(70_000, 4).unwrap().unwrap(), ["here"]);
    assert!(file.read_local(69_999, 5).unwrap().is_none());
    let mut all = Vec::new();
    let error = file.snapshot().read_to_end(&mut all).unwrap_err();
    assert!(error.to_string().contains("not here"), "{error}");
    let reading = file.read(69_000, 2_000);
    file.write(69_500, &[9; 1000]).unwrap();
    let mut then = data[69_000..71_000].to_vec();
    then[1000..1004].copy_from_slice(b"here");
    assert_eq!(run(reading).unwrap().concat(), then, "it is the content at the time of the call");
}

#[test]
fn bytes_of_the_base_are_its_own_blocks() {
    let log = MemoryLog::new();
    let blobs = Blobs::writable(log.clone());
    let base = base(&blobs, &content(100_000), false);
    let file = LocalFile::new(&memory(), &no_memory(), Some(base));
    let read = file.read_local(10, 100).unwrap().unwrap();
    assert_eq!(read[0].as_ptr(), log.blocks()[0][10..].as_ptr());
}

#[test]
fn what_is_too_large_or_finds_no_room_changes_nothing() {
    let medium = CrashMedium::default();
    let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).unwrap());
    let blobs = Blobs::writable(MemoryLog::new());
    let old = base(&blobs, &content(1000), false);
    let file = LocalFile::new(&storage, &no_memory(), Some(old));
    file.write(500, b"before").unwrap();
    let is_as_before = |file: &LocalFile| {
        let mut model = content(1000);
        model[500..506].copy_from_slice(b"before");
        assert_eq!(file.read_local(0, 2000).unwrap().unwrap().concat(), model);
    };
    for size in [MAX_SIZE + 1, u64::MAX] {
        assert!(matches!(file.truncate(size), Err(LocalError::TooLarge)));
        assert!(matches!(file.write(size - 1, b"ab"), Err(LocalError::TooLarge)));
    }
    let version = file.record().unwrap().version;
    medium.set_full(true);
    let is_full =
        |done: Result<()>| matches!(done, Err(LocalError::Storage(e)) if e.is_disk_full());
    assert!(is_full(file.append(b"no room").map(drop)));
    assert_ne!(file.record_version(), version, "what may be past the end is not the file's");
    assert!(is_full(file.write(0, b"no room")));
    is_as_before(&file);
    medium.set_full(false);
    is_as_before(&file);
    assert_eq!(file.append(b"room").unwrap(), 1000);
}

#[test]
fn what_only_grows_needs_one_record_and_everything_else_another() {
    let blobs = Blobs::writable(MemoryLog::new());
    let old = base(&blobs, &content(1000), false);
    let file = LocalFile::new(&memory(), &no_memory(), Some(old));
    file.append(b"line").unwrap();
    let recorded = file.record().unwrap();
    let is_enough = || file.record_version() == recorded.version;
    file.append(b"another").unwrap();
    file.write(5_000, b"far away").unwrap();
    file.write(1_001, b"in what was recorded, and on").unwrap();
    file.touch(77);
    assert!(is_enough());
    let again = taken_up(&recorded.bytes, &file.storage, &blobs).unwrap();
    let all = |file: &LocalFile| file.read_local(0, 10_000).unwrap().unwrap().concat();
    assert_eq!(all(&again), all(&file));
    for change in [
        (|file| file.write(10, b"over the base").unwrap()) as fn(&LocalFile),
        |file| file.truncate(2_000).unwrap(),
        |file| assert_eq!(file.append(b"behind what was cut off").unwrap(), 2_000),
        |file| file.truncate(9_000).unwrap(),
        |file| file.punch(1_000..1_002),
        |file| file.set_mtime(78),
    ] {
        let version = file.record().unwrap().version;
        change(&file);
        assert_ne!(file.record_version(), version);
    }
    let recorded = file.record().unwrap();
    let again = taken_up(&recorded.bytes, &file.storage, &blobs).unwrap();
    assert_eq!((again.mtime(), all(&again)), (78, all(&file)));
}

#[test]
fn a_file_changed_in_too_many_places_has_no_record_and_a_lost_one_is_an_error() {
    let storage = memory();
    let blobs = Blobs::writable(MemoryLog::new());
    let file = LocalFile::new(&storage, &no_memory(), None);
    let recorded = {
        file.write(5, b"lost").unwrap();
        file.record().unwrap()
    };
    let mut state = write(&file.state);
    (0..MAX_RECORD as u64).for_each(|at| state.layout.write(at * 2..at * 2 + 1));
    drop(state);
    assert_eq!(file.record(), None);
    storage.remove_files(&file.staging().unwrap()).unwrap();
    let lost = taken_up(&recorded.bytes, &storage, &blobs);
    assert!(matches!(lost, Err(LocalError::Lost)));
    assert!(matches!(taken_up(&[9], &storage, &blobs), Err(LocalError::Record(_))));
}

#[test]
fn a_write_is_seen_wholly_or_not_at_all() {
    let file = Arc::new(LocalFile::new(&memory(), &no_memory(), None));
    file.write(0, &[0; 10_000]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| (1..200).for_each(|n| file.write(0, &[n; 10_000]).unwrap()));
        for _ in 0..200 {
            let read = file.read_local(0, 10_000).unwrap().unwrap().concat();
            assert!(read.iter().all(|&byte| byte == read[0]));
        }
    });
}

#[test]
fn a_file_on_a_disk_outlives_its_process_and_its_staging_file_goes() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::writable(MemoryLog::new());
    let mut model = content(100_000);
    let first = base(&blobs, &model, false);
    let commit = |file: &LocalFile| {
        let mut writes = Writes::default();
        writes.put(Table::Records, *b"file", file.record().unwrap().bytes);
        let files = file.files();
        let files: Vec<_> = files.iter().collect();
        file.storage.commit(writes, &files, Durability::Durable).unwrap();
        file.recorded(file.record_version());
    };
    {
        let file = LocalFile::new(&open_disk(dir.path()).unwrap(), &no_memory(), Some(first));
        for (at, len) in [(300_000, 200_000), (5, 10)] {
            model.resize(model.len().max(at + len), 0);
            model[at..at + len].fill(1);
            file.write(at as u64, &vec![1; len]).unwrap();
            commit(&file);
        }
        model.truncate(400_000);
        file.truncate(400_000).unwrap();
        commit(&file);
        // Not committed, and there all the same.
        model.extend(b"more");
        file.append(b"more").unwrap();
    }
    let storage = open_disk(dir.path()).unwrap();
    let record = storage.get(Table::Records, b"file").unwrap().unwrap();
    let file = taken_up(&record, &storage, &blobs).unwrap();
    model.truncate(file.size() as usize);
    assert!(file.read_local(0, usize::MAX).unwrap().unwrap().concat() == model);
    let file = Arc::new(file);
    commit(&file);
    let id = blobs.put(file.snapshot()).unwrap();
    let base = Base { reader: blobs.reader(id, None), id, size: file.size() };
    let Rebased::Whole(Some(staging)) = file.rebase(file.generation(), base) else { panic!() };
    storage.remove_files(&staging).unwrap();
    assert!(storage.cores_with_files().unwrap().is_empty());
    model[..4].copy_from_slice(b"anew");
    file.write(0, b"anew").unwrap();
    commit(&file);
    assert!(file.read_local(0, usize::MAX).unwrap().unwrap().concat() == model);
}
