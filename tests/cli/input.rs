//! Keys, values and mount points that cannot be: each is told with what would do.

use crate::common::*;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// A key that nobody shares.
pub const NOBODYS: &str = "yy4dyry4dyry4dyry4dyry4dyry4dyry4dyry4dyry4dyry4dyro";

fn refused(lab: &Lab, code: i32, args: &[&str], wanted: &[&str]) {
    let done = lab.run("alice", args);
    assert_eq!(done.code, code, "{args:?}: {}", done.stderr);
    for part in wanted {
        assert!(done.stderr.contains(part), "{args:?}: no '{part}' in: {}", done.stderr);
    }
    assert_eq!(done.stderr.trim().lines().count(), 1, "one line: {}", done.stderr);
}

#[test]
fn a_key_that_does_not_parse_is_told_with_what_is_accepted() {
    let lab = Lab::new();
    let bad = format!("{}0{}", &NOBODYS[..4], &NOBODYS[5..]);
    let wanted = ["character 5 of the key is '0'", "ybndrfg8ejkmcpqxot1uwisza345h769"];
    refused(&lab, 2, &["ls", &bad], &wanted);
    let bad = format!("{}g", "a".repeat(63));
    refused(&lab, 2, &["ls", &bad], &["character 64 of the key is 'g'", "0-9 and a-f"]);
    let wanted =
        ["this has 7", "52 z-base-32 or 64 hex", "neither a drive of this store nor a key"];
    refused(&lab, 3, &["info", "unknown"], &wanted);
    refused(&lab, 2, &["mount", "pear://x", "/nonexistent"], &["pear://"]);
    refused(&lab, 2, &["cat", &format!("{NOBODYS}/../x")], &["'../x'"]);
    let secret = ["ls", NOBODYS, "--encryption-key", "short"];
    refused(&lab, 2, &secret, &["--encryption-key", "52 z-base-32"]);
    let done = lab.run("alice", &["ls", NOBODYS, "--relay", &"y".repeat(93)]);
    assert!(done.code == 2 && done.stderr.contains("no hints; this has 93"), "{}", done.stderr);
    refused(&lab, 2, &["create", NOBODYS], &["not look like a key"]);
}

#[test]
fn values_that_make_no_sense_are_told() {
    let lab = Lab::new();
    let at = lab.folder("mnt");
    let mount = |more: &[&str]| {
        let mut args = vec!["mount", NOBODYS, text(&at)];
        args.extend(more);
        let done = lab.run("alice", &args);
        assert_eq!(done.code, 2, "{more:?}: {}", done.stderr);
        done.stderr
    };
    assert!(mount(&["--read-timeout", "fast"]).contains("a time like 30s"));
    assert!(mount(&["--cache-memory", "3parsec"]).contains("use K, M, G or T"));
    assert!(mount(&["-o", "ro,frobnicate"]).contains("frobnicate"));
    assert!(mount(&["-o", "uid=me"]).contains("uid"));
    assert!(mount(&["--bootstrap", "nonsense"]).contains("host:port"));
    assert!(mount(&["--bootstrap", "127.0.0.1:9,a b:1"]).contains("'a b:1'"));
    refused(&lab, 2, &["mount", &format!("{NOBODYS}/sub"), text(&at)], &["as a whole"]);
}

/// The laboratory's commands have HDRIVE_LOCAL.
#[test]
fn a_variable_that_conflicts_with_what_is_typed_is_named() {
    let lab = Lab::new();
    for (more, other) in
        [(&[][..], "'HDRIVE_LOCAL'"), (&["--local=127.0.0.1:1"], "'--local <ADDR:PORT>'")]
    {
        let done = lab.run("alice", &[&["ls", NOBODYS, "--port", "5"], more].concat());
        let told = format!("'--port <PORT>' cannot be used with {other}");
        assert!(done.code == 2 && done.stderr.contains(&told), "{}", done.stderr);
    }
}

#[test]
fn what_is_wrong_in_a_variable_is_said_of_that() {
    let lab = Lab::new();
    for (typed, named) in [(&[][..], "'HDRIVE_RELAY'"), (&["--relay", "b"], "'--relay <KEY>'")] {
        let mut command = lab.command("alice", &[&["ls", NOBODYS], typed].concat());
        command.env("HDRIVE_RELAY", "a");
        let done = run(command);
        assert!(done.code == 2 && done.stderr.contains(named), "{}", done.stderr);
    }
}

#[test]
fn an_empty_variable_is_as_none() {
    let lab = Lab::new();
    let mut command = lab.command("alice", &["create", "--quiet", "x"]);
    command
        .env("HDRIVE_BOOTSTRAP", "")
        .env("HDRIVE_STORE", "")
        .env("HDRIVE_LOCAL", "")
        .env("HDRIVE_ENCRYPTION_KEY", "")
        .env("HDRIVE_LOG", "")
        .env("XDG_DATA_HOME", lab.dir.path());
    let done = run(command);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(done.stderr, "");
    assert!(lab.path("hdrive/store.redb").exists());
}

#[test]
fn what_is_missing_is_told_with_how_the_command_is_used() {
    let lab = Lab::new();
    let done = lab.run("alice", &["get"]);
    assert_eq!(done.code, 2);
    // Not with the options that variables set here.
    assert!(
        done.stderr.contains("Usage: hdrive get [OPTIONS] <TARGET> [DESTINATION]\n"),
        "{}",
        done.stderr
    );
    let done = lab.run("alice", &[]);
    assert_eq!(done.code, 2);
    assert!(done.stderr.contains("hdrive share ~/photos"), "{}", done.stderr);
}

#[test]
fn a_log_filter_that_does_not_parse_is_told_and_ignored() {
    let lab = Lab::new();
    let mut command = lab.command("alice", &["create", "x"]);
    command.env("HDRIVE_LOG", "hdrive=loud");
    let done = run(command);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stderr.starts_with("warning: HDRIVE_LOG is ignored: "), "{}", done.stderr);
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure() {
    let lab = Lab::new();
    assert_eq!(lab.run("alice", &["create", "mine"]).code, 0);
    let mut command = lab.command("alice", &["status"]);
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let done = command.stderr(std::process::Stdio::piped()).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("standard output: No space left"), "{said}");
}

#[test]
fn a_download_does_not_take_the_place_of_a_device() {
    let lab = Lab::new();
    let pipe = lab.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(lab.run("alice", &["create", "mine"]).code, 0);
    let file = lab.path("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(lab.run("alice", &["put", "mine", text(&file)]).code, 0);
    refused(&lab, 1, &["get", "mine/file", text(&pipe)], &[text(&pipe), "hdrive cat"]);
    assert!(!fs::symlink_metadata(&pipe).unwrap().is_file());
    // Nor that of a link to one, were it never so much wished.
    let link = lab.path("link");
    std::os::unix::fs::symlink(&pipe, &link).unwrap();
    let stdout = lab.path("stdout");
    std::os::unix::fs::symlink("/dev/stdout", &stdout).unwrap();
    // It is not wished of those of the machine: if it were done, they would be gone.
    for (to, more) in [
        (text(&link), &[][..]),
        (text(&link), &["--force"]),
        (text(&stdout), &[]),
        (text(&stdout), &["--force"]),
        ("/dev/stdout", &[]),
        ("/proc/self/fd/2", &[]),
    ] {
        let args = [&["get", "mine/file", to][..], more].concat();
        refused(&lab, 1, &args, &[to, "is no place for a file", "hdrive cat"]);
        assert!(fs::symlink_metadata(to).unwrap().is_symlink());
    }
}

#[test]
fn words_are_those_of_people() {
    let lab = Lab::new();
    let at = lab.folder("mnt");
    assert_eq!(lab.run("alice", &["create", "--quiet", "mine"]).code, 0);
    let secret = ["ls", NOBODYS, "--encryption-key", "abc"];
    let done = lab.run("alice", &secret);
    assert!(!done.stderr.contains("link"), "{}", done.stderr);
    refused(&lab, 3, &["ls", text(&at)], &["no drive of this store"]);
    let long = format!("{}d", "9".repeat(30));
    for (args, words) in [
        (&["mount", "--at", "0", "mine", text(&at)][..], "the first version is 1"),
        (&["mount", "--read-timeout", "0", "mine", text(&at)], "waited for"),
        (&["mount", "--cache-memory", "0", "mine", text(&at)], "fit into it"),
        (&["gc", "--keep", &long], "too long a time"),
        (&["share", "--daemon", "--dry-run", text(&at)], "--daemon"),
    ] {
        let done = lab.run("alice", args);
        assert_eq!(done.code, 2, "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains(words), "{args:?}: {}", done.stderr);
    }
    for args in [&["help"][..], &["help", "share"]] {
        let done = lab.run("alice", args);
        assert_eq!(done.code, 0, "{args:?}: {}", done.stderr);
        assert!(done.text().contains("Usage: hdrive"), "{args:?}");
    }
    let done = lab.run("alice", &["nosuch", "share"]);
    assert!(done.code == 2 && done.stderr.contains("Usage: hdrive "), "{}", done.stderr);
    // An answer is one, also where there is nothing to free.
    assert_eq!(lab.run("alice", &["gc", "--json"]).text(), "{\"freed\":0,\"dryRun\":false}\n");
}

#[test]
fn a_drive_that_is_named_twice_is_held_once() {
    let lab = Lab::new();
    let key = lab.run("alice", &["create", "--quiet", "mine"]).text();
    let key = key.trim().strip_prefix("key: ").unwrap();
    let file = lab.path("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(lab.run("alice", &["put", "mine/a", text(&file)]).code, 0);
    let daemon = lab.run("alice", &["seed", "--daemon", key, key, "mine"]);
    let told = daemon.text().lines().filter(|line| *line == format!("key: {key}")).count();
    assert_eq!(told, 2, "{}{}", daemon.text(), daemon.stderr);
    let pid: i32 = fs::read_to_string(lab.path("alice/lock")).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGINT).unwrap();
    let gone = || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(());
    eventually("the end of the daemon", PATIENCE, gone);
    let mut seed = lab.spawn("alice", &["seed", key, key]);
    seed.line("complete: ");
    assert_eq!(lab.run("alice", &["ls", key]).code, 0);
    std::thread::sleep(Duration::from_millis(500));
    seed.signal(nix::sys::signal::SIGINT);
    seed.wait(PATIENCE);
    assert_eq!(seed.rest(), Vec::<String>::new());
}

#[test]
fn a_mount_point_that_cannot_be_is_told() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let missing = lab.path("missing");
    refused(&lab, 5, &["mount", NOBODYS, text(&missing)], &[text(&missing), "mkdir -p"]);
    let full = lab.folder("full");
    fs::write(full.join("file"), "x").unwrap();
    refused(&lab, 5, &["mount", NOBODYS, text(&full)], &[text(&full), "not empty", "nonempty"]);
    let file = full.join("file");
    refused(&lab, 5, &["mount", NOBODYS, text(&file)], &[text(&file), "not a directory"]);
    refused(&lab, 3, &["umount", text(&full)], &[text(&full), "not a mount point"]);
    refused(&lab, 3, &["umount", text(&missing)], &[text(&missing), "does not exist"]);
    refused(&lab, 5, &["umount", "/proc"], &["/proc is not a drive"]);

    let mount = lab.mount_alone("bob", NOBODYS, &[]);
    refused(&lab, 5, &["mount", NOBODYS, text(&mount.at)], &["mounted drive already"]);
}

#[test]
fn without_a_fuse_device_the_remedy_is_named() {
    let unshare = Command::new("unshare").args(["--mount", "true"]).status();
    if !available("unshare --mount", unshare.is_ok_and(|status| status.success())) {
        return;
    }
    let lab = Lab::new();
    let at = lab.folder("mnt");
    let hdrive = lab.command("alice", &["mount", NOBODYS, text(&at)]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount -t tmpfs none /dev && exec \"$@\"", "sh"]);
    command.arg(hdrive.get_program()).args(hdrive.get_args());
    command.envs(hdrive.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done = run(command);
    assert_eq!(done.code, 5, "{}", done.stderr);
    assert!(done.stderr.contains("/dev/fuse does not exist"), "{}", done.stderr);
    assert!(done.stderr.contains("modprobe fuse"), "{}", done.stderr);
}

#[test]
fn what_is_not_there_is_told() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("here"), "x").unwrap();
    let (_share, key) = lab.share("alice", &folder);
    for args in [
        &["cat", &format!("{key}/gone")][..],
        &["ls", &format!("{key}/gone")],
        &["get", &format!("{key}/gone"), text(lab.dir.path())],
    ] {
        let done = lab.run("bob", args);
        assert_eq!(done.code, 3, "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains("no such file or directory: /gone"), "{}", done.stderr);
    }
    let done = lab.run("bob", &["put", &key, text(&folder)]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains("its secret key is in the store that made it"), "{}", done.stderr);
    let done = lab.run("bob", &["share", text(&lab.path("nowhere"))]);
    assert_eq!(done.code, 3, "{}", done.stderr);
    let done = lab.run("bob", &["share", text(&folder.join("here"))]);
    assert_eq!(done.code, 2, "{}", done.stderr);
    let (out, into) = (lab.path("no/such"), lab.path("no"));
    let done = lab.run("bob", &["get", &format!("{key}/here"), text(&out)]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains(text(&out)) && !into.exists(), "{}", done.stderr);
}

#[test]
fn a_drive_that_nobody_shares_is_told_in_time() {
    let lab = Lab::new();
    let done = lab.run("alice", &["ls", NOBODYS]);
    assert_eq!(done.code, 4, "{}", done.stderr);
    assert!(done.stderr.contains("no peer has it"), "{}", done.stderr);
}

#[test]
fn a_name_that_nobody_could_type_or_that_means_a_folder_is_refused() {
    let lab = Lab::new();
    for name in ["", " ", "\t", "a\nb", "a\u{1b}[31m", "..", "a/../b", "./a", "\u{202e}a"] {
        let done = lab.run("alice", &["create", name]);
        assert_eq!((done.code, done.text().as_str()), (2, ""), "{name:?}: {}", done.stderr);
    }
    for name in ["a b", "..a", "a.b", "photos/2024", "ü"] {
        let done = lab.run("alice", &["create", name]);
        assert_eq!(done.code, 0, "{name:?}: {}", done.stderr);
    }
}
