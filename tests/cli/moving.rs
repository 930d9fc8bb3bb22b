//! What is mounted, moved or left out while a folder is being imported.

use crate::common::*;
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn names(lab: &Lab, key: &str) -> Vec<String> {
    lab.run("alice", &["ls", "-r", key]).text().lines().map(String::from).collect()
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Starts to share a folder with a file in it that has no end; its import is under way when this returns, and until that
/// is cut.
fn share_long(lab: &Lab, folder: &Path) -> (Hdrive, String, fs::File) {
    let endless = fs::File::create(folder.join("a-long-one")).unwrap();
    endless.set_len(3 << 40).unwrap();
    let mut share = lab.spawn("alice", &["share", text(folder)]);
    let key = share.line("key: ");
    let store = lab.path("alice");
    eventually("the import", PATIENCE, || (bytes_below(&store) > 8 << 20).then_some(()));
    (share, key, endless)
}

#[test]
fn what_is_mounted_over_a_folder_during_its_import_is_not_imported() {
    let lab = Lab::new();
    let (folder, other) = (lab.folder("shared"), lab.folder("other"));
    fs::create_dir(folder.join("sub")).unwrap();
    fs::write(folder.join("sub/file"), "mine").unwrap();
    fs::write(folder.join("top"), "mine").unwrap();
    fs::write(other.join("file"), "hers").unwrap();
    let can = Place::bind(&other, &folder.join("sub")).is_some();
    if !available("the right to mount", can) {
        return;
    }
    let (mut share, key, endless) = share_long(&lab, &folder);
    let mount = Place::bind(&other, &folder.join("sub")).unwrap();
    endless.set_len(1000).unwrap();
    share.line("shared: ");
    let all = names(&lab, &key);
    assert!(all.contains(&"top".into()) && !all.contains(&"sub/file".into()), "{all:?}");
    drop(mount);
    eventually("what lies under it", PATIENCE, || {
        let got = lab.run("alice", &["cat", &format!("{key}/sub/file")]).text();
        assert_ne!(got, "hers");
        (got == "mine").then_some(())
    });
    share.signal(Signal::SIGINT);
    share.wait(PATIENCE);
}

#[test]
fn what_is_to_be_left_out_counts_from_the_moment_that_it_is_said() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    for name in ["z-secret", "z-open"] {
        fs::write(folder.join(name), name).unwrap();
    }
    let (mut share, key, endless) = share_long(&lab, &folder);
    fs::write(folder.join(".hdriveignore"), "z-secret\n").unwrap();
    endless.set_len(1000).unwrap();
    share.line("shared: ");
    assert!(names(&lab, &key).contains(&"z-open".into()));
    let log = lab.run("alice", &["log", &key]).text();
    assert!(log.contains("/z-open") && !log.contains("z-secret"), "{log}");
    share.signal(Signal::SIGINT);
    share.wait(PATIENCE);
}

#[test]
fn nothing_is_looked_at_where_nobody_knows_what_is_mounted() {
    let can = Command::new("unshare").args(["--mount", "true"]).status();
    if !available("unshare --mount", can.is_ok_and(|status| status.success())) {
        return;
    }
    let lab = Lab::new();
    let (folder, other) = (lab.folder("shared"), lab.folder("other"));
    fs::create_dir(folder.join("sub")).unwrap();
    fs::write(folder.join("file"), "mine").unwrap();
    fs::write(other.join("secret"), "hers").unwrap();
    let (folder, other) = (text(&folder), text(&other));
    let script = format!(
        "set -eu; mount --bind {other} {folder}/sub; mount -t tmpfs none /proc; \
         \"$@\" share {folder} >said 2>told & pid=$!; \
         until grep 'cannot be told what is mounted' told; do sleep 0.1; done; \
         until grep -q ^shared: said; do sleep 0.1; done; \"$@\" ls -r {folder}; echo so far; \
         umount /proc; \
         until \"$@\" ls -r {folder} | grep ^file; do sleep 0.1; done; \"$@\" ls -r {folder}; \
         until grep 'followed again' told; do sleep 0.1; done; \
         kill $pid; wait $pid || true"
    );
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "55", "unshare", "--mount", "sh", "-c", &script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_hdrive")).current_dir(lab.dir.path());
    command.env("HDRIVE_STORE", lab.path("alice"));
    command.env("HDRIVE_BOOTSTRAP", &lab.bootstrap).env("HDRIVE_LOCAL", "127.0.0.1:0");
    let done = run(command);
    let said = done.text();
    assert_eq!(done.code, 0, "{said}{}", done.stderr);
    let (before, after) = said.split_once("so far").unwrap();
    assert!(!said.contains("secret") && !before.contains("file\n"), "{said}");
    assert!(after.contains("file\n"), "{said}");
}

/// No event tells of what happens above the folder.
#[test]
fn a_folder_that_was_away_for_a_moment_is_followed_again() {
    let lab = Lab::new();
    let (above, aside) = (lab.folder("above"), lab.path("aside"));
    let folder = above.join("shared");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("first"), "1").unwrap();
    let mut share = lab.spawn("alice", &["share", text(&folder)]);
    let key = share.line("key: ");
    share.line("shared: ");
    for n in 0..3 {
        fs::write(folder.join(format!("x{n}")), "1").unwrap();
        fs::rename(&above, &aside).unwrap();
        std::thread::sleep(Duration::from_millis(400));
        fs::rename(&aside, &above).unwrap();
        fs::write(folder.join(format!("later{n}")), "1").unwrap();
        eventually("what came later", PATIENCE, || {
            names(&lab, &key).contains(&format!("later{n}")).then_some(())
        });
    }
    share.signal(Signal::SIGINT);
    share.wait(PATIENCE);
}

/// No event tells of what is behind a link.
#[test]
fn what_waits_for_a_file_of_patterns_is_shared_when_that_can_be_read() {
    let lab = Lab::new();
    let (folder, patterns) = (lab.folder("shared"), lab.path("patterns"));
    fs::create_dir(folder.join("sub")).unwrap();
    fs::write(folder.join("first"), "1").unwrap();
    let mut share = lab.spawn("alice", &["share", text(&folder)]);
    let key = share.line("key: ");
    share.line("shared: ");
    std::os::unix::fs::symlink(&patterns, folder.join("sub/.hdriveignore")).unwrap();
    fs::write(folder.join("sub/file"), "1").unwrap();
    fs::write(folder.join("sub/secret"), "1").unwrap();
    fs::write(folder.join("other"), "1").unwrap();
    eventually("the rest", PATIENCE, || names(&lab, &key).contains(&"other".into()).then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    assert!(!names(&lab, &key).contains(&"sub/file".into()));
    fs::write(&patterns, "secret\n").unwrap();
    eventually("what waited", PATIENCE, || {
        names(&lab, &key).contains(&"sub/file".into()).then_some(())
    });
    assert!(!names(&lab, &key).contains(&"sub/secret".into()));
    share.signal(Signal::SIGINT);
    share.wait(PATIENCE);
}
