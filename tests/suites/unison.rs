//! unison -selftest: what a synchroniser does to two folders.

use super::alone::alone;
use super::ground::{Failed, Ground};
use super::running::{folder, run, tail, tool};
use super::share;
use std::process::Command;
use std::time::Duration;

#[test]
fn its_selftest() {
    alone(Duration::from_secs(share(120, 240)), || {
        let (Some(unison), Some(ground)) = (tool("unison"), Ground::new()) else { return };
        ground.compare(&[], |at| {
            let (one, two) = (folder(at, "one.test"), folder(at, "two.test"));
            let mut command = Command::new(&unison);
            command.args(["-ui", "text", "-selftest", "-batch"]).args([one, two]);
            command.env("UNISON", folder(at, "archives"));
            let ran = run(&mut command, Duration::from_secs(100));
            match ran.ok && ran.said.contains("Success") {
                true => Failed::new(),
                false => [("selftest".into(), tail(&ran.said, 40))].into(),
            }
        });
    });
}
