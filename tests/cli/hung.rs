//! A disk that does not answer: a mount of hdrive itself, whose process is stopped, or whose peer is. Whoever asks it hangs,
//! and nobody else does; Ctrl-C ends that too. A face asks no disk: who waits for what another one looks up cannot be killed.

use crate::common::*;
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A mount of a drive with a folder that nobody looked into, and a file that nobody read.
pub struct Disk {
    far: Hdrive,
    mount: Mounted,
}

impl Disk {
    pub fn new(lab: &Lab) -> Self {
        let folder = lab.folder("far");
        fs::create_dir_all(folder.join("cold")).unwrap();
        fs::write(folder.join("cold/file"), pattern(1, 3_000_000)).unwrap();
        let (far, key) = lab.share("far-store", &folder);
        let mount = lab.mount("mount-store", &key, &[]);
        Self { far, mount }
    }

    /// It answers nothing from here on. What one of its threads takes before it stops could not be given up by anybody.
    pub fn stop(&self) {
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

    /// It answers again.
    pub fn go_on(&self) {
        self.mount.process.signal(Signal::SIGCONT);
    }

    /// A folder in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.mount.path(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Else it could not be unmounted.
        self.go_on();
        self.far.signal(Signal::SIGCONT);
    }
}

/// The threads that hang in a disk, of all processes of this laboratory.
fn hanging(lab: &Lab) -> HashSet<String> {
    let read = |path: PathBuf| fs::read(path).unwrap_or_default();
    let mine = |process: &fs::DirEntry| {
        let environ = read(process.path().join("environ"));
        String::from_utf8_lossy(&environ).contains(text(lab.dir.path()))
    };
    let hangs = |thread: &fs::DirEntry| {
        let of = |what: &str| String::from_utf8_lossy(&read(thread.path().join(what))).into_owned();
        let place = of("wchan");
        ["hdrive-disk", "hdrive-mount"].contains(&of("comm").trim())
            && !place.contains("futex")
            && place.contains('_')
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().filter(mine);
    let threads = processes.flat_map(|process| fs::read_dir(process.path().join("task"))).flatten();
    let name = |thread: fs::DirEntry| thread.file_name().into_string().unwrap();
    threads.flatten().filter(hangs).map(name).collect()
}

/// Commands that have come to the disk, one of their threads each.
pub fn hang<const N: usize>(lab: &Lab, store: &str, commands: [&[&str]; N]) -> [Hdrive; N] {
    let before = hanging(lab);
    let processes = commands.map(|command| lab.spawn(store, command));
    let come = || (hanging(lab).difference(&before).count() >= N).then_some(());
    eventually(&format!("{commands:?} at the disk"), PATIENCE, come);
    processes
}

/// Ctrl-C.
fn interrupt(process: &mut Hdrive, code: i32, what: &[&str]) {
    process.catches(Signal::SIGINT);
    assert!(!process.has_ended(), "{what:?} did not wait for the disk");
    process.signal(Signal::SIGINT);
    assert_eq!(process.wait(AT_ONCE).code(), Some(code), "{what:?}: {}", process.errors());
}

/// A command of this store is interrupted when it has come to the disk.
fn hang_and_interrupt(lab: &Lab, store: &str, command: &[&str]) {
    let [mut process] = hang(lab, store, [command]);
    // Whoever mounts waits for Ctrl-C, and in the background for being mounted.
    let code = if command[0] == "mount" && command[1] != "--daemon" { 0 } else { 130 };
    interrupt(&mut process, code, command);
}

/// The same store goes on, in time.
fn works(lab: &Lab, key: &str, own: &Path) {
    assert_eq!(lab.run("store", &["cat", &format!("{key}/file")]).text(), "near");
    assert_eq!(lab.run("store", &["put", "put", text(own)]).code, 0);
    assert!(lab.run("store", &["status"]).text().contains(key));
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
        hang_and_interrupt(&lab, "store", command);
    }
    // More of them at a time than there are threads for commands.
    let share: &[&str] = &["share", text(&folder)];
    let mut hung = hang(&lab, "store", [share; 5]);
    works(&lab, &key, &near);
    for process in &mut hung {
        interrupt(process, 130, share);
    }
    works(&lab, &key, &near);
    interrupt(&mut owner, 0, &["the owner"]);
    // And those that own the store themselves.
    for command in &commands[1..9] {
        hang_and_interrupt(&lab, "store", command);
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
    hang_and_interrupt(&lab, "other-store", &share);
    let mount = ["mount", &key, text(&missing)];
    let daemon = ["mount", "--daemon", &key, text(&missing)];
    hang_and_interrupt(&lab, "store", &mount);
    hang_and_interrupt(&lab, "store", &daemon);
    // It owns its store itself, so that the thread is its own.
    hang_and_interrupt(&lab, "third-store", &daemon);
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
    hang_and_interrupt(&lab, "store", &put);
    // Its thread still waits for the disk, and keeps the drive from nobody.
    is_free(&lab, "hung");
    assert_eq!(lab.run("store", &["put", "hung/mine", text(&near.join("file"))]).code, 0);
    assert_eq!(lab.run("store", &["cat", "hung/mine"]).text(), "near");
    assert_eq!(lab.run("store", &["ls", "hung"]).text().trim(), "mine");
    // What it has open cannot be removed, and that is said with the way out. It has nothing open yet if already the look
    // for the folder hung, of which the kernel knows no more after a second.
    let forget = lab.run("store", &["forget", "--yes", "hung"]);
    if forget.code != 0 {
        assert_eq!(forget.code, 1, "{}", forget.stderr);
        let end = format!("ends with process {}", owner.pid());
        assert!(forget.stderr.contains(&end), "{}", forget.stderr);
    }
    // Not a mount of hdrive by its name: what lies in it may be shared.
    let over = lab.folder("over");
    let (upper, work) = (lab.folder("upper"), lab.folder("work"));
    let options = [("lowerdir", &disk.mount.at), ("upperdir", &upper), ("workdir", &work)]
        .map(|(name, at)| format!("{name}={}", text(at)));
    let overlay = Place::of("overlay", &over, &options.join(","));
    let shared = over.join("cold");
    if overlay.is_some() {
        let share = ["share", text(&shared)];
        let [mut process] = hang(&lab, "store", [&share]);
        let key = process.line("key: ");
        interrupt(&mut process, 130, &share);
        is_free(&lab, &key);
        // And it can be shared again, which hangs again.
        let [mut process] = hang(&lab, "store", [&share]);
        assert_eq!(process.line("key: "), key);
        interrupt(&mut process, 130, &share);
    }
    works(&lab, &key, &near);
    interrupt(&mut owner, 0, &["the owner"]);
}

/// Nobody writes the drive.
fn is_free(lab: &Lab, drive: &str) {
    let gc = lab.run("store", &["gc", drive]);
    assert_eq!(gc.code, 0, "{}", gc.stderr);
}
