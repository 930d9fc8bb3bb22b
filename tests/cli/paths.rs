//! Which drive is meant, and what in it: every command takes the same words for the same place.

use crate::common::*;
use std::fs;

/// Names that a query, a fragment or an escape would cut or change.
const AWKWARD: [&str; 6] = ["what?", "#old", "50%", "a%20b", "a?b#c", "x://y"];

#[test]
fn behind_a_key_or_a_name_a_path_is_taken_as_it_is_typed() {
    let lab = Lab::new();
    let made = lab.run("alice", &["create", "mine"]).text();
    let key = made.trim().strip_prefix("key: ").unwrap();
    let file = lab.path("file");
    let mut all: Vec<&str> = AWKWARD.to_vec();
    all.extend(["what", "a", "x:", "old"]);
    for drive in ["mine", key] {
        for name in &all {
            let name = name.trim_end_matches(':');
            fs::write(&file, format!("{drive} {name}")).unwrap();
            let done = lab.run("alice", &["put", &format!("{drive}/{name}"), text(&file)]);
            assert_eq!(done.code, 0, "{name}: {}", done.stderr);
        }
        for name in &all {
            let target = format!("{drive}/{}", name.trim_end_matches(':'));
            let wanted = format!("{drive} {}", name.trim_end_matches(':'));
            assert_eq!(lab.run("alice", &["cat", &target]).text(), wanted);
            let out = lab.path("out");
            assert_eq!(lab.run("alice", &["get", &target, text(&out)]).code, 0);
            assert_eq!(fs::read_to_string(&out).unwrap(), wanted);
            fs::remove_file(&out).unwrap();
        }
    }
    let list = lab.run("alice", &["ls", &format!("{key}/x:")]).text();
    assert_eq!(list, "y\n");
    // Nothing of the drive is taken for a fragment.
    assert_eq!(lab.run("alice", &["rm", "-r", &format!("{key}/#none")]).code, 3);
    let before = lab.run("alice", &["ls", "-r", key]).text();
    assert_eq!(lab.run("alice", &["rm", "-r", &format!("{key}/#old")]).code, 0);
    let after = lab.run("alice", &["ls", "-r", key]).text();
    let gone: Vec<&str> = before.lines().filter(|line| !after.contains(line)).collect();
    assert_eq!(gone, ["#old"]);
}

#[test]
fn a_link_has_queries_fragments_escapes_and_versions() {
    let lab = Lab::new();
    let made = lab.run("alice", &["create", "mine"]).text();
    let key = made.trim().strip_prefix("key: ").unwrap();
    let file = lab.path("file");
    fs::write(&file, "content").unwrap();
    assert_eq!(lab.run("alice", &["put", "mine/a b?", text(&file)]).code, 0);
    for link in ["hyper://KEY/a%20b%3F", "pear://KEY/a%20b%3f?x=y#z", "pear://0.2.KEY/a b%3F"] {
        let done = lab.run("alice", &["cat", &link.replace("KEY", key)]);
        assert_eq!(done.text(), "content", "{link}: {}", done.stderr);
    }
    let done = lab.run("alice", &["cat", &format!("hyper://{key}/50%")]);
    assert_eq!(done.code, 2, "{}", done.stderr);
    for refused in ["put", "rm"] {
        let target = format!("pear://0.2.{key}/x");
        let mut args = vec![refused, &target];
        args.extend((refused == "put").then_some(text(&file)));
        let done = lab.run("alice", &args);
        assert_eq!(done.code, 2, "{}", done.stderr);
        assert!(done.stderr.contains("version 2"), "{}", done.stderr);
    }
    for name in ["hyper://x", "pear://x", &format!("{key}/x"), ""] {
        assert_eq!(lab.run("alice", &["create", name]).code, 2, "{name}");
    }
}

#[test]
fn a_shared_folder_is_named_by_its_path_and_what_is_in_it_behind_that() {
    let lab = Lab::new();
    let folder = lab.folder("shared/photos");
    fs::create_dir(folder.join("2024")).unwrap();
    fs::write(folder.join("2024/june"), "june").unwrap();
    let (_share, _) = lab.share("alice", &folder);
    let done = lab.run("alice", &["cat", &format!("{}/2024/june", text(&folder))]);
    assert_eq!((done.code, done.text().as_str()), (0, "june"), "{}", done.stderr);
    assert_eq!(lab.run("alice", &["ls", &format!("{}/", text(&folder))]).text(), "2024/\n");
}
