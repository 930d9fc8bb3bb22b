//! What a command does where no more threads, or processes, can be made: a start is refused in one line that names the limit,
//! and who runs already goes on, ends when told to, and leaves no mount.

use crate::common::*;
use crate::hung::{Disk, hang};
use crate::owners::commands;
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A cgroup of its own that bounds threads.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let all = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(Path::new);
        let name =
            format!("hdrive-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let made = all.iter().map(|all| all.join(&name)).find(|group| {
            fs::create_dir(group).is_ok() && fs::write(group.join("pids.max"), "max").is_ok()
        });
        available("a cgroup that bounds threads", made.is_some()).then_some(())?;
        made.map(Self)
    }

    fn command(&self, hdrive: Command) -> Command {
        after(&format!("echo $$ > {}", text(&self.0.join("cgroup.procs"))), hdrive)
    }

    fn limit(&self, limit: &str) {
        fs::write(self.0.join("pids.max"), limit).unwrap();
    }

    /// What is in it makes no more threads.
    fn freeze(&self) {
        self.limit("1");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A mount that owns its store, in a group, and one of another process in the same store.
struct Owner {
    process: Hdrive,
    at: PathBuf,
    other: Hdrive,
    other_at: PathBuf,
    _far: Hdrive,
    /// The last: it is removed when nobody is in it.
    group: Group,
}

impl Owner {
    fn new(lab: &Lab) -> Option<Self> {
        let here = fuse_available();
        let group = Group::new().filter(|_| here)?;
        let near = lab.folder("near");
        fs::write(near.join("file"), "near").unwrap();
        let (_far, key) = lab.share("sharer", &near);
        let (at, other_at) = (lab.folder("own"), lab.folder("other"));
        let command = lab.command("store", &["mount", &key, text(&at)]);
        let mut process = Hdrive::spawn(group.command(command));
        process.line("mounted: ");
        let mut other = lab.spawn("store", &["mount", &key, text(&other_at)]);
        other.line("mounted: ");
        assert_eq!(lab.run("store", &["create", "put"]).code, 0);
        Some(Self { group, process, at, other, other_at, _far })
    }

    /// It is told to end, twice, and leaves no mount; the other process goes on with its own.
    fn ends(mut self, signal: Signal) {
        self.process.signal(signal);
        std::thread::sleep(Duration::from_millis(300));
        if !self.process.has_ended() {
            self.process.signal(signal);
        }
        let limit = Duration::from_secs(15);
        let end = self.process.wait(limit);
        assert_eq!(end.code(), Some(0), "{}", self.process.errors());
        assert!(!is_mounted(&self.at), "a dead mount");
        let file = self.other_at.join("file");
        let goes_on = || fs::read_to_string(&file).ok().filter(|read| read == "near");
        eventually("the other mount", PATIENCE, goes_on);
        stop(self.other);
        assert!(!is_mounted(&self.other_at), "a dead mount");
    }
}

fn is_mounted(at: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.contains(&format!(" {} ", text(at)))
}

#[test]
fn nobody_waits_for_whoever_types_where_no_thread_can_be_made() {
    let lab = Lab::new();
    let Some(owner) = Owner::new(&lab) else { return };
    owner.group.freeze();
    let typing: Vec<_> = (0..8)
        .map(|n| {
            let mut put = lab.command("store", &["put", &format!("put/typed{n}"), "-"]);
            put.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let puts =
        || commands(&lab, "store").iter().filter(|(_, words)| words.starts_with("put")).count();
    eventually("all puts", PATIENCE, || (puts() == typing.len()).then_some(()));
    let done = lab.run("store", &["status"]);
    assert!(done.code == 0 && !done.stderr.contains("waits for a thread"), "{}", done.stderr);
    assert_eq!(lab.run("store", &["put", "put/file", "/proc/version"]).code, 0);
    // What is typed at last arrives.
    let mut typing = typing.into_iter();
    let mut first = typing.next().unwrap();
    drop(first.stdin.take());
    assert!(end_of(&mut first).success());
    assert_eq!(lab.run("store", &["ls", "put"]).text(), "file\ntyped0\n");
    for mut put in typing {
        put.kill().unwrap();
        put.wait().unwrap();
    }
    owner.ends(Signal::SIGINT);
}

#[test]
fn mounts_end_while_disks_hold_every_thread_and_what_waits_for_one_is_told_and_gets_it() {
    let lab = Lab::new();
    let Some(owner) = Owner::new(&lab) else { return };
    let disk = Disk::new(&lab);
    disk.stop();
    owner.group.freeze();
    let folder = disk.path("cold");
    let put: &[&str] = &["put", "put/hung", text(&folder)];
    // One disk that hangs keeps nobody.
    let [mut first] = hang(&lab, "store", [put]);
    assert_eq!(lab.run("store", &["status"]).code, 0);
    // Nor after whoever asked has given up.
    first.signal(Signal::SIGINT);
    assert_eq!(first.wait(PATIENCE).code(), Some(130));
    assert_eq!(lab.run("store", &["status"]).code, 0);
    let of_disks = |task: &fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "hdrive-disk\n")
    };
    let tasks = fs::read_dir(format!("/proc/{}/task", owner.process.pid())).unwrap().flatten();
    let left = tasks.filter(of_disks).count() - 1;
    assert!(left >= 2, "some are there from the start");
    let _hung: Vec<_> = (0..left).map(|_| hang(&lab, "store", [put])).collect();
    let mut status = lab.spawn("store", &["status"]);
    let told = status.told("waits for a thread");
    assert!(told.contains("pids.max"), "{told}");
    assert!(!status.has_ended());
    owner.group.limit("max");
    assert_eq!(status.wait(PATIENCE).code(), Some(0), "{}", status.errors());
    owner.group.freeze();
    let _more = hang(&lab, "store", [put]);
    owner.ends(Signal::SIGTERM);
    disk.go_on();
}

/// Whatever the limit is: it runs, or one line says why it does not.
#[test]
fn a_start_with_too_few_threads_is_refused_in_one_line() {
    let lab = Lab::new();
    let Some(group) = Group::new().filter(|_| fuse_available()) else { return };
    let near = lab.folder("near");
    fs::write(near.join("file"), "near").unwrap();
    let (_far, key) = lab.share("sharer", &near);
    let at = lab.folder("mnt");
    let refused = |limit: u32, code: Option<i32>, said: &str| {
        assert!(matches!(code, Some(1 | 5)), "{limit}: {code:?} {said}");
        assert_eq!(said.lines().count(), 1, "{limit}: {said}");
        assert!(said.contains("cannot start") && said.contains("pids.max"), "{limit}: {said}");
        let wrong = ["UDP", "temporarily", "fault"];
        assert!(!wrong.iter().any(|word| said.contains(word)), "{limit}: {said}");
    };
    let mut mounted = 0;
    for limit in 1.. {
        group.limit(&limit.to_string());
        let mut mount =
            Hdrive::spawn(group.command(lab.command("store", &["mount", &key, text(&at)])));
        let ready = || match mount.has_ended() {
            true => Some(false),
            false => is_mounted(&at).then_some(true),
        };
        let is_there = eventually("a mount or its end", PATIENCE, ready)
            && eventually("a line or its end", PATIENCE, || {
                let said = mount.rest().iter().any(|line| line.starts_with("mounted: "));
                if said { Some(true) } else { mount.has_ended().then_some(false) }
            });
        if !is_there {
            let code = mount.wait(PATIENCE).code();
            refused(limit, code, &mount.errors());
            assert!(!is_mounted(&at));
            continue;
        }
        let names = || fs::read_dir(&at).ok()?.next();
        eventually("a mount that is told to be there is", PATIENCE, names).unwrap();
        stop(mount);
        assert!(!is_mounted(&at));
        mounted += 1;
        if mounted == 3 {
            break;
        }
    }
    // A command that another process runs.
    assert_eq!(lab.run("store", &["create", "put"]).code, 0);
    let _owner = lab.owner("store", &["seed", "put"]);
    let mut done = 0;
    for limit in 1.. {
        group.limit(&limit.to_string());
        let put = lab.command("store", &["put", &format!("put/{limit}"), "-"]);
        let put = run(group.command(put));
        match put.code {
            0 => done += 1,
            code => refused(limit, Some(code), &put.stderr),
        }
        if done == 3 {
            return;
        }
    }
}
