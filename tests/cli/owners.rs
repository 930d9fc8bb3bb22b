//! The process that owns a store ends, and others work on it: what they meet, what they are told, who goes on.

use crate::common::*;
use crate::input::NOBODYS;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// A share that owns `store`, and its key.
fn owner(lab: &Lab, store: &str) -> (Hdrive, String) {
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    lab.share(store, &folder)
}

/// A `put` of this store that goes on for as long as its standard input does.
fn endless_put(lab: &Lab, store: &str) -> Child {
    assert_eq!(lab.run(store, &["create", "own"]).code, 0);
    let mut command = lab.command(store, &["put", "own/new", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

pub fn commands(lab: &Lab, store: &str) -> Vec<(u64, String)> {
    let status = lab.run(store, &["status", "--json"]).text();
    let status: Value = serde_json::from_str(&status).unwrap();
    let commands = status["commands"].as_array().cloned().unwrap_or_default();
    let one = |c: &Value| Some((c["pid"].as_u64()?, c["command"].as_str()?.to_string()));
    commands.iter().filter_map(one).collect()
}

#[test]
fn an_ended_owner_stays_for_files_that_are_open_in_the_mounts_of_others() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    for by_signal in [false, true] {
        let (mut share, key) = owner(&lab, "alice");
        let mut mount = lab.mount("alice", &key, &[]);
        let at = mount.path("file");
        let mut open = fs::File::open(&at).unwrap();
        share.signal(Signal::SIGTERM);
        let told = share.told("still open in");
        assert!(told.contains(text(&mount.at)) && told.contains("second signal"), "{told}");
        std::thread::sleep(Duration::from_secs(1));
        assert!(!share.has_ended());
        let mut content = String::new();
        open.read_to_string(&mut content).unwrap();
        assert_eq!(
            (content.as_str(), fs::read_to_string(&at).unwrap().as_str()),
            ("content", "content")
        );
        if by_signal {
            share.signal(Signal::SIGTERM);
        } else {
            drop(open);
        }
        assert_eq!(share.wait(PATIENCE).code(), Some(0));
        // The mount is there again, and says why.
        mount.process.told("taken over");
        eventually("the file", PATIENCE, || {
            (fs::read_to_string(&at).ok()? == "content").then_some(())
        });
        mount.process.signal(Signal::SIGTERM);
        assert_eq!(mount.process.wait(PATIENCE).code(), Some(0));
        let errors = mount.process.errors();
        assert_eq!(errors.contains("was in use"), by_signal, "{errors}");
    }
}

#[test]
fn nothing_is_waited_for_when_everything_ends() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mut share, key) = owner(&lab, "alice");
    let mut mount = lab.mount("alice", &key, &[]);
    let _open = fs::File::open(mount.path("file")).unwrap();
    share.signal(Signal::SIGTERM);
    mount.process.signal(Signal::SIGTERM);
    assert_eq!(share.wait(PATIENCE).code(), Some(0));
    assert_eq!(mount.process.wait(PATIENCE).code(), Some(0));
    let errors = share.errors();
    assert!(!errors.contains("still open"), "{errors}");
}

#[test]
fn commands_that_end_with_their_owner_end_well() {
    let lab = Lab::new();
    for _ in 0..3 {
        let (mut share, key) = owner(&lab, "alice");
        let mut seed = lab.spawn("alice", &["seed", &key]);
        seed.line("key: ");
        share.signal(Signal::SIGTERM);
        seed.signal(Signal::SIGINT);
        assert_eq!(seed.wait(PATIENCE).code(), Some(0));
        assert_eq!(share.wait(PATIENCE).code(), Some(0));
        let errors = share.errors();
        assert!(!errors.contains("Ctrl-C"), "{errors}");
    }
}

#[test]
fn what_goes_on_elsewhere_is_told_once_and_says_why() {
    let lab = Lab::new();
    let (mut first, _) = owner(&lab, "alice");
    let folder = lab.folder("other");
    fs::write(folder.join("file"), "other").unwrap();
    fs::set_permissions(folder.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    nix::unistd::mkfifo(&folder.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut second = lab.spawn("alice", &["share", text(&folder)]);
    let key = second.line("key: ");
    second.line("shared: ");
    let mut third = lab.spawn("alice", &["seed", &key]);
    third.line("complete: ");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait(PATIENCE).code(), Some(0));
    second.told("taken over");
    assert_eq!(lab.run("bob", &["cat", &format!("{key}/file")]).text(), "other");
    third.told("taken over");
    std::thread::sleep(Duration::from_secs(2));
    for process in [&mut second, &mut third] {
        assert_eq!(process.rest(), Vec::<String>::new());
    }
    // The owner last, so that nothing is taken over once more.
    let owner = lab.owner_pid("alice").unwrap();
    let mut processes = [second, third];
    processes.sort_by_key(|process| process.pid() == owner);
    let mut errors = String::new();
    for mut process in processes {
        process.signal(Signal::SIGINT);
        assert_eq!(process.wait(PATIENCE).code(), Some(0));
        errors += &process.errors();
    }
    assert_eq!(errors.matches("now public").count(), 1, "{errors}");
    assert_eq!(errors.matches("left out: ").count(), 1, "{errors}");
}

#[test]
fn who_takes_over_stands_in_the_network_as_the_owner_before() {
    let lab = Lab::new();
    let (mut first, _) = owner(&lab, "alice");
    let folder = lab.folder("other");
    fs::write(folder.join("file"), "other").unwrap();
    // By itself it would find nobody, and nobody it.
    let alone = ["--bootstrap", "127.0.0.1:9"];
    let mut second = lab.spawn("alice", &[&alone[..], &["share", text(&folder)]].concat());
    let key = second.line("key: ");
    second.line("shared: ");
    first.signal(Signal::SIGKILL);
    first.wait(PATIENCE);
    second.told("taken over");
    assert_eq!(lab.run("bob", &["cat", &format!("{key}/file")]).text(), "other");
    let mut third = lab.spawn("alice", &["seed", &key]);
    third.line("complete: ");
    second.signal(Signal::SIGKILL);
    second.wait(PATIENCE);
    third.told("taken over");
    assert_eq!(lab.run("carol", &["cat", &format!("{key}/file")]).text(), "other");
}

#[test]
fn whoever_owns_the_store_in_between_has_nothing_of_what_ran_elsewhere() {
    let lab = Lab::new();
    let (mut first, _) = owner(&lab, "alice");
    let folder = lab.folder("other");
    fs::write(folder.join("file"), "other").unwrap();
    let mut second = lab.spawn("alice", &["share", text(&folder)]);
    let key = second.line("key: ");
    second.line("shared: ");
    second.signal(Signal::SIGSTOP);
    first.signal(Signal::SIGKILL);
    first.wait(PATIENCE);
    let alone = ["--bootstrap", "127.0.0.1:9"];
    let mut between = lab.spawn("alice", &[&alone[..], &["seed", NOBODYS]].concat());
    between.line("key: ");
    second.signal(Signal::SIGCONT);
    let told = second.told("stands elsewhere");
    assert!(told.contains(&between.pid().to_string()), "{told}");
    assert_eq!(commands(&lab, "alice").len(), 1, "only what it was begun for");
    between.signal(Signal::SIGINT);
    assert_eq!(between.wait(PATIENCE).code(), Some(0));
    second.told("taken over");
    assert_eq!(lab.run("bob", &["cat", &format!("{key}/file")]).text(), "other");
}

#[test]
fn a_put_whose_owner_ends_says_one_thing() {
    let lab = Lab::new();
    let (mut share, _) = owner(&lab, "alice");
    let mut put = endless_put(&lab, "alice");
    let runs =
        || commands(&lab, "alice").iter().any(|(_, words)| words.starts_with("put")).then_some(());
    eventually("the put", PATIENCE, runs);
    share.signal(Signal::SIGTERM);
    share.wait(PATIENCE);
    end_of(&mut put);
    let done = put.wait_with_output().unwrap();
    let errors = String::from_utf8(done.stderr).unwrap();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("the drive is as it was before; run it again"), "{errors}");
    assert_eq!(done.status.code(), Some(1));
}

#[test]
fn a_share_that_goes_on_with_its_import_is_not_told_to_be_begun_again() {
    let lab = Lab::new();
    let (mut owner, _) = owner(&lab, "alice");
    let folder = lab.folder("large");
    fs::File::create(folder.join("large")).unwrap().set_len(3 << 40).unwrap();
    let mut share = lab.spawn("alice", &["share", text(&folder)]);
    share.line("key: ");
    owner.signal(Signal::SIGTERM);
    owner.wait(PATIENCE);
    share.told("taken over");
    share.signal(Signal::SIGINT);
    assert_eq!(share.wait(PATIENCE).code(), Some(130));
    let errors = share.errors();
    assert_eq!(errors.matches("share it again").count(), 1, "{errors}");
}

#[test]
fn status_lists_what_runs_and_whom_to_end() {
    let lab = Lab::new();
    let (mut share, key) = owner(&lab, "alice");
    let mut seed = lab.spawn("alice", &["seed", &key]);
    seed.line("key: ");
    let listed = commands(&lab, "alice");
    let is = |(pid, words): &(u64, String), process: &Hdrive, word: &str| {
        *pid == u64::from(process.pid()) && words.starts_with(word)
    };
    assert!(
        listed.len() == 2 && is(&listed[0], &share, "share /") && is(&listed[1], &seed, "seed"),
        "{listed:?}"
    );
    let text = lab.run("alice", &["status"]).text();
    let line = format!("command: process {} seed {key}", seed.pid());
    assert!(text.lines().any(|told| told == line), "{text}");
    seed.signal(Signal::SIGTERM);
    assert_eq!(seed.wait(PATIENCE).code(), Some(0));
    eventually("one less", PATIENCE, || (commands(&lab, "alice").len() == 1).then_some(()));
    assert!(!share.has_ended());
}

#[test]
fn a_store_that_is_taken_away_is_told_at_once() {
    let lab = Lab::new();
    let (mut share, _) = owner(&lab, "alice");
    let mut seed = lab.spawn("alice", &["seed", NOBODYS]);
    seed.line("key: ");
    fs::remove_dir_all(lab.path("alice")).unwrap();
    share.told("was removed");
    seed.told("was removed");
    // Another store in its place is another's.
    let mut other = lab.spawn("alice", &["seed", NOBODYS]);
    other.line("key: ");
    seed.signal(Signal::SIGINT);
    assert_eq!(seed.wait(PATIENCE).code(), Some(6));
    share.signal(Signal::SIGTERM);
    assert_eq!(share.wait(PATIENCE).code(), Some(6));
    assert_eq!(lab.run("alice", &["status"]).code, 0);
    assert_eq!(lab.owner_pid("alice"), Some(other.pid()));
    assert_eq!(commands(&lab, "alice").len(), 1, "it is reached through its own socket");
}

/// What is done returns, though something that lasts came while it ran.
#[test]
fn a_command_that_is_done_does_not_stay_for_one_that_lasts() {
    let lab = Lab::new();
    // Soon done: the one that lasts waits for it. Later done: it joins, and is left alone in the end.
    for (longer, waits) in [(Duration::ZERO, true), (Duration::from_secs(5), false)] {
        let store = format!("store-{waits}");
        let mut put = endless_put(&lab, &store);
        eventually("the owner", PATIENCE, || {
            (lab.owner_pid(&store) == Some(put.id())).then_some(())
        });
        let mut seed = lab.spawn(&store, &["seed", NOBODYS]);
        if !waits {
            seed.line("key: ");
            std::thread::sleep(longer);
        }
        drop(put.stdin.take());
        assert!(end_of(&mut put).success());
        if waits {
            seed.line("key: ");
        } else {
            seed.told("taken over");
        }
        assert_eq!(lab.owner_pid(&store), Some(seed.pid()));
        assert_eq!(lab.run(&store, &["ls", "own"]).text(), "new\n");
    }
}

#[test]
fn an_owner_that_hangs_up_on_a_command_again_and_again_is_named_and_left() {
    let lab = Lab::new();
    let store = lab.folder("alice");
    let lock = fs::File::create(store.join("lock")).unwrap();
    lock.lock().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(store.join("socket")).unwrap();
    std::thread::spawn(move || {
        // It listens, accepts and goes away without a word.
        for face in listener.incoming() {
            let _ = face.and_then(|mut face| face.write_all(&[LISTENS, 255]));
        }
    });
    let started = Instant::now();
    let done = lab.run("alice", &["status"]);
    assert_eq!(done.code, 6, "{}", done.stderr);
    let me = format!("process {}, which works on the store", std::process::id());
    assert!(done.stderr.contains(&me), "{}", done.stderr);
    assert!(started.elapsed() > Duration::from_secs(1), "{:?}", started.elapsed());
}

/// The kernel gives back the lock of a store that a process had before it gives back the database.
#[test]
fn an_owner_waits_until_the_one_before_has_closed_the_store() {
    let lab = Lab::new();
    assert_eq!(lab.run("alice", &["create", "own"]).code, 0);
    let database = lab.path("alice").join("store.redb");
    let held = || {
        let file = fs::File::open(&database).unwrap();
        file.lock().unwrap();
        file
    };
    let first = held();
    let waiting = lab.spawn("alice", &["seed", "own"]);
    std::thread::sleep(Duration::from_secs(1));
    drop(first);
    let mut waiting = waiting;
    waiting.line("key: ");
    waiting.signal(Signal::SIGINT);
    assert_eq!(waiting.wait(PATIENCE).code(), Some(0));

    let held = held();
    let mut unwanted = lab.spawn("alice", &["ls", "own"]);
    unwanted.catches(Signal::SIGINT);
    // It has come to the database by then, or is on its way.
    std::thread::sleep(Duration::from_millis(500));
    unwanted.signal(Signal::SIGINT);
    assert_eq!(unwanted.wait(PATIENCE).code(), Some(130));
    // For ever is too long.
    let done = lab.run("alice", &["ls", "own"]);
    assert!(done.code == 6 && done.stderr.contains("still open"), "{}", done.stderr);
    drop(held);
    // Nothing was taken for a copy or a crash meanwhile.
    let put = lab.run("alice", &["put", "own/file", text(&lab.path("alice").join("lock"))]);
    assert!(put.code == 0 && !put.stderr.contains("this store"), "{}", put.stderr);
}

/// An owner of `store` that does to each command what it is told to; for as long as the lock is kept.
fn false_owner(store: &Path, answer: impl Fn(UnixStream) + Send + 'static) -> fs::File {
    let lock = fs::File::create(store.join("lock")).unwrap();
    lock.lock().unwrap();
    let listener = UnixListener::bind(store.join("socket")).unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    lock
}

/// What an owner answers to the first words of a face.
const LISTENS: u8 = 247;

/// Reads one message of a face; its descriptors are of no interest.
fn message(face: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    face.read_exact(&mut length).unwrap();
    let mut message = vec![0; u32::from_le_bytes(length) as usize];
    face.read_exact(&mut message).unwrap();
    message
}

/// Reads what a command asks, tells that, and reads further until it is called off.
fn called_off(face: &mut UnixStream, asked: &Sender<()>) {
    let mut called_off = [0];
    message(face);
    face.write_all(&[LISTENS]).unwrap();
    message(face);
    asked.send(()).unwrap();
    face.read_exact(&mut called_off).unwrap();
    assert_eq!(called_off, *b"c");
}

#[test]
fn a_command_that_was_called_off_does_not_wait_for_another_owner() {
    const LATER: u8 = 252;
    const FULL: u8 = 253;
    let lab = Lab::new();
    let store = lab.folder("alice");
    for answer in [LATER, FULL] {
        let _ = fs::remove_file(store.join("socket"));
        let (tell, asked) = channel();
        let _lock = false_owner(&store, move |mut face| {
            called_off(&mut face, &tell);
            face.write_all(&[answer]).unwrap();
        });
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let mut seed = lab.spawn("alice", &["seed", NOBODYS]);
            asked.recv_timeout(PATIENCE).unwrap();
            seed.catches(signal);
            seed.signal(signal);
            assert_eq!(seed.wait(AT_ONCE).code(), Some(0), "{answer} {}", seed.errors());
        }
    }
}

#[test]
fn a_command_is_called_off_between_two_owners() {
    const ACCEPTED: u8 = 255;
    let lab = Lab::new();
    let store = lab.folder("alice");
    let socket = store.join("socket");
    let _lock = false_owner(&store, move |mut face| {
        // It goes away, and the next one is long in coming.
        fs::remove_file(&socket).unwrap();
        face.write_all(&[LISTENS, ACCEPTED]).unwrap();
    });
    let mut seed = lab.spawn("alice", &["seed", NOBODYS]);
    let gone = || (!store.join("socket").exists()).then_some(());
    eventually("the owner gone", PATIENCE, gone);
    seed.catches(Signal::SIGINT);
    // It looks for another by then.
    std::thread::sleep(Duration::from_millis(500));
    seed.signal(Signal::SIGINT);
    assert_eq!(seed.wait(AT_ONCE).code(), Some(0), "{}", seed.errors());
}

/// Sockets of a store, and connections that were made to them.
fn connections(lab: &Lab, store: &str) -> usize {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let path = lab.path(store).join("socket");
    sockets.lines().filter(|line| line.ends_with(text(&path))).count()
}

#[test]
fn a_command_is_called_off_at_once_though_its_owner_is_stopped() {
    let lab = Lab::new();
    let (mut share, key) = owner(&lab, "alice");
    assert_eq!(lab.run("alice", &["create", "own"]).code, 0);
    let mut accepted = lab.spawn("alice", &["seed", &key]);
    accepted.line("complete: ");
    share.signal(Signal::SIGSTOP);
    let file = lab.folder("other").join("file");
    fs::write(&file, "other").unwrap();
    let (put, rm) = (["put", "own/new", text(&file)], ["rm", "own/new"]);
    for (args, code) in [(&put[..], 130), (&["seed", &key], 0), (&["ls", "own"], 130), (&rm, 130)] {
        let before = connections(&lab, "alice");
        let mut process = lab.spawn("alice", args);
        let asks = || (connections(&lab, "alice") > before).then_some(());
        eventually("the command at its owner", PATIENCE, asks);
        process.catches(Signal::SIGINT);
        assert!(!process.has_ended(), "{args:?}");
        process.signal(Signal::SIGINT);
        assert_eq!(process.wait(AT_ONCE).code(), Some(code), "{args:?} {}", process.errors());
    }
    // Whoever the owner works for is told how to go.
    accepted.signal(Signal::SIGINT);
    let told = accepted.told("does not wait");
    assert!(told.contains(&share.pid().to_string()), "{told}");
    accepted.signal(Signal::SIGINT);
    assert_eq!(accepted.wait(PATIENCE).code(), Some(0));
    share.signal(Signal::SIGCONT);
    assert_eq!(lab.run("alice", &["status"]).code, 0);
    assert_eq!(lab.run("alice", &["ls", "own"]).text(), "", "nothing of it was begun");
    share.signal(Signal::SIGINT);
    assert_eq!(share.wait(PATIENCE).code(), Some(0));
}

/// From before there was a hello: it takes that for a request, which it does not understand.
#[test]
fn an_owner_of_an_older_version_is_told_at_once() {
    let lab = Lab::new();
    let store = lab.folder("alice");
    let _lock = false_owner(&store, |mut face| {
        message(&mut face);
        face.write_all(&[255, 6]).unwrap();
    });
    let begun = Instant::now();
    let done = lab.run("alice", &["status"]);
    assert_eq!(done.code, 6, "{}", done.stderr);
    assert!(done.stderr.contains("another version of hdrive"), "{}", done.stderr);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
