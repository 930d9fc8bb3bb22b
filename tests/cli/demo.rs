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

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = Hdrive::spawn(demo(temporary.path(), "200M"));
    demo.line("  DHT node at ");
    demo.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(demo.wait(PATIENCE).code(), Some(130));
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}
