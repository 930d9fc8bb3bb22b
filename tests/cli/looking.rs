//! Nobody there: each command says which of the reasons it is, and says when that changes.

use crate::common::*;
use crate::input::NOBODYS;
use nix::sys::signal::Signal;
use std::fs;
use std::net::UdpSocket;
use std::process::Command;

const NOBODY: &str = "no peer has it: nobody announces this drive";
const SILENT: &str = "no DHT node answers";

#[test]
fn a_drive_that_nobody_announces_is_told_from_a_silent_dht() {
    let lab = Lab::new();
    let file = format!("{NOBODYS}/file");
    for args in [&["ls", NOBODYS][..], &["cat", &file], &["get", NOBODYS], &["info", NOBODYS]] {
        let done = lab.run("bob", args);
        assert_eq!(done.code, 4, "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains(NOBODY), "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains("check the key"), "{}", done.stderr);

        let mut command = lab.command("carol", args);
        command.env("HDRIVE_BOOTSTRAP", NOWHERE).arg("--quiet");
        let done = run(command);
        assert_eq!(done.code, 4, "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains(SILENT), "{args:?}: {}", done.stderr);
        assert!(!done.stderr.contains("check the key"), "{}", done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "only the error: {}", done.stderr);
    }
}

#[test]
fn who_joins_an_owner_without_a_dht_waits_no_longer_than_alone() {
    let lab = Lab::new();
    let silent = |args: &[&str]| {
        let mut command = lab.command("bob", args);
        command.env("HDRIVE_BOOTSTRAP", NOWHERE);
        command
    };
    let mut seed = Hdrive::spawn(silent(&["seed", NOBODYS]));
    seed.told(SILENT);
    // Of a drive that is to be announced as well, which it cannot be; and of another: that nobody answers is known by now.
    for key in [NOBODYS, &"ab".repeat(32)] {
        let mut ls = Hdrive::spawn(silent(&["ls", key]));
        assert_eq!(ls.wait(AT_ONCE).code(), Some(4), "{}", ls.errors());
        assert!(ls.errors().contains(SILENT), "{}", ls.errors());
    }
}

#[test]
fn without_a_network_the_system_is_quoted() {
    let mut probe = Command::new("unshare");
    let here = probe.args(["--net", "true"]).output().is_ok_and(|done| done.status.success());
    if !available("unshare --net", here) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", env!("CARGO_BIN_EXE_hdrive"), "ls", NOBODYS]);
    command.env("HDRIVE_STORE", dir.path()).env("HDRIVE_LOCAL", "0.0.0.0:0");
    command.env("HDRIVE_BOOTSTRAP", "192.0.2.1:49737");
    let done = run(command);
    assert_eq!(done.code, 4, "{}", done.stderr);
    let last = done.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("no network: Network is unreachable"), "{}", done.stderr);
}

#[test]
fn a_seed_tells_when_a_peer_comes_and_when_it_goes() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let created = lab.run("alice", &["create", text(&folder.canonicalize().unwrap())]);
    let key = created.text().trim().trim_start_matches("key: ").to_string();
    let mut seed = lab.spawn("bob", &["seed", &key]);
    seed.told(NOBODY);
    let mut share = lab.spawn("alice", &["share", text(&folder)]);
    assert_eq!(share.line("key: "), key);
    seed.told("peer found");
    seed.line("complete: ");
    share.signal(Signal::SIGTERM);
    let gone = seed.told("the last peer is gone");
    assert!(gone.contains(NOBODY) || seed.told(NOBODY).contains(NOBODY));
}

#[test]
fn who_waits_for_a_drive_is_no_peer_to_others_who_wait() {
    const BLANK: &str = "the peers that announce this drive do not have it";
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let created = lab.run("alice", &["create", text(&folder.canonicalize().unwrap())]);
    let key = created.text().trim().trim_start_matches("key: ").to_string();
    let mut bob = lab.spawn("bob", &["seed", &key]);
    bob.told(NOBODY);
    let mut carol = lab.spawn("carol", &["seed", &key]);
    carol.told(BLANK);
    bob.told(BLANK);
    for args in [&["ls"][..], &["get"], &["info"], &["log"], &["cat"]] {
        let target = if args == ["cat"] { format!("{key}/file") } else { key.clone() };
        let done = lab.run("dave", &[args, &[&target]].concat());
        assert_eq!(done.code, 4, "{args:?}: {}", done.stderr);
        let last = done.stderr.lines().last().unwrap_or_default();
        assert!(last.contains(BLANK), "{args:?}: {}", done.stderr);
    }
    let status = lab.run("bob", &["status"]).text();
    assert!(status.contains(BLANK), "{status}");
    let mut waiting = vec![bob, carol];
    if fuse_available() {
        let at = lab.folder("mnt");
        let mut mount = lab.spawn("erin", &["mount", &key, text(&at), "--read-timeout", NEVER]);
        mount.line("mounted: ");
        mount.told(BLANK);
        assert_eq!(within("the names", move || fs::read_dir(&at).unwrap().count()), 0);
        waiting.push(mount);
    }
    let mut share = lab.spawn("alice", &["share", text(&folder)]);
    share.line("shared: ");
    for process in &mut waiting {
        process.told("peer found");
    }
    waiting[..2].iter_mut().for_each(|seed| drop(seed.line("complete: ")));
    for mut process in waiting {
        process.signal(Signal::SIGTERM);
        process.wait(PATIENCE);
        // None before the one, and another only where that was lost.
        let errors = process.errors();
        let times = |what| errors.matches(what).count();
        assert!(times("peer found") <= 1 + times("the last peer is gone"), "{errors}");
    }
}

#[test]
fn a_mount_and_a_share_tell_when_the_dht_answers_again() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    // Where the node of the network will be.
    let later = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let start = |store: &str, args: &[&str]| {
        let mut command = lab.command(store, args);
        command.env("HDRIVE_BOOTSTRAP", &later);
        Hdrive::spawn(command)
    };
    let mut share = start("alice", &["share", text(&folder)]);
    let key = share.line("key: ");
    // Nobody reads this one: it hears of the network alone.
    let mut unread = start("carol", &["share", text(&lab.folder("unread"))]);
    unread.line("key: ");
    let at = lab.folder("mnt");
    let mut mount = start("bob", &["mount", &key, text(&at)]);
    mount.line("mounted: ");
    share.told(SILENT);
    unread.told(SILENT);
    mount.told(SILENT);
    // Who has it on this machine sees what changes all the same.
    fs::write(folder.join("more"), "more").unwrap();
    let has_more = || at.join("more").exists().then_some(());
    eventually("a change without a network", PATIENCE, || {
        let names = lab.run("alice", &["ls", &key]).text();
        names.contains("more").then_some(())
    });
    let mut dht = Hdrive::spawn(Hdrive::command(&["dht", "--bind", &later]));
    dht.line("listening: ");
    unread.told("others can find the drive");
    share.line("shared: ");
    mount.told("peer found");
    let names = || fs::read_to_string(at.join("file")).ok();
    assert_eq!(eventually("the file", PATIENCE, names), "content");
    eventually("the change", PATIENCE, has_more);
}

#[test]
fn a_dht_node_whose_network_is_down_says_that_it_is_alone_until_it_is_not() {
    let later = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = Hdrive::command(&["dht", "--bind", "127.0.0.1:0"]);
    command.env("HDRIVE_BOOTSTRAP", &later);
    let mut node = Hdrive::spawn(command);
    node.line("listening: ");
    let told = node.told("is alone");
    assert!(told.starts_with("note: ") && told.contains(&later), "{told}");
    let mut command = Hdrive::command(&["dht", "--bind", &later]);
    command.env("HDRIVE_BOOTSTRAP", "");
    let mut first = Hdrive::spawn(command);
    first.line("listening: ");
    node.told("other nodes answer");
    // Once each; and the first of a network has nobody to wait for.
    for (mut dht, times) in [(node, 1), (first, 0)] {
        dht.signal(Signal::SIGTERM);
        assert!(dht.wait(PATIENCE).success());
        let errors = dht.errors();
        assert_eq!(errors.matches("is alone").count(), times, "{errors}");
    }
}
