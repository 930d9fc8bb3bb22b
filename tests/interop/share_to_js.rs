//! hdrive shares a folder; a JavaScript Hyperdrive opens it by key and reads it byte for byte.

use crate::common::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

fn fill(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for (name, size) in [
        ("top.txt", 20),
        ("empty", 0),
        ("edges/65535", 65535),
        ("edges/65536", 65536),
        ("edges/65537", 65537),
        ("a/b/c/d.bin", 1_000_000),
        // Equal to others, so that two entries name one blob.
        ("twins/d.bin", 1_000_000),
        ("twins/top.txt", 20),
        ("Ünïcödé/名前 with space.txt", 77),
    ] {
        let bytes = pattern(size as u32 + 1, size);
        fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        fs::write(dir.join(name), &bytes).unwrap();
        files.insert(format!("/{name}"), bytes);
    }
    fs::set_permissions(dir.join("top.txt"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../top.txt", dir.join("a/link")).unwrap();
    files
}

fn list(js: &mut Js, key: &str) -> BTreeMap<String, Value> {
    let answer = js.call("list", json!({"key": key}));
    let entries = answer["entries"].as_array().unwrap().clone();
    entries.into_iter().map(|e| (e["path"].as_str().unwrap().to_string(), e)).collect()
}

#[test]
fn javascript_reads_a_shared_folder_byte_for_byte_and_sees_its_changes() {
    if !js_available() {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    let files = fill(&folder);
    let (mut share, key) = lab.share("alice", &folder);

    let mut js = lab.js();
    let hex = hdrive::key::hex(&hdrive::key::parse_key(&key).unwrap());
    js.call("open", json!({"key": hex}));
    let there = list(&mut js, &hex);
    for (path, bytes) in &files {
        let entry = &there[path];
        assert_eq!(entry["sha256"], sha256(bytes), "{path}");
        assert_eq!(entry["executable"], path == "/top.txt", "{path}");
    }
    assert_eq!(there["/a/link"]["linkname"], "../top.txt");
    assert_eq!(there.len(), files.len() + 1);

    fs::write(folder.join("live.txt"), "just now").unwrap();
    fs::remove_file(folder.join("empty")).unwrap();
    fs::rename(folder.join("edges"), folder.join("moved")).unwrap();
    eventually("the changes", PATIENCE, || {
        let there = list(&mut js, &hex);
        let right = there.contains_key("/live.txt")
            && !there.contains_key("/empty")
            && !there.contains_key("/edges/65535")
            && there.get("/moved/65537").is_some_and(|e| e["size"] == 65537);
        right.then_some(())
    });

    // A second start imports only what changed: the version stands still.
    let version = js.call("version", json!({"key": hex}))["version"].as_u64().unwrap();
    share.signal(nix::sys::signal::Signal::SIGINT);
    share.wait(PATIENCE);
    let (_share, again) = lab.share("alice", &folder);
    assert_eq!(again, key, "the key of a folder does not change");
    let info: Value =
        serde_json::from_str(lab.run("alice", &["info", &key, "--json"]).text().trim()).unwrap();
    assert_eq!(info["version"].as_u64().unwrap(), version);
}

#[test]
fn an_encrypted_share_is_read_by_javascript_with_the_key() {
    if !js_available() {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    let files = fill(&folder);
    let secret = "17".repeat(32);
    let mut share = lab.spawn("alice", &["share", text(&folder), "--encryption-key", &secret]);
    let key = share.line("key: ");
    share.line("shared: ");
    let mut js = lab.js();
    let hex = hdrive::key::hex(&hdrive::key::parse_key(&key).unwrap());
    js.call("open", json!({"key": hex, "encryptionKey": secret}));
    let there = list(&mut js, &hex);
    for (path, bytes) in &files {
        assert_eq!(there[path]["sha256"], sha256(bytes), "{path}");
    }
}

/// What only changed in places is a block map, what grew at the end a longer blob: the reference reads both.
#[test]
fn javascript_reads_what_was_changed_in_place() {
    if !js_available() {
        return;
    }
    for secret in [None, Some("17".repeat(32))] {
        let lab = Lab::new();
        let folder = lab.folder("shared");
        let mut files = BTreeMap::from([
            ("a", pattern(1, 1_000_003)),
            ("b", pattern(2, 3_000_000)),
            ("log", pattern(3, 70_000)),
        ]);
        for (name, bytes) in &files {
            fs::write(folder.join(name), bytes).unwrap();
        }
        let mut args = vec!["share", text(&folder)];
        args.extend(secret.iter().flat_map(|key| ["--encryption-key", key.as_str()]));
        let mut share = lab.spawn("alice", &args);
        let key = share.line("key: ");
        share.line("shared: ");
        let mut js = lab.js();
        let hex = hdrive::key::hex(&hdrive::key::parse_key(&key).unwrap());
        js.call("open", json!({"key": hex, "encryptionKey": secret}));
        let mut check = |what: &str, files: &BTreeMap<&str, Vec<u8>>| {
            eventually(what, PATIENCE, || {
                let there = list(&mut js, &hex);
                let right = |(name, bytes): (&&str, &Vec<u8>)| {
                    there.get(&format!("/{name}")).is_some_and(|e| e["sha256"] == sha256(bytes))
                };
                files.iter().all(right).then_some(())
            });
        };
        check("the first content", &files);

        let mut change = |name: &'static str, act: &dyn Fn(&mut Vec<u8>)| {
            let bytes = files.get_mut(name).unwrap();
            act(bytes);
            fs::write(folder.join(name), bytes).unwrap();
            files.clone()
        };
        for line in ["one\n", "two\n"] {
            check("a grown tail", &change("log", &|log| log.extend(line.as_bytes())));
        }
        check("an edit", &change("b", &|b| b[1_500_000..1_500_100].fill(7)));
        check("another edit", &change("b", &|b| b[100..200].fill(8)));
        check("a grown map", &change("b", &|b| b.extend(pattern(9, 100_000))));
        check("a cut map", &change("b", &|b| b.truncate(2_500_000)));
        check("growth elsewhere", &change("a", &|a| a.extend(b"tail")));
        let info = lab.run("alice", &["info", &key, "--json"]);
        let info: Value = serde_json::from_str(info.text().trim()).unwrap();
        let stored = info["blobs"]["bytes"].as_u64().unwrap();
        assert!(stored < 4_070_003 + 5 * 65536 + 100_000 + 20_000, "{stored}");

        // And a mount: sizes of maps are learnt.
        let got = lab.run("bob", &[&["cat", &format!("{key}/b")][..], &args[2..]].concat());
        assert!(got.stdout == files["b"], "{}", got.stderr);
    }
}
