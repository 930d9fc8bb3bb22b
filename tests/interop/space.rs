//! A drive that JavaScript wrote, with files that have block maps, is cleared by hdrive; what is left is whole.

use crate::common::*;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn a_file_with_a_block_map_survives_gc_and_is_served() {
    if !js_available() {
        return;
    }
    let lab = Lab::new();
    let mut js = lab.js();
    let key = js.call("create", json!({}))["key"].as_str().unwrap().to_string();
    let chunk = |seed: u32| json!({"seed": seed, "size": 50_000});
    let shared: Vec<Value> = (1..6).map(chunk).collect();
    let longer: Vec<Value> = (1..7).map(chunk).collect();
    let dead = json!({"key": key, "path": "/dead", "seed": 9, "size": 300_000});
    js.call("chunks", json!({"key": key, "path": "/one", "list": shared, "dedup": true}));
    js.call("put", dead);
    js.call("chunks", json!({"key": key, "path": "/two", "list": longer, "dedup": true}));
    js.call("del", json!({"key": key, "path": "/dead"}));
    js.call("del", json!({"key": key, "path": "/one"}));
    js.call("announce", json!({"key": key}));

    let mut seed = lab.spawn("bob", &["seed", "--history", &key]);
    seed.line("complete: ");
    let log = lab.run("bob", &["log", &key, "--json"]).text();
    let versions: Vec<Value> = log.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(versions.len(), 5, "{log}");
    assert_eq!(
        (&versions[0]["removed"][0], &versions[1]["removed"][0]),
        (&"/one".into(), &"/dead".into())
    );
    js.call("exit", json!({}));
    let freed = || {
        let done = lab.run("bob", &["gc", &key, "--json"]).text();
        let freed = serde_json::from_str::<Value>(&done).ok()?["bytes"].as_u64()?;
        // The blocks of both deleted files, and the map of the first.
        (freed > 550_000 && freed < 551_000).then_some(())
    };
    eventually("the deleted files' blocks are free", Duration::from_secs(20), freed);

    let whole: Vec<u8> = (1..7).flat_map(|seed| pattern(seed, 50_000)).collect();
    let mut reader = lab.js();
    reader.call("open", json!({"key": key}));
    let entries = reader.call("list", json!({"key": key}))["entries"].clone();
    assert_eq!((&entries[0]["path"], &entries[1]), (&"/two".into(), &Value::Null), "{entries}");
    assert_eq!(entries[0]["sha256"], sha256(&whole));
    let got = lab.run("carol", &["cat", &format!("{key}/two")]);
    assert!(got.stdout == whole, "{}", got.stderr);
    seed.signal(Signal::SIGINT);
    seed.wait(PATIENCE);
}
