//! Keys with hints: the reference's package reads what `share --hint` prints, and hdrive takes what that makes.

use crate::common::*;
use hdrive::key::{Address, CoreKey, hex, unhex};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddrV4;

#[test]
fn keys_with_hints_are_those_of_the_reference() {
    let Some(mut node) = reference::node() else { return };
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let mut share = lab.spawn("alice", &["share", text(&folder), "--hint"]);
    let key: CoreKey = share.line("key: ").parse().unwrap();
    let hint: Address = share.line("hint: ").parse().unwrap();
    assert_eq!(hint.key, key);
    let dht: SocketAddrV4 = lab.bootstrap.parse().unwrap();
    assert!(hint.nodes.contains(&dht), "a node that knows of it: {hint:?}");
    let list: Vec<Value> = hint
        .nodes
        .iter()
        .map(|node| json!({ "host": node.ip().to_string(), "family": 4, "port": node.port() }))
        .collect();
    let list = Value::from(list);
    let script = root().join("tests/interop/hints.js");
    node.arg(script).arg(hex(&hint.encode())).arg(hex(&key.0)).arg(list.to_string());
    let done = run(node);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let theirs: Value = serde_json::from_str(&done.text()).unwrap();
    assert_eq!((&theirs["key"], &theirs["nodes"]), (&json!(hex(&key.0)), &list));
    let made = Address::decode(&unhex(theirs["made"].as_str().unwrap()).unwrap()).unwrap();
    assert_eq!(made, hint);
    // Whoever gets it needs no node to start from.
    let mut cat = lab.command("bob", &["cat", &format!("{made}/file")]);
    cat.env("HDRIVE_BOOTSTRAP", NOWHERE);
    let done = run(cat);
    assert_eq!((done.code, done.text().as_str()), (0, "content"), "{}", done.stderr);
    drop(share);
}
