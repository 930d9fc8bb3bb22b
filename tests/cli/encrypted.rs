//! Encrypted drives: held without their key, and not made by mistake.

use crate::common::*;
use nix::sys::signal::Signal;
use std::fs;

const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const WRONG: &str = "0202020202020202020202020202020202020202020202020202020202020202";

fn create(lab: &Lab, name: &str, more: &[&str]) -> String {
    let mut args = vec!["create", name];
    args.extend(more);
    let done = lab.run("alice", &args);
    assert_eq!(done.code, 0, "{}", done.stderr);
    done.text().trim_start_matches("key:").trim().to_string()
}

#[test]
fn a_seeder_without_the_key_serves_all_of_it() {
    let lab = Lab::new();
    let key = create(&lab, "secret", &["--encryption-key", KEY]);
    let file = lab.path("file-to-put");
    let content = pattern(5, 700_000);
    fs::write(&file, &content).unwrap();
    let put = |name: &str| {
        let done = lab.run("alice", &["put", &format!("secret/{name}"), text(&file)]);
        assert_eq!(done.code, 0, "{}", done.stderr);
    };
    put("a");
    let mut alice = lab.spawn("alice", &["seed", "secret"]);
    alice.line("complete: ");
    let mut bob = lab.spawn("bob", &["seed", &key]);
    bob.line("key: ");
    bob.line("complete: ");
    assert!(bob.errors().contains("is encrypted: all of it is held"), "{}", bob.errors());
    // It follows the writer, who then goes.
    put("b");
    bob.line("complete: ");
    alice.signal(Signal::SIGINT);
    alice.wait(PATIENCE);
    for name in ["a", "b"] {
        let out = lab.path(name);
        let get = ["get", &format!("{key}/{name}"), text(&out), "--encryption-key", KEY];
        let done = lab.run("carol", &get);
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert_eq!(fs::read(out).unwrap(), content, "{name}");
    }
    // Who holds it cannot read it without the key, and can with it.
    let ls = lab.run("bob", &["ls", &key]);
    assert!(ls.code == 1 && ls.stderr.contains("pass --encryption-key"), "{}", ls.stderr);
    // Nor can it tell what could be freed.
    let gc = lab.run("bob", &["gc", &key]);
    assert!(gc.code == 1 && gc.stderr.contains("pass --encryption-key"), "{}", gc.stderr);
    let gc = lab.run("bob", &["gc", &key, "--encryption-key", WRONG]);
    assert!(gc.code == 1 && gc.stderr.contains("not this drive's"), "{}", gc.stderr);
    let gc = lab.run("bob", &["gc", &key, "--encryption-key", KEY]);
    assert_eq!(gc.code, 0, "{}", gc.stderr);
    assert_eq!(lab.run("bob", &["ls", &key, "--encryption-key", KEY]).text(), "a\nb\n");
}

#[test]
fn a_seeder_takes_the_key_and_a_wrong_one_ends_it() {
    let lab = Lab::new();
    let key = create(&lab, "secret", &["--encryption-key", KEY]);
    let file = lab.path("file-to-put");
    fs::write(&file, "content").unwrap();
    assert_eq!(lab.run("alice", &["put", "secret/a", text(&file)]).code, 0);
    let mut alice = lab.spawn("alice", &["seed", "secret"]);
    alice.line("complete: ");
    let mut wrong = lab.spawn("dave", &["seed", &key, "--encryption-key", WRONG]);
    assert_eq!(wrong.wait(PATIENCE).code(), Some(1));
    assert!(wrong.errors().contains("not this drive's"), "{}", wrong.errors());
    let mut command = lab.command("bob", &["seed", &key]);
    command.env("HDRIVE_ENCRYPTION_KEY", KEY);
    let mut bob = Hdrive::spawn(command);
    bob.line("complete: ");
    assert!(!bob.errors().contains("encrypted"), "{}", bob.errors());
    assert_eq!(lab.run("bob", &["cat", &format!("{key}/a")]).text(), "content");
}

#[test]
fn keys_are_looked_at_before_the_first_drive_is_held() {
    let lab = Lab::new();
    let key = create(&lab, "mine", &[]);
    for (args, code, words) in [
        (["seed", &key, "nonsense"], 3, "nonsense"),
        (["seed", &key, "mine/folder"], 2, "held as a whole"),
    ] {
        let done = lab.run("alice", &args);
        assert_eq!((done.code, done.text().as_str()), (code, ""), "{}", done.stderr);
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
}

#[test]
fn a_drive_that_was_made_without_a_key_gets_none_by_mistake() {
    let lab = Lab::new();
    create(&lab, "plain", &[]);
    let file = lab.path("file-to-put");
    fs::write(&file, "content").unwrap();
    let mut command = lab.command("alice", &["put", "plain/foo", text(&file)]);
    command.env("HDRIVE_ENCRYPTION_KEY", KEY);
    let done = run(command);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains("this drive is not encrypted"), "{}", done.stderr);
    assert_eq!(lab.run("alice", &["put", "plain/foo", text(&file)]).code, 0);
    assert_eq!(lab.run("alice", &["cat", "plain/foo"]).text(), "content");
    // Nor does a shared folder that is empty yet.
    let folder = lab.folder("empty");
    let (mut share, _) = lab.share("alice", &folder);
    share.signal(Signal::SIGINT);
    share.wait(PATIENCE);
    let done = lab.run("alice", &["share", text(&folder), "--encryption-key", KEY]);
    assert!(done.stderr.contains("this drive is not encrypted"), "{}", done.stderr);
    assert_ne!(done.code, 0);
}

#[test]
fn an_empty_drive_is_an_empty_folder_at_once() {
    let lab = Lab::new();
    let key = create(&lab, "mine", &[]);
    let mut alice = lab.spawn("alice", &["seed", "mine"]);
    alice.line("key: ");
    let out = lab.path("out");
    let done = lab.run("bob", &["get", &key, text(&out)]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    let log = lab.run("bob", &["log", &key]);
    assert_eq!((log.code, log.text().as_str()), (0, ""), "{}", log.stderr);
}
