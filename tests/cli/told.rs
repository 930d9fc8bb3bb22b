//! Peers at addresses that somebody names, or a key does, where no DHT is in reach.

use crate::common::*;
use std::fs;
use std::net::{Ipv6Addr, UdpSocket};

/// Nobody takes it until it is used, as ports are given out in turn.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A share of one file, which nobody is told of: the process, its key and where it is.
struct Alone {
    dir: tempfile::TempDir,
    share: Hdrive,
    key: String,
    port: u16,
}

impl Alone {
    fn new(more: &[&str]) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), "content").unwrap();
        let mut command = Hdrive::command(&["share", text(&folder)]);
        command.args(more).env("HDRIVE_LOCAL", format!("127.0.0.1:{port}"));
        command.env("HDRIVE_STORE", dir.path().join("alice"));
        let mut share = Hdrive::spawn(command);
        let key = share.line("key: ");
        Self { dir, share, key, port }
    }

    fn read(&self, store: &str, key: &str, peer: Option<&str>) -> Done {
        let mut command = Hdrive::command(&["cat", &format!("{key}/file")]);
        command.env("HDRIVE_STORE", self.dir.path().join(store));
        command.args(peer.map(|peer| ["--peer", peer]).into_iter().flatten());
        run(command)
    }
}

#[test]
fn a_drive_is_read_from_an_address_that_was_named_without_any_dht() {
    let alone = Alone::new(&[]);
    let port = alone.port;
    let ipv6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    let mut names = vec![format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    match ipv6 {
        true => names.push(format!("[::1]:{port}")),
        false => eprintln!("SKIPPED: this machine has no IPv6"),
    }
    for (n, name) in names.into_iter().enumerate() {
        let done = alone.read(&format!("bob{n}"), &alone.key, Some(&name));
        assert_eq!((done.code, done.text().as_str()), (0, "content"), "{name}: {}", done.stderr);
    }
}

#[test]
fn it_is_said_when_nobody_who_has_the_drive_is_where_it_was_told() {
    let alone = Alone::new(&[]);
    let (here, nowhere) = (format!("127.0.0.1:{}", alone.port), "127.0.0.1:9");
    for (key, peer) in [(alone.key.as_str(), nowhere), (crate::input::NOBODYS, &here)] {
        let done = alone.read("bob", key, Some(peer));
        let told = format!("nobody who has it answers at {peer}");
        assert!(done.code == 4 && done.stderr.contains(&told), "{} {}", done.code, done.stderr);
        let next = format!("see `hdrive doctor --peer {peer}`");
        assert!(done.stderr.contains(&next), "{}", done.stderr);
    }
    let done = alone.read("bob", &alone.key, Some("nosuch.invalid:4000"));
    let told = "no address is known of the peer nosuch.invalid:4000";
    assert!(done.code == 4 && done.stderr.contains(told), "{} {}", done.code, done.stderr);
}

#[test]
fn a_key_with_hints_leads_to_who_printed_it_without_any_dht() {
    let mut alone = Alone::new(&["--hint"]);
    let hint = alone.share.line("hint: ");
    assert!(hint.len() > alone.key.len(), "{hint}");
    let done = alone.read("bob", &hint, None);
    assert_eq!((done.code, done.text().as_str()), (0, "content"), "{}", done.stderr);
}

#[test]
fn addresses_that_are_none_are_refused() {
    for bad in ["nowhere", "::1:5", "1.2.3.4:0", "[::1]"] {
        let done = run(Hdrive::command(&["ls", crate::input::NOBODYS, "--peer", bad]));
        assert!(done.code == 2 && done.stderr.contains("host:port"), "{bad}: {}", done.stderr);
    }
}
