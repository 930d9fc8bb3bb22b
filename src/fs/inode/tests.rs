use super::node::Names;
use super::*;
use crate::fs::body::Body;
use crate::fs::volume::{BoxFuture, Result};
use bytes::Bytes;

mod model;

fn entry(kind: Kind, revision: u64) -> Entry {
    Entry {
        kind,
        size: 0,
        mode: 0o644,
        mtime_ms: 0,
        mtime_ns: 0,
        uid: None,
        gid: None,
        rdev: 0,
        target: None,
        verbatim: false,
        revision,
        id: 0,
        links: 1,
        sure: true,
    }
}

fn file(revision: u64) -> Entry {
    entry(Kind::File, revision)
}

fn folder() -> Entry {
    entry(Kind::Directory, 0)
}

/// One of several names of a file.
fn linked(id: u64, revision: u64) -> Entry {
    Entry { id, links: 2, ..file(revision) }
}

fn inodes() -> Inodes {
    Inodes::new(folder())
}

fn path(text: &str) -> DrivePath {
    DrivePath::from_user(text).unwrap()
}

/// The path and the folders above it are looked up; only what it leads to is not yet counted.
fn bind(inodes: &mut Inodes, at: &str, entry: Entry) -> Bound {
    let mut dir = DrivePath::root();
    for name in path(at).parent().unwrap().names() {
        dir = dir.join(name).unwrap();
        if inodes.at(&dir).is_none() {
            inodes.bind_at(&dir, folder()).unwrap();
        }
    }
    inodes.bind_at(&path(at), entry).unwrap()
}

/// The same, counted.
fn look_up(inodes: &mut Inodes, at: &str, entry: Entry) -> Ino {
    let ino = bind(inodes, at, entry).ino();
    inodes.remember(ino);
    ino
}

fn shown(inodes: &Inodes, ino: Ino) -> Option<String> {
    inodes.path(ino).map(|path| path.as_str().to_owned())
}

/// A content that is known by its revision.
struct Content(u64);

impl FileContent for Content {
    fn size(&self) -> Option<u64> {
        Some(0)
    }

    fn revision(&self) -> u64 {
        self.0
    }

    fn read_local(&self, _: u64, _: usize) -> Result<Option<Vec<Bytes>>> {
        Ok(None)
    }

    fn read(&self, _: u64, _: usize) -> BoxFuture<Result<Vec<Bytes>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn prefetch(&self, _: u64, _: u64) {}
}

/// As a file is opened.
fn open(inodes: &mut Inodes, ino: Ino) -> Arc<Body> {
    let node = inodes.get_mut(ino).unwrap();
    let revision = node.entry.revision;
    node.pages = Some(revision);
    let new = || Arc::new(Body::new(Arc::new(Content(revision))));
    let body = node.body.get_or_insert_with(new).clone();
    inodes.hold(ino);
    body
}

// ---- numbers ----

#[test]
fn numbers_are_the_same_in_every_mount() {
    let (mut a, mut b) = (inodes(), inodes());
    bind(&mut b, "/other", file(1));
    look_up(&mut a, "/x", folder());
    let x = a.at(&path("/x")).unwrap();
    let told = a.number(x, "y", &file(1)).unwrap();
    assert_eq!(told, bind(&mut a, "/x/y", file(1)).ino());
    assert_eq!(told, bind(&mut b, "/x/y", file(9)).ino());
    assert_eq!(a.at(&DrivePath::root()), Some(Ino::ROOT));
    // Pinned: another hash would change every number users have seen.
    assert_eq!(told, Ino(13461472271242876528));
}

#[test]
fn collisions_get_other_numbers() {
    let mut inodes = Inodes::with_numbers(folder(), |_, salt| salt.into());
    let a = bind(&mut inodes, "/a", file(1)).ino();
    let b = bind(&mut inodes, "/b", file(1)).ino();
    assert_eq!((a, b), (Ino(2), Ino(3)));
    inodes.settle(a);
    assert_eq!(inodes.at(&path("/b")), Some(b));
    assert_eq!(inodes.number(Ino::ROOT, "c", &file(1)), Some(Ino(2)));
}

#[test]
fn an_id_is_the_number_wherever_it_is_seen() {
    let mut inodes = inodes();
    assert_eq!(look_up(&mut inodes, "/d/f", linked(77, 1)), Ino(77));
    let d = inodes.at(&path("/d")).unwrap();
    assert_eq!(inodes.number(d, "g", &linked(77, 1)), Some(Ino(77)));
    assert_eq!(bind(&mut inodes, "/d/g", linked(77, 1)), Bound::New(Ino(77)));
    assert_eq!(inodes.nodes.len(), 3, "one more name of the same");
    inodes.unlink_at(&path("/d/f"));
    assert_eq!(shown(&inodes, Ino(77)).unwrap(), "/d/g");
}

#[test]
fn an_id_that_is_not_free_is_none() {
    let mut inodes = Inodes::with_numbers(folder(), |_, salt| 70 + u64::from(salt));
    // Its number is a hash that happens to be somebody's id.
    assert_eq!(look_up(&mut inodes, "/hashed", file(1)), Ino(70));
    assert_eq!(look_up(&mut inodes, "/f", linked(70, 2)), Ino(71));
    assert_eq!(look_up(&mut inodes, "/root", linked(1, 3)), Ino(72));
    // Another kind, and a folder that is somewhere else already.
    assert_eq!(look_up(&mut inodes, "/l", linked(80, 4)), Ino(80));
    let folder = Entry { id: 80, ..folder() };
    assert_eq!(look_up(&mut inodes, "/d", folder), Ino(73));
    let folder = Entry { id: 90, ..entry(Kind::Directory, 5) };
    assert_eq!(look_up(&mut inodes, "/e", folder.clone()), Ino(90));
    assert_eq!(look_up(&mut inodes, "/e2", folder), Ino(74));
}

#[test]
fn no_folder_lies_in_itself_whatever_a_drive_says() {
    let mut inodes = inodes();
    let dir = Entry { id: 50, ..folder() };
    let top = look_up(&mut inodes, "/a", dir.clone());
    let sub = look_up(&mut inodes, "/a/b", folder());
    inodes.unlink_at(&path("/a"));
    assert_eq!(inodes.bind(sub, "a", dir.clone()), None, "no path leads there");
    assert!(inodes.rename((top, "b"), (Ino::ROOT, "b")));
    // The same folder in what was below it.
    assert_eq!(inodes.bind(sub, "a", dir), Some(Bound::New(top)));
    assert_eq!(shown(&inodes, top).unwrap(), "/b/a");
    let again = Entry { id: 50, ..entry(Kind::Directory, 1) };
    assert_ne!(inodes.bind(top, "c", again).unwrap().ino(), top);
}

#[test]
fn a_name_that_is_another_file_now_has_its_number() {
    let mut inodes = inodes();
    let old = look_up(&mut inodes, "/f", file(1));
    assert_eq!(bind(&mut inodes, "/f", linked(9, 2)), Bound::Moved { old, new: Ino(9) });
    // Its id was noted: it is the same.
    assert_eq!(look_up(&mut inodes, "/g", linked(9, 2)), Ino(9));
    // One of two names was replaced by somebody who knows no ids.
    let Bound::Moved { old, new } = bind(&mut inodes, "/f", file(3)) else { panic!() };
    assert_eq!((old, shown(&inodes, old).unwrap()), (Ino(9), "/g".into()));
    assert_eq!(shown(&inodes, new).unwrap(), "/f");
    // The last one takes its number along.
    assert_eq!(bind(&mut inodes, "/g", file(4)), Bound::Replaced(Ino(9)));
}

// ---- what others change ----

#[test]
fn a_replaced_file_keeps_its_number_while_nobody_reads_it() {
    let mut inodes = inodes();
    let ino = look_up(&mut inodes, "/f", file(1));
    assert_eq!(bind(&mut inodes, "/f", file(1)), Bound::Same(ino));
    assert_eq!(bind(&mut inodes, "/f", file(2)), Bound::Replaced(ino));
}

#[test]
fn an_open_file_keeps_its_content_and_the_name_moves_on() {
    let mut inodes = inodes();
    let old = look_up(&mut inodes, "/f", file(1));
    open(&mut inodes, old);
    let Bound::Moved { old: was, new } = bind(&mut inodes, "/f", file(2)) else { panic!() };
    assert_eq!(was, old);
    assert_eq!(inodes.at(&path("/f")), Some(new));
    let node = inodes.get(old).unwrap();
    assert_eq!((node.entry.revision, node.is_linked(), node.links()), (1, false, 0));
    inodes.remember(new);
    inodes.release(old);
    assert!(inodes.get(old).is_some(), "the kernel still knows it");
    inodes.forget(old, 1);
    assert!(inodes.get(old).is_none());
    assert_eq!(inodes.at(&path("/f")), Some(new), "forgetting the old leaves the new");
}

#[test]
fn an_open_file_of_which_more_is_told_is_the_same() {
    let mut inodes = inodes();
    let ino = look_up(&mut inodes, "/f", Entry { sure: false, ..file(1) });
    open(&mut inodes, ino);
    let told = Entry { size: 5, ..file(1) };
    assert_eq!(bind(&mut inodes, "/f", told), Bound::Replaced(ino));
}

#[test]
fn another_kind_is_another_inode() {
    let mut inodes = inodes();
    look_up(&mut inodes, "/f", file(1));
    let other = entry(Kind::Directory, 2);
    assert!(matches!(bind(&mut inodes, "/f", other), Bound::Moved { .. }));
}

#[test]
fn an_unlinked_inode_lives_until_it_is_forgotten() {
    let mut inodes = inodes();
    let ino = look_up(&mut inodes, "/f", file(1));
    assert_eq!(inodes.unlink_at(&path("/f")), Some(ino));
    assert_eq!((inodes.at(&path("/f")), inodes.path(ino)), (None, None));
    assert!(inodes.get(ino).is_some());
    inodes.forget(ino, 1);
    assert_eq!(inodes.nodes.len(), 1);
}

// ---- what is changed here ----

#[test]
fn a_folder_moves_and_all_below_it_keep_their_numbers() {
    let mut inodes = inodes();
    let dir = look_up(&mut inodes, "/a/b", folder());
    let below = look_up(&mut inodes, "/a/b/c/d", file(1));
    let a = inodes.at(&path("/a")).unwrap();
    assert!(inodes.rename((a, "b"), (Ino::ROOT, "z")));
    assert_eq!(shown(&inodes, below).unwrap(), "/z/c/d");
    assert_eq!((inodes.at(&path("/z/c/d")), inodes.at(&path("/z"))), (Some(below), Some(dir)));
    assert!(inodes.get(a).is_none(), "it was there for what lay in it");
    assert_eq!(bind(&mut inodes, "/z/c/d", linked(below.0, 2)), Bound::Replaced(below));
    // A new one at the old place has another number.
    assert_ne!(bind(&mut inodes, "/a/b/c/d", file(3)).ino(), below);
}

#[test]
fn a_forgotten_folder_stays_for_what_lies_in_it() {
    let mut inodes = inodes();
    let dir = look_up(&mut inodes, "/a", folder());
    let ino = look_up(&mut inodes, "/a/b/f", file(1));
    inodes.forget(dir, 1);
    assert_eq!(shown(&inodes, ino).unwrap(), "/a/b/f");
    inodes.hold(ino);
    inodes.forget(ino, 1);
    assert_eq!(inodes.nodes.len(), 4);
    inodes.release(ino);
    assert_eq!((inodes.nodes.len(), inodes.by_name.len()), (1, 0));
}

#[test]
fn who_is_renamed_over_lives_on_for_those_who_hold_it() {
    let mut inodes = inodes();
    let (new, old) = (look_up(&mut inodes, "/new", file(1)), look_up(&mut inodes, "/f", file(2)));
    open(&mut inodes, old);
    assert!(inodes.rename((Ino::ROOT, "new"), (Ino::ROOT, "f")));
    assert_eq!((inodes.at(&path("/f")), inodes.at(&path("/new"))), (Some(new), None));
    assert_eq!((inodes.path(old), inodes.get(old).unwrap().links()), (None, 0));
    inodes.forget(old, 1);
    inodes.release(old);
    assert!(inodes.get(old).is_none());
}

#[test]
fn what_the_kernel_does_not_know_is_renamed_all_the_same() {
    let mut inodes = inodes();
    let old = look_up(&mut inodes, "/f", file(1));
    assert!(inodes.rename((Ino::ROOT, "unknown"), (Ino::ROOT, "f")));
    assert_eq!((inodes.at(&path("/f")), inodes.path(old)), (None, None));
    let dir = look_up(&mut inodes, "/d", folder());
    assert!(inodes.exchange((Ino::ROOT, "d"), (Ino::ROOT, "unknown")));
    assert_eq!(shown(&inodes, dir).unwrap(), "/unknown");
}

#[test]
fn a_folder_does_not_move_into_itself() {
    let mut inodes = inodes();
    let a = look_up(&mut inodes, "/a", folder());
    let c = look_up(&mut inodes, "/a/b/c", folder());
    let x = look_up(&mut inodes, "/x", file(1));
    assert!(!inodes.rename((Ino::ROOT, "a"), (c, "a")));
    assert!(!inodes.rename((Ino::ROOT, "a"), (a, "a")));
    assert!(!inodes.exchange((Ino::ROOT, "a"), (c, "y")));
    assert!(!inodes.exchange((c, "y"), (Ino::ROOT, "a")));
    assert!(inodes.rename((Ino::ROOT, "a"), (Ino::ROOT, "a")));
    assert_eq!(shown(&inodes, c).unwrap(), "/a/b/c");
    assert!(inodes.exchange((Ino::ROOT, "x"), (a, "b")));
    assert_eq!(
        (shown(&inodes, x).unwrap(), shown(&inodes, c).unwrap()),
        ("/a/b".into(), "/x/c".into())
    );
}

#[test]
fn links_are_names_of_one_inode() {
    let mut inodes = inodes();
    let (ino, dir) = (look_up(&mut inodes, "/f", file(1)), look_up(&mut inodes, "/d", folder()));
    assert!(inodes.link(ino, dir, "g"));
    assert!(!inodes.link(dir, Ino::ROOT, "no"), "a folder has one name");
    assert_eq!((inodes.at(&path("/d/g")), inodes.get(ino).unwrap().links()), (Some(ino), 2));
    // Its id is noted with the first link.
    assert_eq!(bind(&mut inodes, "/d/g", linked(ino.0, 2)), Bound::Replaced(ino));
    assert_eq!(bind(&mut inodes, "/f", linked(ino.0, 2)), Bound::Same(ino));
    assert!(inodes.rename((Ino::ROOT, "f"), (dir, "g")), "both stay");
    assert_eq!(inodes.at(&path("/f")), Some(ino));
    assert_eq!(inodes.unlink(Ino::ROOT, "f"), Some(ino));
    assert_eq!(
        (shown(&inodes, ino).unwrap(), inodes.get(ino).unwrap().links()),
        ("/d/g".into(), 1)
    );
    // A name that nobody looked up counts too.
    let other = look_up(&mut inodes, "/h", linked(5, 3));
    inodes.unlink(Ino::ROOT, "h");
    assert_eq!((inodes.get(other).unwrap().links(), inodes.path(other)), (1, None));
}

#[test]
fn links_that_are_not_told_are_counted() {
    let mut inodes = inodes();
    let ino = look_up(&mut inodes, "/f", Entry { links: 0, ..file(1) });
    for name in ["g", "h"] {
        assert!(inodes.link(ino, Ino::ROOT, name));
    }
    assert_eq!(inodes.get(ino).unwrap().links(), 3);
    for (name, left) in [("h", 2), ("f", 1), ("g", 0)] {
        inodes.unlink(Ino::ROOT, name);
        assert_eq!(inodes.get(ino).unwrap().links(), left);
    }
}

#[test]
fn a_file_that_is_changed_here_is_read_by_all_who_have_it_open() {
    let mut inodes = inodes();
    let ino = look_up(&mut inodes, "/f", file(1));
    let body = open(&mut inodes, ino);
    inodes.renew(ino, file(2), Arc::new(Content(2)));
    assert_eq!(body.content().revision(), 2);
    let node = inodes.get(ino).unwrap();
    assert_eq!((node.entry.revision, node.pages), (2, Some(2)));
    assert_eq!(bind(&mut inodes, "/f", file(2)), Bound::Same(ino));
    assert!(matches!(bind(&mut inodes, "/f", file(3)), Bound::Moved { .. }), "by somebody else");
}

#[test]
fn one_name_takes_no_more_than_itself() {
    assert_eq!(size_of::<Names>(), size_of::<Name>());
    assert!(size_of::<Node>() <= 168, "{}", size_of::<Node>());
}

#[test]
fn a_path_that_has_become_too_long_is_none() {
    let mut inodes = inodes();
    let long = "n".repeat(250);
    let deep = |depth: usize| format!("/{long}").repeat(depth);
    let dir = look_up(&mut inodes, &deep(16), folder());
    assert_eq!(shown(&inodes, dir).unwrap(), deep(16));
    let far = look_up(&mut inodes, "/d/e", folder());
    let top = inodes.at(&path(&deep(1))).unwrap();
    assert!(inodes.rename((Ino::ROOT, &long), (far, &long)));
    assert_eq!(shown(&inodes, top).unwrap(), format!("/d/e/{long}"));
    assert_eq!(shown(&inodes, dir).unwrap(), format!("/d/e{}", deep(16)));
    assert_eq!(inodes.bind(dir, &long, file(1)), None);
    let y = look_up(&mut inodes, &format!("/y/{}", "y".repeat(100)), folder());
    assert!(inodes.rename((far, &long), (y, &long)));
    assert_eq!(inodes.path(dir), None);
}
