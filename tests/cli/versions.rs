//! Old versions of a drive: by number, by time, and found late.

use crate::common::*;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

fn write(path: &Path, text: &str, seconds: u64) {
    fs::write(path, text).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn names(at: &Path) -> Vec<String> {
    let names =
        fs::read_dir(at).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn versions_are_mounted_by_number_and_by_time_and_fill_when_they_are_found() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    // One change of five files: version 6, and nothing between it and the empty drive.
    for i in 0..5 {
        write(&folder.join(format!("f{i}")), "2020", 1_600_000_000 + i);
    }
    let (share, key) = lab.share("alice", &folder);
    let two = lab.mount("bob", &key, &["--at", "6"]);
    assert_eq!(names(&two.at).len(), 5);
    write(&folder.join("later"), "2023", 1_700_000_000);
    let newest = lab.mount("carol", &key, &[]);
    eventually("the later file", PATIENCE, || newest.path("later").exists().then_some(()));
    assert!(!two.path("later").exists());

    let mut inside = lab.mount_alone("dave", &key, &["--at", "4"]);
    let said = inside.process.told("no version 4");
    assert!(said.contains("the nearest before it is shown, 1"), "{said}");
    assert!(names(&inside.at).is_empty());

    let by_time = lab.mount("erin", &key, &["--at", "2021-01-01"]);
    assert_eq!(names(&by_time.at).len(), 5);
    assert!(!by_time.path("later").exists());
    let early =
        lab.run("frank", &["mount", &key, text(&lab.folder("early")), "--at", "2019-12-31 23:59"]);
    assert!(
        early.code != 0 && early.stderr.contains("older than 2020-09-13 12:26 UTC"),
        "{}",
        early.stderr
    );
    let wrong = lab.run("frank", &["mount", &key, text(&lab.folder("early")), "--at", "yesterday"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("YYYY-MM-DD"), "{}", wrong.stderr);

    drop((share, two, newest, inside, by_time));
    let late = lab.mount_alone("grace", &key, &["--at", "6"]);
    assert!(names(&late.at).is_empty(), "nobody is there who has it");
    let (_share, again) = lab.share("alice", &folder);
    assert_eq!(again, key);
    eventually("the version", PATIENCE, || (names(&late.at).len() == 5).then_some(()));
    assert_eq!(fs::read_to_string(late.path("f0")).unwrap(), "2020");
    assert!(!late.path("later").exists());
}

#[test]
fn a_version_is_noted_with_the_time_when_it_was_written() {
    let lab = Lab::new();
    // Another command owns the store and stays: nothing is closed between the changes.
    let mut owner = lab.spawn("alice", &["seed", crate::input::NOBODYS]);
    owner.line("key: ");
    assert_eq!(lab.run("alice", &["create", "mine"]).code, 0);
    let file = lab.path("old");
    write(&file, "2020", 1_600_000_000);
    let begun =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64;
    for name in ["a", "b"] {
        let done = lab.run("alice", &["put", &format!("mine/{name}"), text(&file)]);
        assert_eq!(done.code, 0, "{}", done.stderr);
    }
    assert_eq!(lab.run("alice", &["rm", "mine/a"]).code, 0);
    let log = lab.run("alice", &["log", "mine", "--json"]).text();
    let times: Vec<i64> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["time"].as_i64())
        .map(|time| time.expect("a time"))
        .collect();
    assert_eq!(times.len(), 3, "{log}");
    // Seconds are noted.
    assert!(times.iter().all(|time| time / 1000 >= begun / 1000), "{begun} {times:?}");
}

#[test]
fn a_version_of_the_future_of_one_s_own_drive_is_the_nearest_at_once() {
    let lab = Lab::new();
    let key = lab.run("alice", &["create", "mine"]).text();
    let key = key.trim_start_matches("key:").trim();
    let file = lab.path("file-to-put");
    fs::write(&file, "content").unwrap();
    assert_eq!(lab.run("alice", &["put", "mine/a", text(&file)]).code, 0);
    let ls = lab.run("alice", &["ls", &format!("hyper://0.99.{key}/")]);
    assert_eq!((ls.code, ls.text().as_str()), (0, "a\n"), "{}", ls.stderr);
    assert!(ls.stderr.contains("there is no version 99: the nearest"), "{}", ls.stderr);
    assert!(!ls.stderr.contains("cannot be reached"), "{}", ls.stderr);
    if !fuse_available() {
        return;
    }
    // The parent passes on what its child says of it.
    let at = lab.folder("mnt");
    let done = lab.run("alice", &["mount", "--daemon", "--at", "99", "mine", text(&at)]);
    let listed = names(&at);
    assert_eq!(lab.run("alice", &["umount", text(&at)]).code, 0);
    assert_eq!((done.code, listed), (0, vec!["a".to_string()]), "{}", done.stderr);
    assert!(done.stderr.contains("there is no version 99: the nearest"), "{}", done.stderr);
    assert!(!done.stderr.contains("cannot be reached"), "{}", done.stderr);
}

#[test]
fn a_version_of_a_drive_that_is_empty_is_told_to_be_missing() {
    let lab = Lab::new();
    let key = lab.run("alice", &["create", "mine"]).text();
    let key = key.trim_start_matches("key:").trim();
    let ls = lab.run("alice", &["ls", &format!("pear://0.1.{key}")]);
    assert!(ls.code == 0 && ls.stderr.contains("there is no version 1"), "{}", ls.stderr);
    if fuse_available() {
        let mut mount = lab.mount_alone("alice", "mine", &["--at", "1"]);
        mount.process.told("version 1 is not here yet");
    }
}
