//! What may be done, and the choice of it.

/// A path of few names, so that operations meet.
pub type Name = &'static str;

/// Which of the open files.
pub type Slot = usize;

/// Open files at a time.
pub const SLOTS: Slot = 6;

const NAMES: [Name; 12] =
    ["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/b", "f", "f/a", "f/e/a"];

/// What links lead to; none of it leads out.
const TARGETS: [Name; 4] = ["a", "b", "d", "nowhere"];

/// No file grows beyond.
const LONGEST: u64 = 200_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Read,
    Write,
    Append,
    Truncate,
    CreateNew,
}

#[derive(Debug, Clone)]
pub enum Operation {
    /// Opens it in a slot; what was there is closed.
    Open(Slot, Name, Mode),
    Close(Slot),
    Write {
        slot: Slot,
        at: u64,
        len: usize,
        byte: u8,
    },
    Read {
        slot: Slot,
        at: u64,
        len: usize,
    },
    SetLen(Slot, u64),
    Punch {
        slot: Slot,
        at: u64,
        len: u64,
    },
    Allocate {
        slot: Slot,
        at: u64,
        len: u64,
        keep_size: bool,
    },
    Sync(Slot),
    /// All of the drive that is not open.
    SyncNames,
    /// A file of this length in one step, as `echo >f` does.
    Save {
        name: Name,
        len: usize,
        byte: u8,
    },
    /// By way of a second file.
    Replace {
        name: Name,
        len: usize,
        byte: u8,
    },
    SetLenByName(Name, u64),
    MakeDir(Name),
    RemoveDir(Name),
    Remove(Name),
    Rename(Name, Name),
    Exchange(Name, Name),
    RenameNew(Name, Name),
    Link(Name, Name),
    Symlink(Name, Name),
    Copy(Name, Name),
    Chmod(Name, u32),
    SetXattr(Name, Name, u8),
    RemoveXattr(Name, Name),
    List(Name),
    Stat(Name),
}

impl Operation {
    pub fn any(random: &mut Random) -> Self {
        let slot = random.below(SLOTS as u64) as Slot;
        let (name, other) = (random.of(&NAMES), random.of(&NAMES));
        let at = random.below(LONGEST / 2);
        let len = [1, 100, 5_000, 70_000][random.below(4) as usize] + random.below(50);
        let byte = random.below(255) as u8 + 1;
        let size = if random.below(3) == 0 { 0 } else { random.below(LONGEST) };
        let xattr = random.of(&["user.one", "user.two"]);
        match random.below(64) {
            0..=9 => {
                let modes = [
                    Mode::Read,
                    Mode::Write,
                    Mode::Write,
                    Mode::Append,
                    Mode::Truncate,
                    Mode::CreateNew,
                ];
                Self::Open(slot, name, random.of(&modes))
            }
            10..=12 => Self::Close(slot),
            13..=22 => Self::Write { slot, at, len: len as usize, byte },
            23..=28 => Self::Read { slot, at, len: len as usize },
            29 | 30 => Self::SetLen(slot, size),
            31 => Self::Punch { slot, at, len },
            32 => Self::Allocate { slot, at, len, keep_size: byte > 127 },
            33..=35 => Self::Sync(slot),
            36 => Self::SyncNames,
            37..=39 => Self::Save { name, len: len as usize, byte },
            40 | 41 => Self::Replace { name, len: len as usize, byte },
            42 => Self::SetLenByName(name, size),
            43..=46 => Self::MakeDir(name),
            47 => Self::RemoveDir(name),
            48 | 49 => Self::Remove(name),
            50..=53 => Self::Rename(name, other),
            54 => Self::Exchange(name, other),
            55 => Self::RenameNew(name, other),
            56 | 57 => Self::Link(name, other),
            58 => Self::Symlink(random.of(&TARGETS), name),
            59 => Self::Copy(name, other),
            60 => Self::Chmod(name, 0o400 | random.below(0o10000) as u32),
            61 => match byte % 3 {
                0 => Self::RemoveXattr(name, xattr),
                _ => Self::SetXattr(name, xattr, byte),
            },
            62 => Self::List(name),
            _ => Self::Stat(name),
        }
    }
}

/// xorshift64, so that a history is told by its seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}
