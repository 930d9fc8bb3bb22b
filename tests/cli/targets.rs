//! What is meant by what is typed for a drive: names that none has, links with a version, and whole drives.

use crate::common::*;
use std::fs;

/// A drive of alice's called mine, with files a, b and c put one after the other; its key.
fn drive(lab: &Lab) -> String {
    let made = lab.run("alice", &["create", "mine"]).text();
    let file = lab.path("file-to-put");
    for name in ["a", "b", "c"] {
        fs::write(&file, name).unwrap();
        let done = lab.run("alice", &["put", &format!("mine/{name}"), text(&file)]);
        assert_eq!(done.code, 0, "{}", done.stderr);
    }
    made.trim().strip_prefix("key: ").unwrap().to_string()
}

#[test]
fn a_name_that_no_drive_has_is_not_found_and_nonsense_is_nonsense() {
    let lab = Lab::new();
    let commands: [&[&str]; 8] = [
        &["ls", "NAME"],
        &["cat", "NAME/x"],
        &["get", "NAME", "out"],
        &["info", "NAME"],
        &["log", "NAME"],
        &["gc", "NAME"],
        &["seed", "NAME"],
        &["forget", "-y", "NAME"],
    ];
    for command in commands {
        for (name, code) in [("nosuch", 3), ("/no/such", 3), ("pear://x", 2), ("", 2)] {
            let args: Vec<String> = command.iter().map(|arg| arg.replace("NAME", name)).collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            if args == ["cat", "/x"] {
                continue;
            }
            let done = lab.run("alice", &args);
            assert_eq!(done.code, code, "{args:?}: {}", done.stderr);
            assert!(!done.stderr.contains("this has 0"), "{args:?}: {}", done.stderr);
        }
    }
}

#[test]
fn a_version_in_a_link_is_what_is_meant_or_an_error() {
    let lab = Lab::new();
    let key = drive(&lab);
    let two = format!("pear://0.2.{key}");
    let at = lab.folder("mnt");
    for args in [
        &["gc", &two][..],
        &["gc", "--keep", "3", &two],
        &["seed", &two],
        &["forget", "-y", &two],
        &["mount", "--at", "3", &two, text(&at)],
        &["mount", "--at", "2024-01-01", &two, text(&at)],
    ] {
        let done = lab.run("alice", args);
        assert_eq!(done.code, 2, "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains("version 2"), "{args:?}: {}", done.stderr);
    }
    assert_eq!(lab.run("alice", &["ls", &two]).text(), "a\n");
    assert_eq!(lab.run("alice", &["cat", &format!("{two}/a")]).text(), "a", "it is still here");
    let log = lab.run("alice", &["log", &two]).text();
    assert!(log.contains("version 2") && !log.contains("version 3"), "{log}");
    assert!(lab.run("alice", &["info", &two]).text().contains("version: 2"));
    if fuse_available() {
        let two = lab.mount("alice", &two, &["--at", "2"]);
        assert!(two.path("a").exists() && !two.path("b").exists());
    }
}

#[test]
fn a_whole_drive_is_emptied_only_if_that_is_said() {
    let lab = Lab::new();
    let key = drive(&lab);
    for target in ["mine", "mine/", "mine//", &key, &format!("hyper://{key}/")] {
        let done = lab.run("alice", &["rm", "-r", target]);
        assert_eq!(done.code, 2, "{target}: {}", done.stderr);
        assert!(done.stderr.contains("--all"), "{target}: {}", done.stderr);
        assert_eq!(lab.run("alice", &["ls", "mine"]).text(), "a\nb\nc\n");
    }
    let done = lab.run("alice", &["rm", "-r", "--all", "mine"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(lab.run("alice", &["ls", "mine"]).text(), "");
}

#[test]
fn who_writes_a_drive_is_told_that_nobody_serves_it() {
    let lab = Lab::new();
    let file = lab.path("file-to-put");
    fs::write(&file, "x").unwrap();
    let made = lab.run("alice", &["create", "my drive"]);
    let key = made.text().trim().strip_prefix("key: ").unwrap().to_string();
    let wanted = format!("note: not served now: `hdrive seed {key}` serves it");
    assert!(made.stderr.contains(&wanted), "{}", made.stderr);
    let made = lab.run("alice", &["create", "mine"]);
    let wanted = "note: not served now: `hdrive seed mine` serves it";
    assert!(made.stderr.contains(wanted), "{}", made.stderr);
    let put = |more: &[&str]| {
        let mut args = vec!["put", "mine/a", text(&file)];
        args.extend(more);
        let done = lab.run("alice", &args);
        assert_eq!(done.code, 0, "{}", done.stderr);
        done.stderr
    };
    assert!(put(&[]).contains(wanted));
    assert_eq!(put(&["--quiet"]), "");
    let mut seed = lab.spawn("alice", &["seed", "mine"]);
    seed.line("key: ");
    let said = put(&[]);
    assert!(!said.contains("not served"), "{said}");
}

#[test]
fn the_content_behind_a_link_is_printed_as_a_mount_shows_it() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::create_dir_all(folder.join("a/b")).unwrap();
    fs::write(folder.join("a/b/file"), "content").unwrap();
    let links = [("link", "a/b/file"), ("a/up", "../link"), ("dir", "a/b"), ("round", "round")];
    for (name, target) in links {
        std::os::unix::fs::symlink(target, folder.join(name)).unwrap();
    }
    let (_share, key) = lab.share("alice", &folder);
    for path in ["link", "a/up", "dir/file"] {
        assert_eq!(
            lab.run("alice", &["cat", &format!("{key}/{path}")]).text(),
            "content",
            "{path}"
        );
        let get = lab.run("alice", &["get", &format!("{key}/{path}"), "-"]);
        assert_eq!(get.text(), "content", "{path}");
    }
    let round = lab.run("alice", &["cat", &format!("{key}/round")]);
    assert!(round.code == 1 && round.stderr.contains("link"), "{}", round.stderr);
}
