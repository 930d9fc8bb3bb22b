//! What `put` and `rm` do to a drive: all of it or nothing, whoever dies in the middle, and nothing hidden.

use crate::common::*;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A store of alice's with a drive called mine.
fn drive() -> Lab {
    let lab = Lab::new();
    assert_eq!(lab.run("alice", &["create", "mine"]).code, 0);
    lab
}

fn list(lab: &Lab) -> String {
    lab.run("alice", &["ls", "-r", "mine"]).text()
}

/// A put of standard input that has got `first` and waits for more.
fn put_begun(lab: &Lab, first: &[u8]) -> Child {
    let mut command = lab.command("alice", &["put", "mine/half", "-"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(first).unwrap();
    let pipe = child.stdin.as_ref().unwrap();
    let is_read = || (rustix::io::ioctl_fionread(pipe).unwrap() == 0).then_some(());
    eventually("what was written is read", PATIENCE, is_read);
    child
}

/// Lengths of all files below a folder.
fn stored(dir: &std::path::Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let len = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => stored(&entry.path()),
        meta => meta.map_or(0, |meta| meta.len()),
    };
    entries.map(len).sum()
}

fn signal(child: &Child, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
}

/// Exit code and what was said.
fn end(mut child: Child) -> (Option<i32>, String) {
    let code = end_of(&mut child).code();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (code, said)
}

#[test]
fn nothing_is_put_where_it_would_hide_something() {
    let lab = drive();
    let folder = lab.folder("folder");
    fs::create_dir(folder.join("sub")).unwrap();
    fs::write(folder.join("sub/file"), "file").unwrap();
    fs::write(folder.join("plain"), "plain").unwrap();
    std::os::unix::fs::symlink("plain", folder.join("link")).unwrap();
    let empty = lab.folder("empty");
    assert_eq!(lab.run("alice", &["put", "mine", text(&folder)]).code, 0);
    let before = list(&lab);
    let plain = folder.join("plain");
    for (target, source, named) in [
        ("mine/sub", plain.as_path(), "/sub is a folder"),
        ("mine/sub/file/x", &plain, "/sub/file is a file"),
        ("mine/plain/a/b", &plain, "/plain is a file"),
        ("mine/link/x", &plain, "/link is a file"),
        ("mine/plain", &folder, "/plain is a file"),
        ("mine/plain", &empty, "/plain is a file"),
        ("mine/sub/file", &folder, "/sub/file is a file"),
        ("mine/sub", "-".as_ref(), "/sub is a folder"),
        ("mine/plain/x", "-".as_ref(), "/plain is a file"),
    ] {
        let done = lab.run("alice", &["put", target, text(source)]);
        assert_eq!(done.code, 1, "{target} {}: {}", source.display(), done.stderr);
        assert!(done.stderr.contains(named), "{target}: {}", done.stderr);
        assert_eq!(list(&lab), before, "{target}");
    }
    // A folder whose files would lie over and below what is there: all or nothing.
    let clash = lab.folder("clash");
    fs::create_dir(clash.join("plain")).unwrap();
    fs::write(clash.join("plain/below"), "x").unwrap();
    fs::write(clash.join("other"), "x").unwrap();
    let done = lab.run("alice", &["put", "mine", text(&clash)]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert_eq!(list(&lab), before);
    // A pipe of this process would be another's, or none, where it is opened.
    assert_eq!(lab.run("alice", &["put", "mine/pipe", "/dev/fd/0"]).code, 2);
    assert_eq!(lab.run("alice", &["put", "mine/empty", "/dev/stdin"]).code, 0);
    assert_eq!(lab.run("alice", &["cat", "mine/empty"]).text(), "");
    assert!(lab.run("alice", &["ls", "-l", "mine/empty"]).text().starts_with("-rw"));
    // A file in the place of a file is what put is for.
    assert_eq!(lab.run("alice", &["put", "mine/plain", text(&folder.join("sub/file"))]).code, 0);
    assert_eq!(lab.run("alice", &["cat", "mine/plain"]).text(), "file");
    let file = lab.path("folder/plain");
    let done = lab.run("alice", &["put", "mine/new", text(&file)]);
    assert!(done.stderr.contains("note: 1 file put, version "), "{}", done.stderr);
}

#[test]
fn empty_folders_are_put_got_and_removed() {
    let lab = drive();
    let folder = lab.folder("folder");
    fs::create_dir_all(folder.join("a/empty")).unwrap();
    fs::write(folder.join("a/file"), "x").unwrap();
    assert_eq!(lab.run("alice", &["put", "mine", text(&folder)]).code, 0);
    let empty = lab.folder("alone");
    assert_eq!(lab.run("alice", &["put", "mine/alone", text(&empty)]).code, 0);
    assert_eq!(list(&lab), "a/\na/empty/\na/file\nalone/\n");
    let out = lab.path("out");
    assert_eq!(lab.run("alice", &["get", "mine", text(&out)]).code, 0);
    assert!(out.join("a/empty").is_dir() && out.join("alone").is_dir());
    // Nothing is hidden by one, nor hides one.
    for target in ["mine/a/file", "mine/a/file/below"] {
        let done = lab.run("alice", &["put", target, text(&empty)]);
        assert_eq!(done.code, 1, "{target}: {}", done.stderr);
        assert!(done.stderr.contains("/a/file is a file"), "{}", done.stderr);
    }
    assert_eq!(lab.run("alice", &["rm", "mine/alone"]).code, 1);
    assert_eq!(lab.run("alice", &["rm", "-r", "mine/alone"]).code, 0);
    assert_eq!(lab.run("alice", &["rm", "-r", "mine/a"]).code, 0);
    assert_eq!(list(&lab), "");
}

#[test]
fn a_folder_that_is_put_leaves_out_what_a_share_of_it_would() {
    use std::os::unix::fs::PermissionsExt;
    let lab = drive();
    let folder = lab.folder("folder");
    for name in ["secret", "key", "file"] {
        fs::write(folder.join(name), "x").unwrap();
    }
    fs::set_permissions(folder.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(folder.join(".hdriveignore"), b"secret\n\xff\n").unwrap();
    let failed = lab.run("alice", &["put", "mine", text(&folder)]);
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    assert!(failed.stderr.contains("line 2 is not UTF-8"), "{}", failed.stderr);
    fs::write(folder.join(".hdriveignore"), "secret\n").unwrap();
    let done = lab.run("alice", &["put", "mine", text(&folder)]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(
        done.stderr.contains("1 file that only the owner could read is now"),
        "{}",
        done.stderr
    );
    let names = lab.run("alice", &["ls", "-r", "mine"]).text();
    assert_eq!(names.lines().collect::<Vec<_>>(), [".hdriveignore", "file", "key"]);
    // What is named is meant.
    let named = lab.run("alice", &["put", "mine/secret", text(&folder.join("secret"))]);
    assert_eq!(named.code, 0, "{}", named.stderr);
}

#[test]
fn an_interrupted_import_says_so() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    File::create(folder.join("large")).unwrap().set_len(3 << 40).unwrap();
    let mut share = lab.spawn("alice", &["share", text(&folder)]);
    share.line("key: ");
    share.signal(Signal::SIGINT);
    assert_eq!(share.wait(PATIENCE).code(), Some(130));
    let said = share.errors();
    assert!(said.contains("not all of the folder is in the drive"), "{said}");
}

#[test]
fn when_the_owner_is_killed_a_put_of_standard_input_fails_and_names_nothing() {
    let lab = drive();
    for kill in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut owner = lab.spawn("alice", &["seed", "mine"]);
        owner.line("key: ");
        let mut put = put_begun(&lab, b"the first");
        owner.signal(kill);
        owner.wait(PATIENCE);
        let _ = put.stdin.as_mut().unwrap().write_all(&[b'x'; 100_000]);
        drop(put.stdin.take());
        let (code, said) = end(put);
        assert_eq!(code, Some(1), "{kill}: {said}");
        assert!(said.contains("error: ") && said.contains("run it again"), "{said}");
        assert_eq!(list(&lab), "", "{kill}");
    }
}

#[test]
fn a_put_that_is_killed_names_nothing() {
    let lab = drive();
    let mut owner = lab.spawn("alice", &["seed", "mine"]);
    owner.line("key: ");
    for kill in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let put = put_begun(&lab, b"the first");
        signal(&put, kill);
        let (code, said) = end(put);
        let wanted = if kill == Signal::SIGKILL { None } else { Some(130) };
        assert_eq!(code, wanted, "{kill}: {said}");
        // Another one has its turn.
        let file = lab.path("file");
        fs::write(&file, "x").unwrap();
        assert_eq!(lab.run("alice", &["put", "mine/file", text(&file)]).code, 0);
        assert_eq!(list(&lab), "file\n", "{kill}");
    }
}

#[test]
fn an_interrupted_put_leaves_the_drive_as_it_was() {
    let lab = drive();
    let put = put_begun(&lab, b"the first");
    signal(&put, Signal::SIGINT);
    let (code, said) = end(put);
    assert_eq!(
        (code, said.as_str()),
        (Some(130), "note: interrupted: the drive is as it was before\n")
    );
    assert_eq!(list(&lab), "");

    // A file that does not come to its end.
    let pipe = lab.folder("folder").join("large");
    File::create(&pipe).unwrap().set_len(3 << 40).unwrap();
    let mut put = lab.spawn("alice", &["put", "mine", text(&lab.path("folder"))]);
    eventually("some of it is written", PATIENCE, || {
        (stored(&lab.path("alice/cores")) > 1 << 20).then_some(())
    });
    put.signal(Signal::SIGINT);
    assert_eq!(put.wait(PATIENCE).code(), Some(130));
    assert_eq!(list(&lab), "");
}

#[test]
fn a_command_that_has_printed_does_not_start_over() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), pattern(1, 10_000_000)).unwrap();
    let (mut share, key) = lab.share("alice", &folder);
    let mut command = lab.command("alice", &["cat", &format!("{key}/file")]);
    let mut cat = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut content = vec![0; 1000];
    cat.stdout.as_mut().unwrap().read_exact(&mut content).unwrap();
    share.signal(Signal::SIGKILL);
    share.wait(PATIENCE);
    cat.stdout.take().unwrap().read_to_end(&mut content).unwrap();
    let (code, said) = end(cat);
    assert_eq!(code, Some(1), "{said}");
    assert!(content.len() < 10_000_000 && pattern(1, content.len()) == content);
}

/// Only what is in the foreground of a terminal may read from it, and the owner need not be.
#[test]
fn put_reads_the_terminal_of_whoever_typed_it() {
    let here = Command::new("setsid").arg("true").status().is_ok();
    if !available("setsid", here) {
        return;
    }
    let lab = drive();
    let pty = nix::pty::openpty(None, None).unwrap();
    // The seed owns the store once it has said something.
    let script = "set -m; \"$0\" seed mine > \"$1\" & until grep -q . \"$1\"; do sleep 0.05; done; \
                  \"$0\" put mine/typed -; echo \"code: $?\"; kill %1";
    let mut command = Command::new("setsid");
    let hdrive = lab.command("alice", &[]);
    command.args(["--ctty", "sh", "-c", script]).arg(env!("CARGO_BIN_EXE_hdrive"));
    fs::write(lab.path("said"), "").unwrap();
    command.arg(lab.path("said"));
    command.envs(hdrive.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let slave = File::from(pty.slave);
    command.stdin(slave.try_clone().unwrap()).stderr(slave).stdout(Stdio::piped());
    let mut shell = command.spawn().unwrap();
    drop(command);
    // It waits in the terminal for whoever may read it.
    let mut master = File::from(pty.master);
    master.write_all(b"one\ntwo\n\x04").unwrap();
    let mut said = String::new();
    let mut out = shell.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        out.read_to_string(&mut said).unwrap();
        said
    });
    end_of(&mut shell);
    let said = reader.join().unwrap();
    assert!(said.contains("code: 0"), "{said}");
    assert_eq!(lab.run("alice", &["cat", "mine/typed"]).text(), "one\ntwo\n");
}

/// Bytes of contents that alice's drive has here.
fn bytes_here(lab: &Lab) -> u64 {
    let done = lab.run("alice", &["gc", "mine", "--dry-run", "--json"]);
    let told: serde_json::Value =
        serde_json::from_str(done.text().lines().next().unwrap()).unwrap();
    told["bytesBefore"].as_u64().unwrap()
}

#[test]
fn what_the_drive_has_is_not_put_again() {
    let lab = drive();
    let folder = lab.folder("folder");
    let large = pattern(7, 1_000_000);
    for name in ["a", "b", "sub/c"] {
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(folder.join(name), &large).unwrap();
        fs::write(folder.join(format!("{name}.small")), "the same").unwrap();
    }
    let put = |target: &str, source: &Path| {
        let done = lab.run("alice", &["put", target, text(source)]);
        assert_eq!(done.code, 0, "{}", done.stderr);
        done.stderr
    };
    put("mine", &folder);
    assert_eq!(bytes_here(&lab), 1_000_008, "equal files are stored once");
    let told = put("mine", &folder);
    put("mine/elsewhere", &folder);
    put("mine/a", &folder.join("b"));
    put("mine/new/name", &folder.join("a"));
    assert_eq!(bytes_here(&lab), 1_000_008);
    assert!(told.contains("6 files put, version 7"), "nothing changed: {told}");
    for name in ["a", "b", "elsewhere/sub/c", "new/name"] {
        assert!(lab.run("alice", &["cat", &format!("mine/{name}")]).stdout == large, "{name}");
    }
    // A file that the kernel makes up does not say how long it is.
    put("mine/version", Path::new("/proc/version"));
    let version = fs::read("/proc/version").unwrap();
    assert_eq!(lab.run("alice", &["cat", "mine/version"]).stdout, version);
    assert_eq!(lab.run("alice", &["rm", "mine/version"]).code, 0);
    // What changed in it is all that it costs.
    let mut changed = large.clone();
    changed[500_000] ^= 1;
    fs::write(folder.join("a"), &changed).unwrap();
    put("mine", &folder);
    assert!(bytes_here(&lab) < 1_000_008 + 70_000 + version.len() as u64, "{}", bytes_here(&lab));
    assert!(lab.run("alice", &["cat", "mine/a"]).stdout == changed);
    assert!(lab.run("alice", &["cat", "mine/b"]).stdout == large);
    // What gc gave back is appended again.
    assert_eq!(lab.run("alice", &["rm", "-r", "mine/a", "mine"]).code, 2);
    for name in ["a", "b", "sub", "elsewhere", "new"] {
        assert_eq!(lab.run("alice", &["rm", "-r", &format!("mine/{name}")]).code, 0, "{name}");
    }
    assert_eq!(lab.run("alice", &["gc", "mine"]).code, 0);
    put("mine/b", &folder.join("b"));
    assert!(lab.run("alice", &["cat", "mine/b"]).stdout == large);
}

/// Writes over a file again and again until it is dropped. Who sleeps in between does not wait for a processor.
struct Writing(Vec<JoinHandle<()>>, Arc<AtomicBool>);

impl Writing {
    fn start(path: &Path, size: usize) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let write = |content: u8| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            let ended = ended.clone();
            std::thread::spawn(move || {
                let part = vec![content; size / 16];
                let mut at = 0;
                while !ended.load(Ordering::Relaxed) {
                    file.write_all_at(&part, (at % 16 * part.len()) as u64).unwrap();
                    at += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
            })
        };
        Self((b'a'..b'e').map(write).collect(), ended)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Relaxed);
        self.0.drain(..).for_each(|writer| writer.join().unwrap());
    }
}

#[test]
fn a_file_that_changes_all_the_time_is_told_and_left_out() {
    let lab = drive();
    let folder = lab.folder("folder");
    for (name, size) in [("busy", 1 << 21), ("small", 4096)] {
        let file = folder.join(name);
        fs::write(&file, vec![b'a'; size]).unwrap();
        fs::write(folder.join("still"), "still").unwrap();
        let writing = Writing::start(&file, size);
        let put = |target: &str, source: &Path| {
            // On a busy machine nothing may be written for a while.
            let mut tries = (0..5).map(|_| lab.run("alice", &["put", target, text(source)]));
            let done = tries.find(|done| done.code != 0).expect("it is left out");
            assert_eq!(done.code, 1, "{}", done.stderr);
            let told = format!("{name}: it changed each time");
            assert!(done.stderr.contains(&told), "{}", done.stderr);
        };
        put("mine", &folder);
        assert!(list(&lab).contains("still"));
        put("mine/one", &file);
        drop(writing);
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_put_that_waits_for_its_input_keeps_nobody_from_writing() {
    let lab = drive();
    let mut put = put_begun(&lab, b"the first");
    let file = lab.path("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(lab.run("alice", &["put", "mine/file", text(&file)]).code, 0);
    let mut other = put_begun(&lab, b"never named");
    signal(&other, Signal::SIGKILL);
    other.wait().unwrap();
    assert_eq!(lab.run("alice", &["rm", "mine/file"]).code, 0);
    assert_eq!(lab.run("alice", &["gc", "mine"]).code, 0);
    put.stdin.as_mut().unwrap().write_all(b" and the rest").unwrap();
    drop(put.stdin.take());
    let (code, said) = end(put);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(lab.run("alice", &["cat", "mine/half"]).text(), "the first and the rest");
    let left = fs::read_dir(lab.path("alice")).unwrap().map(|e| e.unwrap().file_name());
    let left: Vec<_> = left.map(|name| name.into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.starts_with("spool")), "{left:?}");
}

#[test]
fn a_put_that_waits_for_another_says_so() {
    let lab = drive();
    let endless = lab.path("endless");
    File::create(&endless).unwrap().set_len(3 << 40).unwrap();
    let mut first = lab.spawn("alice", &["put", "mine/endless", text(&endless)]);
    eventually("some of it is written", PATIENCE, || {
        (stored(&lab.path("alice/cores")) > 1 << 20).then_some(())
    });
    let file = lab.path("file");
    fs::write(&file, "x").unwrap();
    let mut second = lab.spawn("alice", &["put", "mine/file", text(&file)]);
    let said = second.told("waiting for another command");
    assert_eq!(said, "note: waiting for another command that writes mine");
    first.signal(Signal::SIGINT);
    assert_eq!(first.wait(PATIENCE).code(), Some(130));
    assert_eq!(second.wait(PATIENCE).code(), Some(0));
    assert_eq!(list(&lab), "file\n");
}

#[test]
fn a_put_that_was_begun_before_the_drive_was_shared_changes_nothing() {
    let lab = drive();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "x").unwrap();
    let mut child = put_begun(&lab, b"half");
    let mut share = lab.spawn("alice", &["share", text(&folder), "--name", "mine", "--replace"]);
    share.line("shared: ");
    drop(child.stdin.take());
    // Whoever puts owns the store, and stays as long as something is shared from it.
    drop(share);
    let (code, said) = end(child);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("follows the folder"), "{said}");
    assert!(!list(&lab).contains("half"), "{}", list(&lab));
}

/// As `share` does it.
#[test]
fn what_no_drive_can_hold_is_left_out_of_a_folder_and_told() {
    let lab = drive();
    let folder = lab.folder("folder");
    fs::write(folder.join("file"), "content").unwrap();
    fs::write(folder.join("x.log"), "left out").unwrap();
    let pipe = folder.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    fs::copy(lab.path("alice/store.redb"), folder.join("just a copy")).unwrap();
    let copied = lab.folder("folder/of stores/one");
    fs::copy(lab.path("alice/store.redb"), copied.join("store.redb")).unwrap();
    let done = lab.run("alice", &["put", "mine", text(&folder), "--exclude", "*.log"]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert_eq!(list(&lab), "file\nof stores/\n");
    for left in ["pipe", "socket", "just a copy", "of stores/one"] {
        let told = format!("warning: left out: {}: ", folder.join(left).display());
        assert!(done.stderr.contains(&told), "no '{told}' in {}", done.stderr);
    }
    assert!(done.stderr.contains("error: 4 files left out"), "{}", done.stderr);
    // What was meant by name is no success without it.
    let before = list(&lab);
    for alone in [pipe, folder.join("just a copy"), copied] {
        let done = lab.run("alice", &["put", "mine/alone", text(&alone)]);
        assert_eq!((done.code, list(&lab)), (1, before.clone()), "{}", done.stderr);
    }
    let file = folder.join("file");
    for args in [["put", "mine/x", "-"], ["put", "mine/x", text(&file)]] {
        for option in [&["--exclude", "x"][..], &["--cross-mounts"]] {
            let args = [&args[..], option].concat();
            assert_eq!(lab.run("alice", &args).code, 2, "{args:?}");
        }
    }
}

#[test]
fn what_is_mounted_in_a_folder_is_put_only_if_that_is_asked_for() {
    if !mounts_available() {
        return;
    }
    let lab = drive();
    let folder = lab.folder("folder");
    fs::write(folder.join("file"), "mine").unwrap();
    fs::create_dir(folder.join("disk")).unwrap();
    let _disk = Place::tmpfs(&folder.join("disk")).unwrap();
    fs::write(folder.join("disk/far"), "far").unwrap();
    let done = lab.run("alice", &["put", "mine", text(&folder)]);
    assert_eq!((done.code, list(&lab)), (1, "file\n".into()), "{}", done.stderr);
    let told = format!("warning: left out: {}: another filesystem", folder.join("disk").display());
    assert!(done.stderr.contains(&told), "no '{told}' in {}", done.stderr);
    assert!(done.stderr.contains("--cross-mounts"), "{}", done.stderr);
    let done = lab.run("alice", &["put", "mine", text(&folder), "--cross-mounts"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(list(&lab), "disk/\ndisk/far\nfile\n");
    // What is named is meant.
    let done = lab.run("alice", &["put", "mine/alone", text(&folder.join("disk/far"))]);
    assert_eq!(done.code, 0, "{}", done.stderr);
}

#[test]
fn standard_input_that_is_closed_is_no_empty_file() {
    let lab = drive();
    let file = lab.path("file");
    fs::write(&file, "content").unwrap();
    assert_eq!(lab.run("alice", &["put", "mine/a", text(&file)]).code, 0);
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(env!("CARGO_BIN_EXE_hdrive"));
        command.env("HDRIVE_STORE", lab.path("alice")).env("HDRIVE_BOOTSTRAP", NOWHERE);
        run(command)
    };
    let done = shell("\"$1\" put mine/a - <&-");
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains("standard input is closed"), "{}", done.stderr);
    assert_eq!(lab.run("alice", &["cat", "mine/a"]).text(), "content");
    let done = shell("\"$1\" put mine/a - </dev/null");
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(lab.run("alice", &["cat", "mine/a"]).text(), "");
}
