//! `hdrive relay`, `--relay` and `seed --no-relay` as they are typed. What goes through a relay is tested in `tests/natlab`.

use crate::common::*;
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
    assert!(status().contains(&format!("relay: {who}\n")), "{}", status());
    stop(relay);
    assert!(!status().contains("relay: "), "{}", status());
    stop(lab.spawn("relay", &["relay"]));
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
