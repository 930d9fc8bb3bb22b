//! CPython's own tests of what it does with files.

use super::alone::alone;
use super::ground::{Failed, Ground, has};
use super::running::{folder, run, tail};
use super::{percent, share};
use std::process::Command;
use std::time::Duration;

/// Debian's, for which there is a package of tests.
const PYTHON: &str = "/usr/bin/python3.11";
const TESTS: &str = "/usr/lib/python3.11/test/test_os.py";

const MODULES: [&str; 7] = [
    "test_os",
    "test_shutil",
    "test_pathlib",
    "test_mmap",
    "test_tempfile",
    "test_fcntl",
    // Of 2.5 GB, in the long form alone.
    "test_largefile",
];

/// The beginnings of names of tests that fail on a mount, and why.
const KNOWN: &[(&str, &str)] = &[
    ("test_listdir (test.test_os.Pep383Tests", NAMES),
    ("test_open (test.test_os.Pep383Tests", NAMES),
    ("test_stat (test.test_os.Pep383Tests", NAMES),
    ("test_statvfs (test.test_os.Pep383Tests", NAMES),
    ("test_chown_with_root (test.test_os", "all belongs to who mounted"),
];
const NAMES: &str = "names of a drive are UTF-8";

/// What was said of one of its tests.
fn about(said: &str, name: &str) -> String {
    let lines = said.lines().skip_while(|line| !line.ends_with(name) || line.starts_with(name));
    lines.take(20).collect::<Vec<_>>().join("\n")
}

#[test]
fn its_tests_of_files() {
    alone(Duration::from_secs(share(200, 900)), || {
        if !has(PYTHON) || !has(TESTS) {
            return;
        }
        let Some(ground) = Ground::new() else { return };
        ground.compare(KNOWN, |at| {
            let mut failed = Failed::new();
            let dir = folder(at, "cpython");
            let long = usize::from(percent().is_some());
            for module in &MODULES[..MODULES.len() - 1 + long] {
                let mut command = Command::new(PYTHON);
                command.args(["-m", "test", "-W", "--tempdir"]).arg(&dir).arg(module);
                command.env("TMPDIR", &dir).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(&dir);
                let ran = run(&mut command, Duration::from_secs(share(100, 400)));
                let names = ran.said.lines().filter_map(|line| {
                    line.strip_prefix("FAIL: ").or_else(|| line.strip_prefix("ERROR: "))
                });
                let before = failed.len();
                failed.extend(names.map(|name| (name.to_string(), about(&ran.said, name))));
                if !ran.ok && failed.len() == before {
                    failed.insert((*module).into(), tail(&ran.said, 60));
                }
            }
            failed
        });
    });
}
