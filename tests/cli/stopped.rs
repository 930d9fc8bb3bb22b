//! The process that owns a store is stopped: whoever asks it for something ends all the same, and so does its output.

use crate::common::*;
use crate::input::NOBODYS;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

/// `x=$(hdrive status)`, and what mount(8) waits for: the end of the output, not only of the process.
#[test]
fn output_ends_though_the_owner_is_stopped() {
    let lab = Lab::new();
    let (share, key) = lab.share("alice", &lab.folder("shared"));
    let (other, at) = (lab.folder("other"), lab.folder("mnt"));
    share.signal(Signal::SIGSTOP);
    let commands: [&[&str]; 5] = [
        &["status"],
        &["ls", &key],
        &["share", "--daemon", text(&other)],
        &["seed", "--daemon", NOBODYS],
        &["mount", "--daemon", NOBODYS, text(&at)],
    ];
    let running = commands.map(|args| {
        let (tell, done) = std::sync::mpsc::channel();
        let command = lab.command("alice", args);
        std::thread::spawn(move || tell.send(run(command)));
        done
    });
    let done = running.map(|done| done.recv_timeout(PATIENCE));
    share.signal(Signal::SIGCONT);
    let told = format!("error: the store {} is locked by process", lab.path("alice").display());
    for (done, args) in done.into_iter().zip(commands) {
        let done = done.unwrap_or_else(|_| panic!("{args:?}: its output does not end"));
        assert_eq!(done.code, 6, "{args:?}: {}", done.stderr);
        assert!(done.stderr.starts_with(&told), "{args:?}: {}", done.stderr);
    }
}

#[test]
fn who_starts_something_in_the_background_ends_with_it_whoever_has_its_output() {
    let lab = Lab::new();
    let (share, _) = lab.share("alice", &lab.folder("shared"));
    let endless = lab.folder("endless");
    fs::File::create(endless.join("large")).unwrap().set_len(3 << 40).unwrap();
    let mut start = lab.spawn("alice", &["share", "--daemon", text(&endless)]);
    // The owner has begun it.
    start.line("key: ");
    share.signal(Signal::SIGSTOP);
    let children = format!("/proc/{0}/task/{0}/children", start.pid());
    let daemon = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
    let status = start.wait(PATIENCE);
    share.signal(Signal::SIGCONT);
    assert_eq!(status.code(), Some(1));
    start.told("error: the background process ended before it was ready");
}
