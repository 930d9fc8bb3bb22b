//! A store whose files are replaced or removed while it is in use: who asks for a change is told, and nothing that was
//! acknowledged is in a file that nobody finds.

use crate::common::*;
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Puts a copy of the files of a store in their place.
fn swap(store: &Path) {
    let (cores, copied) = (store.join("cores"), store.join("copy"));
    copy(&cores, &copied);
    fs::remove_dir_all(&cores).unwrap();
    fs::rename(&copied, &cores).unwrap();
}

fn put(lab: &Lab, target: &str, number: u32) -> Done {
    let file = lab.path("file-to-put");
    fs::write(&file, pattern(number, 7_000_000)).unwrap();
    lab.run("alice", &["put", target, text(&file)])
}

fn assert_told(done: &Done, store: &Path) {
    let text = format!("files of the store {} were replaced or removed", store.display());
    assert_eq!(done.code, 6, "{}", done.stderr);
    assert!(done.stderr.contains(&text), "{}", done.stderr);
    assert!(done.stderr.contains("start hdrive again"), "{}", done.stderr);
}

#[test]
fn no_change_goes_into_files_that_were_replaced() {
    for gone in [false, true] {
        let lab = Lab::new();
        let store = lab.path("alice");
        let key = lab.run("alice", &["create", "one"]).text();
        let key = key.trim_start_matches("key:").trim();
        for (name, number) in [("one/a", 1), ("one/b", 2), ("one/b", 3)] {
            assert_eq!(put(&lab, name, number).code, 0);
        }
        let seed = lab.owner("alice", &["seed", key]);
        assert_eq!(put(&lab, "one/c", 4).code, 0);
        if gone {
            fs::remove_dir_all(store.join("cores")).unwrap()
        } else {
            swap(&store)
        }
        let folder = lab.path("folder");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), b"something else").unwrap();
        for _ in 0..2 {
            assert_told(&put(&lab, "one/d", 5), &store);
            assert_told(&lab.run("alice", &["put", "one/e", text(&folder)]), &store);
            assert_told(&lab.run("alice", &["rm", "one/a"]), &store);
            assert_told(&lab.run("alice", &["gc", "one"]), &store);
        }
        stop(seed);
        if gone {
            continue;
        }
        let listed = lab.run("alice", &["ls", "one"]);
        assert_eq!((listed.code, listed.text()), (0, "a\nb\nc\n".into()), "{}", listed.stderr);
        for (name, number) in [("a", 1), ("b", 3), ("c", 4)] {
            let got = lab.run("alice", &["cat", &format!("one/{name}")]);
            assert_eq!(got.code, 0, "{name}: {}", got.stderr);
            assert!(got.stdout == pattern(number, 7_000_000), "{name}");
        }
        assert_eq!(put(&lab, "one/d", 5).code, 0);
        let freed = lab.run("alice", &["gc", "one"]);
        assert!(freed.code == 0 && !freed.text().contains("freed: 0 B"), "{}", freed.text());
    }
}

#[test]
fn that_files_were_changed_is_told_once() {
    let lab = Lab::new();
    let key = lab.run("alice", &["create", "one"]).text();
    let key = key.trim_start_matches("key:").trim();
    assert_eq!(put(&lab, "one/a", 1).code, 0);
    let mut seed = lab.owner("alice", &["seed", key]);
    assert_eq!(put(&lab, "one/b", 2).code, 0);
    let cores = lab.path("alice").join("cores");
    assert!(Command::new("chmod").args(["-R", "u+x", text(&cores)]).status().unwrap().success());
    let changed = put(&lab, "one/c", 3);
    assert_eq!(changed.code, 0, "{}", changed.stderr);
    seed.signal(Signal::SIGINT);
    seed.wait(PATIENCE);
    let told = seed.errors() + &changed.stderr;
    assert_eq!(told.matches("were changed by somebody else").count(), 1, "{told}");
}

#[test]
fn no_download_goes_into_files_that_were_replaced() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let key = lab.run("alice", &["create", "one"]).text();
    let key = key.trim_start_matches("key:").trim();
    assert_eq!(put(&lab, "one/a", 1).code, 0);
    let serving = lab.owner("alice", &["seed", key]);
    let store = lab.path("bob");
    let (target, out) = (format!("{key}/a"), lab.path("out"));
    let mut mounted = lab.mount("bob", key, &[]);
    let mut first = [0; 10];
    std::io::Read::read_exact(&mut fs::File::open(mounted.path("a")).unwrap(), &mut first).unwrap();
    swap(&store);
    assert_told(&lab.run("bob", &["get", &target, text(&out)]), &store);
    mounted.process.signal(Signal::SIGINT);
    mounted.process.wait(PATIENCE);
    let got = lab.run("bob", &["get", &target, text(&out)]);
    assert_eq!(got.code, 0, "{}", got.stderr);
    assert!(fs::read(&out).unwrap() == pattern(1, 7_000_000));
    stop(serving);
}
