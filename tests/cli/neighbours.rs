//! Peers of one local network, here loopback, where no node of the DHT answers.

use crate::common::*;
use crate::doctor::apart;
use nix::sys::signal::Signal;
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

/// A machine on a local network that leads nowhere else.
const LOCAL_ONLY: &str = "ip link set lo up; ip link add d0 type veth peer name d1; ip link set d1 up; \
                          ip addr add 192.168.7.1/24 dev d0; ip link set d0 up";
/// What firewalls do unless told otherwise: in comes what was asked for.
const WALL: &str = "nft add table inet wall; nft add chain inet wall in \
                    '{ type filter hook input priority 0; policy drop; }'; \
                    nft add rule inet wall in ct state established accept; \
                    nft add rule inet wall in icmpv6 type '{ nd-neighbor-solicit, nd-neighbor-advert }' accept";

/// A command there.
fn local_only(lab: &Lab, store: &str, args: &[&str], wall: bool) -> Option<Command> {
    let nft = Command::new("nft").arg("--version").output().is_ok();
    if wall && !available("nft", nft) {
        return None;
    }
    let mut hdrive = command(lab, store, args);
    hdrive.env("HDRIVE_LOCAL", "0.0.0.0:0").env("HDRIVE_BOOTSTRAP", "203.0.113.1:49737");
    let prepare = if wall { format!("{LOCAL_ONLY}; {WALL}") } else { LOCAL_ONLY.to_string() };
    apart(&["--net"], &prepare, hdrive)
}

fn network_status(lab: &Lab, store: &str) -> (String, Value) {
    let words = run(command(lab, store, &["status"])).text();
    let json = run(command(lab, store, &["status", "--json"])).text();
    (words, serde_json::from_str(json.trim()).unwrap())
}

#[test]
fn where_the_firewall_keeps_neighbours_a_share_says_so_and_not_that_they_find_it() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let args = ["share", "--json", text(&folder)];
    let Some(behind) = local_only(&lab, "alice", &args, true) else { return };
    let mut share = Hdrive::spawn(behind);
    let warning = share.told("warning: no DHT node answers");
    assert!(warning.contains("calls on the local network are not heard"), "{warning}");
    assert!(warning.contains("let UDP of the local network in"), "{warning}");
    assert!(warning.contains("at least that to 239.255.104.100 and ff12::6864:6472"), "{warning}");
    let (words, json) = network_status(&lab, "alice");
    assert!(words.contains("network: no way beyond the local networks\n"), "{words}");
    let local = "local network: neighbours are called on 192.168.7.1";
    assert!(words.contains(local) && words.contains("firewall of this machine"), "{words}");
    assert_eq!(json["network"]["localNetworks"][0]["heard"], false, "{json}");
    share.signal(Signal::SIGINT);
    assert!(share.wait(PATIENCE).success());
    let said = share.rest();
    assert!(!said.iter().any(|line| line.contains("shared")), "nobody finds it: {said:?}");
    let done = run(local_only(&lab, "carol", &["doctor"], true).unwrap());
    let network = "FAIL  network: no way beyond the local networks, and calls are not heard there";
    assert!(done.text().contains(network), "{}", done.text());
}

#[test]
fn on_a_local_network_alone_all_is_told_as_it_is() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let args = ["share", "--json", text(&folder)];
    let Some(there) = local_only(&lab, "alice", &args, false) else { return };
    let mut share = Hdrive::spawn(there);
    let told = share.line("{\"shared\":");
    assert!(told.contains("\"foundBy\":\"neighbours\""), "{told}");
    let (words, json) = network_status(&lab, "alice");
    assert!(words.contains("network: no way beyond the local networks\n"), "{words}");
    assert!(words.contains("192.168.7.1") && words.contains("calls are heard there"), "{words}");
    assert_eq!(json["network"]["localNetworks"][0]["heard"], true, "{json}");
    drop(share);
    let nobodys = local_only(&lab, "bob", &["ls", crate::input::NOBODYS], false).unwrap();
    let done = run(nobodys);
    assert!(done.stderr.contains("nobody on the local network has it"), "{}", done.stderr);
    assert!(done.stderr.contains("check the key"), "{}", done.stderr);
    assert!(done.stderr.contains("firewalls of both machines"), "{}", done.stderr);
}
