//! Peers of one local network, here loopback, where no node of the DHT answers.

use crate::common::*;
use serde_json::Value;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// A command that knows of no DHT and calls to neighbours.
fn command(lab: &Lab, store: &str, args: &[&str]) -> Command {
    let mut command = lab.command(store, args);
    command.env("HDRIVE_BOOTSTRAP", NOWHERE).env_remove("HDRIVE_NO_LAN");
    command
}

#[test]
fn a_neighbour_is_found_without_a_dht_and_told_as_one() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), pattern(1, 300_000)).unwrap();
    let mut share = Hdrive::spawn(command(&lab, "alice", &["share", text(&folder)]));
    let key = share.line("key: ");
    let shared = share.line("shared: ");
    assert_eq!(shared, "1 file, 300000 bytes; found on the local network only");
    let file = format!("{key}/file");
    let read = || run(command(&lab, "bob", &["cat", &file]));
    eventually("the file", PATIENCE, || (read().stdout == pattern(1, 300_000)).then_some(()));

    let mut seed = Hdrive::spawn(command(&lab, "bob", &["seed", &key]));
    let begun = Instant::now();
    assert_eq!(seed.line("complete: "), key);
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "it waited for the DHT: {:?}",
        begun.elapsed()
    );
    let path = eventually("a peer in the status", PATIENCE, || {
        let status = run(command(&lab, "bob", &["status", "--json"])).text();
        let status: Value = serde_json::from_str(status.trim()).ok()?;
        Some(status["network"]["peers"][0]["path"].as_str()?.to_string())
    });
    assert_eq!(path, "lan");

    let mut deaf = command(&lab, "carol", &["cat", &file]);
    deaf.arg("--no-lan");
    let deaf = run(deaf);
    assert_ne!(deaf.code, 0);
    assert!(deaf.stderr.contains("no DHT node answers"), "{}", deaf.stderr);
}
