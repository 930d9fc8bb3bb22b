//! What a draft goes through, what of it was promised, and so what may be found after an end.
//!
//! A [`History`] does to a draft whatever a file system does, and notes what a `sync` or a `publish` acknowledged, and what
//! was done since, of which any part may be there.

use super::*;

/// What a name may be found to be.
#[derive(Debug, Clone, PartialEq)]
enum Possible {
    Now(Entry),
    /// As others saw it.
    Seen(Node),
}

/// What is known of a file.
#[derive(Debug, Default)]
struct Track {
    /// Its contents; the first is the one that was promised last.
    states: Vec<Vec<u8>>,
    modes: BTreeSet<u16>,
    promised: bool,
    /// A record may speak of it: bytes of all states may be found beside each other.
    recorded: bool,
    /// Names that were promised and are still its own.
    kept: BTreeSet<DrivePath>,
    /// All that it had since.
    names: BTreeSet<DrivePath>,
}

impl Track {
    /// Whether an end may leave this.
    fn allows(&self, found: &[u8]) -> bool {
        let promised = &self.states[0];
        let longest = self.states.iter().map(Vec::len).max().unwrap_or(0);
        let is_mix = || {
            (promised.len()..=longest).contains(&found.len())
                && found.iter().enumerate().all(|(at, byte)| {
                    let missing = at >= promised.len() && *byte == 0;
                    missing || self.states.iter().any(|state| state.get(at) == Some(byte))
                })
        };
        self.states.iter().any(|state| state == found) || (self.recorded && is_mix())
    }
}

/// The blocks of both cores.
pub type Signed = [Vec<Bytes>; 2];

pub fn signed(bench: &Bench) -> Signed {
    let all = |log: &dyn crate::hyper::source::BlockSource| {
        assert_eq!(log.fork(), 0);
        (0..log.length()).map(|n| log.try_block(n).unwrap().expect("a block is here")).collect()
    };
    [all(&**bench.drive.bee().source()), all(&**bench.drive.blobs().source())]
}

/// A draft that things are done to.
pub struct History {
    medium: CrashMedium,
    pub bench: Bench,
    pub model: Model,
    tracks: Vec<Track>,
    /// All that names were since they were promised last.
    had: BTreeMap<DrivePath, Vec<Possible>>,
    /// Folders, links and pipes that were promised, and that nothing was done to since.
    steady: BTreeSet<DrivePath>,
    /// Contents that others may see.
    whole: BTreeSet<Vec<u8>>,
    fresh: u64,
    /// Not on a full disk: a store whose copies of writes lie over each other needs room to be opened to be changed.
    pub may_restart: bool,
    pub log: Vec<String>,
}

/// The machine has stopped.
pub struct Stopped;

fn stopped(error: impl std::fmt::Debug) -> Stopped {
    if std::env::var_os("CRASH_TELL").is_some() {
        eprintln!("{error:?}");
    }
    Stopped
}

pub type Done = std::result::Result<(), Stopped>;

pub fn start(medium: &CrashMedium) -> Option<Bench> {
    let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).ok()?);
    let cores = Records::new(storage.clone()).cores().ok()?;
    // What a core lacks on a device that fails is asked of peers.
    if !cores.iter().all(|core| storage.is_repeated(core)) {
        return None;
    }
    Draft::clean(&storage).ok()?;
    Bench::try_of(storage)
}

impl History {
    /// Goes on from what is found.
    pub fn begin(medium: CrashMedium, bench: Bench) -> Self {
        let mut model = Model::default();
        let mut tracks = Vec::new();
        let mut numbers = BTreeMap::new();
        let names = bench.draft.names();
        for (path, node) in bench.here() {
            let entry = match node {
                Node::Dir(mode) => Entry::Dir(mode),
                Node::Link(target) => Entry::Link(target),
                Node::Pipe => Entry::Pipe,
                Node::File(content, mode) => {
                    let leaf = names.leaf(&path).unwrap();
                    let id = match names.id_of(&path, leaf) {
                        0 => Err(path.clone()),
                        id => Ok(id),
                    };
                    let number = *numbers.entry(id).or_insert(tracks.len());
                    if number == tracks.len() {
                        model.files.push((content.clone(), mode));
                        let recorded = leaf.local().is_some();
                        let states = vec![content];
                        let modes = BTreeSet::from([mode]);
                        tracks.push(Track {
                            states,
                            modes,
                            promised: true,
                            recorded,
                            ..Track::default()
                        });
                    }
                    Entry::File(number)
                }
            };
            model.tree.insert(path, entry);
        }
        let whole = BTreeSet::from([Vec::new()]);
        let (had, steady) = (BTreeMap::new(), BTreeSet::new());
        let mut history = Self {
            medium,
            bench,
            model,
            tracks,
            had,
            steady,
            whole,
            fresh: 0,
            may_restart: true,
            log: Vec::new(),
        };
        let is = |(n, (content, mode)): (usize, &(Vec<u8>, u16))| {
            format!("{n}: {} {mode:o} {:?}", content.len(), history.names_of(n))
        };
        history.log = history.model.files.iter().enumerate().map(is).collect();
        history.whole.extend(history.model.files.iter().map(|file| file.0.clone()));
        history.promise_names();
        history
    }

    fn names_of(&self, number: usize) -> BTreeSet<DrivePath> {
        let tree = self.model.tree.iter();
        let of = tree.filter(|(_, entry)| **entry == Entry::File(number));
        of.map(|(path, _)| path.clone()).collect()
    }

    fn is_open(&self, number: usize) -> bool {
        self.model.open.iter().any(|open| open.number == number)
    }

    /// The content of a file is promised, and its names.
    fn promise(&mut self, number: usize, recorded: bool) {
        let names = self.names_of(number);
        let (content, mode) = self.model.files[number].clone();
        self.tracks[number] = Track {
            states: vec![content],
            modes: BTreeSet::from([mode]),
            promised: !names.is_empty(),
            recorded,
            kept: names.clone(),
            names,
        };
    }

    /// What everything is called is promised.
    fn promise_names(&mut self) {
        let seen = self.bench.seen();
        self.had.clear();
        for (path, node) in seen {
            self.had.entry(path).or_default().push(Possible::Seen(node));
        }
        let tree = self.model.tree.iter();
        self.steady = tree
            .filter(|(_, entry)| !matches!(entry, Entry::File(_)))
            .map(|(path, _)| path.clone())
            .collect();
        for (path, entry) in &self.model.tree {
            self.had.entry(path.clone()).or_default().push(Possible::Now(entry.clone()));
        }
        for number in 0..self.tracks.len() {
            let names = self.names_of(number);
            let track = &mut self.tracks[number];
            track.promised &= !names.is_empty();
            track.kept = if track.promised { names.clone() } else { BTreeSet::new() };
            track.names = names;
            track.modes = BTreeSet::from([self.model.files[number].1]);
        }
    }

    /// Something was done.
    pub fn note(&mut self, before: &BTreeMap<DrivePath, Entry>) {
        let now = &self.model.tree;
        let touched = before.iter().filter(|(path, entry)| now.get(*path) != Some(*entry));
        for (path, _) in touched {
            self.steady.remove(path);
            for track in &mut self.tracks {
                track.kept.remove(path);
            }
        }
        for (path, entry) in now {
            let had = self.had.entry(path.clone()).or_default();
            let possible = Possible::Now(entry.clone());
            if !had.contains(&possible) {
                had.push(possible);
            }
            if let Entry::File(number) = entry {
                self.tracks[*number].names.insert(path.clone());
            }
        }
        for (track, (content, mode)) in self.tracks.iter_mut().zip(&self.model.files) {
            if track.states.last() != Some(content) {
                track.states.push(content.clone());
            }
            track.modes.insert(*mode);
        }
    }

    /// One thing; an error if the machine has stopped.
    pub fn step(&mut self, rng: &mut StdRng) -> Done {
        let before = self.model.tree.clone();
        let (a, b) = (name(rng.random_range(0..14)), name(rng.random_range(0..14)));
        let nth = rng.random_range(0..self.model.open.len().max(1));
        let what = rng.random_range(0..40);
        self.log.push(format!("{what} {a} {b} {nth}"));
        let done = self.act(what, (&a, &b), nth, rng);
        if done.is_err() {
            self.log.push("failed".into());
        }
        self.note(&before);
        done
    }

    fn act(
        &mut self,
        what: u32,
        (a, b): (&DrivePath, &DrivePath),
        nth: usize,
        rng: &mut StdRng,
    ) -> Done {
        let has_open = !self.model.open.is_empty();
        match what {
            0..5 => self.create(a, rng),
            5..8 => {
                let made = self.bench.editor.make_dir(a).is_ok();
                assert_eq!(made, self.model.makes(a, Entry::Dir(0o755)));
            }
            8 => {
                let made = self.bench.editor.make_link(a, "x", time(1)).is_ok();
                assert_eq!(made, self.model.makes(a, Entry::Link("x".into())));
            }
            9 => {
                let made = self.bench.editor.make_special(a, SpecialKind::Fifo, 0o644, time(1));
                assert_eq!(made.is_ok(), self.model.makes(a, Entry::Pipe));
            }
            10..12 => self.link(a, b),
            12..14 => self.remove(a),
            14..18 => self.rename(a, b, rng),
            18 => {
                let mode = [0o600, 0o644, 0o755][rng.random_range(0..3usize)];
                let set = Set { mode: Some(mode), ..Set::default() };
                if let Some(Entry::File(number)) = self.model.tree.get(a) {
                    self.bench.editor.set(a, &set).unwrap();
                    self.model.files[*number].1 = mode;
                }
            }
            19..22 => {
                if let (Ok(file), Some(Entry::File(number))) =
                    (self.bench.editor.open(a), self.model.tree.get(a))
                {
                    self.model.open.push(Open { file, number: *number });
                }
            }
            22..28 if has_open => self.write(nth, rng)?,
            28 if has_open => self.cut(nth, rng)?,
            29..33 if has_open => self.close(nth),
            33..36 if has_open => self.sync(nth)?,
            36..39 => {
                let which = [Which::Closed, Which::Closed, Which::Quiet, Which::All];
                self.publish(which[rng.random_range(0..4usize)])?;
            }
            39 if self.may_restart && rng.random_bool(0.3) => self.restart()?,
            _ => {}
        }
        Ok(())
    }

    fn create(&mut self, path: &DrivePath, rng: &mut StdRng) {
        let made = self.bench.editor.create(path, 0o644, time(1));
        let number = self.model.files.len();
        assert_eq!(made.is_ok(), self.model.makes(path, Entry::File(number)));
        let Ok(file) = made else { return };
        self.model.files.push((vec![], 0o644));
        let modes = BTreeSet::from([0o644]);
        self.tracks.push(Track { states: vec![vec![]], modes, ..Track::default() });
        self.model.open.push(Open { file, number });
        if rng.random() {
            let last = self.model.open.len() - 1;
            let _ = self.write(last, rng);
        }
    }

    fn link(&mut self, from: &DrivePath, to: &DrivePath) {
        self.fresh += 1;
        let done = self.bench.editor.link(from, to, sign_of(&self.medium, self.fresh)).is_ok();
        let wanted = match self.model.tree.get(from).cloned() {
            None | Some(Entry::Dir(_)) => false,
            Some(entry) => self.model.makes(to, entry),
        };
        assert_eq!(done, wanted);
    }

    fn remove(&mut self, path: &DrivePath) {
        let done = match self.model.tree.get(path) {
            Some(Entry::Dir(_)) => {
                let done = self.bench.editor.remove_dir(path).is_ok();
                assert_eq!(done, !self.model.is_full(path));
                done
            }
            Some(_) => self.bench.editor.remove(path).is_ok(),
            None => false,
        };
        if done {
            self.model.tree.remove(path);
        }
    }

    fn rename(&mut self, from: &DrivePath, to: &DrivePath, rng: &mut StdRng) {
        let how = match rng.random_range(0..5) {
            0 => Rename::NoReplace,
            1 => Rename::Exchange,
            _ => Rename::Replace,
        };
        let done = self.bench.editor.rename(from, to, how);
        assert_eq!(done.is_ok(), self.model.rename(from, to, how), "{done:?}");
    }

    /// Writes or appends.
    fn write(&mut self, nth: usize, rng: &mut StdRng) -> Done {
        let Open { file, number } = &self.model.open[nth];
        let content = &mut self.model.files[*number].0;
        let len = if rng.random_bool(0.1) { 50_000 } else { rng.random_range(1..900) };
        let at = match rng.random() {
            true => content.len(),
            false => rng.random_range(0..content.len() + 600),
        };
        let bytes = vec![rng.random_range(1..=255u8); len];
        self.log.push(format!("write {} {at}+{len} {}", number, bytes[0]));
        file.write(at as u64, &bytes).map_err(stopped)?;
        content.resize(content.len().max(at + len), 0);
        content[at..at + len].copy_from_slice(&bytes);
        Ok(())
    }

    /// Truncates or punches.
    fn cut(&mut self, nth: usize, rng: &mut StdRng) -> Done {
        let Open { file, number } = &self.model.open[nth];
        let content = &mut self.model.files[*number].0;
        let at = rng.random_range(0..content.len() + 600);
        if rng.random() {
            file.truncate(at as u64).map_err(stopped)?;
            content.resize(at, 0);
        } else if at < content.len() {
            file.punch(at as u64..content.len() as u64);
            content[at..].fill(0);
        }
        Ok(())
    }

    fn close(&mut self, nth: usize) {
        let open = self.model.open.swap_remove(nth);
        self.bench.editor.close(&open.file);
        self.whole.insert(self.model.files[open.number].0.clone());
    }

    pub fn sync(&mut self, nth: usize) -> Done {
        let Open { file, number } = &self.model.open[nth];
        let number = *number;
        self.whole.insert(self.model.files[number].0.clone());
        let Some(path) = self.names_of(number).pop_first() else { return Ok(()) };
        self.log.push(format!("sync {number} {path}"));
        self.tracks[number].recorded = true;
        let version = self.bench.drive.version();
        self.bench.draft.sync(&path, file).map_err(stopped)?;
        self.promise(number, true);
        if self.bench.drive.version() != version {
            for (path, node) in self.bench.seen() {
                self.had.entry(path).or_default().push(Possible::Seen(node));
            }
        }
        Ok(())
    }

    pub fn publish(&mut self, which: Which) -> Done {
        self.log.push(format!("{which:?}"));
        let open = self.model.open.iter().map(|open| open.number);
        let open: Vec<(usize, u64)> =
            open.zip(self.model.open.iter().map(|open| open.file.generation())).collect();
        if which != Which::Closed {
            self.whole.extend(open.iter().map(|(n, _)| self.model.files[*n].0.clone()));
        }
        self.bench.draft.publish(which).map_err(stopped)?;
        let seen = self.bench.seen();
        for (path, node) in self.model.shown() {
            let is_file = matches!(node, Node::File(..));
            let log = || self.log.join("\n");
            assert!(is_file || seen.get(&path) == Some(&node), "{path} is not seen\n{}", log());
        }
        for number in 0..self.tracks.len() {
            let content = &self.model.files[number].0;
            let all_seen = |names: &BTreeSet<DrivePath>| {
                let is =
                    |node: Option<&Node>| matches!(node, Some(Node::File(c, _)) if c == content);
                names.iter().all(|path| is(seen.get(path)))
            };
            let due = !self.is_open(number) || which == Which::All;
            let names = self.names_of(number);
            assert!(!due || all_seen(&names), "{number} is not published");
            if due || (which == Which::Quiet && !names.is_empty() && all_seen(&names)) {
                // A file that was quiet was published, and one that others know as it is may have been.
                let recorded = !due && self.tracks[number].recorded;
                self.promise(number, recorded);
            }
        }
        self.promise_names();
        self.check_seen(&seen);
        Ok(())
    }

    pub fn check_seen(&self, seen: &Tree) {
        for (path, node) in seen {
            if let Node::File(content, _) = node {
                assert!(self.whole.contains(content), "{path} is half of something");
            }
        }
    }

    /// An end in order.
    fn restart(&mut self) -> Done {
        self.log.push("restart".into());
        while !self.model.open.is_empty() {
            self.close(0);
        }
        self.publish(Which::All)?;
        let idle = Bench::new();
        let old = std::mem::replace(&mut self.bench, idle);
        drop(old);
        // A fault passes.
        self.bench = start(&self.medium).or_else(|| start(&self.medium)).ok_or(Stopped)?;
        assert_eq!(self.bench.here(), self.model.shown(), "after an end in order");
        assert_eq!(left_behind(&self.bench), 0);
        Ok(())
    }

    /// Whether what is found after an end is what may be.
    pub fn check(&self, found: &Bench, what: &str) {
        let here = found.here();
        let may_be = |possible: &Possible, node: &Node| match (possible, node) {
            (Possible::Seen(seen), node) => seen == node,
            (Possible::Now(Entry::File(number)), Node::File(content, mode)) => {
                let track = &self.tracks[*number];
                track.allows(content) && track.modes.contains(mode)
            }
            (Possible::Now(Entry::Dir(_)), Node::Dir(_)) => true,
            (Possible::Now(Entry::Link(a)), Node::Link(b)) => a == b,
            (Possible::Now(Entry::Pipe), Node::Pipe) => true,
            _ => false,
        };
        let fail = |path: &DrivePath, why: &str| {
            let short = |node: &Node| match node {
                Node::File(content, mode) => {
                    format!("file of {} {mode:o} {:?}", content.len(), content.first())
                }
                node => format!("{node:?}"),
            };
            let found: Vec<_> = here.iter().map(|(path, node)| (path, short(node))).collect();
            let log = self.log.join("\n");
            let had = self.had.get(path).map(|had| {
                let told = |had: &Possible| match had {
                    Possible::Seen(node) => short(node),
                    Possible::Now(entry) => format!("{entry:?}"),
                };
                had.iter().map(told).collect::<Vec<_>>()
            });
            panic!("{what}: {path} {why}\nhad {had:?}\nfound {found:?}\n{log}");
        };
        for (path, node) in &here {
            let had = self.had.get(path).map_or(&[][..], |had| had);
            if !had.iter().any(|possible| may_be(possible, node)) {
                fail(path, "was never that");
            }
        }
        for path in &self.steady {
            let is = here.get(path).zip(self.model.tree.get(path));
            if !is.is_some_and(|(node, entry)| may_be(&Possible::Now(entry.clone()), node)) {
                fail(path, "is not what it was");
            }
        }
        let names = found.draft.names();
        for (number, track) in self.tracks.iter().enumerate().filter(|(_, track)| track.promised) {
            let holds = |path: &DrivePath| {
                here.get(path).is_some_and(|node| may_be(&Possible::Now(Entry::File(number)), node))
            };
            for path in &track.kept {
                if !holds(path) {
                    fail(path, &format!("is not file {number}, which was promised"));
                }
            }
            let id = |path| names.leaf(path).map(|leaf| names.id_of(path, leaf));
            let ids: BTreeSet<_> = track.kept.iter().map(id).collect();
            if ids.len() > 1 || (track.kept.len() > 1 && ids.contains(&Some(0))) {
                fail(&track.kept.first().unwrap().clone(), "was one with its other names");
            }
            let lives = !self.names_of(number).is_empty();
            if lives && !track.names.iter().any(holds) {
                fail(&DrivePath::root(), &format!("file {number} is nowhere"));
            }
        }
        for (path, node) in found.seen() {
            if let Node::File(content, _) = &node
                && !self.whole.contains(content)
                && !self.had.get(&path).is_some_and(|had| had.iter().any(|had| may_be(had, &node)))
            {
                fail(&path, "is seen as what it never was");
            }
        }
    }
}

/// Ids of hard links must not be those of an earlier round.
fn sign_of(medium: &CrashMedium, fresh: u64) -> u64 {
    medium.operations() << 20 | fresh | 1 << 60
}
