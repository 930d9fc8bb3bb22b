//! No peers, or none any more: what needs none answers at once, and what needs one ends in time.

use crate::common::*;
use crate::input::NOBODYS;
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

#[test]
fn a_mount_without_peers_is_up_and_answers_at_once() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let mount = lab.mount_alone("bob", NOBODYS, &["--read-timeout", NEVER]);
    let at = mount.at.clone();
    within("ls, stat and df", move || {
        assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
        assert!(fs::metadata(&at).unwrap().is_dir());
        assert!(fs::metadata(at.join("x")).is_err());
        assert!(Command::new("df").arg(&at).output().unwrap().status.success());
    });
    let done = lab.run("bob", &["umount", text(&mount.at)]);
    assert_eq!(done.code, 0, "{}", done.stderr);
}

/// `hdrive dht` as it is typed first, without an address.
#[test]
fn the_first_node_of_a_network_finds_its_address() {
    let mut first = Hdrive::command(&["dht", "--bind", "0.0.0.0:0"]);
    // With a node to start from it would be told its address by that.
    first.env_remove("HDRIVE_BOOTSTRAP");
    let mut dht = Hdrive::spawn(first);
    let bootstrap = dht.line("listening: ");
    assert!(!bootstrap.starts_with("0.0.0.0"), "{bootstrap}");
    let lab = Lab { dht, bootstrap, dir: tempfile::tempdir().unwrap() };
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    // Peers as they are outside of tests too: an address of this machine is reached from the same.
    let anywhere = |store: &str, args: &[&str]| {
        let mut command = lab.command(store, args);
        command.env_remove("HDRIVE_LOCAL");
        command
    };
    let mut share = Hdrive::spawn(anywhere("alice", &["share", text(&folder)]));
    let key = share.line("key: ");
    share.line("shared: ");
    let done = run(anywhere("bob", &["cat", &format!("{key}/file")]));
    assert_eq!(done.text(), "content", "{}", done.stderr);
}

/// Bob's peers are connected: who shares, and who keeps a read waiting when that one is gone.
fn has_both_peers(lab: &Lab) {
    eventually("both peers", PATIENCE, || {
        let status = lab.run("bob", &["status", "--json"]).text();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let peers = status["network"]["peers"].as_array()?;
        (peers.iter().filter(|peer| peer["open"] == true).count() == 2).then_some(())
    });
}

/// A mount whose names are here, and whose only peer that has the contents is gone; the other one, which has the names,
/// keeps a read waiting for as long as it may.
fn orphan(lab: &Lab, more: &[&str]) -> (Mounted, Mounted) {
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), pattern(1, 1_000_000)).unwrap();
    fs::write(folder.join("read"), pattern(2, 100_000)).unwrap();
    let (mut share, key) = lab.share("alice", &folder);
    let other = lab.mount("carol", &key, &[]);
    let mount = lab.mount("bob", &key, more);
    eventually("the names", PATIENCE, || fs::metadata(mount.path("file")).ok());
    has_both_peers(lab);
    let read = eventually("its bytes", PATIENCE, || fs::read(mount.path("read")).ok());
    assert_eq!(read, pattern(2, 100_000));
    share.signal(Signal::SIGKILL);
    share.wait(PATIENCE);
    (mount, other)
}

/// A reader of the file that nobody has, which waits for it.
fn cat(mount: &Mounted) -> Child {
    let child = Command::new("cat")
        .arg(mount.path("file"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let wanted = mount.path("file");
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let is_open = |fd: fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|file| file == wanted);
    eventually("the reader waits", PATIENCE, || {
        let opened = fs::read_dir(proc.join("fd")).unwrap().flatten().any(is_open);
        let status = fs::read_to_string(proc.join("status")).unwrap();
        (opened && !status.contains("State:\tR")).then_some(())
    });
    child
}

#[test]
fn a_missing_block_ends_in_time() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mount, _other) = orphan(&lab, &["--read-timeout", "2s"]);
    let file = mount.path("file");
    let error = within("the read", move || fs::read(file).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ETIMEDOUT as i32), "{error}");
}

#[test]
fn a_mount_answers_and_goes_while_a_read_waits_whose_reader_can_be_killed() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mut mount, _other) = orphan(&lab, &["--read-timeout", NEVER]);
    // SIGINT may be ignored where these tests run.
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut reader = cat(&mount);
        let pid = nix::unistd::Pid::from_raw(reader.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
        assert_eq!(end_of(&mut reader).signal(), Some(signal as i32));
    }
    let mut reader = cat(&mount);
    let at = mount.at.clone();
    within("what is here", move || {
        assert_eq!(fs::read(at.join("read")).unwrap(), pattern(2, 100_000));
        assert_eq!(fs::metadata(at.join("file")).unwrap().len(), 1_000_000);
        assert_eq!(fs::read_dir(&at).unwrap().count(), 2);
    });
    let done = lab.run("bob", &["umount", text(&mount.at)]);
    assert_eq!(done.code, 5, "{}", done.stderr);
    let wanted = format!("in use by cat ({})", reader.id());
    assert!(done.stderr.contains(&wanted), "{}", done.stderr);
    // Ctrl-C does not ask: whoever waits gets an error.
    mount.process.signal(Signal::SIGINT);
    assert_eq!(mount.process.wait(PATIENCE).code(), Some(0));
    assert!(!end_of(&mut reader).success());
    assert_eq!(fs::read_dir(&mount.at).unwrap().count(), 0);
    let said = mount.process.errors();
    assert!(said.contains("was in use"), "{said}");
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
}

#[test]
fn a_lazy_unmount_leaves_a_waiting_read_its_end() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mut mount, _other) = orphan(&lab, &["--read-timeout", "3s"]);
    let mut reader = cat(&mount);
    let done = lab.run("bob", &["umount", "--lazy", text(&mount.at)]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(fs::read_dir(&mount.at).unwrap().count(), 0);
    assert!(!end_of(&mut reader).success());
    assert_eq!(mount.process.wait(PATIENCE).code(), Some(0));
    let said = mount.process.errors();
    assert!(!said.contains("WARN"), "{said}");
}

#[test]
fn each_mount_of_a_store_has_its_own_read_timeout() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), pattern(1, 1_000_000)).unwrap();
    let (mut share, key) = lab.share("alice", &folder);
    let _companion = lab.mount("carol", &key, &[]);
    let owner = lab.mount("bob", &key, &["--read-timeout", NEVER]);
    let at = lab.folder("other");
    let mut other = lab.spawn("bob", &["mount", &key, text(&at), "--read-timeout", "1s"]);
    other.line("mounted: ");
    for at in [&owner.at, &at] {
        eventually("the names", PATIENCE, || fs::metadata(at.join("file")).ok());
    }
    has_both_peers(&lab);
    share.signal(Signal::SIGSTOP);
    let mut reader = cat(&owner);
    let file = at.join("file");
    let error = within("the read", move || fs::read(file).unwrap_err());
    assert!(reader.try_wait().unwrap().is_none(), "the other waits on");
    assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ETIMEDOUT as i32), "{error}");
    share.signal(Signal::SIGCONT);
    let back = || fs::read(at.join("file")).ok();
    assert_eq!(eventually("the peer's return", PATIENCE, back), pattern(1, 1_000_000));
    assert!(end_of(&mut reader).success());
    share.signal(Signal::SIGINT);
    share.wait(PATIENCE);
}

/// Reads `len` bytes at `offset`; `None` if they did not come in the mount's time.
fn read_at(path: &Path, offset: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    let file = fs::File::open(path).ok()?;
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, offset).ok()?;
    Some(bytes)
}

/// A sharer that is stopped for longer than requests wait, or than a connection lives, is as good as before
/// when it goes on, and so are the parts that were asked for in vain meanwhile.
#[test]
fn a_sharer_that_was_stopped_is_back_soon() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    let content = pattern(3, 30_000_000);
    fs::write(folder.join("file"), &content).unwrap();
    let (share, key) = lab.share("alice", &folder);
    let mount = lab.mount("bob", &key, &["--read-timeout", "1s"]);
    eventually("the names", PATIENCE, || fs::metadata(mount.path("file")).ok());
    let path = &*mount.path("file");
    let parts: Vec<u64> = (0..24).map(|i| i * 1_250_000).collect();
    let whole = |at: u64| {
        let got = eventually("a part", PATIENCE, || read_at(path, at, 300_000));
        assert!(got == content[at as usize..][..300_000], "at {at}");
    };
    for (round, secs) in [5, 2, 5, 20].into_iter().enumerate() {
        let over = Instant::now() + Duration::from_secs(secs);
        let parts = &parts[6 * round..][..6];
        share.signal(Signal::SIGSTOP);
        // Readers ask, give up, and ask again; what they get in the end is the same.
        thread::scope(|scope| {
            for &at in &parts[..3] {
                let ask = move || read_at(path, at, 300_000);
                scope.spawn(move || while Instant::now() < over && ask().is_none() {});
            }
        });
        sleep(over.saturating_duration_since(Instant::now()));
        share.signal(Signal::SIGCONT);
        parts.iter().for_each(|&at| whole(at));
    }
}
