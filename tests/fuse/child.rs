//! Another process that mounts, or unmounts: this test program itself, told so by its environment.

use crate::common::{PATIENCE, in_time, runtime, soon};
use crate::volume::TestVolume;
use hdrive::fs::{How, MountOptions, mount, unmount};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Directory that a child of this test program mounts on until it is killed.
const CHILD: &str = "HDRIVE_TEST_MOUNT";

/// Set if it mounts on a directory that is not empty as well.
const NONEMPTY: &str = "HDRIVE_TEST_NONEMPTY";

/// Directory that a child of this test program unmounts.
const CHILD_UNMOUNT: &str = "HDRIVE_TEST_UNMOUNT";

/// Not a test of its own: the body of the child.
#[test]
fn child_that_mounts() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let volume = TestVolume::new();
    volume.file("/f", "from the child");
    let nonempty = std::env::var_os(NONEMPTY).is_some();
    let options = MountOptions { nonempty, ..MountOptions::default() };
    let result = mount(volume, Path::new(&dir), &options, runtime().handle().clone());
    match result {
        Ok(mounted) => {
            println!("\nmounted");
            // Longer than whoever waits for it.
            let end = async { tokio::time::timeout(PATIENCE * 5, mounted.ended()).await };
            let _ = runtime().block_on(end);
        }
        Err(error) => println!("\nerror: {error}"),
    }
}

/// Not a test of its own: unmounts what a user mounted.
#[test]
fn child_that_unmounts() {
    let Some(dir) = std::env::var_os(CHILD_UNMOUNT) else { return };
    let how = if std::env::var_os("LAZY").is_some() { How::Lazy } else { How::Clean };
    match unmount(Path::new(&dir), how) {
        Ok(()) => println!("\nunmounted"),
        Err(error) => println!("\nerror: {error}"),
    }
}

pub fn child_command() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child::child_that_mounts", "child::child_that_unmounts"]);
    command.args(["--nocapture", "--test-threads=1"]);
    command
}

/// A child that mounts. Dropped it is killed, stopped or not, and its mount taken away: whoever walks into one that is
/// stopped does not come back.
pub struct Mounting {
    child: Child,
    said: Option<ChildStdout>,
    dir: PathBuf,
    /// Whether its mount is left when it is dropped.
    leaves: bool,
}

impl Mounting {
    /// One that is about to mount on `dir`.
    pub fn start(dir: &Path) -> Self {
        Self::run(child_command(), dir)
    }

    /// The same, whatever lies in `dir`.
    pub fn start_over(dir: &Path) -> Self {
        let mut command = child_command();
        command.env(NONEMPTY, "1");
        Self::run(command, dir)
    }

    fn run(mut command: Command, dir: &Path) -> Self {
        let mut child = command.env(CHILD, dir).stdout(Stdio::piped()).spawn().unwrap();
        let said = child.stdout.take();
        Self { child, said, dir: dir.into(), leaves: false }
    }

    /// One that has mounted on `dir`.
    pub fn at(dir: &Path) -> Self {
        let mut child = Self::start(dir);
        assert_eq!(child.says(), "mounted");
        child
    }

    /// Whether it mounted, or why not.
    pub fn says(&mut self) -> String {
        let said = self.said.take().unwrap();
        in_time("what a child says", move || {
            let mut lines = BufReader::new(said).lines().map(Result::unwrap);
            let said = lines.find(|line| line == "mounted" || line.contains("error:"));
            said.expect("neither mounted nor an error")
        })
    }

    fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
    }

    /// Returns once each of its threads has stopped.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let threads = format!("/proc/{}/task", self.child.id());
        let has_stopped = |thread: fs::DirEntry| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
        };
        soon("a child that is stopped", || {
            fs::read_dir(&threads).unwrap().all(|thread| has_stopped(thread.unwrap()))
        });
    }

    /// The same once it has mounted.
    pub fn kill_9_mounted(mut self) {
        assert_eq!(self.says(), "mounted");
        self.kill_9();
    }

    /// Leaves a dead mount behind.
    pub fn kill_9(mut self) {
        self.leaves = true;
    }
}

impl Drop for Mounting {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
        if !self.leaves {
            let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
        }
    }
}
