//! `hdrive doctor`: what it says where all is well, and where something that a mount needs is not there.

use crate::common::*;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::process::Command;

/// What was found, by line.
fn findings(done: &Done) -> Vec<Value> {
    done.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The first that is about `check`.
fn found<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    let is_it = |finding: &&Value| finding["check"] == check;
    findings.iter().find(is_it).unwrap_or_else(|| panic!("{check} in {findings:?}"))
}

fn text_of<'a>(finding: &'a Value, field: &str) -> &'a str {
    finding[field].as_str().unwrap_or_else(|| panic!("{field} of {finding}"))
}

/// The same command in namespaces of its own, after `prepare`. None without the right to that.
pub fn apart(flags: &[&str], prepare: &str, hdrive: Command) -> Option<Command> {
    let can = Command::new("unshare").args(flags).arg("true").status();
    let can = can.is_ok_and(|status| status.success());
    if !available("unshare", can) {
        return None;
    }
    let inner = after(prepare, hdrive);
    let mut command = Command::new("unshare");
    command.args(flags).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Some(command)
}

#[test]
fn where_all_is_well_it_says_so_and_leaves_nothing() {
    let lab = Lab::new();
    let scratch = lab.folder("tmp");
    let mut command = lab.command("store", &["doctor"]);
    command.env("TMPDIR", &scratch).env_remove("HDRIVE_NO_LAN");
    let done = run(command);
    let said = done.text();
    let fuse = fuse_available();
    assert_eq!(done.code, if fuse { 0 } else { 1 }, "{said}{}", done.stderr);
    let line = |check: &str| {
        let is_it = |line: &&str| line.get(6..).is_some_and(|rest| rest.starts_with(check));
        let at = said.lines().position(|line| is_it(&line));
        at.unwrap_or_else(|| panic!("no {check} in {said}"))
    };
    let order = ["store: ", "owner: ", "fuse: ", "files: ", "clock: ", "node: ", "network: "];
    let order =
        order.into_iter().chain(["reachable: ", "nat: ", "relay: ", "lan: ", "ipv6: ", "mount: "]);
    let places: Vec<usize> = order.map(line).collect();
    assert!(places.is_sorted(), "{said}");
    let node = format!("ok    node: {} answers after ", lab.bootstrap);
    assert!(said.contains(&node) && said.contains("network: connected"), "{said}");
    assert!(said.contains("neighbours are called on lo (127.0.0.1)"), "{said}");
    assert!(!said.contains('\u{1b}'), "no terminal, no colours: {said}");
    assert!(!lab.path("store").exists(), "the store was touched");
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "the mount that was tried is gone");
    if fuse {
        assert!(said.ends_with("ok    mount: all that it needs works here\n"), "{said}");
    }
}

#[test]
fn where_no_node_answers_it_fails_and_says_what_to_look_at() {
    let lab = Lab::new();
    // One more that answers nobody.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nodes = format!("{NOWHERE},{}", silent.local_addr().unwrap());
    let mut command = lab.command("store", &["doctor", "--json"]);
    command.env("HDRIVE_BOOTSTRAP", &nodes);
    let done = run(command);
    assert_eq!(done.code, 1, "{}", done.text());
    let found_all = findings(&done);
    let nodes: Vec<_> = found_all.iter().filter(|f| f["check"] == "node").collect();
    assert!(nodes.len() == 2 && nodes[0]["address"] == NOWHERE, "{nodes:?}");
    let network = found(&found_all, "network");
    assert_eq!(network["verdict"], "bad");
    assert!(text_of(network, "words").starts_with("no DHT node answers"), "{network}");
    assert!(text_of(network, "next").contains("`hdrive dht` runs there"), "{network}");
    assert_eq!(found(&found_all, "lan")["verdict"], "ok");
    let failed = found(&found_all, "mount")["failed"].as_array().unwrap();
    assert!(failed.contains(&"network".into()), "{failed:?}");

    // One that answers is enough.
    let mut command = lab.command("store", &["doctor", "--json"]);
    command.env("HDRIVE_BOOTSTRAP", format!("{NOWHERE},{}", lab.bootstrap));
    assert_eq!(found(&findings(&run(command)), "network")["verdict"], "ok");
}

#[test]
fn without_a_network_it_says_that_nothing_can_be_sent() {
    let lab = Lab::new();
    let mut hdrive = lab.command("store", &["doctor", "--json"]);
    hdrive.env("HDRIVE_LOCAL", "0.0.0.0:0").env("HDRIVE_BOOTSTRAP", "203.0.113.1:49737");
    // An empty variable counts as unset.
    hdrive.env("HDRIVE_NO_LAN", "");
    let Some(command) = apart(&["--net"], "true", hdrive) else { return };
    let done = run(command);
    assert_eq!(done.code, 1, "{}{}", done.text(), done.stderr);
    let found_all = findings(&done);
    let network = found(&found_all, "network");
    assert!(text_of(network, "words").starts_with("no way to send anything: "), "{network}");
    assert!(text_of(found(&found_all, "node"), "words").contains("cannot be asked"));
    assert!(text_of(found(&found_all, "lan"), "words").starts_with("no local network"));
    assert!(text_of(found(&found_all, "ipv6"), "words").starts_with("none"));
}

#[test]
fn ipv6_of_a_local_network_alone_is_told() {
    let lab = Lab::new();
    let hdrive = lab.command("store", &["doctor", "--json"]);
    let prepare = "ip link set lo up; ip link add d0 type veth peer name d1; ip link set d1 up; \
                   ip addr add fd07::1/64 dev d0 nodad; ip link set d0 up";
    let Some(command) = apart(&["--net"], prepare, hdrive) else { return };
    let found_all = findings(&run(command));
    let ipv6 = text_of(found(&found_all, "ipv6"), "words");
    assert!(ipv6.starts_with("only on local networks, from fd07::1"), "{ipv6}");
}

#[test]
fn without_a_home_that_is_what_it_finds() {
    let lab = Lab::new();
    let mut hdrive = lab.command("store", &["doctor", "--json"]);
    hdrive.env_remove("HDRIVE_STORE").env_remove("XDG_DATA_HOME").env_remove("HOME");
    let done = run(hdrive);
    assert_eq!(done.code, 1, "{}{}", done.text(), done.stderr);
    let found_all = findings(&done);
    let store = found(&found_all, "store");
    assert_eq!(
        (&store["verdict"], &store["words"]),
        (&"bad".into(), &"no HOME to keep drives in".into())
    );
    assert!(text_of(store, "next").contains("--store DIR"), "{store}");
    assert_eq!(found(&found_all, "network")["verdict"], "ok");
}

#[test]
fn without_fuse_it_fails_and_names_the_remedy() {
    let lab = Lab::new();
    let hdrive = lab.command("store", &["doctor", "--json"]);
    let Some(command) = apart(&["--mount"], "mount -t tmpfs none /dev", hdrive) else { return };
    let done = run(command);
    assert_eq!(done.code, 1, "{}{}", done.text(), done.stderr);
    let found_all = findings(&done);
    let fuse = found(&found_all, "fuse");
    assert_eq!(
        (&fuse["verdict"], &fuse["words"]),
        (&"bad".into(), &"/dev/fuse does not exist".into())
    );
    assert!(text_of(fuse, "next").contains("modprobe fuse"), "{fuse}");
    assert_eq!(found(&found_all, "mount")["failed"], serde_json::json!(["fuse"]));
}

#[test]
fn beside_a_process_that_works_on_the_store_it_asks_that_and_says_when_it_is_stopped() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    let (share, key) = lab.share("alice", &folder);
    let pid = share.pid();
    let looked = || findings(&lab.run("alice", &["doctor", "--json"]));
    let found_all = looked();
    let owner = found(&found_all, "owner");
    assert!(owner["verdict"] == "ok" && owner["pid"] == pid, "{owner}");
    share.signal(Signal::SIGSTOP);
    let found_all = looked();
    share.signal(Signal::SIGCONT);
    let owner = found(&found_all, "owner");
    assert_eq!(owner["verdict"], "bad");
    assert!(text_of(owner, "next").contains(&format!("kill {pid}")), "{owner}");
    // It was not disturbed.
    assert_eq!(lab.run("bob", &["ls", &key]).code, 0);
}

#[test]
fn relays_that_are_named_have_to_be_relays() {
    let lab = Lab::new();
    let mut relay = lab.spawn("relay", &["relay"]);
    let named = relay.line("relay: ");
    // A peer that is there, and no relay under this key of its own.
    let (_share, key) = lab.share("alice", &lab.folder("shared"));
    let _seed = lab.spawn("bob", &["seed", &key]);
    let other = eventually("a peer", PATIENCE, || {
        let status = lab.run("alice", &["status", "--json"]).text();
        let status: Value = serde_json::from_str(&status).unwrap();
        let peers = status["network"]["peers"].as_array()?.clone();
        Some(text_of(peers.iter().find(|peer| peer["open"] == true)?, "key").to_string())
    });
    let done = lab.run("carol", &["doctor", "--json", "--relay", &named, "--relay", &other]);
    let found_all = findings(&done);
    let verdict = |key: &str| {
        let relay = found_all.iter().find(|f| f["check"] == "relay" && f["key"] == key);
        relay.unwrap_or_else(|| panic!("{key} in {found_all:?}"))["verdict"].clone()
    };
    assert_eq!([verdict(&named), verdict(&other)], ["ok", "bad"], "{found_all:?}");
    assert_eq!(done.code, 1);
    // What the process that works on the store was told counts as well.
    let mut owner = lab.spawn("dave", &["seed", &key, "--relay", &named]);
    owner.line("key: ");
    let found_all = findings(&lab.run("dave", &["doctor", "--json"]));
    let relay = found(&found_all, "relay");
    assert!(relay["verdict"] == "ok" && relay["key"] == named.as_str(), "{relay}");
    assert!(text_of(relay, "words").contains(&format!("process {}", owner.pid())), "{relay}");
}

#[test]
fn peers_that_are_named_are_tried_and_one_is_enough() {
    let lab = Lab::new();
    let free =
        || std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (here, nobody) = (free(), free());
    let mut share = lab.command("alice", &["share", text(&lab.folder("shared")), "--local", &here]);
    share.env("HDRIVE_BOOTSTRAP", NOWHERE);
    let mut share = Hdrive::spawn(share);
    share.line("key: ");
    let look = |peers: &[&str]| {
        let mut command = lab.command("store", &["doctor", "--json"]);
        command.env("HDRIVE_BOOTSTRAP", NOWHERE);
        for peer in peers {
            command.args(["--peer", peer]);
        }
        let found_all = findings(&run(command));
        let of = |peer: &str| {
            let peer = found_all.iter().find(|f| f["check"] == "peer" && f["peer"] == peer);
            peer.map(|peer| peer["verdict"].clone()).unwrap_or_default()
        };
        (of(&here), of(&nobody), found(&found_all, "network").clone())
    };
    let (there, silent, network) = look(&[&here, &nobody]);
    assert_eq!((there, silent), ("ok".into(), "bad".into()));
    assert!(network["verdict"] == "note" && network["peers"] == 1, "{network}");
    assert!(text_of(&network, "words").contains("only peers of --peer are found"), "{network}");
    assert_eq!(look(&[&nobody]).2["verdict"], "bad");
}

#[test]
fn a_signal_ends_it_at_once() {
    let lab = Lab::new();
    // Nobody answers the relay's name: it would look for some seconds.
    let relay = "1ho9ekd3iqx14gyxxyqubjse8gt43u69c1qg57japzwmsg58rf8o";
    let mut doctor = lab.spawn("store", &["doctor", "--relay", relay]);
    doctor.line("ok    network: ");
    doctor.signal(Signal::SIGINT);
    assert_eq!(doctor.wait(PATIENCE).code(), Some(130));
    let rest = doctor.rest();
    assert!(!rest.iter().any(|line| line.contains("relay: ")), "{rest:?}");
}
