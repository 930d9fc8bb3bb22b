//! What the whole-program tests share: hdrive processes, JavaScript peers, private networks, deadlines.
//!
//! Everything talks over loopback. Every wait has a deadline, and dropping a process ends it.
#![allow(dead_code, unused_imports, reason = "each test program uses its own part of this")]

mod place;
pub mod reference;
mod required;

pub use place::{Place, mounts_available};
pub use required::available;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for anything that should happen at once but runs on a busy machine. That nothing was waited for is shown by
/// a word that is not said, by a count, or by a wait that would be longer than this.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The same where what is wrong would be right within [`PATIENCE`]: a read that no peer answers ends after half a minute,
/// and the kernel asks again after a minute what it knows.
pub const AT_ONCE: Duration = Duration::from_secs(25);

/// What a mount is told where nothing may end because a read was given up.
pub const NEVER: &str = "10m";

/// A bootstrap node that does not answer: a test without a network of its own must not meet the public one.
pub const NOWHERE: &str = "127.0.0.1:9";

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `size` bytes that depend on `seed` alone; `tests/js/peer.js` makes the same.
pub fn pattern(seed: u32, size: usize) -> Vec<u8> {
    let mut x = seed;
    let mut out = Vec::with_capacity(size + 4);
    while out.len() < size {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(size);
    out
}

/// Whether FUSE can be used; where it must (`HDRIVE_REQUIRE_ALL=1`), its absence is a failure.
pub fn fuse_available() -> bool {
    available("/dev/fuse", fs::File::options().read(true).write(true).open("/dev/fuse").is_ok())
}

/// Whether Node.js and the reference's packages are here.
pub fn js_available() -> bool {
    reference::node().is_some()
}

/// Tries `check` until it gives a value or the deadline is over.
pub fn eventually<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + limit;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < give_up, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Does what may hang, within the usual patience.
pub fn within<T: Send + 'static>(what: &str, act: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = channel();
    thread::spawn(move || done.send(act()));
    result.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("{what}: {e:?} within {PATIENCE:?}"))
}

/// Waits until a process catches a signal: before that it would die of it, as any program does.
pub fn catches(pid: u32, signal: Signal) {
    let bit = 1 << (signal as u32 - 1);
    let caught = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        (u64::from_str_radix(mask.trim(), 16).unwrap() & bit != 0).then_some(())
    };
    eventually(&format!("process {pid} catches {signal}"), PATIENCE, caught);
}

/// Waits for the end of a process.
pub fn end_of(child: &mut Child) -> ExitStatus {
    eventually("the end of a process", PATIENCE, || child.try_wait().unwrap())
}

/// Ends an owner, or whoever works on its store.
pub fn stop(mut process: Hdrive) {
    process.signal(Signal::SIGINT);
    process.wait(PATIENCE);
}

/// Copies a store, or a part of it, as a backup does.
pub fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// Lines of a pipe, read by a thread so that a wait can have a deadline.
struct Lines {
    from: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static, echo: Option<&'static str>) -> Self {
        let (to, from) = channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if let Some(name) = echo {
                    eprintln!("[{name}] {line}");
                }
                if to.send(line).is_err() {
                    break;
                }
            }
        });
        Self { from, seen: Vec::new() }
    }

    fn next(&mut self, limit: Duration) -> Result<String, RecvTimeoutError> {
        let line = self.from.recv_timeout(limit)?;
        self.seen.push(line.clone());
        Ok(line)
    }
}

/// A JavaScript peer driven over its standard streams.
pub struct Js {
    child: Child,
    stdin: ChildStdin,
    lines: Lines,
    next_id: u64,
    dir: tempfile::TempDir,
}

impl Js {
    pub fn spawn() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = reference::node()
            .expect("the reference is here")
            .arg(root().join("tests/js/peer.js"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node runs");
        let stdin = child.stdin.take().unwrap();
        let lines = Lines::of(child.stdout.take().unwrap(), None);
        Self { child, stdin, lines, next_id: 1, dir }
    }

    /// A peer with a store, on the network of `bootstrap`.
    pub fn peer(bootstrap: &str) -> Self {
        let mut js = Self::spawn();
        let dir = js.dir.path().join("store");
        js.call("start", json!({ "bootstrap": [bootstrap], "dir": dir }));
        js
    }

    /// Runs one command of `peer.js` and returns its answer; a JavaScript error is a panic here.
    pub fn call(&mut self, op: &str, args: Value) -> Value {
        self.call_within(PATIENCE, op, args)
    }

    pub fn call_within(&mut self, limit: Duration, op: &str, mut args: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        args["id"] = id.into();
        args["op"] = op.into();
        writeln!(self.stdin, "{args}").expect("the JavaScript peer listens");
        let give_up = Instant::now() + limit;
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            let line = self
                .lines
                .next(left)
                .unwrap_or_else(|e| panic!("{op} of the JavaScript peer: {e:?} within {limit:?}"));
            let Ok(answer) = serde_json::from_str::<Value>(&line) else { continue };
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{op}: {}", answer["error"].as_str().unwrap());
                return answer;
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Js {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running hdrive command.
pub struct Hdrive {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Hdrive {
    pub fn command(args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hdrive"));
        command.args(args).env_remove("HDRIVE_STORE").env("HDRIVE_BOOTSTRAP", NOWHERE);
        command.env("HDRIVE_LOCAL", "127.0.0.1:0").env("HDRIVE_NO_LAN", "1");
        command.env("HDRIVE_NO_PORT_MAPPING", "1");
        command
    }

    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("hdrive runs");
        let stdout = Lines::of(child.stdout.take().unwrap(), None);
        let stderr = Lines::of(child.stderr.take().unwrap(), Some("hdrive"));
        Self { child, stdout, stderr }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What follows `prefix` on the first line of stdout that starts with it.
    pub fn line(&mut self, prefix: &str) -> String {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            match self.stdout.next(left) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(prefix) {
                        return rest.to_string();
                    }
                }
                Err(e) => {
                    panic!("no line '{prefix}…' on stdout: {e:?}; saw {:?}", self.stdout.seen)
                }
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits until it catches a signal.
    pub fn catches(&self, signal: Signal) {
        catches(self.pid(), signal);
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        eventually("the end of hdrive", limit, || self.child.try_wait().unwrap())
    }

    /// Waits for a line on stderr that holds `text`; tells that line.
    pub fn told(&mut self, text: &str) -> String {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.stderr.next(give_up.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(e) => panic!("no '{text}' on stderr: {e:?}; saw {:?}", self.stderr.seen),
            }
        }
    }

    /// How long a next line may be in coming: of who has ended all is read, of others what is here.
    fn pause(&mut self) -> Duration {
        if self.has_ended() { PATIENCE } else { Duration::from_millis(500) }
    }

    /// The lines of stdout that nobody looked at.
    pub fn rest(&mut self) -> Vec<String> {
        let pause = self.pause();
        std::iter::from_fn(|| self.stdout.next(pause).ok()).collect()
    }

    /// What was said on stderr.
    pub fn errors(&mut self) -> String {
        let pause = self.pause();
        while self.stderr.next(pause).is_ok() {}
        self.stderr.seen.join("\n")
    }

    /// Resident memory now, in bytes.
    pub fn resident(&self) -> u64 {
        resident(self.child.id())
    }
}

impl Drop for Hdrive {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::SIGTERM);
            let give_up = Instant::now() + Duration::from_secs(5);
            while let Ok(None) = self.child.try_wait() {
                if Instant::now() > give_up {
                    let _ = self.child.kill();
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.child.wait();
    }
}

/// Resident memory of a process in bytes; 0 when it is gone.
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
}

/// One hdrive command run to its end.
pub struct Done {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Done {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A private DHT and what runs on it. The first node is hdrive's own.
pub struct Lab {
    pub dht: Hdrive,
    pub bootstrap: String,
    pub dir: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Self {
        let mut dht = Hdrive::spawn(Hdrive::command(&["dht", "--bind", "127.0.0.1:0"]));
        let bootstrap = dht.line("listening: ");
        Self { dht, bootstrap, dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A folder below the laboratory's own, made.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        match fs::create_dir_all(&path) {
            // A dead mount is there: nothing more can be said of it.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.unwrap(),
        }
        path
    }

    /// A command on the store called `store`.
    pub fn command(&self, store: &str, args: &[&str]) -> Command {
        let mut command = Hdrive::command(args);
        command.env("HDRIVE_STORE", self.path(store)).env("HDRIVE_BOOTSTRAP", &self.bootstrap);
        command
    }

    pub fn spawn(&self, store: &str, args: &[&str]) -> Hdrive {
        Hdrive::spawn(self.command(store, args))
    }

    /// A command that owns its store before this returns.
    pub fn owner(&self, store: &str, args: &[&str]) -> Hdrive {
        let process = self.spawn(store, args);
        let owns = || (self.owner_pid(store) == Some(process.pid())).then_some(());
        eventually("the owner of the store", PATIENCE, owns);
        process
    }

    /// Who owns the store, or did so last.
    pub fn owner_pid(&self, store: &str) -> Option<u32> {
        fs::read_to_string(self.path(store).join("lock")).ok()?.trim().parse().ok()
    }

    /// Runs a command to its end, within the usual patience.
    pub fn run(&self, store: &str, args: &[&str]) -> Done {
        run(self.command(store, args))
    }

    /// A share of `folder` from the store called `store`: the process and the key, ready to be found.
    pub fn share(&self, store: &str, folder: &Path) -> (Hdrive, String) {
        let mut share = self.spawn(store, &["share", text(folder)]);
        let key = share.line("key: ");
        share.line("shared: ");
        (share, key)
    }

    /// A mount of `key` at a fresh folder, with names in it.
    pub fn mount(&self, store: &str, key: &str, more: &[&str]) -> Mounted {
        let mount = self.mount_alone(store, key, more);
        // On a busy machine the drive may be found only after the mount is up.
        let names = || fs::read_dir(&mount.at).ok()?.next().map(drop);
        eventually("names in the mount", PATIENCE, names);
        mount
    }

    /// The same as soon as it is mounted, whether or not anything is there.
    pub fn mount_alone(&self, store: &str, key: &str, more: &[&str]) -> Mounted {
        let at = self.folder(&format!("mnt-{store}"));
        let mut args = vec!["mount", key, text(&at)];
        args.extend(more);
        let mut process = self.spawn(store, &args);
        process.line("mounted: ");
        Mounted { process, at }
    }

    pub fn js(&self) -> Js {
        Js::peer(&self.bootstrap)
    }
}

/// A mounted drive; unmounted when dropped.
pub struct Mounted {
    pub process: Hdrive,
    pub at: PathBuf,
}

impl Mounted {
    pub fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }
}

pub fn run(mut command: Command) -> Done {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("hdrive runs");
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let out = thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stdout.read_to_end(&mut bytes);
        bytes
    });
    let err = thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let give_up = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > give_up {
            let _ = child.kill();
            panic!("{command:?} did not end within {PATIENCE:?}: {}", err.join().unwrap());
        }
        thread::sleep(Duration::from_millis(5));
    };
    Done {
        code: status.code().unwrap_or(-1),
        stdout: out.join().unwrap(),
        stderr: err.join().unwrap(),
    }
}

/// The same command, as a shell starts it that has run `first`.
pub fn after(first: &str, hdrive: Command) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{first}; exec \"$0\" \"$@\"")]).arg(hdrive.get_program());
    command.args(hdrive.get_args());
    command.envs(hdrive.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(hdrive.get_current_dir().unwrap_or(Path::new("/")));
    command
}

pub fn text(path: &(impl AsRef<OsStr> + ?Sized)) -> &str {
    path.as_ref().to_str().unwrap()
}

/// SHA-256 as hex, as the JavaScript side tells it.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hdrive::key::hex(&sha2::Sha256::digest(bytes))
}
