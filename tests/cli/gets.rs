//! What a download makes of a drive, and what it leaves alone.

use crate::common::*;
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Runs a get of bob's in `folder`.
fn get(lab: &Lab, folder: &Path, args: &[&str]) -> Done {
    let mut command = lab.command("bob", &[&["get"], args].concat());
    command.current_dir(folder);
    run(command)
}

fn got(lab: &Lab, folder: &Path, args: &[&str]) {
    let done = get(lab, folder, args);
    assert_eq!(done.code, 0, "{args:?}: {}", done.stderr);
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_drive_becomes_a_folder_of_its_name_and_pours_into_none() {
    let lab = Lab::new();
    let folder = lab.folder("shared/photos");
    fs::create_dir(folder.join("2024")).unwrap();
    fs::write(folder.join("2024/june"), "theirs").unwrap();
    fs::write(folder.join("notes"), "theirs").unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let here = lab.folder("here");
    fs::write(here.join("notes"), "mine").unwrap();
    symlink("/nowhere", here.join("2024")).unwrap();
    got(&lab, &here, &[&key]);
    assert_eq!(names(&here).len(), 3, "{:?}", names(&here));
    assert_eq!(read(here.join(&key).join("2024/june")), "theirs");
    assert_eq!(read(here.join("notes")), "mine");

    // Its writer knows it by a name.
    let mut command = lab.command("alice", &["get", &key]);
    assert_eq!(
        run({
            command.current_dir(&here);
            command
        })
        .code,
        0
    );
    assert_eq!(read(here.join("photos/2024/june")), "theirs");

    // The rest is as cp -r has it.
    let cp = lab.folder("cp");
    fs::create_dir(cp.join("there")).unwrap();
    let below = format!("{key}/2024");
    for (args, wanted) in [
        (&[below.as_str()][..], "2024/june"),
        (&[&below, "new"], "new/june"),
        (&[&below, "there"], "there/2024/june"),
        (&[&format!("{key}/notes")], "notes"),
        (&[&format!("{key}/notes"), "other"], "other"),
        (&[&format!("{key}/notes"), "there"], "there/notes"),
        (&[&key, "all"], "all/notes"),
        (&[&key, "there"], &format!("there/{key}/notes")),
    ] {
        got(&lab, &cp, args);
        assert_eq!(read(cp.join(wanted)), "theirs", "{args:?}");
    }
}

#[test]
fn nothing_different_is_replaced_unless_it_is_asked_for() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    for name in ["differs", "longer", "equal", "link", "new"] {
        fs::write(folder.join(name), "theirs").unwrap();
    }
    symlink("equal", folder.join("was-file")).unwrap();
    symlink("equal", folder.join("elsewhere")).unwrap();
    fs::write(folder.join("a-folder"), "theirs").unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let here = lab.folder("here");
    let at = |name: &str| here.join(&key).join(name);
    fs::create_dir(here.join(&key)).unwrap();
    fs::write(at("differs"), "mine!!").unwrap();
    fs::write(at("longer"), "mine and longer").unwrap();
    fs::write(at("equal"), "theirs").unwrap();
    fs::write(lab.path("victim"), "mine").unwrap();
    symlink(lab.path("victim"), at("link")).unwrap();
    fs::write(at("was-file"), "mine").unwrap();
    symlink("nowhere", at("elsewhere")).unwrap();
    fs::create_dir(at("a-folder")).unwrap();
    let before = fs::metadata(at("equal")).unwrap();

    let done = get(&lab, &here, &[&key]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    for name in ["differs", "longer", "link", "was-file", "elsewhere"] {
        let line = done.stderr.lines().find(|line| line.contains(&format!("/{name} ")));
        assert!(line.is_some_and(|line| line.contains("--force")), "{name}: {}", done.stderr);
    }
    assert!(done.stderr.contains("a-folder is a folder"), "{}", done.stderr);
    let wanted = "error: 6 of 8 files not written: pass --force to replace what differs";
    assert!(done.stderr.contains(wanted), "{}", done.stderr);
    assert_eq!(
        (read(at("differs")), read(at("longer"))),
        ("mine!!".into(), "mine and longer".into())
    );
    assert_eq!((read(at("new")), read(at("was-file"))), ("theirs".into(), "mine".into()));
    assert!(at("link").is_symlink());
    assert_eq!(fs::read_link(at("elsewhere")).unwrap(), Path::new("nowhere"));
    let after = fs::metadata(at("equal")).unwrap();
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));

    let done = get(&lab, &here, &[&format!("{key}/differs"), text(&at("differs"))]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(
        done.stderr.starts_with("error: ") && done.stderr.contains("--force"),
        "{}",
        done.stderr
    );
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);

    let done = get(&lab, &here, &[&key, "--force"]);
    assert_eq!(done.code, 1, "a folder stays: {}", done.stderr);
    for name in ["differs", "longer", "link", "new", "was-file", "elsewhere"] {
        assert_eq!(read(at(name)), "theirs", "{name}");
    }
    assert!(!at("link").is_symlink() && at("was-file").is_symlink());
    assert_eq!(read(lab.path("victim")), "mine");
    fs::remove_dir(at("a-folder")).unwrap();
    got(&lab, &here, &[&key]);
    let parts = names(&here.join(&key)).into_iter().filter(|name| name.contains("hdrive-part"));
    assert_eq!(parts.count(), 0);
}

/// A second call finds the folder that the first one made, though a folder that is there has another made in it.
#[test]
fn an_unfinished_download_is_resumed_where_it_began() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::create_dir_all(folder.join("dir/sub")).unwrap();
    for name in ["dir/one", "dir/sub/two"] {
        fs::write(folder.join(name), name).unwrap();
    }
    // What is never complete.
    symlink("/etc/passwd", folder.join("dir/out")).unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let here = lab.folder("here");
    let copy = here.join("copy");
    let target = format!("{key}/dir");
    assert_eq!(get(&lab, &here, &[&target, "copy"]).code, 1);
    assert_eq!(names(&copy), ["one", "sub"]);
    let inode = || fs::metadata(copy.join("one")).unwrap().ino();
    let before = inode();
    fs::remove_file(copy.join("sub/two")).unwrap();
    assert_eq!(get(&lab, &here, &[&target, "copy"]).code, 1);
    assert_eq!(names(&copy), ["one", "sub"]);
    assert_eq!((read(copy.join("sub/two")), inode()), ("dir/sub/two".into(), before));
    // Of another drive or folder it is a folder like any other.
    got(&lab, &here, &[&format!("{key}/dir/sub"), "copy"]);
    assert_eq!(names(&copy), ["one", "sub"]);
    // Complete, it is as well.
    fs::remove_file(folder.join("dir/out")).unwrap();
    let gone = || (!lab.run("bob", &["ls", &target]).text().contains("out")).then_some(());
    eventually("the change", PATIENCE, gone);
    got(&lab, &here, &[&target, "copy"]);
    assert_eq!(names(&copy), ["one", "sub"]);
    got(&lab, &here, &[&target, "copy"]);
    assert_eq!(names(&copy), ["dir", "one", "sub"]);
}

#[test]
fn everything_arrives_that_can_and_the_rest_is_listed() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    let long: Vec<String> = [241, 248, 254, 255].map(|n| "n".repeat(n)).to_vec();
    for name in long.iter().map(String::as_str).chain(["before", "blocked", "after"]) {
        fs::write(folder.join(name), name).unwrap();
    }
    fs::create_dir_all(folder.join("dir/deep")).unwrap();
    fs::write(folder.join("dir/deep/file"), "deep").unwrap();
    fs::create_dir(folder.join("lost")).unwrap();
    fs::write(folder.join("lost/inside"), "x").unwrap();
    symlink("/etc/passwd", folder.join("dir/absolute")).unwrap();
    symlink("../../../../etc/passwd", folder.join("dir/up")).unwrap();
    symlink("/dir/deep/file", folder.join("dir/inside")).unwrap();
    let old = fs::File::open(folder.join("before")).unwrap();
    let past: SystemTime = UNIX_EPOCH - Duration::from_millis(86_400_123);
    old.set_modified(past).unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let here = lab.folder("here");
    let at = |name: &str| here.join(&key).join(name);
    fs::create_dir_all(at("blocked/mine")).unwrap();
    fs::write(at("lost"), "mine").unwrap();
    let done = get(&lab, &here, &[&key, "--json"]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    for listed in ["blocked", "lost"] {
        assert!(
            done.stderr.contains(&format!("warning: not written: /{listed}")),
            "{}",
            done.stderr
        );
    }
    assert!(done.stderr.contains("error: 2 of "), "{}", done.stderr);
    let told: serde_json::Value = serde_json::from_str(done.text().trim()).unwrap();
    assert_eq!(told["got"]["missing"].as_array().unwrap().len(), 2, "{told}");
    for name in long.iter().map(String::as_str).chain(["before", "after"]) {
        assert_eq!(read(at(name)), name);
    }
    assert_eq!(fs::metadata(at("before")).unwrap().modified().unwrap(), past);
    let link =
        |name: &str| fs::read_link(at(name)).unwrap().into_os_string().into_string().unwrap();
    assert_eq!(link("dir/absolute"), "../etc/passwd");
    assert_eq!(link("dir/up"), "../etc/passwd");
    assert_eq!(read(at("dir/inside")), "deep");

    // A part of it: what leads to the rest of the drive would lead to something of this machine.
    let part = lab.folder("part");
    let done = get(&lab, &part, &[&format!("{key}/dir")]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert_eq!(names(&part.join("dir")), ["deep", "inside"]);
    assert_eq!(read(part.join("dir/inside")), "deep");
    assert!(done.stderr.contains("/dir/absolute: this link leads out of /dir"), "{}", done.stderr);
}

#[test]
fn a_file_beside_a_folder_of_its_name_is_written_under_another() {
    if !js_available() {
        return;
    }
    let lab = Lab::new();
    let mut js = lab.js();
    let key = js.call("create", json!({}))["key"].as_str().unwrap().to_string();
    for (path, content) in [("/x", "file"), ("/x/y", "below"), ("/x (file)", "taken")] {
        js.call("put", json!({"key": key, "path": path, "text": content}));
    }
    js.call("announce", json!({ "key": key }));
    let here = lab.folder("here");
    let done = get(&lab, &here, &[&key, "out"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let at = |name: &str| read(here.join("out").join(name));
    assert_eq!([at("x/y"), at("x (file)"), at("x (file 2)")], ["below", "taken", "file"]);
    assert!(done.stderr.contains("/x is a file and a folder"), "{}", done.stderr);
}

#[test]
fn a_download_whose_owner_is_killed_goes_on_where_it_began() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), pattern(1, 3_000_000)).unwrap();
    let (share, key) = lab.share("alice", &folder);
    let mut owner = lab.spawn("bob", &["seed", &key]);
    owner.line("complete: ");
    fs::write(folder.join("more"), pattern(2, 20_000_000)).unwrap();
    let seen = || lab.run("bob", &["ls", &key]).text().contains("more").then_some(());
    eventually("the change", PATIENCE, seen);
    share.signal(Signal::SIGSTOP);
    let out = lab.path("out");
    let mut face = lab.spawn("bob", &["get", &key, text(&out)]);
    eventually("the download", PATIENCE, || out.exists().then_some(()));
    owner.signal(Signal::SIGKILL);
    owner.wait(PATIENCE);
    share.signal(Signal::SIGCONT);
    let code = face.wait(PATIENCE).code();
    assert_eq!(code, Some(0), "{}", face.errors());
    assert_eq!(names(&out), ["file", "more"]);
}

#[test]
fn files_of_a_folder_that_cannot_be_made_are_counted() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::create_dir_all(folder.join("in/deeper")).unwrap();
    fs::create_dir_all(folder.join("empty")).unwrap();
    for name in ["in/a", "in/b", "in/deeper/c", "d"] {
        fs::write(folder.join(name), "content").unwrap();
    }
    let (_share, key) = lab.share("alice", &folder);
    let here = lab.folder("here");
    fs::create_dir(here.join(&key)).unwrap();
    fs::write(here.join(&key).join("in"), "mine").unwrap();
    let done = get(&lab, &here, &[&key]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.ends_with("error: 3 of 4 files not written\n"), "{}", done.stderr);
}

#[test]
fn a_destination_that_is_too_long_is_told_and_not_to_be_tried_again() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    let deep = vec!["d".repeat(250); 8].join("/");
    fs::create_dir_all(folder.join(&deep)).unwrap();
    fs::write(folder.join(&deep).join("file"), "deep").unwrap();
    fs::write(folder.join("top"), "top").unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let far = lab.path("far").join(vec!["f".repeat(250); 10].join("/"));
    let done = lab.run("bob", &["get", &key, text(&far)]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains("choose a shorter destination"), "{}", done.stderr);
    assert!(!done.stderr.contains("run it again"), "{}", done.stderr);
    assert_eq!(read(far.join("top")), "top");
    let file = format!("{key}/{deep}/file");
    let done = lab.run("bob", &["get", &file, text(&far.join("f".repeat(256)))]);
    assert!(done.stderr.contains("choose a shorter destination"), "{}", done.stderr);
}

#[test]
fn a_file_goes_to_standard_output_where_that_is_meant() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), pattern(1, 100_000)).unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let here = lab.folder("here");
    let done = get(&lab, &here, &[&format!("{key}/file"), "-"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout == pattern(1, 100_000));
    assert_eq!(fs::read_dir(&here).unwrap().count(), 0);
    let done = get(&lab, &here, &[&key, "-"]);
    assert!(done.code == 1 && done.stderr.contains("is a folder"), "{}", done.stderr);
}
