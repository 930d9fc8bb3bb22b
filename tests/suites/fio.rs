//! fio: what was written in one of nine ways is read again, and has the checksums that it was given.

use super::alone::alone;
use super::ground::{Failed, Ground};
use super::running::{folder, run, tool};
use super::share;
use std::process::Command;
use std::time::Duration;

/// Name and options of each.
const PATTERNS: [(&str, &[&str]); 9] = [
    ("in order", &["--rw=write", "--ioengine=psync", "--bs=4k"]),
    ("anywhere", &["--rw=randwrite", "--ioengine=psync", "--bs=4k"]),
    ("in order, mapped", &["--rw=write", "--ioengine=mmap", "--bs=4k"]),
    ("anywhere, mapped", &["--rw=randwrite", "--ioengine=mmap", "--bs=4k"]),
    (
        "in order, direct, many at a time",
        &["--rw=write", "--ioengine=libaio", "--direct=1", "--iodepth=16", "--bs=64k"],
    ),
    (
        "anywhere, direct, many at a time",
        &["--rw=randwrite", "--ioengine=libaio", "--direct=1", "--iodepth=16", "--bs=4k"],
    ),
    (
        "overlapping",
        &[
            "--rw=randwrite",
            "--ioengine=psync",
            "--bsrange=512-64k",
            "--bs_unaligned=1",
            "--norandommap=1",
        ],
    ),
    (
        "read meanwhile, and synced",
        &["--rw=randrw", "--ioengine=pvsync", "--bs=16k", "--fsync=32", "--end_fsync=1"],
    ),
    (
        "several writers of one file",
        &[
            "--rw=randwrite",
            "--ioengine=psync",
            "--bs=4k",
            "--numjobs=3",
            "--filename=one",
            "--offset_increment=1g",
        ],
    ),
];

#[test]
fn what_was_written_in_nine_ways() {
    alone(Duration::from_secs(share(120, 1200)), || {
        let (Some(fio), Some(ground)) = (tool("fio"), Ground::new()) else { return };
        let size = share(3, 96);
        ground.compare(&[], |at| {
            let mut failed = Failed::new();
            for (name, options) in PATTERNS {
                let dir = folder(at, &name.replace([' ', ','], "-"));
                let mut command = Command::new(&fio);
                command.args(["--name=suite", "--verify=crc32c", "--verify_fatal=1"]);
                command.args(["--do_verify=1", "--randseed=1", "--fallocate=none", "--thread"]);
                command.arg(format!("--size={size}m")).args(options);
                command.arg(format!("--directory={}", dir.display())).current_dir(&dir);
                let ran = run(&mut command, Duration::from_secs(share(40, 240)));
                if !ran.ok {
                    failed.insert(name.into(), about(&ran.said));
                }
            }
            failed
        });
    });
}

/// What it said of errors.
fn about(said: &str) -> String {
    let told = said.lines().filter(|line| !line.starts_with(' ') && !line.is_empty());
    told.collect::<Vec<_>>().join("\n")
}
