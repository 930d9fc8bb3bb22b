//! Drives that lack something: content that nobody has, everything, or the key to read them. Each is told at once
//! for what it is.

use crate::common::*;
use serde_json::json;
use std::fs;

fn create(js: &mut Js, args: serde_json::Value) -> String {
    js.call("create", args)["key"].as_str().unwrap().to_string()
}

#[test]
fn a_file_whose_block_map_nobody_has_is_never_read_as_empty() {
    if !js_available() || !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let mut js = lab.js();
    let key = create(&mut js, json!({}));
    let list = json!([{"seed": 1, "size": 1000}, {"seed": 2, "size": 2000}]);
    let put = |js: &mut Js, name: &str| {
        js.call("put", json!({"key": key, "path": name, "text": name}));
    };
    // Blocks 0 to 7, then those of the map and its list, and others: whoever gives up blocks cannot prove the
    // blocks beside them any more.
    (0..8).for_each(|i| put(&mut js, &format!("/before-{i}")));
    js.call("chunks", json!({"key": key, "path": "/map", "list": list, "dedup": true}));
    (0..8).for_each(|i| put(&mut js, &format!("/after-{i}")));
    js.call("clear", json!({"key": key, "path": "/map"}));
    js.call("announce", json!({"key": key}));

    let mount = lab.mount("bob", &key, &["--read-timeout", "2s"]);
    for name in ["before-0", "after-7"] {
        let read = || fs::read_to_string(mount.path(name)).ok();
        assert_eq!(eventually(name, PATIENCE, read), format!("/{name}"));
    }
    assert!(fs::metadata(mount.path("map")).unwrap().len() > 0);
    let error = fs::read(mount.path("map")).unwrap_err();
    let timed_out = nix::errno::Errno::ETIMEDOUT as i32;
    assert_eq!(error.raw_os_error(), Some(timed_out), "{error}");

    // Changes do not wait for it.
    put(&mut js, "/new");
    eventually("the change", PATIENCE, || fs::read(mount.path("new")).ok());

    // The file is written again: now somebody has its content.
    let want = pattern(3, 3000);
    js.call("put", json!({"key": key, "path": "/map", "seed": 3, "size": 3000}));
    eventually("the file", PATIENCE, || {
        fs::read(mount.path("map")).ok().filter(|bytes| *bytes == want)
    });
    eventually("its size", PATIENCE, || {
        (fs::metadata(mount.path("map")).unwrap().len() == 3000).then_some(())
    });
    drop(mount);

    let out = lab.path("out");
    let source = format!("{key}/after-7");
    assert_eq!(lab.run("carol", &["get", &source, text(&out)]).code, 0);
    assert_eq!(fs::read_to_string(&out).unwrap(), "/after-7");
}

#[test]
fn an_empty_drive_is_shown_as_empty_at_once() {
    if !js_available() || !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let mut js = lab.js();
    let key = create(&mut js, json!({}));
    js.call("announce", json!({"key": key}));
    let ls = lab.run("bob", &["ls", &key]);
    assert_eq!((ls.code, ls.text().as_str()), (0, ""), "{}", ls.stderr);

    let mut seed = lab.spawn("carol", &["seed", &key]);
    seed.line("complete: ");

    let mount = lab.mount_alone("dave", &key, &["--read-timeout", NEVER]);
    let at = mount.at.clone();
    assert_eq!(within("the names", move || fs::read_dir(at).unwrap().count()), 0);
    js.call("put", json!({"key": key, "path": "/first", "text": "1"}));
    eventually("the first file", PATIENCE, || fs::read(mount.path("first")).ok());
}

#[test]
fn an_encrypted_drive_without_its_key_is_told_at_once() {
    if !js_available() || !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let mut js = lab.js();
    let secret = "42".repeat(32);
    let key = create(&mut js, json!({"name": "secret", "encryptionKey": secret}));
    js.call("put", json!({"key": key, "path": "/secret.txt", "text": "top secret"}));
    js.call("announce", json!({"key": key}));
    let wrong = "43".repeat(32);
    let at = lab.folder("at");
    let none = "the drive is encrypted: pass --encryption-key";
    for (store, args, wanted) in [
        ("a", vec!["ls", &key], none),
        (
            "b",
            vec!["ls", &key, "--encryption-key", &wrong],
            "the encryption key is not this drive's",
        ),
        ("c", vec!["mount", &key, text(&at)], none),
    ] {
        let done = lab.run(store, &args);
        assert_eq!(done.code, 1, "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains(wanted), "{}", done.stderr);
    }
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0, "nothing is left mounted");
    let right = lab.run("a", &["ls", &key, "--encryption-key", &secret]);
    assert_eq!(
        right.text(),
        "secret.txt\n",
        "what was read without the key does no harm: {}",
        right.stderr
    );
}
