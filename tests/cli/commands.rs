//! The commands that come and go: what they print, what they leave, how they end.

use crate::common::*;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Stdio;

/// A folder with a bit of everything, shared by alice.
fn shared(lab: &Lab) -> (Hdrive, String) {
    let folder = lab.folder("shared");
    fs::create_dir_all(folder.join("dir/below")).unwrap();
    fs::write(folder.join("file"), pattern(1, 10_000_000)).unwrap();
    fs::write(folder.join("dir/tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(folder.join("dir/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.join("dir/below/deep"), "deep").unwrap();
    fs::write(folder.join("empty"), "").unwrap();
    symlink("dir/below/deep", folder.join("link")).unwrap();
    lab.share("alice", &folder)
}

fn json(done: &Done) -> Vec<Value> {
    assert_eq!(done.code, 0, "{}", done.stderr);
    let text = done.text();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

#[test]
fn ls_shows_names_sizes_and_all_below() {
    let lab = Lab::new();
    let (_share, key) = shared(&lab);
    assert_eq!(lab.run("bob", &["ls", &key]).text(), "dir/\nempty\nfile\nlink\n");
    assert_eq!(lab.run("bob", &["ls", &format!("{key}/dir")]).text(), "below/\ntool\n");
    assert_eq!(lab.run("bob", &["ls", &format!("hyper://{key}/dir/tool")]).text(), "tool\n");
    let all = lab.run("bob", &["ls", "-l", "-r", &key]).text();
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 7, "{all}");
    assert!(lines.iter().any(|l| l.starts_with("-rwxr-xr-x") && l.ends_with("dir/tool")), "{all}");
    assert!(lines.iter().any(|l| l.ends_with("link -> dir/below/deep")), "{all}");
    assert!(lines.iter().any(|l| l.contains(" 10000000 ") && l.ends_with(" file")), "{all}");
    let all = json(&lab.run("bob", &["ls", "-r", &key, "--json"]));
    let file = all.iter().find(|entry| entry["name"] == "file").unwrap();
    assert_eq!(file["size"], 10_000_000);
    assert_eq!(file["type"], "file");
}

#[test]
fn get_brings_a_folder_with_modes_times_and_links() {
    let lab = Lab::new();
    let (mut share, key) = shared(&lab);
    let out = lab.path("out");
    let got = json(&lab.run("bob", &["get", &key, text(&out), "--json"]));
    assert_eq!(got[0]["got"]["files"], 4);
    assert_eq!(fs::read(out.join("file")).unwrap(), pattern(1, 10_000_000));
    assert_eq!(fs::read_to_string(out.join("link")).unwrap(), "deep");
    let (there, here) = (lab.path("shared/dir/tool"), out.join("dir/tool"));
    let (there, here) = (fs::metadata(there).unwrap(), fs::metadata(here).unwrap());
    assert_eq!(here.mode() & 0o777, 0o755);
    let ms = |meta: &fs::Metadata| meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000;
    assert_eq!(ms(&here), ms(&there));

    // A second call fetches nothing and writes nothing; a third, elsewhere, needs no peer.
    share.signal(Signal::SIGINT);
    share.wait(PATIENCE);
    let inode = || fs::metadata(out.join("file")).unwrap().ino();
    let before = inode();
    assert_eq!(lab.run("bob", &["get", &key, text(&out)]).code, 0);
    assert_eq!(inode(), before);
    let other = lab.path("other");
    assert_eq!(lab.run("bob", &["get", &format!("{key}/file"), text(&other)]).code, 0);
    assert_eq!(fs::read(other).unwrap(), pattern(1, 10_000_000));
    // Into a folder it goes under its own name.
    let into = lab.folder("into");
    assert_eq!(lab.run("bob", &["get", &format!("{key}/dir/below"), text(&into)]).code, 0);
    assert_eq!(fs::read_to_string(into.join("below/deep")).unwrap(), "deep");
}

#[test]
fn an_interrupted_get_leaves_nothing_and_resumes() {
    let lab = Lab::new();
    let (share, key) = shared(&lab);
    assert_eq!(lab.run("bob", &["ls", &key]).code, 0);
    let out = lab.path("out");
    share.signal(Signal::SIGSTOP);
    let mut get = lab.spawn("bob", &["get", &key, text(&out)]);
    eventually("the download", PATIENCE, || {
        // Nobody answers it, so it may have given up before it was seen.
        if get.has_ended() {
            get = lab.spawn("bob", &["get", &key, text(&out)]);
        }
        lab.run("bob", &["status"]).text().contains(&format!("drive: {key} read")).then_some(())
    });
    get.signal(Signal::SIGINT);
    let status = get.wait(AT_ONCE);
    share.signal(Signal::SIGCONT);
    assert_eq!(status.code(), Some(130));
    let left = fs::read_dir(&out).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    let left = left.filter(|name| name.to_string_lossy().contains("hdrive-part"));
    assert_eq!(left.count(), 0);
    assert_eq!(lab.run("bob", &["get", &key, text(&out)]).code, 0);
    assert_eq!(fs::read(out.join("file")).unwrap(), pattern(1, 10_000_000));
}

/// What a writer can do with links over two versions of a drive.
#[test]
fn get_never_writes_through_a_link() {
    let lab = Lab::new();
    let outside = lab.folder("outside");
    fs::write(outside.join("victim"), "mine").unwrap();
    let folder = lab.folder("shared");
    symlink(&outside, folder.join("dir")).unwrap();
    symlink(outside.join("victim"), folder.join(".file.hdrive-part")).unwrap();
    symlink(outside.join("victim"), folder.join("name")).unwrap();
    let (_share, key) = lab.share("alice", &folder);
    // In `out/KEY`, where the next one finds it.
    let get = |target: &str| {
        let mut command = lab.command("bob", &["get", target, "--force"]);
        command.current_dir(lab.folder("out"));
        run(command)
    };
    let out = lab.path("out").join(&key);
    assert_eq!(get(&key).code, 0);
    assert!(out.join("dir").is_symlink());

    fs::remove_file(folder.join("name")).unwrap();
    fs::write(folder.join("name"), "theirs").unwrap();
    fs::write(folder.join("file"), "theirs").unwrap();
    let seen =
        |name| lab.run("bob", &["ls", &key]).text().lines().any(|line| line == name).then_some(());
    eventually("the change", PATIENCE, || seen("file"));
    let got = get(&key);
    assert_eq!(got.code, 0, "{}", got.stderr);
    assert_eq!(fs::read_to_string(out.join("name")).unwrap(), "theirs");
    assert_eq!(fs::read_to_string(out.join("file")).unwrap(), "theirs");
    assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "mine");

    fs::remove_file(folder.join("dir")).unwrap();
    fs::create_dir(folder.join("dir")).unwrap();
    fs::write(folder.join("dir/victim"), "theirs").unwrap();
    eventually("the change", PATIENCE, || seen("dir/"));
    symlink(&outside, lab.path("out/dir")).unwrap();
    for target in [key.clone(), format!("{key}/dir")] {
        let got = get(&target);
        assert_eq!(got.code, 1, "{}", got.stderr);
        assert!(got.stderr.contains("a file or a link: move it away"), "{}", got.stderr);
        assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "mine");
    }
}

#[test]
fn cat_prints_and_a_reader_that_leaves_is_no_error() {
    let lab = Lab::new();
    let (_share, key) = shared(&lab);
    let done = lab.run("bob", &["cat", &format!("{key}/file")]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(done.stdout, pattern(1, 10_000_000));

    for args in [&["cat", &format!("{key}/file")][..], &["ls", "-r", &key]] {
        let mut command = lab.command("bob", args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut first = Vec::new();
        BufReader::new(child.stdout.take().unwrap()).read_until(b'\n', &mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}

#[test]
fn a_drive_is_made_filled_read_and_emptied() {
    let lab = Lab::new();
    let made = lab.run("alice", &["create", "mine"]);
    let key = made.text().trim().strip_prefix("key: ").unwrap().to_string();
    let again = lab.run("alice", &["create", "mine"]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("has a drive called 'mine'"), "{}", again.stderr);
    assert_eq!(lab.run("alice", &["ls", "mine"]).text(), "");

    let folder = lab.folder("folder");
    fs::create_dir(folder.join("sub")).unwrap();
    fs::write(folder.join("sub/a"), "a").unwrap();
    fs::write(folder.join("b"), "b").unwrap();
    let put = json(&lab.run("alice", &["put", "mine", text(&folder), "--json"]));
    assert_eq!(put[0]["put"]["files"], 2);
    let done = lab.run("alice", &["put", "mine/one", text(&folder.join("b"))]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let mut command = lab.command("alice", &["put", "mine/stdin.txt", "-"]);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"from a pipe").unwrap();
    assert!(child.wait().unwrap().success());
    let all = "b\none\nstdin.txt\nsub/\nsub/a\n";
    assert_eq!(lab.run("alice", &["ls", "-r", "mine"]).text(), all);
    assert_eq!(lab.run("alice", &["cat", "mine/stdin.txt"]).text(), "from a pipe");

    // Others read it while it is seeded.
    let mut seed = lab.spawn("alice", &["seed", "mine"]);
    seed.line("complete: ");
    assert_eq!(lab.run("bob", &["cat", &format!("{key}/sub/a")]).text(), "a");

    let refused = lab.run("alice", &["rm", "mine/sub"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("pass -r"), "{}", refused.stderr);
    let removed = json(&lab.run("alice", &["rm", "-r", "mine/sub", "--json"]));
    assert_eq!(removed[0]["removed"]["files"], 1);
    assert_eq!(lab.run("alice", &["rm", "mine/one"]).code, 0);
    assert_eq!(lab.run("alice", &["rm", "mine/one"]).code, 3);
    assert_eq!(lab.run("alice", &["ls", "-r", "mine"]).text(), "b\nstdin.txt\n");
    let there = || Some(lab.run("bob", &["ls", "-r", &key]).text()).filter(|t| !t.contains("sub"));
    assert_eq!(eventually("the change", PATIENCE, there), "b\nstdin.txt\n");
}

#[test]
fn info_and_status_tell_people_and_programs() {
    let lab = Lab::new();
    let (share, key) = shared(&lab);
    let told = lab.run("bob", &["info", &key]).text();
    for wanted in [format!("key: {key}"), "files: 5".into(), "writable: no".into()] {
        assert!(told.contains(&wanted), "no '{wanted}' in {told}");
    }
    assert!(told.contains("size: 9.5 MiB"), "{told}");
    // Whether it has heard how long they are is a matter of chance.
    assert!(!told.contains("contents here: 0 of 0 blocks"), "{told}");
    let info = &json(&lab.run("alice", &["info", &key, "--json"]))[0];
    assert_eq!(info["writable"], true);
    assert_eq!(info["files"], 5);
    assert_eq!(info["blobs"]["bytesHere"], info["blobs"]["bytes"]);
    let status = &json(&lab.run("alice", &["status", "--json"]))[0];
    assert_eq!(status["drives"][0]["served"], true);
    assert_eq!(status["drives"][0]["key"], key);
    // Where there is none it makes none.
    let none = lab.run("carol", &["status"]);
    assert!(
        none.code == 0 && none.text().contains("owner: none, there is no store"),
        "{}",
        none.text()
    );
    assert_eq!(json(&lab.run("carol", &["status", "--json"]))[0]["made"], false);
    assert!(!lab.path("carol").exists());
    assert_eq!(lab.run("carol", &["create", "own"]).code, 0);
    let idle = lab.run("carol", &["status"]);
    assert!(idle.text().contains("network: not started"), "{}", idle.text());
    // It is no owner itself.
    assert!(
        idle.text().contains("owner: none, no command runs on this store\n"),
        "{}",
        idle.text()
    );
    assert!(json(&lab.run("carol", &["status", "--json"]))[0]["pid"].is_null());
    let busy = lab.run("alice", &["status"]).text();
    assert!(busy.contains(&format!("owner: process {}\n", share.pid())), "{busy}");
    let quiet = lab.run("bob", &["-q", "get", &format!("{key}/empty"), text(&lab.path("empty"))]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""));
}

#[test]
fn help_that_cannot_be_written_is_an_error_that_is_told() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hdrive"));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let done = command.arg("--help").stdout(full).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.starts_with("error: standard output: "), "{said}");
}
