//! Several downloads at once into one folder: each file is the whole one, or is not there.

use crate::common::*;
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};

/// So much that it is seen to be on its way.
const LARGE: usize = 20_000_000;

fn parts(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.filter(|path| text(path).ends_with(".hdrive-part")).collect()
}

/// As `part.rs` names the first try.
fn part_name(name: &str) -> String {
    let mut state = blake2b_simd::Params::new().hash_length(8).to_state();
    state.update(&0u64.to_le_bytes()).update(name.as_bytes());
    format!(".{}.hdrive-part", state.finalize().to_hex())
}

/// A drive of which bob and carol know all names and no contents; its share is stopped.
fn stopped(lab: &Lab, files: &[(&str, Vec<u8>)]) -> (Hdrive, String) {
    let folder = lab.folder("shared");
    for (name, content) in files {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), content).unwrap();
    }
    let (share, key) = lab.share("alice", &folder);
    for store in ["bob", "carol"] {
        assert_eq!(lab.run(store, &["ls", &key]).code, 0);
    }
    share.signal(Signal::SIGSTOP);
    (share, key)
}

fn unfinished(folder: &Path, count: usize) {
    let begun = || (parts(folder).len() == count).then_some(());
    eventually("the unfinished files", PATIENCE, begun);
}

fn succeeds(mut get: Hdrive) {
    let code = get.wait(PATIENCE).code();
    assert_eq!(code, Some(0), "{}", get.errors());
}

#[test]
fn files_of_one_name_go_into_one_folder_at_once() {
    let lab = Lab::new();
    let names: Vec<String> = (0..6).map(|n| format!("{n}/report.pdf")).collect();
    let files = names.iter().zip(0..).map(|(name, n)| (&name[..], pattern(n, 300_000)));
    let (share, key) = stopped(&lab, &files.collect::<Vec<_>>());
    let out = lab.folder("out");
    let owner = lab.owner("bob", &["seed", &key]);
    let get = |n: usize| {
        let to = out.join(format!("r{n}.pdf"));
        // Some of them in the process of the owner, some in their own.
        let store = ["bob", "carol"][n % 2];
        lab.spawn(store, &["get", &format!("{key}/{n}/report.pdf"), text(&to)])
    };
    let gets: Vec<_> = (0..6).map(get).collect();
    unfinished(&out, 6);
    share.signal(Signal::SIGCONT);
    for (n, mut done) in gets.into_iter().enumerate() {
        // To find the share again may take longer than a read waits; then it is to be tried again.
        if done.wait(PATIENCE).code() == Some(4) {
            done = get(n);
        }
        succeeds(done);
    }
    for n in 0..6 {
        let content = fs::read(out.join(format!("r{n}.pdf"))).unwrap();
        assert!(content == pattern(n, 300_000), "{n}: {} bytes", content.len());
    }
    assert_eq!(parts(&out), <[PathBuf; 0]>::default());
    drop(owner);
}

/// A get of a large file to `to` that stands still where it has begun, beside `others` in that folder.
fn begun(lab: &Lab, store: &str, file: &str, to: &Path, others: usize) -> Hdrive {
    let get = lab.spawn(store, &["get", file, text(to)]);
    unfinished(to.parent().unwrap(), others + 1);
    get.signal(Signal::SIGSTOP);
    get
}

fn large(lab: &Lab) -> (Hdrive, String) {
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), pattern(1, LARGE)).unwrap();
    let (share, key) = lab.share("alice", &folder);
    (share, format!("{key}/file"))
}

#[test]
fn one_that_is_interrupted_takes_nothing_of_another() {
    let lab = Lab::new();
    let (_share, file) = large(&lab);
    let out = lab.folder("out");
    let whole = begun(&lab, "bob", &file, &out.join("o1"), 0);
    let mut other = begun(&lab, "carol", &file, &out.join("o2"), 1);
    other.signal(Signal::SIGINT);
    other.signal(Signal::SIGCONT);
    assert_eq!(other.wait(AT_ONCE).code(), Some(130));
    unfinished(&out, 1);
    whole.signal(Signal::SIGCONT);
    succeeds(whole);
    assert!(fs::read(out.join("o1")).unwrap() == pattern(1, LARGE));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}

#[test]
fn two_of_one_file_to_one_place_both_arrive() {
    let lab = Lab::new();
    let (_share, file) = large(&lab);
    let (out, to) = (lab.folder("out"), lab.path("out/file"));
    let gets = [begun(&lab, "bob", &file, &to, 0), begun(&lab, "carol", &file, &to, 1)];
    gets.iter().for_each(|get| get.signal(Signal::SIGCONT));
    gets.into_iter().for_each(succeeds);
    assert!(fs::read(&to).unwrap() == pattern(1, LARGE));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}

#[test]
fn what_killed_downloads_left_goes_with_the_next() {
    let lab = Lab::new();
    let (share, key) = stopped(&lab, &[("file", pattern(1, 1_000_000))]);
    let out = lab.folder("out");
    let (file, to) = (format!("{key}/file"), out.join("file"));
    let mut killed = lab.owner("bob", &["get", &file, text(&to)]);
    unfinished(&out, 1);
    killed.signal(Signal::SIGKILL);
    killed.wait(PATIENCE);
    let left = parts(&out);
    share.signal(Signal::SIGCONT);
    assert_eq!(lab.run("bob", &["get", &file, text(&to)]).code, 0);
    assert!(fs::read(&to).unwrap() == pattern(1, 1_000_000));
    assert_eq!((left.len(), parts(&out).len()), (1, 0));
}

#[test]
fn a_file_of_the_drive_that_is_named_like_an_unfinished_one_arrives() {
    let lab = Lab::new();
    let folder = lab.folder("shared/dir");
    let named = part_name("file");
    fs::write(folder.join("file"), "one").unwrap();
    fs::write(folder.join(&named), "another").unwrap();
    let (_share, key) = lab.share("alice", &lab.path("shared"));
    let out = lab.folder("out");
    let arrived = |folder: &Path| {
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!((read("file"), read(&named)), ("one".into(), "another".into()));
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
    };
    assert_eq!(lab.run("bob", &["get", &format!("{key}/dir"), text(&out)]).code, 0);
    arrived(&out.join("dir"));
    // One by one as well.
    for name in [named.as_str(), "file"] {
        let done = lab.run("bob", &["get", &format!("{key}/dir/{name}"), text(&out)]);
        assert_eq!(done.code, 0, "{}", done.stderr);
    }
    fs::remove_dir_all(out.join("dir")).unwrap();
    arrived(&out);
}
