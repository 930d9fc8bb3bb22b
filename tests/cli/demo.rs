//! The demo tells its story, and leaves nothing, also when it is interrupted.

use crate::common::*;
use std::fs;
use std::process::Command;

fn demo(temporary: &std::path::Path, size: &str) -> Command {
    let mut command = Hdrive::command(&["demo", "--size", size]);
    command.env("TMPDIR", temporary);
    command
}

#[test]
fn the_demo_runs_to_its_end_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let done = run(demo(temporary.path(), "8M"));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.text().contains("identical"), "{}", done.text());
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

/// As a terminal does it: everything that the demo started is interrupted as well.
#[test]
fn ctrl_c_ends_a_demo_at_once_wherever_it_is() {
    use std::os::unix::process::CommandExt;
    for step in ["  key: ", "bob mounts it", "bob lists"] {
        if step.starts_with("bob") && !fuse_available() {
            continue;
        }
        let temporary = tempfile::tempdir().unwrap();
        let mut command = demo(temporary.path(), "50M");
        command.process_group(0);
        let mut demo = Hdrive::spawn(command);
        demo.line(step);
        let group = nix::unistd::Pid::from_raw(demo.pid() as i32);
        nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(demo.wait(AT_ONCE).code(), Some(130), "{step}");
        let errors = demo.errors();
        assert!(errors.contains("error: interrupted"), "{errors}");
        assert!(!errors.contains("does not show"), "{errors}");
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    }
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = Hdrive::spawn(demo(temporary.path(), "200M"));
    demo.line("  DHT node at ");
    demo.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(demo.wait(PATIENCE).code(), Some(130));
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn a_demo_that_cannot_be_printed_fails_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = demo(temporary.path(), "1M");
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert_eq!(said, "error: standard output: No space left on device\n");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}
