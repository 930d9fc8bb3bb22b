//! Random operations on a mount, each done on a folder of the ordinary disk as well: both must answer the same, errors too,
//! and hold the same whenever they are compared. Between them the mount is made again, and its process is killed.
//!
//! After a kill the mount may have lost what nobody asked to be kept: [`Promises`] has what must be there. And each file
//! that is there has a content that it, or another, had at some time as a whole. From there both go on with what the mount
//! has.

mod operation;
mod promises;
mod side;

use super::alone::alone;
use super::ground::{Ground, mounted};
use super::share;
use crate::common::PATIENCE;
use nix::sys::signal::Signal;
use operation::{Operation, Random};
use promises::Promises;
use side::{Seen, Side};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Operations between two looks at everything.
const ROUND: usize = 25;
/// Of the last operations so many are told when something is wrong.
const TOLD: usize = 60;

#[test]
fn any_history_is_that_of_the_ordinary_disk() {
    alone(Duration::from_secs(share(150, 3000)), || {
        let Some(mut ground) = Ground::new() else { return };
        let first = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
        for seed in first..first + share(3, 60) {
            let beside = tempfile::tempdir_in(ground.beside.path()).unwrap();
            History::new(&mut ground, beside.path(), seed).run(share(12, 40));
        }
    });
}

struct History<'a> {
    ground: &'a mut Ground,
    mount: Side,
    disk: Side,
    random: Random,
    seed: u64,
    promises: Promises,
    done: Vec<String>,
}

/// Everything that can be compared, by its path.
type Tree = BTreeMap<PathBuf, Seen>;

impl<'a> History<'a> {
    fn new(ground: &'a mut Ground, beside: &Path, seed: u64) -> Self {
        let name = format!("seed-{seed}");
        let [mount, disk] = [ground.mount.at.as_path(), beside].map(|at| {
            let root = at.join(&name);
            std::fs::create_dir(&root).unwrap();
            Side::new(root)
        });
        let (random, promises) = (Random::new(seed), Promises::default());
        Self { ground, mount, disk, random, seed, promises, done: Vec::new() }
    }

    fn run(mut self, rounds: u64) {
        for _ in 0..rounds {
            for _ in 0..ROUND {
                let operation = Operation::any(&mut self.random);
                self.act(&operation);
            }
            self.compare();
            match self.random.below(6) {
                0 => self.mount_again(),
                1 | 2 => self.kill(),
                3 => std::thread::sleep(Duration::from_millis(self.random.below(2500))),
                _ => {}
            }
        }
        self.mount_again();
    }

    fn act(&mut self, operation: &Operation) {
        self.done.push(format!("{operation:?}"));
        let there = self.disk.act(operation);
        let here = self.mount.act(operation);
        self.check(here == there, || format!("{operation:?}: {here:?}, on the disk {there:?}"));
        self.promises.follow(operation, there.is_ok(), &self.disk);
    }

    fn check(&self, right: bool, what: impl FnOnce() -> String) {
        if !right {
            let from = self.done.len().saturating_sub(TOLD);
            panic!("seed {}, after {:#?}\n{}", self.seed, &self.done[from..], what());
        }
    }

    fn compare(&self) {
        let (here, there) = (self.mount.tree(), self.disk.tree());
        self.check(here == there, || format!("the trees differ: {}", difference(&here, &there)));
    }

    /// Unmounts it cleanly and mounts it again: everything is there.
    fn mount_again(&mut self) {
        self.done.push("mounted again".into());
        self.forget_handles();
        self.ground.mount.process.signal(Signal::SIGINT);
        self.ground.mount.process.wait(PATIENCE);
        self.ground.mount = mounted(&self.ground.lab);
        self.compare();
        self.promises.everything(&self.disk);
    }

    fn kill(&mut self) {
        self.done.push("killed".into());
        self.ground.mount.process.signal(Signal::SIGKILL);
        self.ground.mount.process.wait(PATIENCE);
        self.forget_handles();
        self.ground.mount = mounted(&self.ground.lab);
        let here = self.mount.tree();
        let broken = self.promises.broken(&self.mount);
        self.check(broken.is_empty(), || {
            let there = self.disk.tree();
            format!("lost in the kill: {broken:#?}\nof it all: {}", difference(&here, &there))
        });
        self.disk.become_as(&self.mount);
        self.done.push(format!("{} names are left", here.len()));
        self.compare();
        self.promises.everything(&self.disk);
    }

    fn forget_handles(&mut self) {
        self.mount.close_all();
        self.disk.close_all();
    }
}

fn difference(here: &Tree, there: &Tree) -> String {
    let mut lines = Vec::new();
    for path in here.keys().chain(there.keys().filter(|path| !here.contains_key(*path))) {
        let (one, other) = (here.get(path), there.get(path));
        if one != other {
            lines.push(format!("{}: {one:?}, on the disk {other:?}", path.display()));
        }
    }
    lines.join("\n")
}
