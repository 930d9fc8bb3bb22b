//! A disk that does not answer: a mount of hdrive itself, whose process is stopped, or whose peer is. Whoever asks it hangs,
//! and nobody else does; Ctrl-C ends that too. A face asks no disk: who waits for what another one looks up cannot be killed.

use crate::common::*;
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A command that was interrupted is gone by then; a second, and what a busy machine takes.
const SOON: Duration = Duration::from_secs(3);
/// It has come to the disk by then.
const BEGUN: Duration = Duration::from_millis(700);

/// A mount of a drive with a folder that nobody looked into, and a file that nobody read.
struct Disk {
    far: Hdrive,
    mount: Mounted,
}

impl Disk {
    fn new(lab: &Lab) -> Self {
        let folder = lab.folder("far");
        fs::create_dir_all(folder.join("cold")).unwrap();
        fs::write(folder.join("cold/file"), pattern(1, 3_000_000)).unwrap();
        let (far, key) = lab.share("far-store", &folder);
        let mount = lab.mount("mount-store", &key, &[]);
        Self { far, mount }
    }

    /// It answers nothing from here on. What one of its threads takes before it stops could not be given up by anybody.
    fn stop(&self) {
        let process = &self.mount.process;
        process.signal(Signal::SIGSTOP);
        let threads = format!("/proc/{}/task", process.pid());
        let is_stopped = |thread: fs::DirEntry| {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            status.contains("\nState:\tT")
        };
        let all = || fs::read_dir(&threads).unwrap().flatten().all(is_stopped).then_some(());
        eventually("every thread stopped", PATIENCE, all);
    }

    /// A folder in it.
    fn path(&self, name: &str) -> PathBuf {
        self.mount.path(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Else it could not be unmounted.
        self.mount.process.signal(Signal::SIGCONT);
        self.far.signal(Signal::SIGCONT);
    }
}

/// Ctrl-C after it has come to the disk.
fn interrupt(process: &mut Hdrive, what: &[&str]) {
    sleep(BEGUN);
    assert!(!process.has_ended(), "{what:?} did not come to the disk");
    process.signal(Signal::SIGINT);
    let asked = Instant::now();
    process.wait(PATIENCE);
    assert!(asked.elapsed() < SOON, "{what:?} ended after {:?}", asked.elapsed());
}

/// The same store goes on, in time.
fn works(lab: &Lab, key: &str, own: &Path) {
    let begun = Instant::now();
    assert_eq!(lab.run("store", &["cat", &format!("{key}/file")]).text(), "near");
    assert_eq!(lab.run("store", &["put", "put", text(own)]).code, 0);
    assert!(lab.run("store", &["status"]).text().contains(key));
    assert!(begun.elapsed() < 3 * SOON, "{:?}", begun.elapsed());
}

#[test]
fn commands_on_a_disk_that_hangs_end_when_they_are_told_to_and_keep_nobody() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let disk = Disk::new(&lab);
    let near = lab.folder("near");
    fs::write(near.join("file"), "near").unwrap();
    let (mut owner, key) = lab.share("store", &near);
    assert_eq!(lab.run("store", &["create", "put"]).code, 0);
    disk.stop();
    let (missing, folder) = (disk.path("missing"), disk.path("cold"));
    let (file, below) = (disk.path("cold/file"), disk.path("missing/below"));
    let commands: [&[&str]; 10] = [
        &["share", text(&missing)],
        &["share", text(&folder)],
        &["share", "--dry-run", text(&folder)],
        &["put", "put", text(&folder)],
        &["put", "put/x", text(&file)],
        &["put", "put/x", text(&folder), "--exclude", "*.o"],
        &["get", &key, text(&missing)],
        &["get", &key, text(&folder)],
        &["mount", &key, text(&folder)],
        &["mount", &key, text(&below)],
    ];
    for command in commands {
        interrupt(&mut lab.spawn("store", command), command);
    }
    // More of them at a time than there are threads for commands.
    let share = || lab.spawn("store", &["share", text(&folder)]);
    let mut hung: Vec<Hdrive> = (0..5).map(|_| share()).collect();
    sleep(BEGUN);
    works(&lab, &key, &near);
    for process in &mut hung {
        interrupt(process, &["share"]);
    }
    works(&lab, &key, &near);
    interrupt(&mut owner, &["the owner"]);
    // And those that own the store themselves.
    for command in &commands[1..9] {
        interrupt(&mut lab.spawn("store", command), command);
    }
}

/// The thread that looks cannot be killed while another process looks for the same name; whoever asked can.
#[test]
fn a_mount_ends_though_what_it_looks_for_is_looked_for_by_another_process() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let disk = Disk::new(&lab);
    let near = lab.folder("near");
    fs::write(near.join("file"), "near").unwrap();
    let (_owner, key) = lab.share("store", &near);
    let (_other, _) = lab.share("other-store", &near);
    assert_eq!(lab.run("store", &["create", "put"]).code, 0);
    disk.stop();
    let missing = disk.path("missing");
    // The owner of the other store keeps a thread there.
    let share = ["share", text(&missing)];
    interrupt(&mut lab.spawn("other-store", &share), &share);
    let mount = ["mount", &key, text(&missing)];
    let daemon = ["mount", "--daemon", &key, text(&missing)];
    interrupt(&mut lab.spawn("store", &mount), &mount);
    interrupt(&mut lab.spawn("store", &daemon), &daemon);
    // It owns its store itself, so that the thread is its own.
    interrupt(&mut lab.spawn("third-store", &daemon), &daemon);
    works(&lab, &key, &near);
}

/// What is read waits for a peer that does not answer, in the middle of an import.
#[test]
fn an_import_that_hangs_ends_with_its_command() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let disk = Disk::new(&lab);
    let near = lab.folder("near");
    fs::write(near.join("file"), "near").unwrap();
    let (mut owner, key) = lab.share("store", &near);
    for name in ["put", "hung"] {
        assert_eq!(lab.run("store", &["create", name]).code, 0);
    }
    assert!(fs::metadata(disk.path("cold/file")).is_ok());
    disk.far.signal(Signal::SIGSTOP);
    let folder = disk.path("cold");
    let put = ["put", "hung", text(&folder)];
    interrupt(&mut lab.spawn("store", &put), &put);
    // Its thread still waits for the disk, and keeps the drive from nobody.
    is_free(&lab, "hung");
    let begun = Instant::now();
    assert_eq!(lab.run("store", &["put", "hung/mine", text(&near.join("file"))]).code, 0);
    assert_eq!(lab.run("store", &["cat", "hung/mine"]).text(), "near");
    assert_eq!(lab.run("store", &["ls", "hung"]).text().trim(), "mine");
    assert!(begun.elapsed() < 2 * SOON, "{:?}", begun.elapsed());
    // What it has open cannot be removed, and that is said with the way out.
    let forget = lab.run("store", &["forget", "--yes", "hung"]);
    assert_eq!(forget.code, 1, "{}", forget.stderr);
    let end = format!("ends with process {}", owner.pid());
    assert!(forget.stderr.contains(&end), "{}", forget.stderr);
    // Not a mount of hdrive by its name: what lies in it may be shared.
    let over = lab.folder("over");
    let (upper, work) = (lab.folder("upper"), lab.folder("work"));
    let options = [("lowerdir", &disk.mount.at), ("upperdir", &upper), ("workdir", &work)]
        .map(|(name, at)| format!("{name}={}", text(at)));
    let overlay = Overlay::at(&over, &options.join(","));
    let shared = over.join("cold");
    if overlay.is_some() {
        let share = ["share", text(&shared)];
        let mut process = lab.spawn("store", &share);
        let key = process.line("key: ");
        interrupt(&mut process, &share);
        is_free(&lab, &key);
        // And it can be shared again, which hangs again.
        let mut process = lab.spawn("store", &share);
        assert_eq!(process.line("key: "), key);
        interrupt(&mut process, &share);
    }
    works(&lab, &key, &near);
    interrupt(&mut owner, &["the owner"]);
}

/// Nobody writes the drive.
fn is_free(lab: &Lab, drive: &str) {
    let begun = Instant::now();
    let gc = lab.run("store", &["gc", drive]);
    assert_eq!(gc.code, 0, "{}", gc.stderr);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

/// Shows one folder over another, until it is dropped.
struct Overlay(PathBuf);

impl Overlay {
    fn at(at: &Path, options: &str) -> Option<Self> {
        let flags = nix::mount::MsFlags::empty();
        match nix::mount::mount(Some("overlay"), at, Some("overlay"), flags, Some(options)) {
            Ok(()) => Some(Self(at.to_path_buf())),
            Err(error) => {
                eprintln!("left out: no overlay can be mounted here: {error}");
                None
            }
        }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
