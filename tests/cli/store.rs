//! One store, many commands: who owns it, who takes over, and what is told when it cannot be used.

use crate::common::*;
use crate::input::NOBODYS;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

fn json(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

#[test]
fn commands_on_one_store_work_side_by_side_and_end_alone() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), pattern(3, 300_000)).unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let owner = lab.mount("bob", &key, &[]);
    let out = lab.path("out");
    assert_eq!(lab.run("bob", &["get", &format!("{key}/file"), text(&out)]).code, 0);
    assert_eq!(fs::read(&out).unwrap(), pattern(3, 300_000));
    assert_eq!(lab.run("bob", &["ls", &key]).text(), "file\n");

    let at = lab.folder("second");
    let mut face = lab.spawn("bob", &["mount", &key, text(&at)]);
    face.line("mounted: ");
    assert_eq!(fs::read(at.join("file")).unwrap(), pattern(3, 300_000));
    let status = &json(&lab.run("bob", &["status", "--json"]).text())[0];
    assert_eq!(status["pid"], owner.process.pid());
    assert_eq!(status["mounts"].as_array().unwrap().len(), 2);
    assert!(lab.run("bob", &["status"]).text().contains(text(&at)));

    face.signal(Signal::SIGINT);
    assert_eq!(face.wait(PATIENCE).code(), Some(0));
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0, "the face's mount is gone");
    assert_eq!(fs::read(owner.path("file")).unwrap(), pattern(3, 300_000), "the other stays");
}

#[test]
fn when_the_owner_is_ended_another_command_takes_over() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let mut owner = lab.mount("bob", &key, &[]);
    let at = lab.folder("second");
    let mut face = lab.spawn("bob", &["mount", &key, text(&at)]);
    face.line("mounted: ");

    owner.process.signal(Signal::SIGTERM);
    owner.process.wait(PATIENCE);
    // What it printed stands.
    face.told("taken over");
    let read = || fs::read_to_string(at.join("file")).ok();
    assert_eq!(eventually("the file", PATIENCE, read), "content");
    let status = &json(&lab.run("bob", &["status", "--json"]).text())[0];
    assert_eq!(status["pid"], face.pid());

    // The new owner's own command ends; it goes on for whoever is left.
    let mut third = lab.spawn("bob", &["seed", &key]);
    third.line("complete: ");
    face.signal(Signal::SIGINT);
    eventually("the unmount", PATIENCE, || (fs::read_dir(&at).ok()?.count() == 0).then_some(()));
    let status = &json(&lab.run("bob", &["status", "--json"]).text())[0];
    assert_eq!(status["pid"], face.pid());
    face.signal(Signal::SIGKILL);
    face.wait(PATIENCE);
    let owner = || {
        let status = lab.run("bob", &["status", "--json"]).text();
        json(&status)[0]["pid"].as_u64().filter(|pid| *pid == u64::from(third.pid()))
    };
    eventually("the third's turn", PATIENCE, owner);
}

#[test]
fn a_locked_store_is_told_with_the_process_that_holds_it() {
    let lab = Lab::new();
    let store = lab.folder("bob");
    let mut file = fs::File::create(store.join("lock")).unwrap();
    write!(file, "{}", std::process::id()).unwrap();
    let _lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    let done = lab.run("bob", &["ls", NOBODYS]);
    assert_eq!(done.code, 6, "{}", done.stderr);
    let wanted = format!("locked by process {}", std::process::id());
    assert!(done.stderr.contains(&wanted) && done.stderr.contains(text(&store)), "{}", done.stderr);
}

#[test]
fn an_owner_that_is_stopped_is_told_and_works_again_later() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let (share, key) = lab.share("alice", &folder);
    share.signal(Signal::SIGSTOP);
    let mut ls = lab.spawn("alice", &["ls", &key]);
    let status = ls.wait(PATIENCE);
    share.signal(Signal::SIGCONT);
    let said = ls.errors();
    assert_eq!(status.code(), Some(6), "{said}");
    assert!(said.contains(&format!("locked by process {}", share.pid())), "{said}");
    assert_eq!(lab.run("alice", &["ls", &key]).text(), "file\n");
}

#[test]
fn a_request_of_another_version_is_refused_with_the_reason() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    let (_share, _) = lab.share("alice", &folder);
    // What an older program would send, with its streams, through a small Python.
    let script = r#"
import socket, sys, struct, array, json
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
body = json.dumps({"version": "0.0.1", "words": ["ls"]}).encode()
fds = array.array("i", [0, 1, 2]).tobytes()
s.sendmsg([struct.pack("<I", len(body))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
s.sendall(body)
got = b""
while True:
    more = s.recv(1)
    if not more: break
    got += more
print(list(got))
"#;
    let socket = lab.path("alice/socket");
    if !available("python3", Command::new("python3").arg("-V").output().is_ok()) {
        return;
    }
    let mut command = Command::new("python3");
    command.arg("-c").arg(script).arg(socket);
    let done = run(command);
    assert_eq!(done.text().trim(), "[255, 6]", "{}", done.stderr);
    assert!(done.stderr.contains("this is 0.0.1"), "{}", done.stderr);
}

#[test]
fn a_damaged_store_is_told_and_not_touched() {
    let lab = Lab::new();
    assert_eq!(lab.run("bob", &["create", "mine"]).code, 0);
    let database = lab.path("bob/store.redb");
    let mut bytes = fs::read(&database).unwrap();
    bytes.iter_mut().skip(64).for_each(|byte| *byte ^= 0x55);
    fs::write(&database, &bytes).unwrap();
    let done = lab.run("bob", &["ls", "mine"]);
    assert_eq!(done.code, 6, "{}", done.stderr);
    assert!(done.stderr.contains("store.redb"), "{}", done.stderr);
    assert_eq!(fs::read(&database).unwrap().len(), bytes.len());
}

/// Runs `script` where `$STORE` is a small filesystem of its own; `$@` is the program.
fn on_small_disk(lab: &Lab, script: &str) -> Option<String> {
    let can = Command::new("unshare").args(["--mount", "true"]).status();
    if !available("unshare --mount", can.is_ok_and(|status| status.success())) {
        return None;
    }
    let store = lab.folder("disk");
    let head = "set -eu; mount -t tmpfs -o size=6m none \"$STORE\"; ";
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "55", "unshare", "--mount"]);
    command.args(["sh", "-c", &format!("{head}{script}"), "sh"]);
    command.arg(env!("CARGO_BIN_EXE_hdrive")).current_dir(lab.dir.path());
    command.env("STORE", &store).env("HDRIVE_STORE", &store);
    command.env("HDRIVE_BOOTSTRAP", &lab.bootstrap).env("HDRIVE_LOCAL", "127.0.0.1:0");
    let done = run(command);
    eprintln!("{}{}", done.text(), done.stderr);
    assert_eq!(done.code, 0, "{}", done.stderr);
    Some(format!("{}{}", done.text(), done.stderr))
}

#[test]
fn a_full_disk_keeps_nothing_of_a_download_and_says_so() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("small"), pattern(1, 500_000)).unwrap();
    fs::write(folder.join("large"), pattern(2, 20_000_000)).unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let script = format!(
        "\"$@\" get {key}/small small; \
         code=0; timeout 50 \"$@\" get {key}/large large || code=$?; echo code: $code; \
         \"$@\" get {key}/small again; \
         mount -o remount,size=64m \"$STORE\"; \
         \"$@\" get {key}/large room"
    );
    let Some(said) = on_small_disk(&lab, &script) else { return };
    // What the store has no room for is passed on from memory, and that it is not kept is told.
    assert!(said.contains("code: 0"), "{said}");
    assert!(said.contains("no space left on the device"), "{said}");
    assert_eq!(fs::read(lab.path("small")).unwrap(), pattern(1, 500_000));
    assert_eq!(fs::read(lab.path("again")).unwrap(), pattern(1, 500_000), "nothing was lost");
    assert_eq!(fs::read(lab.path("large")).unwrap(), pattern(2, 20_000_000));
    assert_eq!(fs::read(lab.path("room")).unwrap(), pattern(2, 20_000_000));
}

/// What filled it runs on. A transaction of the database may find no room at all then; the reason is that, and not that
/// somebody uses the drive.
#[test]
fn a_full_disk_is_no_reason_to_take_a_drive_for_used() {
    let lab = Lab::new();
    let (folder, own) = (lab.folder("shared"), lab.folder("own"));
    fs::write(folder.join("large"), pattern(2, 20_000_000)).unwrap();
    (0..6).for_each(|n| fs::write(own.join(n.to_string()), pattern(10 + n, 200_000)).unwrap());
    let (_share, key) = lab.share("alice", &folder);
    let script = format!(
        "\"$@\" create one; for n in 0 1 2 3 4 5; do \"$@\" put one/file {own}/$n; done; \
         \"$@\" seed {key} >said 2>told & pid=$!; \
         until grep -q 'no space left' told; do sleep 0.1; done; \
         dd if=/dev/zero of=\"$STORE/fill\" bs=4096 2>dd || true; sleep 3; \
         \"$@\" gc one || true; dd if=/dev/zero of=\"$STORE/more\" bs=4096 2>dd || true; sleep 3; \
         \"$@\" forget -y one 2>why || {{ cat why; grep -q 'no space left.*what runs' why; }}; \
         kill $pid; wait $pid || true",
        own = text(&own),
    );
    let Some(said) = on_small_disk(&lab, &script) else { return };
    assert!(!said.contains("in use"), "{said}");
}

#[test]
fn a_share_that_follows_outlives_a_full_disk() {
    let lab = Lab::new();
    let (folder, large) = (lab.folder("shared"), lab.path("large"));
    fs::write(folder.join("small"), "content").unwrap();
    fs::write(&large, pattern(2, 20_000_000)).unwrap();
    let (folder, large) = (text(&folder), text(&large));
    let script = format!(
        "\"$@\" share {folder} >said 2>told & pid=$!; \
         until grep -q ^shared: said; do sleep 0.1; done; \
         cp {large} {folder}/large; \
         until grep -q 'no space left' told; do sleep 0.1; done; \
         mount -o remount,size=64m \"$STORE\"; \
         until \"$@\" ls -l {folder} | grep '20000000 '; do sleep 0.1; done; \
         kill $pid; wait $pid || true; cat told"
    );
    let Some(said) = on_small_disk(&lab, &script) else { return };
    assert!(said.contains("20000000 ") && said.contains("followed again"), "{said}");
}

#[test]
fn a_file_that_does_not_fit_keeps_nothing_else_from_being_followed() {
    let lab = Lab::new();
    let (folder, large) = (lab.folder("shared"), lab.path("large"));
    fs::write(folder.join("secret"), "content").unwrap();
    fs::write(&large, pattern(2, 20_000_000)).unwrap();
    let (folder, large) = (text(&folder), text(&large));
    let script = format!(
        "\"$@\" share {folder} >said 2>told & pid=$!; \
         until grep -q ^shared: said; do sleep 0.1; done; \
         cp {large} {folder}/large; \
         until grep -q 'no space left' told; do sleep 0.1; done; \
         rm {folder}/secret; echo x >{folder}/later; cp {large} {folder}/larger; echo x >{folder}/last; \
         until test \"$(\"$@\" ls {folder} | tr '\n' ' ')\" = 'last later '; do sleep 0.1; done; \
         kill $pid; wait $pid || true; \"$@\" share {folder} >again 2>>told & pid=$!; \
         until grep -q ^shared: again; do kill -0 $pid; sleep 0.1; done; \"$@\" ls {folder} | grep last; \
         cat told; mount -o remount,size=64m \"$STORE\"; \
         until \"$@\" ls -l {folder} | grep '20000000 .*larger'; do sleep 0.1; done; \
         until grep 'followed again' told; do sleep 0.1; done; \
         kill $pid; wait $pid || true"
    );
    let Some(said) = on_small_disk(&lab, &script) else { return };
    let told = format!("{folder}/large cannot be stored: ");
    assert!(said.contains(&told) && said.contains("the rest of the folder is followed"), "{said}");
    assert!(said.contains("followed again"), "{said}");
}

#[test]
fn a_full_disk_fails_a_share_with_a_name_and_space_makes_it_go_on() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("large"), pattern(2, 20_000_000)).unwrap();
    let small = lab.folder("first");
    fs::write(small.join("file"), "content").unwrap();
    let (folder, small) = (text(&folder), text(&small));
    let script = format!(
        "\"$@\" create mine; \"$@\" put mine {small}; \
         code=0; \"$@\" share {folder} || code=$?; echo share: $code; \
         code=0; \"$@\" put mine {folder} || code=$?; echo put: $code; \
         \"$@\" cat mine/file; \
         mount -o remount,size=64m \"$STORE\"; \
         \"$@\" share {folder} >said & pid=$!; \
         until grep -q ^key: said; do sleep 0.1; done; \
         until \"$@\" ls -l {folder} | grep '20000000 '; do sleep 0.1; done; \
         kill $pid; wait $pid || true"
    );
    let Some(said) = on_small_disk(&lab, &script) else { return };
    assert!(said.contains("share: 6") && said.contains("put: 6"), "{said}");
    assert!(said.contains("no space left on the device"), "{said}");
    assert!(said.contains("content"), "what was there is there: {said}");
    assert!(said.contains("20000000 "), "{said}");
}

#[test]
fn a_store_that_cannot_be_written_is_told_with_the_way_out() {
    let lab = Lab::new();
    let script = "\"$@\" create mine >/dev/null; mount -o remount,ro \"$STORE\"; \
         code=0; \"$@\" ls mine || code=$?; echo ls: $code; \
         code=0; \"$@\" --store \"$STORE/new\" ls mine || code=$?; echo new: $code; \
         code=0; \"$@\" seed --daemon mine || code=$?; echo daemon: $code";
    let Some(said) = on_small_disk(&lab, script) else { return };
    for command in ["ls", "new", "daemon"] {
        assert!(said.contains(&format!("{command}: 6")), "{command}: {said}");
    }
    let told = said.matches("copy the store to where it can be written").count();
    assert_eq!(told, 3, "{said}");
}

/// A face that is told to end while its owner is ending must not become the next owner and stay.
#[test]
fn a_face_that_is_ended_while_its_owner_ends_ends_too() {
    let lab = Lab::new();
    for delay in (0..100).step_by(10) {
        let mut owner = lab.spawn("bob", &["seed", NOBODYS]);
        owner.line("key: ");
        let mut face = lab.spawn("bob", &["seed", NOBODYS]);
        face.line("key: ");
        owner.signal(Signal::SIGTERM);
        std::thread::sleep(Duration::from_millis(delay));
        face.signal(Signal::SIGTERM);
        face.wait(PATIENCE);
        owner.wait(PATIENCE);
    }
}

#[test]
fn a_folder_of_other_files_becomes_no_store() {
    let lab = Lab::new();
    let docs = lab.folder("docs");
    fs::write(docs.join("letter"), "").unwrap();
    for args in [&["create", "x"][..], &["seed", "--daemon", NOBODYS], &["relay"], &["ls", NOBODYS]]
    {
        let done = lab.run("docs", args);
        assert_eq!(done.code, 6, "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains("holds other files ('letter', for one)"), "{}", done.stderr);
    }
    assert_eq!(lab.run("docs", &["status"]).code, 0);
    let names: Vec<_> =
        fs::read_dir(&docs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["letter"]);
}
