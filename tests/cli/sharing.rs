//! What is shared: found again, brought up to date, kept by others.

use crate::common::*;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;

fn version(lab: &Lab, key: &str) -> u64 {
    let info: Value =
        serde_json::from_str(lab.run("alice", &["info", key, "--json"]).text().trim()).unwrap();
    info["version"].as_u64().unwrap()
}

#[test]
fn a_second_share_imports_only_what_changed() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    for i in 0..20 {
        fs::write(folder.join(format!("file{i}")), pattern(i, 10_000)).unwrap();
    }
    let (mut share, key) = lab.share("alice", &folder);
    let before = version(&lab, &key);
    share.signal(Signal::SIGINT);
    assert_eq!(share.wait(PATIENCE).code(), Some(0));
    assert_eq!(share.errors(), "");

    let (mut share, again) = lab.share("alice", &folder);
    assert_eq!(again, key);
    assert_eq!(version(&lab, &key), before, "nothing was imported");
    share.signal(Signal::SIGTERM);
    share.wait(PATIENCE);

    fs::write(folder.join("file3"), "changed").unwrap();
    fs::remove_file(folder.join("file4")).unwrap();
    let (_share, _) = lab.share("alice", &folder);
    assert_eq!(version(&lab, &key), before + 2, "one entry written, one removed");
    assert_eq!(lab.run("bob", &["cat", &format!("{key}/file3")]).text(), "changed");
}

/// A link is shared as a link, whatever happens behind it.
#[test]
fn a_link_out_of_the_folder_shares_nothing_of_where_it_leads() {
    let lab = Lab::new();
    let (folder, outside) = (lab.folder("shared"), lab.folder("outside"));
    fs::write(outside.join("secret"), "old").unwrap();
    std::os::unix::fs::symlink(&outside, folder.join("link")).unwrap();
    fs::create_dir(folder.join("dir")).unwrap();
    fs::write(folder.join("dir/secret"), "mine").unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let names = || {
        let done = lab.run("alice", &["ls", "-r", &key]);
        done.text().lines().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["dir/", "dir/secret", "link"]);

    fs::write(outside.join("secret"), "new").unwrap();
    // A folder that becomes a link: what it held is gone, and nothing comes in its place.
    fs::rename(folder.join("dir"), lab.path("away")).unwrap();
    std::os::unix::fs::symlink(&outside, folder.join("dir")).unwrap();
    fs::write(outside.join("secret"), "newer").unwrap();
    fs::write(folder.join("last"), "x").unwrap();
    eventually("the last change", PATIENCE, || names().contains(&"last".to_string()).then_some(()));
    assert_eq!(names(), ["dir", "last", "link"]);
}

#[test]
fn a_seed_is_complete_and_serves_when_the_sharer_is_gone() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), pattern(4, 3_000_000)).unwrap();
    let (mut share, key) = lab.share("alice", &folder);
    let mut seed = lab.spawn("carol", &["seed", &key, "--json"]);
    let told: Value = serde_json::from_str(&seed.line("")).unwrap();
    assert_eq!(told["key"], key);
    let told: Value = serde_json::from_str(&seed.line("")).unwrap();
    assert_eq!(told["complete"], key);
    fs::write(folder.join("more"), "more").unwrap();
    let told: Value = serde_json::from_str(&seed.line("")).unwrap();
    assert_eq!(told["complete"], key, "it keeps current");
    share.signal(Signal::SIGKILL);
    share.wait(PATIENCE);

    let out = lab.path("out");
    let got = lab.run("bob", &["get", &key, text(&out)]);
    assert_eq!(got.code, 0, "{}", got.stderr);
    assert_eq!(fs::read(out.join("file")).unwrap(), pattern(4, 3_000_000));
    assert_eq!(fs::read_to_string(out.join("more")).unwrap(), "more");
    seed.signal(Signal::SIGINT);
    assert_eq!(seed.wait(PATIENCE).code(), Some(0), "there is no other end");
}

#[test]
fn a_share_says_json_and_a_store_inside_is_refused() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "12345").unwrap();
    let mut share = lab.spawn("alice", &["share", text(&folder), "--json", "--name", "pictures"]);
    let told: Value = serde_json::from_str(&share.line("")).unwrap();
    let key = told["key"].as_str().unwrap().to_string();
    let told: Value = serde_json::from_str(&share.line("")).unwrap();
    assert_eq!(told["shared"]["files"], 1);
    assert_eq!(told["shared"]["bytes"], 5);
    assert_eq!(lab.run("alice", &["cat", "pictures/file"]).text(), "12345");
    assert_eq!(lab.run("bob", &["cat", &format!("{key}/file")]).text(), "12345");

    let done = lab.run("bob", &["share", text(lab.dir.path())]);
    assert_eq!(done.code, 2, "{}", done.stderr);
    assert!(done.stderr.contains("holds the store itself"), "{}", done.stderr);
}

#[test]
fn a_share_takes_no_name_that_means_something_else() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    let key = "a".repeat(64);
    for name in ["", " ", "a/../b", "two\nlines", &key] {
        let done = lab.run("alice", &["share", text(&folder), "--name", name]);
        assert_eq!(done.code, 2, "{name:?}: {}", done.stderr);
        assert!(done.stderr.contains("name"), "{name:?}: {}", done.stderr);
    }
}

/// What a dry run tells is what is shared.
#[test]
fn a_dry_run_tells_what_the_share_does() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    assert_eq!(lab.run("bob", &["create", "--quiet", "x"]).code, 0);
    for name in ["a", "b"] {
        fs::write(folder.join(name), "12345").unwrap();
    }
    fs::copy(lab.path("bob/store.redb"), folder.join("a copy")).unwrap();
    let dry = lab.run("alice", &["share", "--dry-run", text(&folder)]);
    assert_eq!(dry.text(), "a\nb\nwould share: 2 files, 10 bytes\n", "{}", dry.stderr);
    assert!(dry.stderr.contains("left out: ") && dry.stderr.contains("a copy"), "{}", dry.stderr);
    let mut share = lab.spawn("alice", &["share", text(&folder)]);
    let key = share.line("key: ");
    assert_eq!(share.line("shared: "), "2 files, 10 bytes");
    assert_eq!(lab.run("alice", &["ls", &key]).text(), "a\nb\n");
}
