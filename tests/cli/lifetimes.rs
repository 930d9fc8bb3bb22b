//! What ended is over: a drive that no command uses any more is not served from here, though the owner of the
//! store lives on.

use crate::common::*;
use crate::input::NOBODYS;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;

/// A process that owns `store` and does nothing with the drives of the tests.
fn owner(lab: &Lab, store: &str) -> Hdrive {
    let mut owner = lab.spawn(store, &["seed", NOBODYS]);
    owner.line("key: ");
    owner
}

fn status(lab: &Lab, store: &str) -> Value {
    serde_json::from_str(&lab.run(store, &["status", "--json"]).text()).unwrap()
}

fn is_open(lab: &Lab, store: &str, key: &str) -> bool {
    status(lab, store)["drives"].as_array().unwrap().iter().any(|drive| drive["key"] == key)
}

fn until_closed(lab: &Lab, store: &str, key: &str) {
    eventually("the drive closes", PATIENCE, || (!is_open(lab, store, key)).then_some(()));
}

/// Neither a fresh hdrive nor a fresh JavaScript peer gets the drive.
fn nobody_gets(lab: &Lab, key: &str) {
    let done = lab.run("stranger", &["ls", key]);
    assert_eq!((done.code, done.text().as_str()), (4, ""), "{}", done.stderr);
    if js_available() {
        let mut js = lab.js();
        let hex = hdrive::key::hex(&hdrive::key::parse_key(key).unwrap());
        js.call("open", json!({ "key": hex }));
        assert_eq!(js.call("list", json!({ "key": hex }))["entries"], json!([]));
    }
}

#[test]
fn a_share_that_ended_is_served_no_more() {
    let lab = Lab::new();
    let _owner = owner(&lab, "alice");
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let (mut share, key) = lab.share("alice", &folder);
    // One who is connected since before finds it gone as well.
    let mut reader = owner(&lab, "bob");
    assert_eq!(lab.run("bob", &["ls", &key]).text(), "file\n");
    share.signal(Signal::SIGINT);
    assert_eq!(share.wait(PATIENCE).code(), Some(0));
    until_closed(&lab, "alice", &key);
    let cat = lab.run("bob", &["cat", &format!("{key}/file")]);
    assert_eq!((cat.code, cat.text().as_str()), (4, ""), "{}", cat.stderr);
    reader.signal(Signal::SIGTERM);
    reader.wait(PATIENCE);
    nobody_gets(&lab, &key);
    // The next share of it is found again.
    let (_share, again) = lab.share("alice", &folder);
    assert_eq!(again, key);
    assert_eq!(lab.run("stranger", &["cat", &format!("{key}/file")]).text(), "content");
}

/// A command that comes right after another one, which found nobody, does not take its word for it.
#[test]
fn a_drive_that_nobody_had_is_looked_for_again() {
    let lab = Lab::new();
    let _owner = owner(&lab, "bob");
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let (mut share, key) = lab.share("alice", &folder);
    share.signal(Signal::SIGINT);
    assert_eq!(share.wait(PATIENCE).code(), Some(0));
    assert_eq!(lab.run("bob", &["ls", &key]).code, 4);
    let (_share, again) = lab.share("alice", &folder);
    assert_eq!(again, key);
    let done = lab.run("bob", &["ls", &key]);
    assert_eq!((done.code, done.text().as_str()), (0, "file\n"), "{}", done.stderr);
}

#[test]
fn a_drive_that_was_only_read_is_let_go() {
    let lab = Lab::new();
    let _owner = owner(&lab, "bob");
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let (mut share, key) = lab.share("alice", &folder);
    assert_eq!(lab.run("bob", &["cat", &format!("{key}/file")]).text(), "content");
    assert_eq!(lab.run("bob", &["ls", &key]).text(), "file\n");
    until_closed(&lab, "bob", &key);
    // No common topic is left, so the connection goes too.
    let peers = || {
        let peers = status(&lab, "bob")["network"]["peers"].clone();
        peers.as_array().is_some_and(|peers| peers.iter().all(|peer| peer["open"] == false))
    };
    eventually("the connection closes", PATIENCE, || peers().then_some(()));
    share.signal(Signal::SIGTERM);
    share.wait(PATIENCE);
    nobody_gets(&lab, &key);
    // What it read is still here for itself.
    assert_eq!(lab.run("bob", &["ls", &key]).text(), "file\n");
}

/// Over a connection that another drive keeps, a drive that is not shared any more is not to be had either.
#[test]
fn a_connection_for_one_drive_does_not_serve_another() {
    let lab = Lab::new();
    let [first, second] = ["first", "second"].map(|name| {
        let folder = lab.folder(name);
        fs::write(folder.join("file"), name).unwrap();
        folder
    });
    let (_share, kept) = lab.share("alice", &first);
    let (mut share, ended) = lab.share("alice", &second);
    let mut seed = lab.spawn("bob", &["seed", &kept]);
    seed.line("complete: ");
    share.signal(Signal::SIGINT);
    assert_eq!(share.wait(PATIENCE).code(), Some(0));
    until_closed(&lab, "alice", &ended);
    let done = lab.run("bob", &["cat", &format!("{ended}/file")]);
    assert_eq!((done.code, done.text().as_str()), (4, ""), "{}", done.stderr);
    assert_eq!(lab.run("bob", &["cat", &format!("{kept}/file")]).text(), "first");
    // It is while it is shared.
    let (_share, again) = lab.share("alice", &second);
    assert_eq!(again, ended);
    assert_eq!(lab.run("bob", &["cat", &format!("{ended}/file")]).text(), "second");
}

#[test]
fn an_unmounted_drive_is_served_no_more() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let _owner = owner(&lab, "bob");
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let (mut share, key) = lab.share("alice", &folder);
    let mut mount = lab.mount("bob", &key, &[]);
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "content");
    assert!(is_open(&lab, "bob", &key));
    share.signal(Signal::SIGTERM);
    share.wait(PATIENCE);
    // A mount serves what it has read.
    assert_eq!(lab.run("carol", &["cat", &format!("{key}/file")]).text(), "content");

    // A file that is open keeps its drive, and nobody else is told of it.
    let open = fs::File::open(mount.path("file")).unwrap();
    assert_eq!(lab.run("bob", &["umount", "--lazy", text(&mount.at)]).code, 0);
    assert!(is_open(&lab, "bob", &key));
    drop(open);
    assert_eq!(mount.process.wait(PATIENCE).code(), Some(0));
    until_closed(&lab, "bob", &key);
    nobody_gets(&lab, &key);
}

/// Each command costs the owner descriptors and a thread while it is read: there is an end to them, and it is told.
#[test]
fn a_store_takes_so_many_commands_at_once_and_says_so() {
    let lab = Lab::new();
    let mut owner = owner(&lab, "alice");
    let socket = lab.path("alice/socket");
    let connect = |_| std::os::unix::net::UnixStream::connect(&socket).unwrap();
    // They say nothing, and are given up after five seconds: on a busy machine before somebody else comes.
    let (silent, refused) = eventually("no room", PATIENCE, || {
        let silent: Vec<_> = (0..128).map(connect).collect();
        let done = lab.run("alice", &["status"]);
        (done.code != 0).then_some((silent, done))
    });
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("try again when one has ended"), "{}", refused.stderr);
    drop(silent);
    let taken = || (lab.run("alice", &["status"]).code == 0).then_some(());
    eventually("there is room again", PATIENCE, taken);
    owner.signal(Signal::SIGTERM);
    owner.wait(PATIENCE);
}
