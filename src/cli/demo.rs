//! `hdrive demo`: the whole story on one machine, with the real processes and no network.
//!
//! A private DHT on loopback, one process that shares a folder, one with another store that mounts it by
//! key; a listing, checksums compared, times. Everything lives in one temporary folder and is gone at the
//! end, also when a step fails.

use super::args::{Demo, Global};
use super::exit::{Exit, Fail, Failure, Result};
use super::fault::joined;
use super::signals::Signals;
use super::words::bytes;
use crate::fs::How;
use crate::threads;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The longest any one step may take.
const STEP: Duration = Duration::from_secs(120);
/// How often a wait looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);
/// A process that has not ended so long after it was told to is killed.
const END: Duration = Duration::from_secs(10);
/// The same after Ctrl-C.
const HASTE: Duration = Duration::from_millis(300);

/// Where it is mounted.
const MOUNT: &str = "mnt";

/// Somebody pressed Ctrl-C: every step ends at its next look at this, and what it made is removed.
static STOP: AtomicBool = AtomicBool::new(false);

fn go_on() -> Result {
    match STOP.load(Ordering::Relaxed) {
        true => Err(Failure::new(Exit::Interrupted, "interrupted; everything of it is removed")),
        false => Ok(()),
    }
}

pub fn run(args: &Demo, _global: &Global) -> Result<Exit> {
    let size = args.size;
    super::runtime(1)?.block_on(async {
        let mut signals = Signals::new().or_exit(Exit::Failed)?;
        let mut story = tokio::task::spawn_blocking(move || story(size));
        loop {
            tokio::select! {
                done = &mut story => {
                    let done = joined(done)?;
                    // What went wrong may have gone wrong for that: the terminal interrupts all of them at once.
                    if done.is_err() && tokio::time::timeout(HASTE, signals.next()).await.is_ok() {
                        STOP.store(true, Ordering::Relaxed);
                    }
                    return done.or_else(|failure| go_on().and(Err(failure)));
                }
                _ = signals.next() => STOP.store(true, Ordering::Relaxed),
            }
        }
    })
}

fn story(size: u64) -> Result<Exit> {
    let dir = Scratch::new()?;
    let shared = dir.0.join("shared");
    fill(&shared, size)?;
    say("a private network on this machine: nothing leaves it")?;
    let mut dht = Process::start(&dir.0, None, "dht", &["dht", "--bind", "127.0.0.1:0"])?;
    let bootstrap = dht.line("listening: ")?;
    say(&format!("  DHT node at {bootstrap}"))?;

    let start = Instant::now();
    let mut share = Process::start(&dir.0, Some(&bootstrap), "alice", &["share", path(&shared)])?;
    let key = share.line("key: ")?;
    let told = share.line("shared: ")?;
    say(&format!("alice shares a folder: {told}, in {}", seconds(start)))?;
    say(&format!("  hdrive share {}\n  key: {key}", path(&shared)))?;

    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        say("/dev/fuse cannot be opened here, so bob downloads instead of mounting")?;
        return download(&dir.0, &bootstrap, &key, &shared);
    }
    let mountpoint = dir.0.join(MOUNT);
    fs::create_dir(&mountpoint).or_exit(Exit::Failed)?;
    let start = Instant::now();
    let mount = ["mount", &key, path(&mountpoint)];
    let mut bob = Process::start(&dir.0, Some(&bootstrap), "bob", &mount)?;
    bob.line("mounted: ")?;
    say(&format!("bob mounts it with the key alone, in {}", seconds(start)))?;
    say(&format!("  hdrive mount KEY {}", path(&mountpoint)))?;

    let start = Instant::now();
    let names = tree(&mountpoint)?;
    go_on()?;
    say(&format!("bob lists {} names in {}", names.len(), seconds(start)))?;
    for name in names.iter().take(5) {
        say(&format!("  {name}"))?;
    }
    let there = tree(&shared)?;
    go_on()?;
    if there != names {
        return Err(Failure::new(Exit::Failed, "the mount does not show what alice shares"));
    }
    compare(&shared, &mountpoint, &names)?;

    let start = Instant::now();
    fs::write(shared.join("news.txt"), "fresh from alice\n").or_exit(Exit::Failed)?;
    let news = mountpoint.join("news.txt");
    while !fs::read_to_string(&news).is_ok_and(|text| text.ends_with('\n')) {
        go_on()?;
        if start.elapsed() > STEP {
            return Err(Failure::new(Exit::Failed, "alice's new file did not reach bob"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    say(&format!("alice writes a file; bob sees it after {}", seconds(start)))?;
    bob.end();
    say("done; everything of it is removed")?;
    Ok(Exit::Ok)
}

/// Without FUSE: the same check through `hdrive get`.
fn download(dir: &Path, bootstrap: &str, key: &str, shared: &Path) -> Result<Exit> {
    let copy = dir.join("copy");
    let start = Instant::now();
    let mut bob = Process::start(dir, Some(bootstrap), "bob", &["get", key, path(&copy)])?;
    let status = loop {
        go_on()?;
        match bob.child.try_wait().or_exit(Exit::Failed)? {
            Some(status) => break status,
            None => std::thread::sleep(LOOK),
        }
    };
    if !status.success() {
        return Err(Failure::new(Exit::Failed, "bob could not download the drive"));
    }
    say(&format!("bob downloads it in {}", seconds(start)))?;
    compare(shared, &copy, &tree(shared)?)?;
    Ok(Exit::Ok)
}

/// Reads every file on both sides and compares their hashes.
fn compare(left: &Path, right: &Path, names: &[String]) -> Result {
    let start = Instant::now();
    let mut total = 0;
    for name in names.iter().filter(|name| !name.ends_with('/')) {
        let (a, n) = checksum(&left.join(name))?;
        let (b, _) = checksum(&right.join(name))?;
        if a != b {
            return Err(Failure::new(Exit::Failed, format_args!("{name} differs")));
        }
        total += n;
    }
    let rate = bytes((total as f64 / start.elapsed().as_secs_f64()) as u64);
    say(&format!(
        "bob reads everything, {} in {} ({rate}/s, checksums of both sides included): identical",
        bytes(total),
        seconds(start)
    ))?;
    Ok(())
}

fn checksum(path: &Path) -> Result<(blake2b_simd::Hash, u64)> {
    let mut file = File::open(path).or_fail(Exit::Failed, path.display())?;
    let mut state = blake2b_simd::State::new();
    let mut buf = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        go_on()?;
        let n = file.read(&mut buf).or_fail(Exit::Failed, path.display())?;
        if n == 0 {
            return Ok((state.finalize(), total));
        }
        state.update(&buf[..n]);
        total += n as u64;
    }
}

/// All names below `dir`, sorted; directories end with a slash.
fn tree(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(at) = todo.pop() {
        go_on()?;
        let entries = fs::read_dir(dir.join(&at)).or_fail(Exit::Failed, dir.display())?;
        for entry in entries {
            let entry = entry.or_fail(Exit::Failed, dir.display())?;
            let name = at.join(entry.file_name());
            let text = name.to_string_lossy().into_owned();
            if entry.file_type().or_exit(Exit::Failed)?.is_dir() {
                names.push(format!("{text}/"));
                todo.push(name);
            } else {
                names.push(text);
            }
        }
    }
    names.sort();
    Ok(names)
}

/// What alice shares: a few documents, a hundred small files, one large one.
fn fill(dir: &Path, size: u64) -> Result {
    let write = |name: &str, content: &[u8]| {
        let file = dir.join(name);
        fs::create_dir_all(file.parent().unwrap_or(dir)).or_fail(Exit::Failed, file.display())?;
        fs::write(&file, content).or_fail(Exit::Failed, file.display())
    };
    write("readme.txt", b"Hello from alice.\n")?;
    write("docs/notes.md", b"# Notes\n\nRead me on another machine.\n")?;
    for i in 0..100 {
        write(&format!("photos/2024/{i:03}.txt"), format!("photo {i}\n").as_bytes())?;
    }
    let mut file = File::create(dir.join("film.bin")).or_fail(Exit::Failed, dir.display())?;
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut block = vec![0u8; 1 << 16];
    let mut left = size;
    while left > 0 {
        go_on()?;
        for word in block.chunks_exact_mut(8) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            word.copy_from_slice(&x.to_le_bytes());
        }
        let n = left.min(block.len() as u64) as usize;
        file.write_all(&block[..n]).or_fail(Exit::Failed, dir.display())?;
        left -= n as u64;
    }
    Ok(())
}

/// A demonstration that nobody reads any more goes on; one that nobody can read is none.
fn say(text: &str) -> Result {
    super::output::say(text).or_fail(Exit::Failed, "standard output")
}

fn seconds(start: Instant) -> String {
    format!("{:.2} s", start.elapsed().as_secs_f64())
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// A folder below the system's temporary one, removed with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let name = format!("hdrive-demo-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).or_fail(Exit::Failed, dir.display())?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // One who was killed may have left it.
        let _ = crate::fs::unmount(&self.0.join(MOUNT), How::Lazy);
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Another hdrive, ended when dropped.
struct Process {
    name: &'static str,
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(
        dir: &Path,
        bootstrap: Option<&str>,
        name: &'static str,
        args: &[&str],
    ) -> Result<Self> {
        let exe = std::env::current_exe().or_fail(Exit::Failed, "cannot find my own program")?;
        let mut command = Command::new(exe);
        command.args(args).env("HDRIVE_STORE", dir.join(format!("{name}-store")));
        command.env("HDRIVE_LOCAL", "127.0.0.1:0").env_remove("HDRIVE_BOOTSTRAP");
        if let Some(bootstrap) = bootstrap {
            command.env("HDRIVE_BOOTSTRAP", bootstrap);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().map_err(|error| threads::told("hdrive", error));
        let mut child = child.or_fail(Exit::Failed, name)?;
        let (to, lines) = channel();
        let stdout = child.stdout.take();
        let process = Self { name, child, lines };
        if let Some(stdout) = stdout {
            let read = threads::spawn("hdrive-lines", move || {
                for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                    if to.send(line).is_err() {
                        return;
                    }
                }
            });
            read.or_exit(Exit::Failed)?;
        }
        Ok(process)
    }

    /// What follows `prefix` on the next line that starts with it.
    fn line(&mut self, prefix: &str) -> Result<String> {
        let give_up = Instant::now() + STEP;
        loop {
            go_on()?;
            let line = match self.lines.recv_timeout(LOOK) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) if Instant::now() < give_up => continue,
                Err(_) => {
                    go_on()?;
                    let text = format!("{} did not say '{prefix}'", self.name);
                    return Err(Failure::new(Exit::Failed, text));
                }
            };
            if let Some(rest) = line.strip_prefix(prefix) {
                return Ok(rest.to_string());
            }
        }
    }

    /// Ctrl-C, then a wait; killed if it does not end.
    fn end(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        let start = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            // Nobody needs what it keeps, nor its good-bye.
            let patience = if STOP.load(Ordering::Relaxed) { HASTE } else { END };
            if start.elapsed() > patience {
                let _ = self.child.kill();
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.end();
        }
    }
}
