//! dbench: what the clients of a file server did in a day, with extended attributes.

use super::alone::alone;
use super::ground::{Failed, Ground};
use super::running::{folder, run, tail, tool};
use super::share;
use std::process::Command;
use std::time::Duration;

#[test]
fn clients_of_a_file_server() {
    alone(Duration::from_secs(share(90, 600)), || {
        let (Some(dbench), Some(ground)) = (tool("dbench"), Ground::new()) else { return };
        let (seconds, clients) = (share(3, 60), share(2, 8));
        ground.compare(&[], |at| {
            let mut command = Command::new(&dbench);
            command.args(["-x", "-t", &seconds.to_string(), "-D"]).arg(folder(at, "dbench"));
            let ran = run(command.arg(clients.to_string()), Duration::from_secs(60 + 2 * seconds));
            match ran.ok && ran.said.contains("Throughput") {
                true => Failed::new(),
                false => [("dbench".into(), tail(&ran.said, 30))].into(),
            }
        });
    });
}
