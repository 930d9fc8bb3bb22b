//! The DHT both ways: JavaScript peers on hdrive's node, hdrive on a JavaScript testnet.

use crate::common::*;
use serde_json::json;
use std::fs;

#[test]
fn javascript_peers_find_each_other_through_hdrives_dht_node_alone() {
    if !js_available() {
        return;
    }
    let lab = Lab::new();
    let mut server = Js::spawn();
    let key = server.call("listen", json!({"bootstrap": [lab.bootstrap]}))["publicKey"].clone();
    let mut client = Js::spawn();
    let echo = client.call("echo", json!({"bootstrap": [lab.bootstrap], "publicKey": key}));
    assert_eq!(echo["text"], "hello");
}

#[test]
fn hdrive_shares_and_gets_over_a_javascript_dht() {
    if !js_available() {
        return;
    }
    let mut net = Js::spawn();
    let nodes = net.call("testnet", json!({"size": 4}));
    let bootstrap = nodes["bootstrap"][0].as_str().unwrap().to_string();
    let mut lab = Lab::new();
    lab.bootstrap = bootstrap;
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), pattern(3, 500_000)).unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let out = lab.path("out");
    let got = lab.run("bob", &["get", &format!("{key}/file"), text(&out)]);
    assert_eq!(got.code, 0, "{}", got.stderr);
    assert_eq!(fs::read(out).unwrap(), pattern(3, 500_000));
}
