//! Stores whose files are of different times: the database alone put back, copied while they were written, punched.
//! Nobody gets a byte that is not the file's, and what is missing comes from peers.

use crate::common::*;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SIZE: usize = 5_000_000;

/// Copies a store as rsync does, its folders first; `meanwhile` it goes on.
fn hot_copy(from: &Path, to: &Path, meanwhile: impl FnOnce()) {
    fs::create_dir(to).unwrap();
    copy(&from.join("cores"), to);
    meanwhile();
    copy(&from.join("store.redb"), to);
    copy(&from.join("witness"), to);
}

fn create(lab: &Lab) -> String {
    let key = lab.run("alice", &["create", "one"]).text();
    key.trim_start_matches("key:").trim().to_string()
}

/// The contents that a test calls by a number.
fn contents(number: u32) -> Vec<u8> {
    pattern(number, SIZE)
}

fn put(lab: &Lab, store: &str, target: &str, number: u32, more: &[&str]) -> Done {
    let file = lab.path("file-to-put");
    fs::write(&file, contents(number)).unwrap();
    let mut args = vec!["put", target, text(&file)];
    args.extend(more);
    lab.run(store, &args)
}

fn put_well(lab: &Lab, store: &str, target: &str, number: u32, more: &[&str]) {
    let done = put(lab, store, target, number, more);
    assert_eq!(done.code, 0, "{target}: {}", done.stderr);
}

/// Gets a file, which must come right or not at all. Whether it came.
fn get(lab: &Lab, store: &str, target: &str, number: u32) -> Done {
    let out = lab.path("out");
    let _ = fs::remove_file(&out);
    let done = lab.run(store, &["get", target, text(&out)]);
    match fs::read(&out) {
        Ok(bytes) => assert!(done.code == 0 && bytes == contents(number), "{target}: wrong bytes"),
        Err(_) => assert_ne!(done.code, 0, "{target}: nothing came"),
    }
    // What is printed goes out as it comes.
    let printed = lab.run(store, &["cat", target]);
    assert_eq!(printed.code == 0, done.code == 0, "{target}: {} {}", done.stderr, printed.stderr);
    assert!(contents(number).starts_with(&printed.stdout), "{target}: wrong bytes");
    done
}

fn get_well(lab: &Lab, store: &str, target: &str, number: u32) {
    let done = get(lab, store, target, number);
    assert_eq!(done.code, 0, "{target}: {}", done.stderr);
}

/// It is told what is the matter and what to do.
fn assert_missing(done: &Done) {
    assert_eq!(done.code, 4, "{}", done.stderr);
    assert!(done.stderr.contains("missing from this store"), "{}", done.stderr);
    assert!(done.stderr.contains("put a complete backup back"), "{}", done.stderr);
}

fn seeds_all(lab: &Lab, store: &str, key: &str, names: &str) {
    let all = || {
        // In this order: whoever knows of no version yet has all of nothing.
        let lists = lab.run(store, &["ls", key]).text() == names;
        let info = lab.run(store, &["info", key]).text();
        let line = info.lines().find(|line| line.starts_with("contents here:"))?.to_string();
        let count: Vec<&str> = line.split(' ').collect();
        (lists && count.get(2) == count.get(4)).then_some(())
    };
    eventually("a whole copy at the peer", PATIENCE, all);
}

/// The largest file of blocks in a store.
fn blocks_file(store: &Path) -> PathBuf {
    let dirs = fs::read_dir(store.join("cores")).unwrap();
    let files = dirs.flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap());
    let blocks =
        files.map(|file| file.unwrap().path()).filter(|path| text(path).ends_with(".blocks"));
    blocks.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

#[test]
fn the_database_alone_put_back_after_gc() {
    let lab = Lab::new();
    let key = create(&lab);
    put_well(&lab, "alice", "one/a", 1, &[]);
    let database = lab.path("alice").join("store.redb");
    let backup = fs::read(&database).unwrap();
    put_well(&lab, "alice", "one/a", 2, &[]);
    // Whoever has both versions.
    let serving = lab.owner("alice", &["seed", &key]);
    get_well(&lab, "bob", &format!("hyper://0.2.{key}/a"), 1);
    stop(serving);
    assert_eq!(lab.run("alice", &["gc", "one"]).code, 0);
    let later = fs::read(&database).unwrap();

    fs::write(&database, &backup).unwrap();
    let info = lab.run("alice", &["info", "one"]).text();
    assert!(info.contains("contents here: 0 of 77 blocks"), "{info}");
    assert_missing(&get(&lab, "alice", "one/a", 1));
    put_well(&lab, "alice", "one/b", 3, &["--trust-store"]);
    assert_missing(&get(&lab, "alice", "one/a", 1));
    get_well(&lab, "alice", "one/b", 3);

    // The one that was there before still has what it had.
    fs::write(&database, &later).unwrap();
    let old = get(&lab, "alice", &format!("hyper://0.2.{key}/a"), 1);
    assert_missing(&old);
}

#[test]
fn the_database_before_a_gc_put_back_with_a_peer_that_has_it() {
    let lab = Lab::new();
    let key = create(&lab);
    put_well(&lab, "alice", "one/a", 1, &[]);
    put_well(&lab, "alice", "one/b", 2, &[]);
    let serving = lab.owner("alice", &["seed", &key]);
    let bob = lab.owner("bob", &["seed", &key]);
    seeds_all(&lab, "bob", &key, "a\nb\n");
    stop(serving);
    let database = lab.path("alice").join("store.redb");
    let backup = fs::read(&database).unwrap();
    assert_eq!(lab.run("alice", &["rm", "one/a"]).code, 0);
    assert_eq!(lab.run("alice", &["gc", "one"]).code, 0);
    fs::write(&database, &backup).unwrap();
    get_well(&lab, "alice", "one/a", 1);
    get_well(&lab, "alice", "one/b", 2);
    stop(bob);
    get_well(&lab, "alice", "one/a", 1);
}

#[test]
fn a_hot_copy_of_a_writer() {
    let lab = Lab::new();
    let key = create(&lab);
    put_well(&lab, "alice", "one/before", 1, &[]);
    let serving = lab.owner("alice", &["seed", &key]);
    hot_copy(&lab.path("alice"), &lab.path("copy"), || {
        put_well(&lab, "alice", "one/big", 2, &[]);
    });
    stop(serving);
    assert_missing(&get(&lab, "copy", "one/big", 2));
    get_well(&lab, "copy", "one/before", 1);
    // The file grows over what is missing.
    put_well(&lab, "copy", "one/later", 3, &["--trust-store"]);
    assert_missing(&get(&lab, "copy", "one/big", 2));
    get_well(&lab, "copy", "one/later", 3);
    get_well(&lab, "copy", "one/before", 1);
    let info = lab.run("copy", &["info", "one"]).text();
    assert!(info.contains("contents here: 154 of 231 blocks"), "{info}");

    // Who has it sends it, to its writer too; where the machine is busy not at the first try.
    let serving = lab.owner("alice", &["seed", &key]);
    let fetched = || (lab.run("copy", &["cat", "one/big"]).code == 0).then_some(());
    eventually("a peer that sends it", PATIENCE, fetched);
    get_well(&lab, "copy", "one/big", 2);
    stop(serving);
    get_well(&lab, "copy", "one/big", 2);
}

#[test]
fn a_hot_copy_of_a_reader() {
    let lab = Lab::new();
    let key = create(&lab);
    put_well(&lab, "alice", "one/before", 1, &[]);
    let serving = lab.owner("alice", &["seed", &key]);
    let bob = lab.owner("bob", &["seed", &key]);
    seeds_all(&lab, "bob", &key, "before\n");
    hot_copy(&lab.path("bob"), &lab.path("carol"), || {
        put_well(&lab, "alice", "one/big", 2, &[]);
        seeds_all(&lab, "bob", &key, "before\nbig\n");
        // What is here is noted every two seconds.
        std::thread::sleep(Duration::from_secs(5));
    });
    copy(&lab.path("carol"), &lab.path("dave"));
    let (big, later) = (format!("{key}/big"), format!("{key}/later"));
    stop(bob);
    stop(serving);
    assert_ne!(get(&lab, "carol", &big, 2).code, 0);
    let serving = lab.owner("alice", &["seed", &key]);
    put_well(&lab, "alice", "one/later", 3, &[]);
    get_well(&lab, "carol", &later, 3);
    get_well(&lab, "carol", &big, 2);
    // Who seeds has all of it when it says so.
    let mut seed = lab.owner("dave", &["seed", &key]);
    seed.line("complete:");
    stop(serving);
    get_well(&lab, "dave", &big, 2);
    get_well(&lab, "eve", &big, 2);
    stop(seed);
}

/// Names and checksums of the newest versions are missing, and a peer has all of them.
#[test]
fn a_hot_copy_of_a_writer_is_brought_up_by_a_peer() {
    let lab = Lab::new();
    let key = create(&lab);
    for (number, name) in (1..).zip(["one/a", "one/b"]) {
        put_well(&lab, "alice", name, number, &[]);
    }
    let serving = lab.owner("alice", &["seed", &key]);
    hot_copy(&lab.path("alice"), &lab.path("copy"), || {
        put_well(&lab, "alice", "one/c", 3, &[]);
        put_well(&lab, "alice", "one/d", 4, &[]);
        // As if long ago, when the copies of small writes are in the database no more.
        for number in 5..30 {
            put_well(&lab, "alice", &format!("one/e/{number}"), 1, &[]);
        }
    });
    copy(&lab.path("copy"), &lab.path("alone"));
    let bob = lab.owner("bob", &["seed", &key]);
    eventually("a whole copy at the peer", PATIENCE, || {
        let info = lab.run("bob", &["info", &key]).text();
        info.contains("files: 29").then_some(())
    });
    seeds_all(&lab, "bob", &key, "a\nb\nc\nd\ne/\n");
    stop(serving);
    put_well(&lab, "copy", "one/f", 30, &[]);
    assert_eq!(lab.run("copy", &["ls", "one"]).text(), "a\nb\nc\nd\ne/\nf\n");
    for (number, name) in [(1, "a"), (3, "c"), (4, "d"), (1, "e/7"), (30, "f")] {
        get_well(&lab, "copy", &format!("one/{name}"), number);
    }
    stop(bob);
}

/// Checksums of most names are missing, as of a copy that was made before they were written.
#[test]
fn names_that_are_missing() {
    let lab = Lab::new();
    let key = create(&lab);
    let file = lab.path("file-to-put");
    fs::write(&file, "little").unwrap();
    let names: Vec<String> = (10..30).map(|number| number.to_string()).collect();
    for name in &names {
        let target = format!("one/{name}");
        assert_eq!(lab.run("alice", &["put", &target, text(&file)]).code, 0);
    }
    copy(&lab.path("alice"), &lab.path("copy"));
    let tree = blocks_file(&lab.path("copy")).with_extension("tree");
    File::options().write(true).open(tree).unwrap().set_len(400).unwrap();
    ["alone", "other"].iter().for_each(|name| copy(&lab.path("copy"), &lab.path(name)));

    // With nobody there, or nobody who has them, it ends soon, and says what to do.
    let put = ["put", "one/x", text(&file), "--trust-store"];
    let commands: [&[&str]; 4] = [&["ls", "one"], &put, &["rm", "one/11"], &["cat", "one/12"]];
    for peer in [false, true] {
        let seed = peer.then(|| lab.owner("other", &["seed", &key]));
        for command in commands {
            assert_missing(&lab.run("alone", command));
        }
        seed.into_iter().for_each(stop);
    }

    let serving = lab.owner("alice", &["seed", &key]);
    let put = lab.run("copy", &["put", "one/x", text(&file)]);
    assert_eq!(put.code, 0, "{}", put.stderr);
    stop(serving);
    let all = format!("{}\nx\n", names.join("\n"));
    assert_eq!(lab.run("copy", &["ls", "one"]).text(), all);
    assert_eq!(lab.run("copy", &["cat", "one/12"]).text(), "little");
}

/// Somebody writes into the files of a store that was closed in order.
#[test]
fn other_bytes_in_a_file_of_the_store() {
    let lab = Lab::new();
    let key = create(&lab);
    put_well(&lab, "alice", "one/a", 1, &[]);
    let serving = lab.owner("alice", &["seed", &key]);
    let bob = lab.owner("bob", &["seed", &key]);
    seeds_all(&lab, "bob", &key, "a\n");
    stop(serving);
    let file = File::options().write(true).open(blocks_file(&lab.path("alice"))).unwrap();
    file.write_all_at(&[0; 100_000], 1_000_000).unwrap();
    // To peers it goes no other way than to readers.
    let mut serving = lab.owner("alice", &["seed", &key]);
    stop(bob);
    let mut carol = lab.spawn("carol", &["get", &format!("{key}/a"), text(&lab.path("carols"))]);
    serving.told("missing or damaged");
    assert!(!carol.has_ended());
    let bob = lab.owner("bob", &["seed", &key]);
    assert!(carol.wait(PATIENCE).success());
    assert!(fs::read(lab.path("carols")).unwrap() == contents(1));
    stop(serving);
    get_well(&lab, "alice", "one/a", 1);
    stop(bob);
    get_well(&lab, "alice", "one/a", 1);
}

/// A hole in a file that an owner has open, or another file in its place: what is put through him afterwards makes
/// nothing right of it, and is there, or was refused.
#[test]
fn files_changed_under_an_owner_that_goes_on() {
    for renamed in [false, true] {
        let lab = Lab::new();
        let key = create(&lab);
        put_well(&lab, "alice", "one/a", 1, &[]);
        let serving = lab.owner("alice", &["seed", &key]);
        let path = blocks_file(&lab.path("alice"));
        if renamed {
            let beside = path.with_extension("part");
            fs::write(&beside, vec![7; SIZE]).unwrap();
            fs::rename(&beside, &path).unwrap();
        } else {
            let file = File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[0; 100_000], 1_000_000).unwrap();
        }
        let done = put(&lab, "alice", "one/b", 2, &[]);
        stop(serving);
        assert_missing(&get(&lab, "alice", "one/a", 1));
        // Had he opened the one that is gone, what is written to it would be lost.
        if done.code != 0 {
            assert!(renamed && done.code == 6, "{}", done.stderr);
            assert!(done.stderr.contains("were replaced or removed"), "{}", done.stderr);
            put_well(&lab, "alice", "one/b", 2, &[]);
        }
        get(&lab, "alice", "one/b", 2);
    }
}
