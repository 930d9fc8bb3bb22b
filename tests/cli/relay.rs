//! `hdrive relay`, `--relay` and `seed --no-relay` as they are typed. What goes through a relay is tested in `tests/natlab`.

use crate::common::*;
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_relay_has_the_same_key_each_time() {
    let lab = Lab::new();
    let mut relay = lab.spawn("relay", &["relay"]);
    let key = relay.line("relay: ");
    stop(relay);
    let file = lab.path("relay").join("relay-key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let mut again = lab.spawn("relay", &["relay", "--json"]);
    assert_eq!(again.line("{\"relay\":"), format!("\"{key}\"}}"));
    stop(again);
    // Not taken for a key, nor thrown away.
    for bad in [&b"mine"[..], &[0; 32]] {
        fs::write(&file, bad).unwrap();
        let done = lab.run("relay", &["relay"]);
        assert_eq!(done.code, 1);
        assert!(done.stderr.contains("is no key of a relay"), "{}", done.stderr);
    }
}

#[test]
fn a_store_has_one_relay() {
    let lab = Lab::new();
    let store = lab.folder("relay");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o777)).unwrap();
    let mut relay = lab.spawn("relay", &["relay"]);
    relay.line("relay: ");
    assert_eq!(fs::metadata(&store).unwrap().permissions().mode() & 0o777, 0o700);
    let who = format!("process {}", relay.pid());
    let done = lab.run("relay", &["relay"]);
    assert!(done.code == 1 && done.stderr.contains(&who), "{} {}", done.code, done.stderr);
    // Others work on the store beside it.
    let status = || lab.run("relay", &["status"]).text();
    assert!(status().contains(&format!("relay: {who}, ")), "{}", status());
    stop(relay);
    assert!(!status().contains("relay: "), "{}", status());
    stop(lab.spawn("relay", &["relay"]));
}

/// What its user wants to know of it: which key to name, whether others reach it, what it does for whom.
#[test]
fn a_running_relay_tells_how_it_is() {
    let lab = Lab::new();
    // A path that is too long for a socket, too.
    for store in ["relay", &"r".repeat(120)] {
        let mut relay = lab.spawn(store, &["relay"]);
        let key = relay.line("relay: ");
        let socket = lab.path(store).join("relay-socket");
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        let told = || lab.run(store, &["status"]).text();
        let first = format!("relay: process {}, {key}\n", relay.pid());
        assert!(told().contains(&first), "{}", told());
        assert!(told().contains("owner: none"), "{}", told());
        eventually("a DHT", PATIENCE, || {
            told().contains("relay network: connected\n").then_some(())
        });
        for wanted in ["reachable: ", "nat: ", "customers: 0, 0 pairs, 0 B passed on, now 0 B/s\n"]
        {
            assert!(told().contains(&format!("relay {wanted}")), "no {wanted} in {}", told());
        }
        let json = || {
            let text = lab.run(store, &["status", "--json"]).text();
            serde_json::from_str::<serde_json::Value>(&text).unwrap()["relay"].clone()
        };
        let status = json();
        assert_eq!((&status["pid"], &status["key"]), (&relay.pid().into(), &key.as_str().into()));
        let network = &status["network"];
        assert!(network["ready"] == true && network["reachable"].is_string(), "{status}");
        assert!(network["portMapping"]["state"].is_string(), "{status}");
        let relaying = &network["relaying"];
        assert_eq!((&relaying["customers"], &relaying["passed"]), (&0.into(), &0.into()));
        // One that is stopped is named all the same.
        relay.signal(Signal::SIGSTOP);
        let silent = format!("relay: process {}, which does not answer\n", relay.pid());
        assert!(told().contains(&silent), "{}", told());
        assert_eq!(json()["key"], serde_json::Value::Null);
        relay.signal(Signal::SIGCONT);
        stop(relay);
        assert!(!socket.exists() && json().is_null());
    }
}

/// Where there is a direct way a relay that is named changes nothing, be there one or not.
#[test]
fn a_relay_that_is_named_keeps_nobody_from_the_direct_way() {
    let lab = Lab::new();
    let mut relay = lab.spawn("relay", &["relay"]);
    let named = relay.line("relay: ");
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let (_share, key) = lab.share("alice", &folder);
    for (store, relay) in [("bob", named.as_str()), ("carol", &key)] {
        let done = lab.run(store, &["cat", "--relay", relay, &format!("{key}/file")]);
        assert_eq!(done.text(), "content", "{}", done.stderr);
    }
    let done = lab.run("bob", &["ls", "--relay", "nonsense", &key]);
    assert_eq!(done.code, 2, "{}", done.stderr);
}

#[test]
fn a_relay_that_no_dht_node_answers_says_so() {
    let lab = Lab::new();
    let mut command = lab.command("relay", &["relay"]);
    command.env("HDRIVE_BOOTSTRAP", NOWHERE);
    let mut relay = Hdrive::spawn(command);
    relay.told("note: no DHT node answers");
    stop(relay);
}
