//! A draft against a model of a file system, and others' view of the drive against what they may see.

mod beside;
mod small;

use super::*;
use crate::hyper::bee::run;
use crate::hyper::cache::BlockCache;
use crate::hyper::core::storage::memory;
use crate::hyper::drive::{Content, Found, SpecialKind, Time};
use crate::hyper::session::Patience;
use crate::hyper::store::{Namespace, Store};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

fn path(text: &str) -> DrivePath {
    DrivePath::from_user(text).unwrap()
}

fn time(n: i64) -> Time {
    Time::new(n, 0)
}

/// What a name of the model is.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Dir(u16),
    File(Vec<u8>, u16),
    Link(String),
    Pipe,
}

type Tree = BTreeMap<DrivePath, Node>;

thread_local! {
    /// Bytes of small files that the drafts of this test have in memory.
    static IN_MEMORY: Cell<usize> = const { Cell::new(MAX_IN_MEMORY) };
}

/// A drive in memory.
struct Bench {
    drive: Drive,
    storage: Arc<dyn Storage>,
    draft: Arc<Draft>,
    editor: Editor,
}

impl Bench {
    fn new() -> Self {
        Self::of(memory())
    }

    fn of(storage: Arc<dyn Storage>) -> Self {
        Self::try_of(storage).unwrap()
    }

    /// None if the store fails.
    fn try_of(storage: Arc<dyn Storage>) -> Option<Self> {
        let (wishes, _) = tokio::sync::mpsc::unbounded_channel();
        let cache = Arc::new(BlockCache::new(1 << 20));
        let store = Store::open(storage.clone(), cache, wishes, Patience::default()).ok()?;
        let core = |name| Some(Arc::new(store.named(&Namespace::ROOT, name, None).ok()?));
        let drive = Drive::writable(core("db")?, core("blobs")?, None);
        let index = run(drive.index()).ok()?;
        let key = CoreKey([1; 32]);
        let (room, of) = (IN_MEMORY.get(), storage.clone());
        let draft = Draft::with_memory(key, drive.clone(), of, index, || {}, room).ok()?;
        let editor = draft.editor(None);
        Some(Self { drive, storage, draft, editor })
    }

    /// The same drive after an end of the process.
    fn again(&self) -> Self {
        Self::of(self.storage.clone())
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = path(name);
        let file = match self.editor.open(&path) {
            Ok(file) => file,
            Err(_) => self.editor.create(&path, 0o644, time(1)).unwrap(),
        };
        file.truncate(0).unwrap();
        file.write(0, content).unwrap();
        file.touch(5_000_000);
        self.editor.close(&file);
    }

    /// What is here.
    fn here(&self) -> Tree {
        tree(&self.draft.names(), &self.drive)
    }

    /// What others see.
    fn seen(&self) -> Tree {
        tree(&run(self.drive.index()).unwrap(), &self.drive)
    }
}

/// Others go on until this is dropped, be it by a panic.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn tree(index: &DriveIndex, drive: &Drive) -> Tree {
    let mut found = Tree::new();
    let mut todo = vec![DrivePath::root()];
    while let Some(at) = todo.pop() {
        for (name, node) in index.list(&at).unwrap().iter() {
            let path = at.join(name).unwrap();
            let node = match node.shown() {
                Found::Directory(dir) => {
                    todo.push(path.clone());
                    Node::Dir(dir.stat().mode)
                }
                Found::Special(_) => Node::Pipe,
                Found::Link(link) => Node::Link(link.target.to_string()),
                Found::File(file) => {
                    let all = match &file.content {
                        Content::Local(local) => local.file.read_local(0, 1 << 20).unwrap(),
                        _ => drive.open(file).unwrap().read_local(0, 1 << 20).unwrap(),
                    };
                    Node::File(all.unwrap().concat(), file.stat.mode)
                }
            };
            found.insert(path, node);
        }
    }
    found
}

#[test]
fn a_file_is_seen_by_others_once_it_is_closed() {
    let bench = Bench::new();
    let file = bench.editor.create(&path("/f"), 0o600, time(1)).unwrap();
    file.write(0, b"half").unwrap();
    assert_eq!(bench.draft.publish(Which::Closed).unwrap(), None);
    assert!(bench.seen().is_empty() && bench.here().len() == 1);
    file.write(4, b" and whole").unwrap();
    bench.editor.close(&file);
    assert!(bench.draft.publish(Which::Closed).unwrap().is_some());
    assert_eq!(bench.seen()[&path("/f")], Node::File(b"half and whole".into(), 0o600));
    assert_eq!(bench.draft.publish(Which::All).unwrap(), None, "all is said");
    assert!(bench.draft.names().leaf(&path("/f")).unwrap().local().is_none(), "it is put away");
}

#[test]
fn a_save_by_rename_is_one_step_and_a_rename_costs_no_content() {
    let bench = Bench::new();
    bench.write("/f", b"old");
    bench.draft.publish(Which::Closed).unwrap();
    bench.write("/.f.tmp", b"new content");
    bench.editor.rename(&path("/.f.tmp"), &path("/f"), Rename::Replace).unwrap();
    let version = bench.draft.publish(Which::Closed).unwrap().unwrap();
    assert_eq!(bench.seen().len(), 1);
    assert_eq!(bench.seen()[&path("/f")], Node::File(b"new content".into(), 0o644));
    let blocks = bench.drive.blobs().source().length();
    bench.editor.rename(&path("/f"), &path("/g"), Rename::NoReplace).unwrap();
    assert_eq!(bench.draft.publish(Which::Closed).unwrap(), Some(version + 2));
    assert_eq!(bench.drive.blobs().source().length(), blocks);
}

#[test]
fn a_copy_costs_no_content() {
    let bench = Bench::new();
    let content = vec![7; 200_000];
    bench.write("/f", &content);
    let copy = bench.editor.create(&path("/g"), 0o644, time(1)).unwrap();
    let share = |range| bench.editor.share(&path("/f"), &path("/g"), range).unwrap();
    assert_eq!(share(0..200_000), 0, "what is not published has no blob yet");
    bench.draft.publish(Which::Closed).unwrap();
    let blocks = bench.drive.blobs().source().length();
    assert_eq!(share(1..200_000), 0, "not where it is");
    assert_eq!((share(0..150_000), share(150_000..200_000)), (150_000, 50_000));
    assert_eq!(copy.read_local(0, 1 << 20).unwrap().unwrap().concat(), content);
    bench.editor.close(&copy);
    bench.draft.publish(Which::Closed).unwrap();
    assert_eq!(bench.drive.blobs().source().length(), blocks);
    assert_eq!(bench.seen()[&path("/g")], Node::File(content, 0o644));
    let part = bench.editor.create(&path("/h"), 0o644, time(1)).unwrap();
    assert_eq!(bench.editor.share(&path("/f"), &path("/h"), 0..70_000).unwrap(), 70_000);
    part.write(70_000, b"end").unwrap();
    bench.editor.close(&part);
    bench.draft.publish(Which::Closed).unwrap();
    let want = [vec![7; 70_000], b"end".to_vec()].concat();
    assert_eq!(bench.seen()[&path("/h")], Node::File(want, 0o644));
}

#[test]
fn what_is_written_on_stays_for_others_what_it_was_and_moves_with_its_folder() {
    let bench = Bench::new();
    bench.editor.make_dir(&path("/d")).unwrap();
    bench.write("/d/f", b"first");
    bench.draft.publish(Which::Closed).unwrap();
    let file = bench.editor.open(&path("/d/f")).unwrap();
    file.write(0, b"SECOND").unwrap();
    bench.editor.rename(&path("/d"), &path("/e"), Rename::Replace).unwrap();
    bench.draft.publish(Which::Closed).unwrap();
    assert_eq!(bench.seen()[&path("/e/f")], Node::File(b"first".into(), 0o644));
    assert!(!bench.seen().contains_key(&path("/d")));
    assert_eq!(bench.here()[&path("/e/f")], Node::File(b"SECOND".into(), 0o644));
    file.write(6, b"!").unwrap();
    assert_eq!(bench.draft.publish(Which::Quiet).unwrap(), None, "it is being written");
    assert!(bench.draft.publish(Which::Quiet).unwrap().is_some());
    assert_eq!(bench.seen()[&path("/e/f")], Node::File(b"SECOND!".into(), 0o644));
    file.write(7, b"!").unwrap();
    bench.editor.close(&file);
    bench.draft.publish(Which::Closed).unwrap();
    assert_eq!(bench.seen(), bench.here());
}

#[test]
fn what_is_synced_is_there_after_an_end_without_being_published() {
    let bench = Bench::new();
    bench.write("/f", &[1; 100_000]);
    bench.draft.publish(Which::Closed).unwrap();
    let file = bench.editor.open(&path("/f")).unwrap();
    file.write(70_000, b"changed").unwrap();
    bench.draft.sync(&path("/f"), &file).unwrap();
    let new = bench.editor.create(&path("/new"), 0o640, time(1)).unwrap();
    new.write(0, b"synced").unwrap();
    bench.draft.sync(&path("/new"), &new).unwrap();
    let here = bench.here();
    let lost = bench.editor.create(&path("/lost"), 0o640, time(1)).unwrap();
    lost.write(0, b"not synced").unwrap();
    assert_eq!(bench.seen().len(), 1);
    let again = bench.again();
    assert_eq!(again.here(), here);
    again.draft.publish(Which::Closed).unwrap();
    assert_eq!(again.seen(), here);
    let third = again.again();
    assert_eq!(third.here(), here);
    assert_eq!(third.draft.publish(Which::All).unwrap(), None, "no record is left");
}

#[test]
fn what_is_taken_up_after_an_end_keeps_what_was_said_of_it() {
    let bench = Bench::new();
    bench.write("/f", b"old");
    let mut xattrs = crate::hyper::drive::Xattrs::default();
    xattrs.set("user.x", b"y".to_vec()).unwrap();
    bench.editor.set_xattrs(&path("/f"), xattrs.clone()).unwrap();
    bench.draft.publish(Which::Closed).unwrap();
    let file = bench.editor.open(&path("/f")).unwrap();
    file.write(0, b"new").unwrap();
    bench.draft.sync(&path("/f"), &file).unwrap();
    let again = bench.again();
    again.draft.publish(Which::Closed).unwrap();
    assert_eq!(again.seen()[&path("/f")], Node::File(b"new".into(), 0o644));
    assert_eq!(again.draft.xattrs(&path("/f")).unwrap(), xattrs);
}

#[test]
fn a_file_that_has_lost_one_of_its_names_is_as_durable_as_before() {
    let bench = Bench::new();
    let file = bench.editor.create(&path("/a"), 0o644, time(1)).unwrap();
    file.write(0, b"synced").unwrap();
    bench.editor.link(&path("/a"), &path("/b"), 7).unwrap();
    bench.draft.sync(&path("/b"), &file).unwrap();
    bench.editor.remove(&path("/a")).unwrap();
    bench.write("/other", b"x");
    bench.draft.publish(Which::Closed).unwrap();
    assert_eq!(bench.again().here()[&path("/b")], Node::File(b"synced".into(), 0o644));
}

impl Bench {
    /// A file that stays open.
    fn synced(&self, name: &str, content: &[u8]) -> Arc<LocalFile> {
        let file = self.editor.create(&path(name), 0o644, time(1)).unwrap();
        file.write(0, content).unwrap();
        self.draft.sync(&path(name), &file).unwrap();
        file
    }

    fn rename(&self, from: &str, to: &str) {
        self.editor.rename(&path(from), &path(to), Rename::Replace).unwrap();
    }
}

/// The files, by what they hold.
fn texts(tree: Tree) -> BTreeMap<String, String> {
    let text = |node| match node {
        Node::File(content, _) => String::from_utf8(content).unwrap(),
        _ => String::new(),
    };
    tree.into_iter().map(|(path, node)| (path.to_string(), text(node))).collect()
}

fn are(tree: Tree, wanted: &[(&str, &str)]) {
    let wanted = wanted.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect();
    assert_eq!(texts(tree), wanted);
}

/// Nothing is as long as a path may be but what stands there already.
#[test]
fn names_change_places_however_deep_they_are() {
    let bench = Bench::new();
    let mut at = DrivePath::root();
    while let Ok(deeper) = at.join(&"n".repeat(255.min(4093 - at.as_str().len()))) {
        bench.editor.make_dir(&deeper).unwrap();
        at = deeper;
        if at.as_str().len() >= 4092 {
            break;
        }
    }
    let (a, b) = (at.join("a").unwrap(), at.join("b").unwrap());
    bench.editor.make_link(&a, "a", time(1)).unwrap();
    bench.editor.make_link(&b, "b", time(1)).unwrap();
    bench.editor.rename(&a, &b, Rename::Exchange).unwrap();
    let names = bench.draft.names();
    assert!(matches!(names.lookup(&b), Some(Found::Link(link)) if &*link.target == "a"));
}

#[test]
fn what_others_add_is_seen_and_what_was_changed_here_stays() {
    let bench = Bench::new();
    bench.write("/a", b"a");
    bench.write("/b", b"b");
    bench.draft.publish(Which::Closed).unwrap();
    bench.write("/a", b"mine");
    for (name, content) in [("/a", "theirs"), ("/c", "new")] {
        let entry = crate::hyper::drive::Entry::default();
        bench.drive.put(&path(name), content.as_bytes(), entry).unwrap();
    }
    bench.draft.absorb();
    let here = bench.here();
    assert_eq!(here[&path("/a")], Node::File(b"mine".into(), 0o644));
    assert_eq!(here[&path("/c")], Node::File(b"new".into(), 0o644));
    bench.draft.publish(Which::Closed).unwrap();
    assert_eq!(bench.seen(), here);
}

/// A mount that is told of its own changes forgets what it need not, and where its process is killed at that moment, it
/// hangs: the kernel holds the lock of a folder for a program that waits for an answer.
#[test]
fn nobody_is_told_of_what_was_published_here() {
    let bench = Bench::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let hears = told.clone();
    let editor = bench.draft.editor(Some(Box::new(move |paths| {
        lock(&hears).extend(paths.iter().cloned());
        true
    })));
    editor.make_dir(&path("/d")).unwrap();
    editor.make_dir(&path("/e")).unwrap();
    editor.make_special(&path("/p"), SpecialKind::Fifo, 0o644, time(1)).unwrap();
    editor.make_link(&path("/l"), "f", time(1)).unwrap();
    let file = editor.create(&path("/d/f"), 0o755, time(1)).unwrap();
    file.write(0, b"content").unwrap();
    editor.link(&path("/d/f"), &path("/d/g"), 7).unwrap();
    let mut xattrs = crate::hyper::drive::Xattrs::default();
    xattrs.set("user.x", b"y".to_vec()).unwrap();
    editor.set_xattrs(&path("/d/f"), xattrs.clone()).unwrap();
    editor.set_xattrs(&path("/e"), xattrs).unwrap();
    for which in [Which::Closed, Which::All] {
        bench.draft.publish(which).unwrap();
        bench.draft.absorb();
    }
    file.write(0, b"CONTENT").unwrap();
    editor.close(&file);
    editor.rename(&path("/d"), &path("/c"), Rename::Replace).unwrap();
    // As it is told before the publication is over.
    let publishing = lock(&bench.draft.publishing);
    bench.draft.absorb();
    assert!(bench.draft.behind.load(Ordering::SeqCst));
    drop(publishing);
    bench.draft.publish(Which::Closed).unwrap();
    assert!(!bench.draft.behind.load(Ordering::SeqCst));
    assert_eq!(*lock(&told), []);
}

#[derive(Debug, Clone)]
enum Op {
    Create(u8, u16),
    MakeDir(u8),
    MakeLink(u8),
    MakePipe(u8),
    Link(u8, u8),
    Remove(u8),
    RemoveDir(u8),
    Rename(u8, u8, u8),
    Chmod(u8, u16),
    Open(u8),
    Write(u8, u16, u8),
    Truncate(u8, u16),
    Close(u8),
    Sync,
    Publish(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0..14u8;
    let mode = prop_oneof![Just(0o644), Just(0o755), Just(0o600)];
    prop_oneof![
        3 => (name.clone(), mode.clone()).prop_map(|(n, m)| Op::Create(n, m)),
        2 => name.clone().prop_map(Op::MakeDir),
        1 => name.clone().prop_map(Op::MakeLink),
        1 => name.clone().prop_map(Op::MakePipe),
        2 => (name.clone(), name.clone()).prop_map(|(a, b)| Op::Link(a, b)),
        2 => name.clone().prop_map(Op::Remove),
        1 => name.clone().prop_map(Op::RemoveDir),
        4 => (name.clone(), name.clone(), 0..5u8).prop_map(|(a, b, h)| Op::Rename(a, b, h)),
        1 => (name.clone(), mode).prop_map(|(n, m)| Op::Chmod(n, m)),
        2 => name.clone().prop_map(Op::Open),
        4 => (name.clone(), 0..300u16, any::<u8>()).prop_map(|(n, at, b)| Op::Write(n, at, b)),
        1 => (name.clone(), 0..300u16).prop_map(|(n, at)| Op::Truncate(n, at)),
        3 => name.prop_map(Op::Close),
        1 => Just(Op::Sync),
        3 => (0..3u8).prop_map(Op::Publish),
    ]
}

/// Three folders deep, so that each name may be a folder for another.
fn name(n: u8) -> DrivePath {
    const NAMES: [&str; 14] = [
        "/a", "/b", "/c", "/a/a", "/a/b", "/b/a", "/b/b", "/a/a/a", "/a/a/b", "/a/b/a", "/b/a/a",
        "/b/b/b", "/c/a", "/c/a/a",
    ];
    path(NAMES[usize::from(n)])
}

/// What a name of the model stands for; a file by its number.
#[derive(Debug, Clone, PartialEq)]
enum Entry {
    Dir(u16),
    File(usize),
    Link(String),
    Pipe,
}

/// A file that is open.
struct Open {
    file: Arc<LocalFile>,
    number: usize,
}

#[derive(Default)]
struct Model {
    tree: BTreeMap<DrivePath, Entry>,
    /// Content and mode.
    files: Vec<(Vec<u8>, u16)>,
    open: Vec<Open>,
}

impl Model {
    fn shown(&self) -> Tree {
        let node = |entry: &Entry| match entry {
            Entry::Dir(mode) => Node::Dir(*mode),
            Entry::File(n) => Node::File(self.files[*n].0.clone(), self.files[*n].1),
            Entry::Link(target) => Node::Link(target.clone()),
            Entry::Pipe => Node::Pipe,
        };
        self.tree.iter().map(|(path, entry)| (path.clone(), node(entry))).collect()
    }

    fn is_dir(&self, path: &DrivePath) -> bool {
        path.is_root() || matches!(self.tree.get(path), Some(Entry::Dir(_)))
    }

    fn is_full(&self, path: &DrivePath) -> bool {
        self.tree.keys().any(|other| other.parent().as_ref() == Some(path))
    }

    fn makes(&mut self, path: &DrivePath, entry: Entry) -> bool {
        let can = self.is_dir(&path.parent().unwrap()) && !self.tree.contains_key(path);
        if can {
            self.tree.insert(path.clone(), entry);
        }
        can
    }

    fn shift(&mut self, from: &DrivePath, to: &DrivePath) {
        let moved = |path: DrivePath| path.moved(from, to).unwrap_or(path);
        let tree = std::mem::take(&mut self.tree);
        self.tree = tree.into_iter().map(|(path, entry)| (moved(path), entry)).collect();
    }

    fn rename(&mut self, from: &DrivePath, to: &DrivePath, how: Rename) -> bool {
        let below = |a: &DrivePath, b: &DrivePath| a != b && a.moved(b, b).is_some();
        let (source, target) = (self.tree.get(from).cloned(), self.tree.get(to).cloned());
        let Some(source) = source else { return false };
        if below(to, from) || !self.is_dir(&to.parent().unwrap()) {
            return false;
        }
        let aside = path("/aside");
        match (target, how) {
            (None, Rename::Exchange) | (Some(_), Rename::NoReplace) => return false,
            _ if from == to => return true,
            (Some(_), Rename::Exchange) => {
                if below(from, to) {
                    return false;
                }
                self.shift(to, &aside);
                self.shift(from, to);
                self.shift(&aside, from);
                return true;
            }
            (Some(target), _) => {
                let is_dir = |entry: &Entry| matches!(entry, Entry::Dir(_));
                if is_dir(&source) != is_dir(&target) || self.is_full(to) {
                    return false;
                }
                if matches!((&source, &target), (Entry::File(a), Entry::File(b)) if a == b) {
                    return true;
                }
                self.tree.remove(to);
            }
            (None, _) => {}
        }
        self.shift(from, to);
        true
    }
}

proptest! {
    /// What is here is what the model says after each step; what others see is made of whole files; and in the end it is
    /// what is here, also after a start from nothing but the drive.
    #[test]
    fn a_draft_is_a_file_system(ops in proptest::collection::vec(op(), 0..90)) {
        let bench = Bench::new();
        let mut model = Model::default();
        let mut fresh = 1000;
        // Contents that were whole at some time: of a closed file, or of one that was published as it was.
        let mut whole: BTreeSet<Vec<u8>> = BTreeSet::from([Vec::new()]);
        for op in ops {
            match op {
                Op::Create(n, mode) => {
                    let made = bench.editor.create(&name(n), mode, time(1));
                    let number = model.files.len();
                    prop_assert_eq!(made.is_ok(), model.makes(&name(n), Entry::File(number)));
                    if let Ok(file) = made {
                        model.files.push((vec![], mode));
                        model.open.push(Open { file, number });
                    }
                }
                Op::MakeDir(n) => {
                    let made = bench.editor.make_dir(&name(n)).is_ok();
                    prop_assert_eq!(made, model.makes(&name(n), Entry::Dir(0o755)));
                }
                Op::MakeLink(n) => {
                    let made = bench.editor.make_link(&name(n), "x", time(1)).is_ok();
                    prop_assert_eq!(made, model.makes(&name(n), Entry::Link("x".into())));
                }
                Op::MakePipe(n) => {
                    let made = bench.editor.make_special(&name(n), SpecialKind::Fifo, 0o644, time(1));
                    prop_assert_eq!(made.is_ok(), model.makes(&name(n), Entry::Pipe));
                }
                Op::Link(a, b) => {
                    fresh += 1;
                    let done = bench.editor.link(&name(a), &name(b), fresh).is_ok();
                    let wanted = match model.tree.get(&name(a)).cloned() {
                        None | Some(Entry::Dir(_)) => false,
                        Some(entry) => model.makes(&name(b), entry),
                    };
                    prop_assert_eq!(done, wanted);
                }
                Op::Remove(n) => {
                    let can = matches!(model.tree.get(&name(n)), Some(Entry::File(_) | Entry::Link(_) | Entry::Pipe));
                    prop_assert_eq!(bench.editor.remove(&name(n)).is_ok(), can);
                    if can {
                        model.tree.remove(&name(n));
                    }
                }
                Op::RemoveDir(n) => {
                    let can = matches!(model.tree.get(&name(n)), Some(Entry::Dir(_))) && !model.is_full(&name(n));
                    prop_assert_eq!(bench.editor.remove_dir(&name(n)).is_ok(), can);
                    if can {
                        model.tree.remove(&name(n));
                    }
                }
                Op::Rename(a, b, how) => {
                    let how = match how {
                        0 => Rename::NoReplace,
                        1 => Rename::Exchange,
                        _ => Rename::Replace,
                    };
                    let done = bench.editor.rename(&name(a), &name(b), how);
                    prop_assert_eq!(done.is_ok(), model.rename(&name(a), &name(b), how), "{:?}", done);
                }
                Op::Chmod(n, mode) => {
                    let set = Set { mode: Some(mode), ..Set::default() };
                    let done = bench.editor.set(&name(n), &set).is_ok();
                    prop_assert_eq!(done, model.tree.contains_key(&name(n)));
                    match model.tree.get_mut(&name(n)) {
                        Some(Entry::File(number)) => model.files[*number].1 = mode,
                        Some(Entry::Dir(old)) => *old = mode,
                        _ => {}
                    }
                }
                Op::Open(n) => {
                    let opened = bench.editor.open(&name(n));
                    match model.tree.get(&name(n)) {
                        Some(Entry::File(number)) => {
                            model.open.push(Open { file: opened.unwrap(), number: *number });
                        }
                        _ => prop_assert!(opened.is_err()),
                    }
                }
                Op::Write(nth, at, byte) if !model.open.is_empty() => {
                    let nth = usize::from(nth) % model.open.len();
                    let at = usize::from(at);
                    model.open[nth].file.write(at as u64, &[byte; 9]).unwrap();
                    let content = &mut model.files[model.open[nth].number].0;
                    content.resize(content.len().max(at + 9), 0);
                    content[at..at + 9].fill(byte);
                }
                Op::Truncate(nth, size) if !model.open.is_empty() => {
                    let nth = usize::from(nth) % model.open.len();
                    model.open[nth].file.truncate(size.into()).unwrap();
                    model.files[model.open[nth].number].0.resize(size.into(), 0);
                }
                Op::Close(nth) if !model.open.is_empty() => {
                    let nth = usize::from(nth) % model.open.len();
                    let open = model.open.swap_remove(nth);
                    bench.editor.close(&open.file);
                    if !open.file.is_open() {
                        whole.insert(model.files[open.number].0.clone());
                    }
                }
                Op::Sync => {
                    for open in &model.open {
                        let at = model.tree.iter().find(|(_, entry)| **entry == Entry::File(open.number));
                        if let Some((at, _)) = at {
                            bench.draft.sync(at, &open.file).unwrap();
                            // Where a record cannot do it, it is published.
                            whole.insert(model.files[open.number].0.clone());
                        }
                    }
                }
                Op::Publish(which) => {
                    let which = [Which::Closed, Which::Quiet, Which::All][usize::from(which)];
                    if which != Which::Closed {
                        whole.extend(model.open.iter().map(|open| model.files[open.number].0.clone()));
                    }
                    bench.draft.publish(which).unwrap();
                    for (path, node) in bench.seen() {
                        if let Node::File(content, _) = node {
                            prop_assert!(whole.contains(&content), "{path} is half of something");
                        }
                    }
                }
                _ => {}
            }
            prop_assert_eq!(&bench.here(), &model.shown());
        }
        for open in model.open.drain(..) {
            bench.editor.close(&open.file);
        }
        bench.draft.publish(Which::Closed).unwrap();
        let seen = bench.seen();
        prop_assert_eq!(&seen, &model.shown());
        prop_assert_eq!(bench.draft.publish(Which::All).unwrap(), None);
        let again = bench.again();
        prop_assert_eq!(&again.here(), &model.shown());
        prop_assert_eq!(again.draft.publish(Which::All).unwrap(), None);
        let files = bench.draft.names();
        files.for_each_below(&DrivePath::root(), |leaf| assert!(leaf.local().is_none(), "{leaf:?}"));
    }
}

#[path = "crash_tests.rs"]
mod crash_tests;
#[path = "loss_tests.rs"]
mod loss_tests;
