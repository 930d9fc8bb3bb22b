//! What people read: one form of errors, nothing that steers their terminal, and nobody there to read it.

use crate::common::*;
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::process::Stdio;

const ESCAPE: &str = "a\u{1b}[31mb\u{9b}1mc\u{7f}";

/// Nothing of it reaches a terminal as it is.
fn harmless(text: &str) {
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn names_do_not_steer_the_terminal() {
    let lab = Lab::new();
    let name = |n: &str| format!("mine/{ESCAPE}{n}");
    assert_eq!(lab.run("alice", &["create", "mine"]).code, 0);
    // A drive has such a name if the folder that it follows has.
    let (mut share, _) = lab.share("alice", &lab.folder(&format!("{ESCAPE}shared")));
    share.signal(nix::sys::signal::Signal::SIGINT);
    share.wait(PATIENCE);
    let file = lab.path(&format!("{ESCAPE}file"));
    fs::write(&file, "x").unwrap();
    for target in [name("file"), name("dir/file")] {
        assert_eq!(lab.run("alice", &["put", &target, text(&file)]).code, 0);
    }
    std::os::unix::fs::symlink(ESCAPE, lab.path("link")).unwrap();
    assert_eq!(lab.run("alice", &["put", &name("link"), text(&lab.path("link"))]).code, 0);
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["ls", "-lr", "mine"],
        &["ls", "-r", "--json", "mine"],
        &["info", ESCAPE],
        &["info", "mine"],
        &["cat", &name("none")],
        &["cat", &name("dir")],
        &["put", &name("dir"), text(&file)],
        &["put", &name("new"), &name("none")],
        &["create", ESCAPE],
        &["get", &name("file"), &name("none/x")],
        &["ls", &name("")],
        &["share", ESCAPE],
        &["umount", ESCAPE],
        &[ESCAPE],
        &["ls", &format!("--{ESCAPE}")],
        &["mount", "--read-timeout", ESCAPE, "x", "y"],
        &["mount", "-o", ESCAPE, "x", "y"],
        &["ls", "x", "--bootstrap", ESCAPE],
    ] {
        let done = lab.run("alice", args);
        harmless(&done.text());
        harmless(&done.stderr);
    }
    let json = lab.run("alice", &["ls", "--json", "mine"]).text();
    let names: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        names.iter().any(|name| name["name"] == format!("{ESCAPE}dir")) && names.len() == 3,
        "{json}"
    );
}

#[test]
fn errors_have_one_form_and_no_numbers() {
    let lab = Lab::new();
    assert_eq!(lab.run("alice", &["create", "mine"]).code, 0);
    let folder = lab.folder("folder");
    let none = lab.path("none");
    for args in [
        &["put", "mine", text(&none)][..],
        &["share", text(&none)],
        &["cat", "mine/none"],
        &["ls", "nonsense"],
        &["get", "mine/none"],
        &["rm", "mine/none"],
        &["umount", text(&none)],
        &["umount", text(&folder)],
        &["mount", "mine", text(&none)],
        &["ls", "mine", "--store", "/dev/null/x"],
        &["dht", "--bind", "192.0.2.1:1"],
        &["frobnicate"],
        &["ls"],
        &["ls", "--frob"],
        &["mount", "--read-timeout", "fast", "x", "y"],
        &["seed", "--daemon", "nonsense"],
    ] {
        let done = lab.run("alice", args);
        assert_ne!(done.code, 0, "{args:?}");
        assert!(done.stderr.starts_with("error: "), "{args:?}: {}", done.stderr);
        assert!(!done.stderr.contains("os error"), "{args:?}: {}", done.stderr);
        assert!(!done.stderr.contains("hdrive: "), "{args:?}: {}", done.stderr);
    }
}

/// A pipe that nobody reads any more.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn whoever_reads_no_more_is_no_reason_to_panic() {
    let lab = Lab::new();
    assert_eq!(lab.run("alice", &["create", "mine"]).code, 0);
    for args in [
        &["status"][..],
        &["demo", "--size", "64K"],
        &["--help"],
        &["--version"],
        &["ls", "mine"],
        &["info", "mine"],
    ] {
        let mut command = lab.command("alice", args);
        let child = command.stdin(Stdio::null()).stdout(closed()).stderr(Stdio::piped()).spawn();
        let child = child.unwrap();
        let scratch = std::env::temp_dir().join(format!("hdrive-demo-{}", child.id()));
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{args:?}: {said}");
        assert!(!scratch.exists());
    }
    // A DHT node goes on, and ends as always.
    let mut command = lab.command("alice", &["dht", "--bind", "127.0.0.1:0"]);
    let mut dht = command.stdout(closed()).stderr(Stdio::piped()).spawn().unwrap();
    catches(dht.id(), Signal::SIGTERM);
    // By now or soon it has said that it listens.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(dht.try_wait().unwrap().is_none());
    let pid = nix::unistd::Pid::from_raw(dht.id() as i32);
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    end_of(&mut dht);
    let output = dht.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    // Nobody hears errors either: the exit code tells.
    for (args, code) in [(&["cat", "mine/none"][..], 3), (&["frobnicate"], 2), (&["ls", "x"], 3)] {
        for verbose in [&[][..], &["-vv"]] {
            let mut command = lab.command("alice", &[args, verbose].concat());
            let status = command.stdout(closed()).stderr(closed()).status().unwrap();
            assert_eq!(status.code(), Some(code), "{args:?} {verbose:?}");
        }
    }
}

#[test]
fn a_full_disk_behind_standard_output_is_told() {
    let lab = Lab::new();
    for args in [&["--help"][..], &["dht", "--bind", "127.0.0.1:0"], &["create", "x"]] {
        let full = fs::File::options().write(true).open(Path::new("/dev/full")).unwrap();
        let status = lab.command("alice", args).stdout(full).status().unwrap();
        assert_eq!(status.code(), Some(1), "{args:?}");
    }
}

/// Of every command that takes files in: what it does not take is not as it was asked for.
#[test]
fn what_is_left_out_is_a_warning_also_with_quiet() {
    let lab = Lab::new();
    let folder = lab.folder("folder");
    fs::write(folder.join("file"), "x").unwrap();
    let pipe = folder.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let told = format!("warning: left out: {}: ", pipe.display());
    let said = |args: &[&str]| lab.run("alice", args).stderr;
    assert_eq!(said(&["-q", "create", "mine"]), "");
    for args in
        [&["-q", "put", "mine", text(&folder)], &["-q", "share", "--dry-run", text(&folder)]]
    {
        let said = said(args);
        let lines = said.lines().filter(|line| !line.starts_with("error: "));
        assert!(lines.clone().count() == 1 && said.starts_with(&told), "{args:?}: {said}");
    }
    let mut share = lab.spawn("alice", &["-q", "share", text(&folder)]);
    let line = share.told("left out");
    assert!(line.starts_with(&told), "{line}");
}
