//! No peers, or none any more: what needs none answers at once, and what needs one ends in time.

use crate::common::*;
use crate::input::NOBODYS;
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// What must be immediate, with room for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

fn within<T>(limit: Duration, what: &str, act: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = act();
    let took = started.elapsed();
    assert!(took < limit, "{what} took {took:?}");
    done
}

#[test]
fn a_mount_without_peers_is_up_and_answers_at_once() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let three = Duration::from_secs(3);
    let mount = within(three, "the mount", || lab.mount_alone("bob", NOBODYS, &[]));
    within(AT_ONCE, "ls", || assert_eq!(fs::read_dir(&mount.at).unwrap().count(), 0));
    within(AT_ONCE, "stat", || assert!(fs::metadata(&mount.at).unwrap().is_dir()));
    within(AT_ONCE, "stat of nothing", || assert!(fs::metadata(mount.path("x")).is_err()));
    within(AT_ONCE, "df", || {
        let df = Command::new("df").arg(&mount.at).output().unwrap();
        assert!(df.status.success());
    });
    let done = within(three, "umount", || lab.run("bob", &["umount", text(&mount.at)]));
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

/// A mount whose names are here and whose only peer is gone.
fn orphan(lab: &Lab, more: &[&str]) -> Mounted {
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), pattern(1, 1_000_000)).unwrap();
    fs::write(folder.join("read"), pattern(2, 100_000)).unwrap();
    let (mut share, key) = lab.share("alice", &folder);
    let mount = lab.mount("bob", &key, more);
    eventually("the names", PATIENCE, || fs::metadata(mount.path("file")).ok());
    assert_eq!(fs::read(mount.path("read")).unwrap(), pattern(2, 100_000));
    share.signal(Signal::SIGKILL);
    share.wait(PATIENCE);
    mount
}

fn cat(mount: &Mounted) -> Child {
    let child = Command::new("cat")
        .arg(mount.path("file"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    sleep(Duration::from_millis(300));
    child
}

#[test]
fn a_missing_block_ends_in_time_and_its_reader_can_be_killed() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let mount = orphan(&lab, &["--read-timeout", "2s"]);
    let five = Duration::from_secs(5);
    let error = within(five, "the read", || fs::read(mount.path("file")).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ETIMEDOUT as i32), "{error}");
    within(AT_ONCE, "what is here", || {
        assert_eq!(fs::read(mount.path("read")).unwrap(), pattern(2, 100_000));
        assert_eq!(fs::metadata(mount.path("file")).unwrap().len(), 1_000_000);
        assert_eq!(fs::read_dir(&mount.at).unwrap().count(), 2);
    });
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let mut reader = cat(&mount);
        let pid = nix::unistd::Pid::from_raw(reader.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
        let half = Duration::from_millis(500);
        let status = within(half, "dying", || reader.wait().unwrap());
        assert_eq!(status.signal(), Some(signal as i32));
    }
}

#[test]
fn a_mount_goes_while_a_read_waits() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let mut mount = orphan(&lab, &["--read-timeout", "60s"]);
    let mut reader = cat(&mount);
    let done = lab.run("bob", &["umount", text(&mount.at)]);
    assert_eq!(done.code, 5, "{}", done.stderr);
    let wanted = format!("in use by cat ({})", reader.id());
    assert!(done.stderr.contains(&wanted), "{}", done.stderr);
    // Ctrl-C does not ask: whoever waits gets an error.
    mount.process.signal(Signal::SIGINT);
    let status = mount.process.wait(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0));
    assert!(!within(AT_ONCE, "the reader's end", || reader.wait().unwrap()).success());
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
    let mut mount = orphan(&lab, &["--read-timeout", "3s"]);
    let mut reader = cat(&mount);
    let done = lab.run("bob", &["umount", "--lazy", text(&mount.at)]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(fs::read_dir(&mount.at).unwrap().count(), 0);
    assert!(!reader.wait().unwrap().success());
    assert_eq!(mount.process.wait(Duration::from_secs(10)).code(), Some(0));
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
    let mut owner = lab.spawn("bob", &["seed", NOBODYS]);
    owner.line("key: ");
    let mount = lab.mount("bob", &key, &["--read-timeout", "1s"]);
    eventually("the names", PATIENCE, || fs::metadata(mount.path("file")).ok());
    share.signal(Signal::SIGSTOP);
    let three = Duration::from_secs(3);
    let error = within(three, "the read", || fs::read(mount.path("file")).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ETIMEDOUT as i32), "{error}");
    share.signal(Signal::SIGCONT);
    let back = || fs::read(mount.path("file")).ok();
    assert_eq!(eventually("the peer's return", PATIENCE, back), pattern(1, 1_000_000));
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
        let got = eventually("a part", Duration::from_secs(30), || read_at(path, at, 300_000));
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
