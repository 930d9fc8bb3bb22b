//! What a command does where few files may be open at once.

use crate::common::*;
use crate::input::NOBODYS;
use std::fs;

#[test]
fn too_few_files_that_may_be_open_are_an_error_in_one_line() {
    let lab = Lab::new();
    for limit in (4..48).step_by(2) {
        let first = format!("ulimit -n {limit}");
        let done = run(after(&first, lab.command(&format!("s{limit}"), &["create", "x"])));
        if done.code != 0 {
            // With less not even the program is loaded.
            assert!(limit < 40 && matches!(done.code, 1 | 127), "{limit}: {}", done.stderr);
            assert!(limit < 6 || done.stderr.contains("`ulimit -n 1024`"), "{}", done.stderr);
            assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
        }
    }
    // What a process may raise by itself is no limit.
    let done = run(after("ulimit -Sn 10", lab.command("soft", &["create", "x"])));
    assert_eq!(done.code, 0, "{}", done.stderr);
}

/// More files than may be open: those that were not used for longest are closed.
#[test]
fn many_drives_are_held_with_few_open_files() {
    let lab = Lab::new();
    let mut alice = lab.spawn("alice", &["seed", NOBODYS]);
    alice.line("key: ");
    let make = |n: usize| {
        let name = format!("drive-{n}");
        let made = lab.run("alice", &["create", &name]);
        assert_eq!(made.code, 0, "{}", made.stderr);
        let put = lab.run("alice", &["put", &format!("{name}/file"), "/proc/self/cmdline"]);
        assert_eq!(put.code, 0, "{}", put.stderr);
        made.text().trim().trim_start_matches("key: ").to_string()
    };
    let keys: Vec<String> = (0..16).map(make).collect();
    let seed: Vec<&str> = ["seed"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    let mut alice_too = lab.spawn("alice", &seed);
    alice_too.line("complete: ");
    let mut bob = Hdrive::spawn(after("ulimit -n 48", lab.command("bob", &seed)));
    for _ in &keys {
        bob.line("complete: ");
    }
    let opened = fs::read_dir(format!("/proc/{}/fd", bob.pid())).unwrap().count();
    assert!(opened < 48, "{opened}");
    // And those who want it get it, over the same few.
    for key in &keys {
        let done = lab.run("bob", &["cat", &format!("{key}/file")]);
        assert_eq!(done.code, 0, "{}", done.stderr);
    }
}
