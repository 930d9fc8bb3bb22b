//! A drive that JavaScript wrote, with files that have block maps, is cleared by hdrive; what is left is whole.

use crate::common::*;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

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
    eventually("the deleted files' blocks are free", PATIENCE, freed);

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

/// A reader that knew of all blocks before some went asks for the others where they are.
#[test]
fn a_connected_reader_gets_what_is_left() {
    if !js_available() {
        return;
    }
    let lab = Lab::new();
    let created = lab.run("alice", &["create", "drive"]).text();
    let key = created.trim().trim_start_matches("key: ").to_string();
    let source = lab.path("source");
    let put = |name: &str, seed: u32, size: usize| {
        std::fs::write(&source, pattern(seed, size)).unwrap();
        let done = lab.run("alice", &["put", &format!("drive/{name}"), text(&source)]);
        assert_eq!(done.code, 0, "{}", done.stderr);
    };
    // 20 blocks that stay, 20 that go, and 20 that stay.
    put("first", 1, 20 << 16);
    put("second", 2, 20 << 16);
    put("second", 3, 20 << 16);
    let mut owner = lab.spawn("alice", &["seed", &key]);
    owner.line("complete: ");
    let mut js = lab.js();
    let hex = hdrive::key::hex(&hdrive::key::parse_key(&key).unwrap());
    js.call("open", json!({"key": hex}));
    let remote_has = |js: &mut Js, block: u64| {
        js.call("remoteHas", json!({"key": hex, "block": block}))["has"].as_bool().unwrap()
    };
    eventually("the reader knows", PATIENCE, || remote_has(&mut js, 25).then_some(()));
    let done = lab.run("alice", &["gc", "drive", "--json"]).text();
    assert_eq!(serde_json::from_str::<Value>(&done).unwrap()["blocks"], 20, "{done}");
    eventually("the reader is told", PATIENCE, || (!remote_has(&mut js, 25)).then_some(()));
    let knows = [5, 20, 39, 45].map(|block| remote_has(&mut js, block));
    assert_eq!(knows, [true, false, false, true]);
    let entries = js.call("list", json!({"key": hex}))["entries"].clone();
    assert_eq!(entries[0]["sha256"], sha256(&pattern(1, 20 << 16)), "{entries}");
    assert_eq!(entries[1]["sha256"], sha256(&pattern(3, 20 << 16)), "{entries}");
}
