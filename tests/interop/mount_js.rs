//! A JavaScript peer serves drives; an hdrive mount shows every name, byte, link and mode.

use crate::common::*;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// Puts a drive's worth of awkward content and returns (path, bytes) of the plain files.
fn fill(js: &mut Js, key: &str) -> Vec<(&'static str, Vec<u8>)> {
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("hello.txt", b"hello from JavaScript\n".to_vec()),
        ("deep/er/and/deeper/leaf", pattern(2, 1000)),
        ("Ünïcödé/名前 with space.txt", pattern(3, 50)),
        ("empty", vec![]),
        ("edges/65535", pattern(4, 65535)),
        ("edges/65536", pattern(5, 65536)),
        ("edges/65537", pattern(6, 65537)),
        ("big.bin", pattern(7, 3_000_000)),
        ("replaced", pattern(8, 200_000)),
    ];
    js.call("put", json!({"key": key, "path": "/replaced", "text": "old"}));
    for (name, _) in &files {
        let seed_and_size = match *name {
            "hello.txt" => json!({"text": "hello from JavaScript\n"}),
            "empty" => json!({"text": ""}),
            "deep/er/and/deeper/leaf" => json!({"seed": 2, "size": 1000}),
            "Ünïcödé/名前 with space.txt" => json!({"seed": 3, "size": 50}),
            "edges/65535" => json!({"seed": 4, "size": 65535}),
            "edges/65536" => json!({"seed": 5, "size": 65536}),
            "edges/65537" => json!({"seed": 6, "size": 65537}),
            "big.bin" => json!({"seed": 7, "size": 3_000_000}),
            _ => json!({"seed": 8, "size": 200_000}),
        };
        let mut args = seed_and_size;
        args["key"] = key.into();
        args["path"] = format!("/{name}").into();
        js.call("put", args);
    }
    let tool = json!({"key": key, "path": "/bin/tool", "text": "#!/bin/sh\necho ran\n", "executable": true});
    js.call("put", tool);
    let dated = json!({"key": key, "path": "/dated", "text": "x", "metadata": {"mtime": 1_700_000_000_123u64}});
    js.call("put", dated);
    js.call("symlink", json!({"key": key, "path": "/bin/link", "target": "../hello.txt"}));
    js.call("symlink", json!({"key": key, "path": "/absolute", "target": "/hello.txt"}));
    js.call("put", json!({"key": key, "path": "/gone", "text": "deleted"}));
    js.call("del", json!({"key": key, "path": "/gone"}));
    files
}

#[test]
fn a_mount_shows_every_name_byte_link_and_mode_of_a_javascript_drive() {
    if !js_available() || !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let mut js = lab.js();
    let key = js.call("create", json!({}))["key"].as_str().unwrap().to_string();
    let files = fill(&mut js, &key);
    js.call("announce", json!({"key": key}));

    let mount = lab.mount("bob", &key, &[]);
    for (name, bytes) in &files {
        let got = fs::read(mount.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(&got, bytes, "{name}");
        assert_eq!(fs::metadata(mount.path(name)).unwrap().len(), bytes.len() as u64);
    }
    let mode = |name: &str| fs::metadata(mount.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("bin/tool") & 0o111, 0o111);
    assert_eq!(mode("hello.txt") & 0o111, 0);
    assert_eq!(fs::read_link(mount.path("bin/link")).unwrap().to_str(), Some("../hello.txt"));
    assert_eq!(fs::read(mount.path("bin/link")).unwrap(), files[0].1);
    assert_eq!(fs::read(mount.path("absolute")).unwrap(), files[0].1, "absolute links stay inside");
    let mtime = fs::metadata(mount.path("dated")).unwrap().modified().unwrap();
    let mtime = mtime.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(mtime, Duration::from_millis(1_700_000_000_123));
    assert!(!mount.path("gone").exists());
    let out = std::process::Command::new(mount.path("bin/tool")).output().unwrap();
    assert_eq!(out.stdout, b"ran\n");
    let mut names: Vec<String> = fs::read_dir(&mount.at)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let want = [
        "absolute",
        "big.bin",
        "bin",
        "dated",
        "deep",
        "edges",
        "empty",
        "hello.txt",
        "replaced",
        "Ünïcödé",
    ];
    assert_eq!(names, want);
}

#[test]
fn what_javascript_puts_while_mounted_appears_at_once() {
    if !js_available() || !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let mut js = lab.js();
    let key = js.call("create", json!({}))["key"].as_str().unwrap().to_string();
    js.call("put", json!({"key": key, "path": "/a", "text": "one"}));
    js.call("announce", json!({"key": key}));
    let mount = lab.mount("bob", &key, &[]);
    assert_eq!(fs::read_to_string(mount.path("a")).unwrap(), "one");
    assert!(fs::metadata(mount.path("new")).is_err(), "a miss is cached by the kernel");

    js.call("put", json!({"key": key, "path": "/new", "text": "appeared"}));
    eventually("the new file", AT_ONCE, || fs::read_to_string(mount.path("new")).ok());
    js.call("put", json!({"key": key, "path": "/a", "text": "two!"}));
    eventually("the new content", AT_ONCE, || {
        fs::read_to_string(mount.path("a")).ok().filter(|text| text == "two!")
    });
    js.call("del", json!({"key": key, "path": "/a"}));
    eventually("the deletion", AT_ONCE, || (!mount.path("a").exists()).then_some(()));
}

#[test]
fn block_maps_odd_blocks_and_hostile_entries_of_a_drive_are_shown_safely() {
    if !js_available() || !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let mut js = lab.js();
    let key = js.call("create", json!({}))["key"].as_str().unwrap().to_string();
    let list =
        json!([{"seed": 1, "size": 1000}, {"seed": 2, "size": 200_000}, {"seed": 1, "size": 1000}]);
    js.call("chunks", json!({"key": key, "path": "/map", "list": list, "dedup": true}));
    js.call("chunks", json!({"key": key, "path": "/odd", "list": [{"text": "ab"}, {"text": "cde"}, {"text": "f"}]}));
    let blob = json!({"blockOffset": 0, "byteOffset": 0, "blockLength": 1, "byteLength": 5});
    let value = json!({"executable": false, "linkname": null, "blob": blob, "metadata": null});
    for path in ["/../escape", "//double", "/a/../../b", "/nul\0here", "/trailing/", "relative"] {
        js.call("entry", json!({"key": key, "path": path, "value": value}));
    }
    js.call("entry", json!({"key": key, "path": format!("/{}", "n".repeat(300)), "value": value}));
    let absurd = json!({"blockOffset": 0, "byteOffset": 0, "blockLength": 1u64 << 40, "byteLength": 1u64 << 50});
    let absurd = json!({"executable": false, "linkname": null, "blob": absurd, "metadata": null});
    js.call("entry", json!({"key": key, "path": "/absurd", "value": absurd}));
    js.call("entry", json!({"key": key, "path": "/not-an-entry", "value": "text"}));
    js.call("symlink", json!({"key": key, "path": "/loop", "target": "loop"}));
    js.call("symlink", json!({"key": key, "path": "/out", "target": "/../../../../etc/passwd"}));
    js.call("announce", json!({"key": key}));

    let mount = lab.mount("bob", &key, &[]);
    let mut want = pattern(1, 1000);
    want.extend(pattern(2, 200_000));
    want.extend(pattern(1, 1000));
    assert_eq!(fs::metadata(mount.path("map")).unwrap().len(), want.len() as u64);
    assert_eq!(fs::read(mount.path("map")).unwrap(), want);
    assert_eq!(fs::read(mount.path("odd")).unwrap(), b"abcdef");

    let mut names: Vec<String> = fs::read_dir(&mount.at)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| name != "not-an-entry" && name != "absurd");
    names.sort();
    assert_eq!(names, ["loop", "map", "odd", "out"], "nothing hostile is shown");
    assert!(fs::read(mount.path("loop")).is_err());
    let target = fs::canonicalize(mount.path("out"));
    assert!(target.is_err() || target.unwrap().starts_with(&mount.at), "nothing escapes the mount");
    assert!(fs::read(mount.path("absurd")).is_err(), "an absurd size is an error, not a crash");
    assert_eq!(fs::read(mount.path("odd")).unwrap(), b"abcdef", "the mount still works");
}

#[test]
fn an_encrypted_drive_opens_with_its_key_and_an_old_compat_drive_opens_too() {
    if !js_available() || !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let mut js = lab.js();
    let secret = "42".repeat(32);
    let key = js.call("create", json!({"name": "secret", "encryptionKey": secret}))["key"].clone();
    let key = key.as_str().unwrap().to_string();
    js.call("put", json!({"key": key, "path": "/secret.txt", "text": "top secret"}));
    js.call("put", json!({"key": key, "path": "/two.bin", "seed": 9, "size": 100_000}));
    js.call("announce", json!({"key": key}));
    let mount = lab.mount("bob", &key, &["--encryption-key", &secret]);
    assert_eq!(fs::read_to_string(mount.path("secret.txt")).unwrap(), "top secret");
    assert_eq!(fs::read(mount.path("two.bin")).unwrap(), pattern(9, 100_000));

    let old = js.call("createCompat", json!({}))["key"].as_str().unwrap().to_string();
    js.call("put", json!({"key": old, "path": "/old.txt", "text": "old"}));
    js.call("announce", json!({"key": old}));
    let mount = lab.mount("carol", &old, &[]);
    assert_eq!(fs::read_to_string(mount.path("old.txt")).unwrap(), "old");
}

#[test]
fn a_version_is_mounted_frozen_and_a_truncated_drive_is_followed() {
    if !js_available() || !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let mut js = lab.js();
    let key = js.call("create", json!({}))["key"].as_str().unwrap().to_string();
    js.call("put", json!({"key": key, "path": "/a", "text": "first"}));
    let version = js.call("version", json!({"key": key}))["version"].as_u64().unwrap();
    js.call("put", json!({"key": key, "path": "/a", "text": "second"}));
    js.call("put", json!({"key": key, "path": "/b", "text": "later"}));
    js.call("announce", json!({"key": key}));

    let frozen = lab.mount("bob", &key, &["--at", &version.to_string()]);
    assert_eq!(fs::read_to_string(frozen.path("a")).unwrap(), "first");
    assert!(!frozen.path("b").exists());

    let live = lab.mount("carol", &key, &[]);
    assert_eq!(fs::read_to_string(live.path("a")).unwrap(), "second");
    js.call("truncate", json!({"key": key, "version": version}));
    js.call("put", json!({"key": key, "path": "/c", "text": "on a new fork"}));
    eventually("the new fork", PATIENCE, || fs::read_to_string(live.path("c")).ok());
    assert_eq!(fs::read_to_string(live.path("a")).unwrap(), "first");
    assert!(!live.path("b").exists());
}
