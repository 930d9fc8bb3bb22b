//! fsx: random reads, writes, mappings, cuts, holes and copies of one file, each read compared.

use super::alone::alone;
use super::ground::{Failed, Ground};
use super::running::{run, tail, tool};
use super::share;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// Every operation that it has.
const OPERATIONS: &str = "
[weights]
close_open = 2
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 0.5
fdatasync = 0.5
posix_fallocate = 3
punch_hole = 5
sendfile = 5
posix_fadvise = 2
copy_file_range = 5
";

#[test]
fn every_operation_on_a_file() {
    alone(Duration::from_secs(share(120, 1800)), || {
        let (Some(fsx), Some(ground)) = (tool("fsx"), Ground::new()) else { return };
        let (seeds, count) = (share(3, 8), share(3_000, 25_000).to_string());
        ground.compare(&[], |at| {
            let mut failed = Failed::new();
            for seed in 1..=seeds {
                // Small files in blocks of one page, and some that reach over many blocks.
                let (length, longest) =
                    [(1 << 18, 1 << 16), (1 << 14, 1 << 12), (3 << 20, 1 << 18)][seed as usize % 3];
                let settings = ground.beside.path().join(format!("fsx-{seed}.toml"));
                let text = format!("flen = {length}\n[opsize]\nmax = {longest}\n{OPERATIONS}");
                fs::write(&settings, text).unwrap();
                let mut command = Command::new(&fsx);
                command.arg("-q").arg("-f").arg(&settings).args(["-N", &count]);
                command.args(["-S", &seed.to_string()]).arg("-P").arg(ground.beside.path());
                command.arg(at.join(format!("fsx-{seed}")));
                let ran = run(&mut command, Duration::from_secs(share(60, 600)));
                if !ran.ok {
                    failed.insert(format!("seed {seed}"), tail(&ran.said, 40));
                }
            }
            failed
        });
    });
}
