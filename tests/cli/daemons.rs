//! Commands in the background, and what they are told by whoever started them.

use crate::common::*;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;

/// The process that owns a store.
fn owner(lab: &Lab, store: &str) -> Pid {
    Pid::from_raw(lab.owner_pid(store).unwrap() as i32)
}

/// Nobody may collect a daemon here: one that has ended has no command line.
fn has_ended(pid: Pid) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().is_empty()
}

/// The one child of a process.
fn child(pid: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok().map(Pid::from_raw)
}

fn ignores_hangups(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1
}

fn end(pid: Pid) {
    kill(pid, Signal::SIGTERM).unwrap();
    eventually("the end of the daemon", PATIENCE, || has_ended(pid).then_some(()));
}

#[test]
fn share_and_seed_go_to_the_background_when_they_are_ready() {
    let lab = Lab::new();
    let folder = lab.folder("here/shared");
    fs::write(folder.join("file"), "content").unwrap();
    let start = |store: &str, args: &[&str]| {
        let mut command = lab.command(store, args);
        command.current_dir(lab.path("here"));
        let done = run(command);
        assert_eq!(done.code, 0, "{args:?}: {}", done.stderr);
        done.text()
    };
    let told = start("alice", &["share", "shared", "--daemon", "--hint"]);
    let line = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)).map(String::from);
    let key = line("key: ").unwrap();
    let hint = line("hint: ").unwrap_or_else(|| panic!("no hint: {told}"));
    assert!(hint.len() > key.len(), "{told}");
    assert!(told.contains("shared: 1 file, 7 bytes"), "{told}");
    assert_eq!(lab.run("bob", &["cat", &format!("{key}/file")]).text(), "content");
    let told = start("carol", &["seed", "--daemon", "--json", &key]);
    assert!(told.contains(&key), "{told}");
    for store in ["alice", "carol"] {
        let pid = owner(&lab, store);
        let at = |what: &str| fs::read_link(format!("/proc/{pid}/{what}")).unwrap();
        assert_eq!(at("cwd"), Path::new("/"), "the folder it was started in is not busy");
        assert_eq!(at("fd/0"), Path::new("/dev/null"));
        assert_eq!(nix::unistd::getsid(Some(pid)).unwrap(), pid, "it has left the terminal");
    }
    end(owner(&lab, "alice"));
    end(owner(&lab, "carol"));
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let lab = Lab::new();
    for args in [&["share", "/nowhere/at/all", "--daemon"][..], &["seed", "--daemon", "nonsense"]] {
        let done = lab.run("alice", args);
        assert!(done.code == 3 || done.code == 2, "{}", done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
        assert!(done.stderr.starts_with("error: "), "{}", done.stderr);
    }
}

#[test]
fn what_a_daemon_waits_for_is_told_meanwhile() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    let mut command = lab.command("alice", &["share", "--daemon", text(&folder)]);
    command.env("HDRIVE_BOOTSTRAP", NOWHERE).stderr(std::process::Stdio::piped());
    let mut start = Hdrive::spawn(command);
    start.line("key: ");
    let told = || {
        fs::read_to_string(lab.path("alice/daemon.log")).ok()?.lines().next().map(str::to_string)
    };
    let told = eventually("what is wrong", PATIENCE, told);
    let (_, said) = told.split_once("]: ").unwrap();
    start.told(said);
    start.signal(Signal::SIGINT);
    start.wait(PATIENCE);
}

/// Who starts something in the background sees no more of it: what is wrong is told before that.
#[test]
fn a_daemon_says_that_nobody_announces_its_drive() {
    use crate::input::NOBODYS;
    let lab = Lab::new();
    let at = lab.folder("mnt");
    let nobody = "nobody announces this drive";
    let mut starts = vec![("bob", vec!["seed", "--daemon", NOBODYS])];
    if fuse_available() {
        starts.push(("carol", vec!["mount", "--daemon", NOBODYS, text(&at)]));
    }
    for (store, args) in starts {
        let done = lab.run(store, &args);
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(done.stderr.contains(nobody), "{args:?}: {}", done.stderr);
        let status = lab.run(store, &["status"]).text();
        let drive = status.lines().find(|line| line.starts_with("drive: ")).unwrap();
        assert!(drive.contains(nobody), "{status}");
        let status = lab.run(store, &["status", "--json"]).text();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert!(status["drives"][0]["outlook"].as_str().unwrap().contains(nobody), "{status}");
        end(owner(&lab, store));
    }
}

#[test]
fn a_daemon_says_that_there_is_no_network_before_it_is_left_alone() {
    let lab = Lab::new();
    let mut command = lab.command("bob", &["seed", "--daemon", crate::input::NOBODYS]);
    command.env("HDRIVE_BOOTSTRAP", NOWHERE);
    let done = run(command);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stderr.contains("no DHT node answers"), "{}", done.stderr);
    end(owner(&lab, "bob"));
}

#[test]
fn what_other_daemons_say_is_not_told_as_if_it_were_of_the_one_that_is_started() {
    let lab = Lab::new();
    let mut command = lab.command("bob", &["seed", "--daemon", crate::input::NOBODYS]);
    command.env("HDRIVE_BOOTSTRAP", NOWHERE).stderr(std::process::Stdio::piped());
    let mut start = Hdrive::spawn(command);
    let log = || fs::OpenOptions::new().append(true).open(lab.path("bob/daemon.log")).ok();
    let mut log = eventually("the log", PATIENCE, log);
    let foreign = "2026-01-01 00:00:00 UTC mount[1]: error: of another";
    // All the time, so that some of it comes while the log is read.
    let status = eventually("the end of the start", PATIENCE, || {
        std::io::Write::write_all(&mut log, format!("{foreign}\n").as_bytes()).unwrap();
        start.has_ended().then(|| start.wait(PATIENCE))
    });
    assert_eq!(status.code(), Some(0));
    let errors = start.errors();
    assert!(errors.contains("no DHT node answers") && !errors.contains("of another"), "{errors}");
    end(owner(&lab, "bob"));
}

#[test]
fn a_share_goes_to_the_background_without_a_network() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let mut command = lab.command("alice", &["share", "--daemon", text(&folder)]);
    command.env("HDRIVE_BOOTSTRAP", NOWHERE);
    let done = run(command);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let shared = "shared: 1 file, 7 bytes; not found by others yet";
    assert!(done.text().contains(shared), "{}", done.text());
    assert!(done.stderr.contains("others cannot find it yet"), "{}", done.stderr);
    let name = folder.canonicalize().unwrap();
    assert_eq!(lab.run("alice", &["ls", text(&name)]).text(), "file\n");
    end(owner(&lab, "alice"));
}

#[test]
fn the_log_says_when_and_who_and_has_what_comes_later() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let created = lab.run("alice", &["create", text(&folder.canonicalize().unwrap())]);
    let key = created.text().trim().trim_start_matches("key: ").to_string();
    assert_eq!(lab.run("bob", &["seed", "--daemon", &key]).code, 0);
    let pid = owner(&lab, "bob");
    let _share = lab.share("alice", &folder);
    let log = || fs::read_to_string(lab.path("bob/daemon.log")).unwrap();
    let complete = format!(" UTC seed[{pid}]: complete: {key}");
    eventually("the word in the log", PATIENCE, || log().contains(&complete).then_some(()));
    let log = log();
    let stamp = format!(" UTC seed[{pid}]: ");
    assert!(log.lines().all(|line| line.starts_with("20") && line.contains(&stamp)), "{log}");
    end(pid);
}

#[test]
fn a_daemon_does_not_come_up_when_its_start_was_interrupted() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::File::create(folder.join("large")).unwrap().set_len(3 << 40).unwrap();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut start = lab.spawn("alice", &["share", "--daemon", text(&folder)]);
        start.line("key: ");
        let pid = owner(&lab, "alice");
        start.signal(signal);
        assert_eq!(start.wait(PATIENCE).code(), Some(130), "{signal}");
        assert!(has_ended(pid), "{signal}");
    }

    // A mount that has not even begun.
    let store = lab.folder("bob");
    let file = fs::File::create(store.join("lock")).unwrap();
    let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    let at = lab.folder("mnt");
    let mut start = lab.spawn("bob", &["mount", "--daemon", crate::input::NOBODYS, text(&at)]);
    let daemon =
        eventually("the process that goes to the background", PATIENCE, || child(start.pid()));
    start.signal(Signal::SIGINT);
    assert_eq!(start.wait(PATIENCE).code(), Some(130));
    drop(lock);
    eventually("its end", PATIENCE, || has_ended(daemon).then_some(()));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(text(&at)), "{mounts}");
}

#[test]
fn a_hangup_that_is_ignored_at_the_start_stays_ignored() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let spawn = |ignored: bool, args: &[&str]| {
        let hdrive = lab.command("alice", args);
        let mut command = std::process::Command::new("sh");
        let script = if ignored { "trap '' HUP; exec \"$0\" \"$@\"" } else { "exec \"$0\" \"$@\"" };
        command.args(["-c", script]).arg(hdrive.get_program()).args(args);
        command.envs(hdrive.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Hdrive::spawn(command)
    };
    let share = ["share", text(&folder)];
    let mut owner = spawn(true, &share);
    let key = owner.line("key: ");
    owner.line("shared: ");
    let mut face = spawn(true, &["seed", &key]);
    face.line("complete: ");
    for process in [&owner, &face] {
        process.signal(Signal::SIGHUP);
    }
    for process in [&owner, &face] {
        // What is ignored is gone at once; what is not may still be on its way to whoever handles it.
        assert!(ignores_hangups(process.pid()));
    }
    assert_eq!(lab.run("bob", &["cat", &format!("{key}/file")]).text(), "content");
    face.signal(Signal::SIGTERM);
    assert_eq!(face.wait(PATIENCE).code(), Some(0));
    owner.signal(Signal::SIGTERM);
    assert_eq!(owner.wait(PATIENCE).code(), Some(0));

    let mut owner = spawn(false, &share);
    owner.line("shared: ");
    owner.signal(Signal::SIGHUP);
    assert_eq!(owner.wait(PATIENCE).code(), Some(0));
}

#[test]
fn a_key_that_could_not_be_printed_is_told_of_what_goes_to_the_background() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    let mut command = lab.command("alice", &["share", "--daemon", text(&folder)]);
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let done = command.output().unwrap();
    let (said, pid) = (String::from_utf8_lossy(&done.stderr), owner(&lab, "alice"));
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("error: standard output: No space left on device"), "{said}");
    end(pid);
}

/// A lock that a script holds, or a pipe that it reads, is not held by what it left in the background.
#[test]
fn a_daemon_keeps_no_descriptor_of_whoever_started_it() {
    let lab = Lab::new();
    let held = lab.path("held");
    fs::write(&held, "").unwrap();
    let folder = lab.folder("shared");
    let start = lab.command("alice", &["share", "--daemon", text(&folder)]);
    let start = after(&format!("exec 7<{0} 9<{0}", text(&held)), start);
    let done = run(start);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let pid = owner(&lab, "alice");
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let kept = open.flatten().filter(|fd| fs::read_link(fd.path()).is_ok_and(|at| at == held));
    let kept = kept.count();
    end(pid);
    assert_eq!(kept, 0);
}
