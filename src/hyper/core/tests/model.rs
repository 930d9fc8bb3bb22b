//! A writer's core against a vector of blocks, with reopening, crashes and a full disk in between.

use super::super::storage::crash::CrashMedium;
use super::super::storage::{Staged, StorageError};
use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    Append {
        count: usize,
        size: usize,
        durable: bool,
    },
    Truncate {
        keep: u64,
    },
    Clear {
        start: u64,
        len: u64,
    },
    Flush {
        durable: bool,
    },
    Reopen,
    Full(bool),
    /// The next transactions report an error, and land or not.
    Trouble {
        count: u32,
        land: bool,
    },
    /// An append in pieces.
    Staged {
        count: usize,
        size: usize,
    },
    Crash {
        seed: u64,
        kill: bool,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0usize..40, 0usize..3000, any::<bool>())
            .prop_map(|(count, size, durable)| Op::Append { count, size, durable }),
        1 => (0u64..60).prop_map(|keep| Op::Truncate { keep }),
        1 => (0u64..60, 0u64..20).prop_map(|(start, len)| Op::Clear { start, len }),
        1 => any::<bool>().prop_map(|durable| Op::Flush { durable }),
        1 => Just(Op::Reopen),
        1 => any::<bool>().prop_map(Op::Full),
        1 => (1u32..3, any::<bool>()).prop_map(|(count, land)| Op::Trouble { count, land }),
        2 => (1usize..9, 1usize..3000).prop_map(|(count, size)| Op::Staged { count, size }),
        2 => (any::<u64>(), any::<bool>()).prop_map(|(seed, kill)| Op::Crash { seed, kill }),
    ];
    proptest::collection::vec(op, 1..40)
}

/// What a core should hold: fork and blocks, `None` where cleared.
type State = (u64, Vec<Option<Vec<u8>>>);

struct World {
    medium: CrashMedium,
    storage: Arc<dyn Storage>,
    core: Option<Core>,
    /// States since the last durable one, which is the first.
    history: Vec<State>,
    encryption_key: Option<[u8; 32]>,
    /// A change that reported an error and may be on the medium; from then on the store takes none.
    unsure: Option<State>,
    /// Transactions may report an error.
    troubled: bool,
    /// There was no room at some time.
    was_full: bool,
    /// Bytes never repeat, so that a stale block shows.
    counter: u64,
}

impl World {
    fn new(encryption_key: Option<[u8; 32]>) -> Self {
        let medium = CrashMedium::default();
        let mut world = Self {
            storage: Arc::new(Staged::new(medium.clone()).unwrap()),
            medium,
            core: None,
            history: vec![(0, Vec::new())],
            encryption_key,
            unsure: None,
            troubled: false,
            was_full: false,
            counter: 0,
        };
        world.open();
        world
    }

    fn open(&mut self) {
        let mut options = CreateOptions::writer(key_pair(0));
        options.encryption_key = self.encryption_key;
        self.core = Some(Core::create(&self.storage, options).unwrap());
    }

    fn core(&mut self) -> &mut Core {
        self.core.as_mut().unwrap()
    }

    fn state(&self) -> State {
        self.history.last().unwrap().clone()
    }

    /// Notes a change that was acknowledged, or that it was refused for want of room.
    fn done(&mut self, result: Result<()>, state: State, durable: bool) {
        match result {
            Ok(()) => {
                if durable {
                    self.history.clear();
                }
                self.history.push(state);
            }
            Err(CoreError::Storage(StorageError::Unsure(_))) => self.unsure = Some(state),
            // The unsure change may have been one that says nothing of blocks, a session's start, say; and a sync
            // that finds no room has failed.
            Err(CoreError::Storage(StorageError::SyncFailed)) => {
                assert!(self.troubled || self.was_full);
            }
            Err(error) => assert!(error.is_disk_full() || self.troubled, "{error}"),
        }
    }

    fn new_blocks(&mut self, count: usize, size: usize) -> Vec<Bytes> {
        let mut block = |i| {
            self.counter += 1;
            let size = size * (i % 3) / 2;
            (0..size as u64).map(|j| (j * 7 + self.counter) as u8).collect()
        };
        (0..count).map(&mut block).collect()
    }

    fn run(&mut self, op: &Op) {
        let (fork, mut blocks) = self.state();
        match *op {
            Op::Append { count, size, durable } => {
                let new = self.new_blocks(count, size);
                let durability = if durable { Durability::Durable } else { Durability::Buffered };
                let result = self.core().append(&new, durability).map(drop);
                blocks.extend(new.iter().map(|block| Some(block.to_vec())));
                self.done(result, (fork, blocks), durable);
            }
            Op::Staged { count, size } => {
                let new = self.new_blocks(count, size);
                let result = super::staging::append_pieces(self.core(), &new);
                blocks.extend(new.iter().map(|block| Some(block.to_vec())));
                self.done(result, (fork, blocks), true);
            }
            Op::Trouble { count, land } => {
                self.medium.fail_transactions(count, land);
                self.troubled = true;
            }
            Op::Truncate { keep } => {
                let keep = keep.min(blocks.len() as u64);
                let result = self.core().truncate(keep, fork + 1);
                blocks.truncate(keep as usize);
                self.done(result, (fork + 1, blocks), true);
            }
            Op::Clear { start, len } => {
                let result = self.core().clear(start..start + len);
                let range =
                    (start as usize).min(blocks.len())..((start + len) as usize).min(blocks.len());
                let durable = matches!(result, Ok(n) if n > 0);
                blocks[range].fill(None);
                self.done(result.map(drop), (fork, blocks), durable);
            }
            Op::Flush { durable } => {
                let durability = if durable { Durability::Durable } else { Durability::Buffered };
                let result = self.core().flush(durability);
                self.done(result, (fork, blocks), durable);
            }
            Op::Reopen => {
                self.core = None;
                // What an opening meets that may not write is told, and not of this test.
                self.medium.fail_transactions(0, false);
                self.open();
                // Opened anew, it is what landed.
                let found = contents(self.core());
                self.history.extend(self.unsure.iter().filter(|state| **state == found).cloned());
            }
            Op::Full(full) => {
                self.medium.set_full(full);
                self.was_full |= full;
            }
            Op::Crash { seed, kill } => self.crash(seed, kill),
        }
    }

    fn crash(&mut self, seed: u64, kill: bool) {
        let after = match kill {
            true => self.medium.after_kill(),
            false => self.medium.after_power_loss(seed),
        };
        self.core = None;
        self.medium = after;
        self.storage = Arc::new(Staged::new(self.medium.clone()).unwrap());
        self.open();
        let found = contents(self.core.as_ref().unwrap());
        let at = self.history.iter().chain(&self.unsure).position(|state| *state == found);
        assert!(at.is_some(), "found {} blocks at fork {}", found.1.len(), found.0);
        self.history = vec![found];
        (self.unsure, self.troubled) = (None, false);
    }
}

fn contents(core: &Core) -> State {
    let blocks = (0..core.length())
        .map(|i| {
            assert_ne!(is_sound(core, i), Some(false));
            core.get(i).unwrap().map(|block| block.to_vec())
        })
        .collect();
    (core.fork(), blocks)
}

fn run(ops: &[Op], encryption_key: Option<[u8; 32]>) {
    let mut world = World::new(encryption_key);
    for op in ops {
        world.run(op);
        let (found, state) = (contents(world.core()), world.state());
        assert!(found == state, "after {op:?}");
        let core = world.core();
        let contiguous = state.1.iter().take_while(|block| block.is_some()).count() as u64;
        assert_eq!(core.contiguous_length(), contiguous);
        let sizes = state.1.iter().flatten().map(|block| block.len() as u64).sum::<u64>();
        if contiguous == core.length() {
            assert_eq!(core.byte_length(), sizes);
        }
    }
}

proptest! {
    #![proptest_config(crate::sim::cases(150))]
    #[test]
    fn a_core_is_a_vector_of_blocks(ops in ops(), encrypted in any::<bool>()) {
        run(&ops, encrypted.then_some([7; 32]));
    }
}

/// A transaction that landed although it reported an error, after changes that were buffered: they lay over what
/// had landed.
#[test]
fn what_landed_with_an_error_is_not_hidden_by_what_it_replaced() {
    let ops = [
        Op::Append { count: 1, size: 0, durable: false },
        Op::Crash { seed: 0, kill: false },
        Op::Trouble { count: 2, land: true },
        Op::Staged { count: 1, size: 1 },
        Op::Reopen,
    ];
    run(&ops, None);
}
