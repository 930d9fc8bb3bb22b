//! Drives that no lookup leads to, over a connection that was made for another one: the reference opens all that it has.

use crate::common::*;
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;

fn hex(key: &str) -> String {
    hdrive::key::hex(&hdrive::key::parse_key(key).unwrap())
}

/// A drive of a JavaScript peer, with one file that says its name.
fn drive(js: &mut Js, name: &str) -> String {
    let key = js.call("create", json!({ "name": name }))["key"].as_str().unwrap().to_string();
    js.call("put", json!({ "key": key, "path": "/file", "text": name }));
    key
}

#[test]
fn hdrive_reads_what_a_connected_javascript_peer_has_and_announces_not() {
    if !js_available() {
        return;
    }
    let lab = Lab::new();
    let mut js = lab.js();
    let [first, second] = ["first", "second"].map(|name| drive(&mut js, name));
    js.call("announce", json!({ "key": first }));
    let mut seed = lab.spawn("bob", &["seed", &first]);
    seed.line("complete: ");
    // It was there when the peer connected, and comes later.
    let third = drive(&mut js, "third");
    for (key, text) in [(second, "second"), (third, "third")] {
        let done = lab.run("bob", &["cat", &format!("{key}/file")]);
        assert_eq!((done.code, done.text().as_str()), (0, text), "{}", done.stderr);
    }
}

#[test]
fn a_connected_javascript_peer_that_waits_for_a_drive_gets_it_when_it_is_shared() {
    if !js_available() {
        return;
    }
    let lab = Lab::new();
    let [first, second] = ["first", "second"].map(|name| {
        let folder = lab.folder(name);
        fs::write(folder.join("file"), name).unwrap();
        folder
    });
    let (_share, kept) = lab.share("alice", &first);
    let (mut share, ended) = lab.share("alice", &second);
    share.signal(Signal::SIGINT);
    assert_eq!(share.wait(PATIENCE).code(), Some(0));
    let mut js = lab.js();
    for (key, files) in [(&kept, 1), (&ended, 0)] {
        js.call("open", json!({ "key": hex(key), "name": key }));
        let there = js.call("list", json!({ "key": hex(key) }))["entries"].clone();
        assert_eq!(there.as_array().unwrap().len(), files);
    }
    let (_share, again) = lab.share("alice", &second);
    assert_eq!(again, ended);
    eventually("the file", PATIENCE, || {
        let there = js.call("list", json!({ "key": hex(&ended) }))["entries"].clone();
        (there.as_array().unwrap().len() == 1).then_some(())
    });
}
