//! SQLite's own veryquick.test. In the long form alone, which builds what runs it (`scripts/test-long`).

use super::alone::alone;
use super::ground::{Failed, Ground};
use super::percent;
use super::running::{folder, run, tail};
use crate::common::{available, root};
use std::process::Command;
use std::time::Duration;

#[test]
fn veryquick() {
    if percent().is_none() {
        return;
    }
    alone(Duration::from_secs(7200), || {
        let source = root().join("target/tools/sqlite");
        if !available("SQLite's testfixture", source.join("testfixture").is_file()) {
            return;
        }
        let Some(ground) = Ground::new() else { return };
        ground.compare(&[], |at| {
            let dir = folder(at, "sqlite");
            // It wants to be refused what permissions refuse, as root is not.
            let mut command = Command::new("setpriv");
            command.args([
                "--bounding-set",
                "-dac_override,-dac_read_search",
                "--inh-caps",
                "-all",
            ]);
            command.arg(source.join("testfixture"));
            command.arg(source.join("test/veryquick.test")).current_dir(dir);
            let ran = run(&mut command, Duration::from_secs(3600));
            // "!Failures on these tests: a b c", after "1 errors out of 2 tests".
            let named =
                ran.said.lines().find_map(|line| line.split_once("Failures on these tests:"));
            let names = named.map_or("", |(_, names)| names).split_whitespace();
            let mut failed: Failed =
                names.map(|name| (name.into(), about(&ran.said, name))).collect();
            let counted = ran.said.lines().rev().find(|line| line.contains("errors out of"));
            println!("{}: {}", at.display(), counted.unwrap_or("not to its end"));
            if counted.is_none() {
                failed.insert("the whole".into(), tail(&ran.said, 40));
            }
            failed
        });
    });
}

/// What was said of one of its tests.
fn about(said: &str, name: &str) -> String {
    let lines = said.lines().skip_while(|line| !line.contains(&format!("{name}...")));
    lines.take(4).collect::<Vec<_>>().join("\n")
}
