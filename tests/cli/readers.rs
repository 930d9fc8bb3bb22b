//! Whoever reads what a command says may stop reading: a terminal that is paused, a pipe whose reader sleeps. The command
//! waits or goes on, its process serves all others, and signals end it.

use crate::common::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

/// Whether what is written into it is taken now, of a terminal or of a pipe.
fn takes(end: impl AsFd) -> bool {
    let mut ends = [PollFd::new(end.as_fd(), PollFlags::POLLOUT)];
    poll(&mut ends, PollTimeout::ZERO).unwrap() > 0
}

/// Waits until the process has so many threads that write. One that gets on ends when there is nothing more to write.
fn lines_that_hang(process: u32, wanted: usize) {
    let threads = format!("/proc/{process}/task");
    let writes = |thread: &fs::DirEntry| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name == "hdrive-writer\n")
    };
    let count = || fs::read_dir(&threads).unwrap().flatten().filter(writes).count();
    eventually("lines that hang", PATIENCE, || (count() == wanted).then_some(()));
}

/// A process whose output goes where nobody need read it.
struct Unread(Child);

impl Unread {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    fn ends(&mut self, signal: Signal) -> ExitStatus {
        kill(self.pid(), signal).unwrap();
        end_of(&mut self.0)
    }

    /// Waits until nothing more goes into its output.
    fn hangs(&self) {
        let pipe = self.0.stdout.as_ref().unwrap().as_raw_fd();
        let end = File::options().write(true).open(format!("/proc/self/fd/{pipe}")).unwrap();
        eventually("output that hangs", PATIENCE, || (!takes(&end)).then_some(()));
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

/// A command in a terminal of its own.
struct Terminal {
    process: Unread,
    keys: File,
    line: OwnedFd,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn run(lab: &Lab, store: &str, args: &[&str]) -> Self {
        let pty = nix::pty::openpty(None, None).unwrap();
        for end in [&pty.master, &pty.slave] {
            rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC).unwrap();
        }
        let end = |end: &OwnedFd| Stdio::from(end.try_clone().unwrap());
        let mut command = lab.command(store, args);
        command.stdin(end(&pty.slave)).stdout(end(&pty.slave)).stderr(end(&pty.slave));
        let process = Unread(command.spawn().unwrap());
        let keys = File::from(pty.master);
        let (mut screen, shown) = (keys.try_clone().unwrap(), Arc::new(Mutex::new(String::new())));
        let also = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(n @ 1..) = screen.read(&mut buf) {
                also.lock().unwrap().push_str(&String::from_utf8_lossy(&buf[..n]));
            }
        });
        Self { process, keys, line: pty.slave, shown }
    }

    fn shows(&self, text: &str) -> bool {
        self.shown.lock().unwrap().contains(text)
    }

    fn wait_for(&self, text: &str) {
        eventually(text, PATIENCE, || self.shows(text).then_some(()));
    }

    /// Ctrl-S, when all that was said is shown.
    fn pause(&mut self, owner: u32) {
        lines_that_hang(owner, 0);
        self.keys.write_all(b"\x13").unwrap();
        eventually("a paused terminal", PATIENCE, || (!takes(&self.line)).then_some(()));
    }

    /// Ctrl-Q.
    fn go_on(&mut self) {
        self.keys.write_all(b"\x11").unwrap();
    }
}

/// A command whose stdout and stderr are pipes that nobody reads.
fn unread(lab: &Lab, store: &str, args: &[&str]) -> Unread {
    let mut command = lab.command(store, args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Unread(command.spawn().unwrap())
}

fn pipe(folder: &std::path::Path, name: &str) {
    nix::unistd::mkfifo(&folder.join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
}

/// What a command that nothing keeps prints, into a file: a pipe may be held open by whoever was to run it.
fn printed(lab: &Lab, store: &str, args: &[&str]) -> String {
    let at = lab.path("printed");
    let mut command = lab.command(store, args);
    command.stdin(Stdio::null()).stdout(File::create(&at).unwrap());
    command.stderr(File::create(lab.path("errors")).unwrap());
    let mut process = Unread(command.spawn().unwrap());
    let status = eventually("an answer of the store", PATIENCE, || process.0.try_wait().unwrap());
    assert!(status.success(), "{}", fs::read_to_string(lab.path("errors")).unwrap());
    fs::read_to_string(at).unwrap()
}

fn answers(lab: &Lab, store: &str) -> String {
    printed(lab, store, &["status"])
}

#[test]
fn a_share_in_a_paused_terminal_goes_on_and_says_it_all_later() {
    let lab = Lab::new();
    let folder = lab.folder("a");
    fs::write(folder.join("first"), "1").unwrap();
    let mut share = Terminal::run(&lab, "store", &["share", text(&folder)]);
    share.wait_for("shared: ");
    let owner = share.process.0.id();
    share.pause(owner);
    pipe(&folder, "pipe");
    lines_that_hang(owner, 1);
    fs::write(folder.join("second"), "2").unwrap();
    let key = share.shown.lock().unwrap().split("key: ").nth(1).unwrap()[..52].to_string();
    let second = || printed(&lab, "store", &["ls", &key]).contains("second").then_some(());
    eventually("what is shared by a paused terminal", PATIENCE, second);
    answers(&lab, "store");
    assert!(!share.shows("left out"), "it is paused");
    share.go_on();
    share.wait_for("left out: ");
    share.pause(owner);
    pipe(&folder, "pipe2");
    lines_that_hang(owner, 1);
    let status = share.process.ends(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0), "{}", share.shown.lock().unwrap());
    assert!(!share.shows("pipe2"));
}

#[test]
fn paused_terminals_of_others_hang_no_mount_and_no_end() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let far = lab.folder("far");
    fs::write(far.join("cold"), pattern(1, 3_000_000)).unwrap();
    let (_far, key) = lab.share("far-store", &far);
    let mut mount = lab.mount("store", &key, &[]);
    let mut shares: Vec<(Terminal, std::path::PathBuf)> = (0..3)
        .map(|n| {
            let folder = lab.folder(&format!("share{n}"));
            let share = Terminal::run(&lab, "store", &["share", text(&folder)]);
            share.wait_for("shared: ");
            (share, folder)
        })
        .collect();
    let owner = mount.process.pid();
    shares.iter_mut().for_each(|(share, _)| share.pause(owner));
    shares.iter().for_each(|(_, folder)| pipe(folder, "pipe"));
    lines_that_hang(owner, 3);
    assert!(answers(&lab, "store").contains("share2"));
    let cold = mount.path("cold");
    let (to, read) = std::sync::mpsc::channel();
    std::thread::spawn(move || to.send(fs::read(cold).map(|bytes| bytes.len())));
    assert_eq!(read.recv_timeout(PATIENCE).unwrap().unwrap(), 3_000_000);
    let (mut first, _) = shares.pop().unwrap();
    first.process.ends(Signal::SIGTERM);
    assert!(answers(&lab, "store").contains("share0"));
    mount.process.signal(Signal::SIGTERM);
    let unmounted = || fs::read_dir(&mount.at).ok()?.next().is_none().then_some(());
    eventually("the unmount", PATIENCE, unmounted);
    mount.process.signal(Signal::SIGTERM);
    assert_eq!(mount.process.wait(PATIENCE).code(), Some(0));
}

#[test]
fn output_that_nobody_reads_waits_whole_and_keeps_nobody() {
    let lab = Lab::new();
    let folder = lab.folder("many");
    let name = |n| format!("{n:04}-{}", "x".repeat(100));
    (0..6000).for_each(|n| fs::write(folder.join(name(n)), "").unwrap());
    fs::write(folder.join("large"), pattern(1, 3_000_000)).unwrap();
    let (mut owner, key) = lab.share("store", &folder);
    let cat = format!("{key}/large");
    let commands: [&[&str]; 4] =
        [&["--json", "log", &key], &["ls", &key], &["ls", "-l", &key], &["cat", &cat]];
    let mut hung: Vec<Unread> =
        commands.iter().chain(&commands).map(|args| unread(&lab, "store", args)).collect();
    hung.iter().for_each(Unread::hangs);
    answers(&lab, "store");
    for process in &mut hung {
        assert!(!process.has_ended());
        assert_eq!(process.ends(Signal::SIGINT).code(), Some(130));
    }
    let mut late = unread(&lab, "store", &["ls", &key]);
    late.hangs();
    let mut names = String::new();
    late.0.stdout.take().unwrap().read_to_string(&mut names).unwrap();
    assert_eq!(end_of(&mut late.0).code(), Some(0));
    assert_eq!(names.lines().count(), 6001);
    assert!((0..6000).all(|n| names.lines().nth(n) == Some(&*name(n))));
    let hung = unread(&lab, "store", &["ls", &key]);
    hung.hangs();
    owner.signal(Signal::SIGTERM);
    owner.wait(PATIENCE);
    // And one that owns the store itself.
    let mut alone = unread(&lab, "store", &["ls", &key]);
    alone.hangs();
    answers(&lab, "store");
    assert_eq!(alone.ends(Signal::SIGTERM).code(), Some(130));
}

#[test]
fn what_cannot_be_written_is_a_failure_of_every_command() {
    let lab = Lab::new();
    let folder = lab.folder("folder");
    fs::write(folder.join("file"), "1").unwrap();
    let (_share, key) = lab.share("store", &folder);
    let file = format!("{key}/file");
    let commands: [&[&str]; 5] = [
        &["ls", &key],
        &["cat", &file],
        &["--json", "status"],
        &["create", "x"],
        &["dht", "--bind", "127.0.0.1:0"],
    ];
    for args in commands {
        let mut command = lab.command("store", args);
        let full = File::options().write(true).open("/dev/full").unwrap();
        command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped());
        let mut process = Unread(command.spawn().unwrap());
        let mut errors = String::new();
        process.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!(process.0.wait().unwrap().code(), Some(1), "{args:?}");
        assert!(errors.ends_with("error: standard output: No space left on device\n"), "{errors}");
    }
}

/// It says one line, when it was announced, and may have no reader then.
#[test]
fn a_relay_that_nobody_reads_ends_by_a_signal() {
    let lab = Lab::new();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (_reader, full) = std::io::pipe().unwrap();
        let flags = rustix::fs::OFlags::NONBLOCK;
        rustix::fs::fcntl_setfl(&full, flags).unwrap();
        while rustix::io::write(&full, &[b'x'; 4096]).is_ok() {}
        rustix::fs::fcntl_setfl(&full, rustix::fs::OFlags::empty()).unwrap();
        let mut command = lab.command("relay", &["relay"]);
        let mut relay = Unread(command.stdout(full).stderr(Stdio::null()).spawn().unwrap());
        lines_that_hang(relay.0.id(), 1);
        assert_eq!(relay.ends(signal).code(), Some(0));
    }
}
