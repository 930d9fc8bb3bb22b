//! A changed file over a power cut or a kill at any operation of the medium.

use super::tests::{base, content};
use super::*;
use crate::hyper::core::storage::crash::CrashMedium;
use crate::hyper::core::storage::{Durability, Staged, Table, Writes};
use crate::hyper::source::memory::MemoryLog;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const KEY: &[u8] = b"a file";

/// A file, its content after each call, and the content at the sync that was acknowledged last.
struct Case {
    storage: Arc<dyn Storage>,
    blobs: Blobs,
    file: LocalFile,
    memory: Arc<Memory>,
    recorded: Option<u64>,
    /// The sync was of a file in memory: a crash leaves that, and nothing later.
    inline: bool,
    /// What was, from the last acknowledged sync on; the first is the one of the sync.
    states: Vec<Vec<u8>>,
    /// The last of them is of a sync that was tried, and failed.
    tried: bool,
}

impl Case {
    fn new(medium: &CrashMedium, has_base: bool, memory: usize) -> Option<Self> {
        let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).ok()?);
        let blobs = Blobs::writable(MemoryLog::new());
        let data = content(if has_base { 3_000 } else { 0 });
        let base = has_base.then(|| base(&blobs, &data, false));
        let memory = Memory::new(memory);
        let file = LocalFile::new(&storage, &memory, base);
        Some(Self {
            storage,
            blobs,
            file,
            memory,
            recorded: None,
            inline: false,
            states: vec![data],
            tried: false,
        })
    }

    /// One call; false when the machine has stopped.
    fn step(&mut self, rng: &mut StdRng) -> bool {
        let mut next = self.states.last().unwrap().clone();
        let (at, len) = (rng.random_range(0..5_000usize), rng.random_range(1..1_500usize));
        let bytes = vec![rng.random_range(1..=255u8); len];
        let end = next.len();
        let done = match rng.random_range(0..12) {
            0..3 => {
                let at = at.min(end + 600);
                next.resize(end.max(at + len), 0);
                next[at..at + len].copy_from_slice(&bytes);
                self.file.write(at as u64, &bytes).is_ok()
            }
            3..6 => {
                next.extend(&bytes);
                self.file.append(&bytes).is_ok()
            }
            6 => {
                next.resize(at, 0);
                self.file.truncate(at as u64).is_ok()
            }
            7 => {
                let range = at.min(end)..(at + len).min(end);
                next[range.clone()].fill(0);
                self.file.punch(range.start as u64..range.end as u64);
                true
            }
            _ => return self.sync(),
        };
        self.states.push(next);
        done
    }

    fn sync(&mut self) -> bool {
        let mut writes = Writes::default();
        let version = self.file.record_version();
        if self.recorded != Some(version) {
            writes.put(Table::Records, KEY, self.file.record().unwrap().bytes);
        }
        let files = self.file.files();
        let files: Vec<_> = files.iter().collect();
        if self.storage.commit(writes, &files, Durability::Durable).is_err() {
            self.tried = true;
            return false;
        }
        self.recorded = Some(version);
        self.inline = self.file.staging().is_none();
        self.file.recorded(version);
        self.states.drain(..self.states.len() - 1);
        true
    }

    /// Whether a content is what a crash may leave of the states: the size of the sync or a later one, and each byte
    /// as it was at the sync or was made later.
    fn allows(&self, found: &[u8]) -> bool {
        let is_of = |states: &[Vec<u8>]| {
            let synced = &states[0];
            let longest = states.iter().map(Vec::len).max().unwrap();
            let byte = |state: &Vec<u8>, at: usize| state.get(at).copied();
            (synced.len()..=longest).contains(&found.len())
                && (0..found.len()).all(|at| {
                    let missing = at >= synced.len() && found[at] == 0;
                    missing || states.iter().any(|state| byte(state, at) == Some(found[at]))
                })
        };
        let tried = self.tried && is_of(&self.states[self.states.len() - 1..]);
        tried || if self.inline { found == self.states[0] } else { is_of(&self.states) }
    }

    /// What the next start finds.
    fn recovered(&self, medium: CrashMedium) -> Option<Case> {
        let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium).unwrap());
        let record = storage.get(Table::Records, KEY).unwrap()?;
        let memory = Memory::new(self.memory.most());
        let file = LocalFile::from_record(7, &record, &storage, &memory, &self.blobs).unwrap();
        let found = file.read_local(0, usize::MAX).unwrap().unwrap().concat();
        let recorded = Some(file.record_version());
        let (blobs, inline) = (self.blobs.clone(), file.staging().is_none());
        let states = vec![found];
        Some(Case { storage, blobs, file, memory, recorded, inline, states, tried: false })
    }
}

/// Runs a case until `stop`, and once more from what that leaves.
fn crash(seed: u64, stop: u64, lands: bool) {
    let medium = CrashMedium::default();
    let mut rng = StdRng::seed_from_u64(seed);
    // On the disk from the start, or from somewhere in the middle on, or never.
    let memory = [0, rng.random_range(0..9_000), usize::MAX][rng.random_range(0..3)];
    let Some(mut case) = Case::new(&medium, !seed.is_multiple_of(3), memory) else { return };
    medium.stop_after(stop, lands);
    (0..40).take_while(|_| case.step(&mut rng)).count();
    for (way, left) in
        [medium.after_kill(), medium.after_power_loss(seed), medium.after_power_loss(!seed)]
            .into_iter()
            .enumerate()
    {
        let Some(mut again) = case.recovered(left.clone()) else {
            assert!(case.recorded.is_none(), "seed {seed} stop {stop} way {way}");
            continue;
        };
        assert!(case.allows(&again.states[0]), "seed {seed} stop {stop} {lands} way {way}");
        // A sync alone keeps what was found, and it goes on from there.
        let mut rng = StdRng::seed_from_u64(seed ^ stop);
        assert!(again.sync());
        left.stop_after(rng.random_range(0..30), lands);
        (0..20).take_while(|_| again.step(&mut rng)).count();
        let found = again.recovered(left.after_power_loss(stop)).unwrap();
        assert!(again.allows(&found.states[0]), "again: seed {seed} stop {stop} {lands} way {way}");
    }
}

#[test]
fn what_was_synced_survives_a_crash_at_any_operation() {
    let seeds = std::env::var("CRASH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    for seed in 0..seeds {
        for stop in 0..70 {
            crash(seed, stop, stop % 2 == 0);
        }
    }
}

#[test]
fn a_log_that_is_synced_line_by_line_needs_one_record() {
    let medium = CrashMedium::default();
    let case = Case::new(&medium, true, 0);
    let Some(mut case) = case else { panic!("a new store opens") };
    case.file.append(b"first line").unwrap();
    assert!(case.sync());
    let record = case.storage.get(Table::Records, KEY).unwrap();
    for n in 0..100u8 {
        case.file.append(&[n; 700]).unwrap();
        assert!(case.sync());
    }
    assert_eq!(case.storage.get(Table::Records, KEY).unwrap(), record);
    case.file.append(b"perhaps").unwrap();
    let found = case.recovered(medium.after_power_loss(1)).unwrap();
    let size = 3_010 + 70_000;
    let read = found.file.read_local(3_010, usize::MAX).unwrap().unwrap().concat();
    assert!(found.file.size() >= size && read[..70_000].chunks(700).eq((0..100).map(|n| [n; 700])));
}

/// The move needs several writes, and any of them may be the last.
#[test]
fn a_power_cut_while_it_moves_to_the_disk_leaves_what_was_synced() {
    for (stop, lands) in (0..12).flat_map(|stop| [(stop, false), (stop, true)]) {
        let medium = CrashMedium::default();
        let Some(mut case) = Case::new(&medium, true, 4_000) else { panic!("a new store opens") };
        case.file.write(10, &[1; 100]).unwrap();
        case.file.write(3_500, &[2; 100]).unwrap();
        case.states.push(case.file.read_local(0, 9_000).unwrap().unwrap().concat());
        assert!(case.sync() && case.inline);
        medium.stop_after(stop, lands);
        let mut grown = case.states[0].clone();
        grown.extend([3; 1_000]);
        let moved = case.file.append(&[3; 1_000]).is_ok();
        case.states.push(grown);
        assert_eq!(moved, case.file.staging().is_some());
        let synced = moved && case.sync();
        for left in [medium.after_kill(), medium.after_power_loss(stop)] {
            let found = case.recovered(left).unwrap();
            assert!(case.allows(&found.states[0]), "stop {stop} {lands}");
            assert!(!synced || found.states[0].len() == 4_600);
        }
    }
}
