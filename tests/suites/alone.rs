//! A test as a process of its own: the same program once more, for this one test, as the first process of a PID namespace
//! that has loopback and mounts for itself. Whatever it starts and mounts is gone when it ends.

use super::running::run;
use crate::common::available;
use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Names the test that is alone here.
const INSIDE: &str = "HDRIVE_SUITE";

/// Runs `test`, the closure of a test function that has nothing else in it.
pub fn alone<F: FnOnce()>(limit: Duration, test: F) {
    let name = std::any::type_name::<F>();
    let name = name.split_once("::").map_or(name, |(_, name)| name);
    let name = name.trim_end_matches("::{{closure}}");
    if env::var(INSIDE).is_ok_and(|inside| inside == name) {
        return test();
    }
    if !available("root, with namespaces of its own", is_possible()) {
        return;
    }
    // On the ordinary disk, and for other users to pass through.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = namespaces();
    command.args(["sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]);
    command.arg(env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
    command.env(INSIDE, name).env("TMPDIR", dir.path());
    without_settings(&mut command, dir.path());
    let ran = run(&mut command, limit);
    print!("{}", ran.said);
    assert!(ran.ok && ran.said.contains("1 passed"), "{name} failed; see above");
}

/// No file of a person's home has a say.
fn without_settings(command: &mut Command, home: &Path) {
    let old = env::var_os("HOME").unwrap_or_default();
    for (name, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        let path = env::var_os(name).unwrap_or_else(|| Path::new(&old).join(folder).into());
        command.env(name, path);
    }
    command.env("HOME", home).env("LC_ALL", "C.UTF-8").env("RUST_BACKTRACE", "0");
}

fn namespaces() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command
}

fn is_possible() -> bool {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    *POSSIBLE.get_or_init(|| {
        let mut command = namespaces();
        command.args(["ip", "link", "set", "lo", "up"]);
        command.output().is_ok_and(|done| done.status.success())
    })
}
