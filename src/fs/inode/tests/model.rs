//! Whatever happens to names, by others and from here, the table is what a naive one would be.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Whom an operation is about: the nth of those that are known, counted around.
type Nth = u8;
/// A folder that is known, and a name.
type Place = (Nth, u8);

#[derive(Debug, Clone)]
enum Op {
    /// Kind, revision and id of what is found, and whether the kernel is told.
    LookUp(Place, (bool, u64, u64), bool),
    Open(Nth),
    Close(Nth),
    Renew(Nth, u64),
    Unlink(Place),
    Rename(Place, Place),
    Exchange(Place, Place),
    Link(Nth, Place),
    Forget(Nth),
}

fn op() -> impl Strategy<Value = Op> {
    let place = || (any::<Nth>(), 0..4u8);
    // Ids are as small as the numbers below, so that they meet.
    let found = (any::<bool>(), 0..3u64, prop_oneof![2 => Just(0), 1 => 0..12u64]);
    prop_oneof![
        6 => (place(), found, prop::bool::weighted(0.9)).prop_map(|(p, f, t)| Op::LookUp(p, f, t)),
        2 => any::<Nth>().prop_map(Op::Open),
        2 => any::<Nth>().prop_map(Op::Close),
        1 => (any::<Nth>(), 0..3u64).prop_map(|(n, r)| Op::Renew(n, r)),
        2 => place().prop_map(Op::Unlink),
        3 => (place(), place()).prop_map(|(a, b)| Op::Rename(a, b)),
        2 => (place(), place()).prop_map(|(a, b)| Op::Exchange(a, b)),
        2 => (any::<Nth>(), place()).prop_map(|(n, p)| Op::Link(n, p)),
        2 => any::<Nth>().prop_map(Op::Forget),
    ]
}

fn nth<T: Copy>(all: impl IntoIterator<Item = T>, nth: Nth) -> Option<T> {
    let all: Vec<T> = all.into_iter().collect();
    all.get(usize::from(nth) % all.len().max(1)).copied()
}

type At = (Ino, String);

#[derive(Default)]
struct Model {
    /// Lookups and handles.
    held: BTreeMap<Ino, (u64, u32)>,
    names: BTreeMap<At, Ino>,
}

impl Model {
    /// Who is held, and the folders above.
    fn kept(&self) -> BTreeSet<Ino> {
        let held = self.held.iter().filter(|(_, held)| **held != (0, 0));
        let mut kept: BTreeSet<Ino> = held.map(|(ino, _)| *ino).chain([Ino::ROOT]).collect();
        loop {
            let of_kept = self.names.iter().filter(|(_, ino)| kept.contains(ino));
            let parents: Vec<Ino> = of_kept.map(|((parent, _), _)| *parent).collect();
            let before = kept.len();
            kept.extend(parents);
            if kept.len() == before {
                return kept;
            }
        }
    }

    fn names_of(&self, ino: Ino) -> impl Iterator<Item = &At> {
        self.names.iter().filter(move |(_, named)| **named == ino).map(|(at, _)| at)
    }

    fn paths(&self, ino: Ino) -> Vec<String> {
        if ino == Ino::ROOT {
            return vec![String::new()];
        }
        let above = |(parent, name): &At| {
            let paths = self.paths(*parent).into_iter();
            paths.map(|path| format!("{path}/{name}")).collect::<Vec<_>>()
        };
        self.names_of(ino).flat_map(above).collect()
    }

    fn lies_in(&self, dir: Ino, ino: Ino) -> bool {
        dir == ino || self.names_of(dir).any(|(parent, _)| self.lies_in(*parent, ino))
    }

    fn loops(&self, at: &At, dir: Ino) -> bool {
        self.names.get(at).is_some_and(|ino| self.lies_in(dir, *ino))
    }
}

struct Both {
    inodes: Inodes,
    model: Model,
}

impl Both {
    fn new() -> Self {
        let number = |path: &DrivePath, salt: u32| path.as_str().len() as u64 + u64::from(salt);
        Self { inodes: Inodes::with_numbers(folder(), number), model: Model::default() }
    }

    fn is_folder(&self, ino: Ino) -> bool {
        self.inodes.get(ino).unwrap().entry.kind == Kind::Directory
    }

    fn place(&self, (dir, name): Place) -> At {
        let kept = self.model.kept();
        let dir = nth(kept.into_iter().filter(|ino| self.is_folder(*ino)), dir);
        (dir.unwrap(), name.to_string())
    }

    fn known(&self, which: Nth) -> Ino {
        nth(self.model.kept(), which).unwrap()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::LookUp(place, found, told) => self.look_up(place, found, told),
            Op::Open(which) => {
                let ino = self.known(which);
                if self.is_folder(ino) {
                    self.inodes.hold(ino);
                } else {
                    open(&mut self.inodes, ino);
                }
                self.model.held.entry(ino).or_default().1 += 1;
            }
            Op::Close(which) => {
                let open = self.model.held.iter().filter(|(_, held)| held.1 > 0);
                let Some(ino) = nth(open.map(|(ino, _)| *ino), which) else { return };
                self.inodes.release(ino);
                self.model.held.get_mut(&ino).unwrap().1 -= 1;
            }
            Op::Renew(which, revision) => {
                let ino = self.known(which);
                if !self.is_folder(ino) {
                    let entry = Entry { revision, ..self.inodes.get(ino).unwrap().entry.clone() };
                    self.inodes.renew(ino, entry, Arc::new(Content(revision)));
                }
            }
            Op::Unlink(place) => {
                let at = self.place(place);
                let ino = self.model.names.remove(&at);
                assert_eq!(self.inodes.unlink(at.0, &at.1), ino);
            }
            Op::Rename(from, to) => {
                let (from, to) = (self.place(from), self.place(to));
                let moves = !self.model.loops(&from, to.0);
                assert_eq!(self.inodes.rename((from.0, &from.1), (to.0, &to.1)), moves);
                let (moved, there) = (self.model.names.get(&from), self.model.names.get(&to));
                if moves && (moved.is_none() || moved != there) {
                    self.model.names.remove(&to);
                    if let Some(ino) = self.model.names.remove(&from) {
                        self.model.names.insert(to, ino);
                    }
                }
            }
            Op::Exchange(a, b) => {
                let (a, b) = (self.place(a), self.place(b));
                let moves = !self.model.loops(&a, b.0) && !self.model.loops(&b, a.0);
                assert_eq!(self.inodes.exchange((a.0, &a.1), (b.0, &b.1)), moves);
                if moves {
                    let (at_a, at_b) = (self.model.names.remove(&a), self.model.names.remove(&b));
                    self.model.names.extend(at_a.map(|ino| (b, ino)));
                    self.model.names.extend(at_b.map(|ino| (a, ino)));
                }
            }
            Op::Link(which, place) => {
                let (ino, at) = (self.known(which), self.place(place));
                let links = !self.is_folder(ino);
                assert_eq!(self.inodes.link(ino, at.0, &at.1), links);
                if links {
                    self.model.names.insert(at, ino);
                }
            }
            Op::Forget(which) => {
                let Some(ino) = nth(self.model.held.keys().copied(), which) else { return };
                let held = self.model.held.get_mut(&ino).unwrap();
                self.inodes.forget(ino, std::mem::take(&mut held.0));
            }
        }
    }

    fn look_up(&mut self, place: Place, (folder, revision, id): (bool, u64, u64), told: bool) {
        let at = self.place(place);
        let kind = if folder { Kind::Directory } else { Kind::File };
        let found = Entry { id, ..entry(kind, revision) };
        let number = self.inodes.number(at.0, &at.1, &found);
        let bound = self.inodes.bind(at.0, &at.1, found);
        let known = self.model.names.get(&at).copied();
        match bound {
            None => assert!(self.model.paths(at.0).is_empty()),
            Some(Bound::New(_)) => assert_eq!(known, None),
            Some(Bound::Same(ino) | Bound::Replaced(ino)) => assert_eq!(known, Some(ino)),
            Some(Bound::Moved { old, new }) => assert!(known == Some(old) && new != old),
        }
        let Some(ino) = bound.map(Bound::ino) else { return };
        assert!(number == Some(ino) || matches!(bound, Some(Bound::Moved { .. })));
        self.model.names.insert(at, ino);
        if told {
            self.inodes.remember(ino);
            self.model.held.entry(ino).or_default().0 += 1;
        } else {
            self.inodes.settle(ino);
        }
    }

    fn check(&mut self) {
        let Self { inodes, model } = self;
        let kept = model.kept();
        model.held.retain(|_, held| *held != (0, 0));
        model.names.retain(|_, ino| kept.contains(ino));
        for ino in &kept {
            let node = inodes.get(*ino).expect("lost");
            assert_eq!(node.below as usize, model.names.keys().filter(|at| at.0 == *ino).count());
            let names: Vec<At> =
                node.names.iter().map(|name| (name.parent, name.text.to_string())).collect();
            assert!(names.iter().eq(model.names_of(*ino)));
            assert!(node.entry.kind != Kind::Directory || names.len() <= 1);
            assert!(node.body.as_ref().is_none_or(|body| {
                node.is_open() && body.content().revision() == node.entry.revision
            }));
            let paths = model.paths(*ino);
            match inodes.path(*ino) {
                Some(path) if path.is_root() => assert_eq!(*ino, Ino::ROOT),
                Some(path) => {
                    assert!(paths.contains(&path.as_str().to_owned()));
                    assert_eq!(inodes.at(&path), Some(*ino));
                }
                None => assert!(paths.is_empty()),
            }
        }
        assert_eq!(inodes.nodes.len(), kept.len(), "leaked");
        assert_eq!(inodes.by_name.len(), model.names.len());
        for ((parent, name), ino) in &model.names {
            assert_eq!(inodes.child(*parent, name), Some(*ino));
        }
    }
}

proptest! {
    /// The table holds exactly what the kernel knows or has open and the folders above it, all know where they are,
    /// and no open file becomes another.
    #[test]
    fn nothing_is_lost_and_nothing_leaks(ops in proptest::collection::vec(op(), 0..80)) {
        let mut both = Both::new();
        for op in ops {
            both.apply(op);
            both.check();
        }
        for (ino, (lookups, handles)) in both.model.held.clone() {
            both.inodes.forget(ino, lookups);
            (0..handles).for_each(|_| both.inodes.release(ino));
        }
        prop_assert_eq!((both.inodes.nodes.len(), both.inodes.by_name.len()), (1, 0));
    }
}
