//! The DHT both ways: JavaScript peers on hdrive's node, hdrive on a JavaScript testnet.

use crate::common::*;
use serde_json::json;
use std::fs;

/// The reference samples its NAT from several nodes and may give up a first attempt on a network of one;
/// three nodes of ours, and up to three clients, one after the other.
#[test]
fn javascript_peers_find_each_other_through_hdrives_dht_nodes_alone() {
    if !js_available() {
        return;
    }
    let lab = Lab::new();
    let more: Vec<Hdrive> = (0..2)
        .map(|_| {
            let args = ["dht", "--bind", "127.0.0.1:0", "--bootstrap", &lab.bootstrap];
            let mut node = Hdrive::spawn(Hdrive::command(&args));
            node.line("listening: ");
            node
        })
        .collect();
    let mut server = Js::spawn();
    let key = server.call("listen", json!({"bootstrap": [lab.bootstrap]}))["publicKey"].clone();
    let echoed = (0..3).any(|_| {
        let ask = json!({"bootstrap": [lab.bootstrap], "publicKey": key});
        Js::spawn().call("echo", ask)["text"] == "hello"
    });
    assert!(echoed, "no JavaScript client reached the JavaScript server");
    drop(more);
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
