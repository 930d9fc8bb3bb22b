//! A mount that is written by several programs at once is killed again and again, and its disk runs full: what was
//! acknowledged is there, and everything is something that was written.

use crate::common::*;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

const MIB: usize = 1 << 20;
/// Bytes of a line of a log.
const LINE: usize = 40;
/// Blocks of 4 KiB in the file that is written in place.
const BLOCKS: usize = 512;
const BLOCK: usize = 4096;
/// Files that are there at a time of those that are made and deleted.
const ALIVE: u64 = 5;

fn written(lab: &Lab, store: &str) -> (Mounted, String) {
    let made = lab.run(store, &["create", "notes"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let key = made.text().lines().find_map(|line| line.strip_prefix("key: ")).unwrap().to_string();
    (again(lab, store), key)
}

fn again(lab: &Lab, store: &str) -> Mounted {
    lab.mount_alone(store, "notes", &["-o", "rw"])
}

fn kill(mount: &mut Mounted) {
    mount.process.signal(Signal::SIGKILL);
    mount.process.wait(PATIENCE);
}

/// A program that does one thing after the other to files of its own, and checks them after an end.
trait Program: Send {
    /// Does the next thing, and notes before it what it tries and after it what was acknowledged.
    fn step(&mut self, at: &Path) -> io::Result<()>;
    /// What is there is no less than what was acknowledged; what else is there counts from now on.
    fn check(&mut self, at: &Path);
}

fn sync_dir(at: &Path) -> io::Result<()> {
    File::open(at)?.sync_all()
}

/// Of a version, whole.
fn content(of: u64, version: u64) -> Vec<u8> {
    let size = 500 + (version as usize * 7919) % 90_000;
    let mut bytes = version.to_le_bytes().to_vec();
    bytes.extend(pattern((version * 31 + of + 1) as u32, size));
    bytes
}

fn version(content: &[u8]) -> u64 {
    content.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes))
}

/// Saves as editors do: a temporary file, synced, takes the place of the one before.
struct Saver {
    number: u64,
    tried: u64,
    acknowledged: u64,
}

impl Program for Saver {
    fn step(&mut self, at: &Path) -> io::Result<()> {
        self.tried += 1;
        let temporary = at.join(format!(".saved-{}.tmp", self.number));
        let mut file = File::create(&temporary)?;
        file.write_all(&content(self.number, self.tried))?;
        file.sync_all()?;
        // One of them goes on having it open.
        let open = self.number.is_multiple_of(2).then_some(file);
        fs::rename(&temporary, at.join(format!("saved-{}", self.number)))?;
        sync_dir(at)?;
        drop(open);
        self.acknowledged = self.tried;
        Ok(())
    }

    fn check(&mut self, at: &Path) {
        let found = fs::read(at.join(format!("saved-{}", self.number)));
        if self.acknowledged == 0 && found.is_err() {
            return;
        }
        let found = found.unwrap();
        let is = version(&found);
        assert!((self.acknowledged..=self.tried).contains(&is), "{is} of {}", self.acknowledged);
        assert!(found == content(self.number, is), "version {is} is cut, or mixed");
        self.acknowledged = is;
    }
}

/// Appends lines to a log, and syncs each.
struct Logger {
    number: u64,
    file: Option<File>,
    tried: usize,
    acknowledged: usize,
}

fn line(n: usize) -> Vec<u8> {
    format!("{:>width$}\n", format!("line {n}"), width = LINE - 1).into_bytes()
}

impl Program for Logger {
    fn step(&mut self, at: &Path) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let path = at.join(format!("log-{}", self.number));
                self.file.insert(OpenOptions::new().append(true).create(true).open(path)?)
            }
        };
        self.tried += 1;
        file.write_all(&line(self.tried - 1))?;
        file.sync_data()?;
        self.acknowledged = self.tried;
        Ok(())
    }

    fn check(&mut self, at: &Path) {
        self.file = None;
        let path = at.join(format!("log-{}", self.number));
        let found = fs::read(&path).unwrap_or_default();
        let lines: Vec<&[u8]> = found.chunks(LINE).collect();
        assert!(lines.len() >= self.acknowledged, "{} of {}", lines.len(), self.acknowledged);
        assert!(lines.len() <= self.tried.max(self.acknowledged));
        for (n, found) in lines.iter().enumerate().take(self.acknowledged) {
            assert!(*found == line(n), "line {n}: {:?}", String::from_utf8_lossy(found));
        }
        // A line that was not synced may be a part of one.
        if lines.len() > self.acknowledged {
            let size = (self.acknowledged * LINE) as u64;
            OpenOptions::new().write(true).open(path).unwrap().set_len(size).unwrap();
        }
        self.tried = self.acknowledged;
    }
}

/// Writes blocks of a larger file in place, and syncs each.
struct Database {
    number: u64,
    file: Option<File>,
    rng: StdRng,
    /// By block the version that is acknowledged, and the one that was tried last.
    blocks: Vec<(u64, u64)>,
    made: bool,
}

fn block(at: usize, version: u64) -> Vec<u8> {
    [at as u64, version].map(u64::to_le_bytes).concat().repeat(BLOCK / 16)
}

impl Program for Database {
    fn step(&mut self, at: &Path) -> io::Result<()> {
        let path = at.join(format!("database-{}", self.number));
        if !self.made {
            let file = File::create(&path)?;
            for n in 0..BLOCKS {
                file.write_all_at(&block(n, 0), (n * BLOCK) as u64)?;
            }
            file.sync_all()?;
            sync_dir(at)?;
            self.made = true;
        }
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(OpenOptions::new().write(true).open(path)?),
        };
        let n = self.rng.random_range(0..BLOCKS);
        self.blocks[n].1 += 1;
        file.write_all_at(&block(n, self.blocks[n].1), (n * BLOCK) as u64)?;
        file.sync_data()?;
        self.blocks[n].0 = self.blocks[n].1;
        // Now and then it is closed, and published.
        if self.rng.random_bool(0.02) {
            self.file = None;
        }
        Ok(())
    }

    fn check(&mut self, at: &Path) {
        self.file = None;
        if !self.made {
            return;
        }
        let found = fs::read(at.join(format!("database-{}", self.number))).unwrap();
        assert_eq!(found.len(), BLOCKS * BLOCK);
        for (n, found) in found.chunks(BLOCK).enumerate() {
            let (acknowledged, tried) = &mut self.blocks[n];
            let is = version(&found[8..]);
            assert!((*acknowledged..=*tried).contains(&is), "block {n}: {is} of {acknowledged}");
            assert!(found == block(n, is), "block {n} is mixed");
            *acknowledged = is;
        }
    }
}

/// Makes files and deletes them.
struct Maker {
    number: u64,
    /// The next one, and the oldest that is there.
    next: u64,
    oldest: u64,
    /// What is certain of a file: whether it is there.
    certain: BTreeMap<u64, bool>,
}

impl Maker {
    fn path(&self, at: &Path, n: u64) -> PathBuf {
        at.join(format!("made-{}/{n}", self.number))
    }
}

impl Program for Maker {
    fn step(&mut self, at: &Path) -> io::Result<()> {
        let folder = at.join(format!("made-{}", self.number));
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let n = self.next;
        self.next += 1;
        let mut file = File::create(self.path(at, n))?;
        file.write_all(&content(self.number, n))?;
        file.sync_all()?;
        drop(file);
        self.certain.insert(n, true);
        if self.next - self.oldest > ALIVE {
            let n = self.oldest;
            self.oldest += 1;
            self.certain.remove(&n);
            match fs::remove_file(self.path(at, n)) {
                // It was being made when the mount was killed.
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            sync_dir(&folder)?;
            self.certain.insert(n, false);
        }
        Ok(())
    }

    fn check(&mut self, at: &Path) {
        for (&n, &is_there) in &self.certain {
            match fs::read(self.path(at, n)) {
                Ok(found) => {
                    assert!(is_there, "{n} was deleted");
                    assert!(found == content(self.number, n), "{n}");
                }
                Err(error) => assert!(!is_there, "{n}: {error}"),
            }
        }
        for n in self.oldest.saturating_sub(2)..=self.next {
            let there = fs::read(self.path(at, n)).is_ok();
            self.certain.insert(n, there);
        }
    }
}

fn programs() -> Vec<Box<dyn Program>> {
    let mut programs: Vec<Box<dyn Program>> = Vec::new();
    for number in 0..2 {
        programs.push(Box::new(Saver { number, tried: 0, acknowledged: 0 }));
        programs.push(Box::new(Logger { number, file: None, tried: 0, acknowledged: 0 }));
        let rng = StdRng::seed_from_u64(number);
        let blocks = vec![(0, 0); BLOCKS];
        programs.push(Box::new(Database { number, file: None, rng, blocks, made: false }));
        let certain = BTreeMap::new();
        programs.push(Box::new(Maker { number, next: 0, oldest: 0, certain }));
    }
    programs
}

/// `KILLS` says how many.
#[test]
fn what_programs_were_promised_is_there_however_often_it_is_killed() {
    if !fuse_available() {
        return;
    }
    let kills = std::env::var("KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    let seed = std::process::id().into();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let lab = Lab::new();
    let (mut mount, _) = written(&lab, "alice");
    let mut programs = programs();
    for round in 0..kills {
        let at = mount.at.clone();
        let running: Vec<_> = programs
            .into_iter()
            .map(|mut program| {
                let at = at.clone();
                thread::spawn(move || {
                    let error = loop {
                        if let Err(error) = program.step(&at) {
                            break error;
                        }
                    };
                    (program, error)
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(rng.random_range(50..1500)));
        let early: Vec<bool> = running.iter().map(|program| program.is_finished()).collect();
        kill(&mut mount);
        let ended: Vec<_> = running.into_iter().map(|program| program.join().unwrap()).collect();
        for ((_, error), early) in ended.iter().zip(early) {
            assert!(!early, "before it was killed: {error}");
        }
        programs = ended
            .into_iter()
            .map(|(program, error)| {
                let gone = [Errno::ENOTCONN, Errno::ECONNABORTED, Errno::EIO, Errno::ENODEV];
                let is_gone = gone.iter().any(|errno| error.raw_os_error() == Some(*errno as i32));
                assert!(is_gone, "{error}");
                program
            })
            .collect();
        mount = again(&lab, "alice");
        println!("round {round}");
        programs.iter_mut().for_each(|program| program.check(&mount.at));
    }
}

/// Leaves so many bytes free of the disk that `store` is on.
fn leave(store: &Path, bytes: usize) -> PathBuf {
    let filler = store.join("filler");
    let mut file = File::create(&filler).unwrap();
    let free = || {
        let stat = nix::sys::statvfs::statvfs(store).unwrap();
        (stat.blocks_available() * stat.fragment_size()) as usize
    };
    while free() > bytes {
        file.write_all(&vec![1; (free() - bytes).min(MIB)]).unwrap();
    }
    filler
}

fn save(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn is_full(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOSPC as i32)
}

#[test]
fn a_full_disk_cuts_nothing_and_once_there_is_room_the_same_save_works() {
    if !fuse_available() || !mounts_available() {
        return;
    }
    let lab = Lab::new();
    let store = lab.folder("alice");
    let _disk = Place::of("tmpfs", &store, "size=96m,mode=700").unwrap();
    let (mut mount, key) = written(&lab, "alice");
    let old = pattern(1, 300_000);
    for name in ["kept", "saved", "over"] {
        save(&mount.path(name), &old).unwrap();
    }
    sync_dir(&mount.at).unwrap();
    let peer = lab.mount("bob", &key, &[]);
    let filler = leave(&store, 16 * MIB);
    // 64 MiB into 16 MiB.
    let big = pattern(2, 64 * MIB);
    let error = save(&mount.path("big"), &big).unwrap_err();
    assert!(is_full(&error), "{error}");
    // Over what is there: the old one stays, however far the new one got.
    let error = save(&mount.path("over.tmp"), &big).unwrap_err();
    assert!(is_full(&error), "{error}");
    fs::remove_file(mount.path("over.tmp")).unwrap();
    fs::remove_file(mount.path("big")).unwrap();
    sync_dir(&mount.at).unwrap();
    for name in ["kept", "saved", "over"] {
        assert!(fs::read(mount.path(name)).unwrap() == old, "{name}");
    }
    // There is room to keep it, and none to publish it.
    let middle = pattern(3, 11 * MIB);
    save(&mount.path("middle"), &middle).unwrap();
    kill(&mut mount);
    let mut mount = again(&lab, "alice");
    assert!(fs::read(mount.path("middle")).unwrap() == middle, "it was synced");
    let seen = |name: &str| fs::read(peer.path(name)).ok();
    assert!(seen("big").is_none() && seen("over").unwrap() == old);
    assert!(seen("middle").is_none_or(|found| found == middle));
    fs::remove_file(filler).unwrap();
    let big = &big[..20 * MIB];
    save(&mount.path("over"), big).unwrap();
    for (name, content) in [("over", big), ("middle", &middle[..]), ("kept", &old)] {
        let is = || (seen(name)? == content).then_some(());
        eventually(name, PATIENCE, is);
        assert!(fs::read(mount.path(name)).unwrap() == content, "{name}");
    }
    // What was closed and could not be published is not lost by an end in order.
    let filler = leave(&store, 12 * MIB);
    fs::write(mount.path("closed"), pattern(4, 8 * MIB)).unwrap();
    mount.process.signal(Signal::SIGINT);
    mount.process.wait(PATIENCE);
    let errors = mount.process.errors();
    fs::remove_file(filler).unwrap();
    let mount = again(&lab, "alice");
    let found = fs::read(mount.path("closed")).ok();
    assert!(found.is_some_and(|found| found == pattern(4, 8 * MIB)), "{errors}");
}
