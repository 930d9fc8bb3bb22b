//! A command that fails comes to its end, whoever else lives on the store by then.

use crate::common::*;
use crate::input::NOBODYS;
use nix::sys::signal::Signal;
use std::fs;

/// Unmounts what a `--daemon` left, which ends with it.
fn unmount(lab: &Lab, store: &str, at: &str) {
    let done = lab.run(store, &["umount", at]);
    assert_eq!(done.code, 0, "{}", done.stderr);
}

/// Whichever of the two owns the store.
#[test]
fn a_mount_that_fails_returns_though_another_began_with_it() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let file = lab.path("file");
    fs::write(&file, "x").unwrap();
    let (good, free) = (lab.folder("good"), lab.folder("free"));
    let (good, free) = (text(&good), text(&free));
    for round in 0..6 {
        let faults: [&[&str]; 3] = [
            &["mount", "--daemon", NOBODYS, text(&file)],
            &["mount", "--daemon", "nonsense", free],
            &["mount", "nonsense", free],
        ];
        let store = format!("store-{round}");
        let mut bad = lab.spawn(&store, faults[round % 3]);
        let mut other = lab.spawn(&store, &["mount", "--daemon", NOBODYS, good]);
        let code = bad.wait(PATIENCE).code();
        assert!(matches!(code, Some(3 | 5)), "{code:?}: {}", bad.errors());
        assert_eq!(other.wait(PATIENCE).code(), Some(0), "{}", other.errors());
        unmount(&lab, &store, good);
    }
}

/// One that fails late owns the store, and another mount lives in it: that is left in peace.
#[test]
fn a_daemon_that_fails_late_says_so_and_serves_the_others_on() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let (share, key) = lab.share("alice", &folder);
    // It is announced, and does not answer.
    share.signal(Signal::SIGSTOP);
    let (early, other) = (lab.folder("early"), lab.folder("other"));
    // It waits for a peer who can tell what there was then.
    let long_ago = ["mount", "--daemon", "--at", "1971-01-01", &key, text(&early)];
    let mut failing = lab.spawn("bob", &long_ago);
    let owner = eventually("the owner", PATIENCE, || lab.owner_pid("bob"));
    let mut mount = lab.spawn("bob", &["mount", NOBODYS, text(&other)]);
    mount.line("mounted: ");
    assert_eq!(lab.owner_pid("bob"), Some(owner));
    assert!(!failing.has_ended());
    share.signal(Signal::SIGCONT);
    assert_eq!(failing.wait(PATIENCE).code(), Some(3), "{}", failing.errors());
    let errors = failing.errors();
    assert!(errors.contains("error: --at: nothing in the drive is older"), "{errors}");
    assert!(!errors.contains("Ctrl-C"), "{errors}");
    // The other is served by the same process, and was not touched.
    assert_eq!(lab.owner_pid("bob"), Some(owner));
    assert!(fs::read_dir(&other).is_ok());
    unmount(&lab, "bob", text(&other));
    assert_eq!(mount.wait(PATIENCE).code(), Some(0));
    assert!(!mount.errors().contains("taken over"), "{}", mount.errors());
    let ended = || (lab.owner_pid("bob") != Some(owner) || !is_alive(owner)).then_some(());
    eventually("the end of the process in the background", PATIENCE, ended);
}

/// Nobody may collect a daemon here: one that has ended has no command line.
fn is_alive(pid: u32) -> bool {
    !fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().is_empty()
}
