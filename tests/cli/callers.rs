//! What a command has from whoever typed it, though another process runs it: rights of files, a current folder.

use crate::common::*;
use crate::input::NOBODYS;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// As `cp -r` has it, whoever owns the store.
#[test]
fn a_download_has_the_rights_that_the_umask_of_its_caller_leaves() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::create_dir(folder.join("in")).unwrap();
    for (name, mode) in [("plain", 0o644), ("program", 0o755), ("in/open", 0o666)] {
        fs::write(folder.join(name), "content").unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    // A drive knows no rights of folders: they are as `mkdir` makes them.
    for folder in [&folder, &folder.join("in")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let (_share, key) = lab.share("alice", &folder);
    for owner in [None, Some("umask 022"), Some("umask 077")] {
        let store = format!("bob-{}", owner.unwrap_or("alone").replace(' ', ""));
        let _owner = owner.map(|umask| {
            let mut owner = Hdrive::spawn(after(umask, lab.command(&store, &["seed", NOBODYS])));
            owner.line("key: ");
            owner
        });
        for umask in ["022", "077", "002", "027"] {
            let from = lab.path(&format!("{store}-{umask}"));
            let (got, copied) = (from.join("new/got"), from.join("copied"));
            fs::create_dir(&from).unwrap();
            let hdrive = lab.command(&store, &["get", &key, text(&got)]);
            let done = run(after(&format!("umask {umask}"), hdrive));
            assert_eq!(done.code, 0, "{}", done.stderr);
            let mut cp = Command::new("cp");
            cp.arg("-r").args([&folder, &copied]);
            assert_eq!(run(after(&format!("umask {umask}"), cp)).code, 0);
            for name in ["", "in", "in/open", "plain", "program"] {
                let modes = (mode(&got.join(name)), mode(&copied.join(name)));
                assert_eq!(
                    modes.0, modes.1,
                    "{name} with {umask}, owner {owner:?}: {:o} {:o}",
                    modes.0, modes.1
                );
            }
            assert_eq!(mode(&from.join("new")), mode(&got));
        }
    }
}

#[test]
fn a_command_from_a_folder_that_is_gone_fails_only_where_that_is_meant() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let from_nowhere = |store: &str, args: &[&str]| {
        let gone = lab.folder("gone");
        let mut hdrive = lab.command(store, args);
        hdrive.current_dir(&gone);
        run(after("rmdir \"$PWD\"", hdrive))
    };
    let out = lab.path("out");
    let file = format!("{key}/file");
    for (args, wanted) in [
        (&["ls", &key][..], "file\n"),
        (&["cat", &file], "content"),
        (&["get", &file, "-"], "content"),
        (&["get", &file, text(&out)], ""),
        (&["info", &key], ""),
        (&["status"], ""),
    ] {
        for store in ["alice", "bob"] {
            let done = from_nowhere(store, args);
            assert_eq!(done.code, 0, "{args:?}: {}", done.stderr);
            assert!(wanted.is_empty() || done.text() == wanted, "{args:?}: {}", done.text());
        }
    }
    assert_eq!(fs::read_to_string(out).unwrap(), "content");
    for args in [
        &["get", &key][..],
        &["get", &key, "here"],
        &["share", "."],
        &["mount", &key, "here"],
        &["put", "own/x", "here"],
    ] {
        let done = from_nowhere("bob", args);
        assert_eq!(done.code, 1, "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains("cannot tell the current folder"), "{}", done.stderr);
    }
}
