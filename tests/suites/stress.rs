//! stress-ng: 41 of its stressors, whatever has to do with files.

use super::alone::alone;
use super::ground::{Failed, Ground};
use super::running::{folder, run, tail, tool};
use super::{percent, share};
use std::process::Command;
use std::time::Duration;

const STRESSORS: &str = "access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify fallocate \
    fanotify fcntl fiemap file-ioctl filename flock fpunch fsize fstat getdent handle hdd \
    inode-flags inotify io iomix lease link locka lockf lockofd mknod open rename symlink \
    sync-file touch utime xattr";

/// How many run at a time in the short form.
const TOGETHER: usize = 7;

/// Those that would else write for longer than they are given time.
const SMALL: [&str; 4] = ["fallocate", "hdd", "iomix", "sync-file"];

#[test]
fn forty_one_stressors() {
    alone(Duration::from_secs(share(150, 1500)), || {
        let (Some(stress), Some(ground)) = (tool("stress-ng"), Ground::new()) else { return };
        let together = if percent().is_some() { 1 } else { TOGETHER };
        let seconds = share(1, 4);
        ground.compare(&[], |at| {
            let mut failed = Failed::new();
            let dir = folder(at, "stress");
            let stressors: Vec<&str> = STRESSORS.split_whitespace().collect();
            for group in stressors.chunks(together) {
                let mut command = Command::new(&stress);
                command.arg("--verify").arg("--temp-path").arg(&dir).current_dir(&dir);
                command.arg("--timeout").arg(format!("{seconds}s"));
                for name in group {
                    command.args([&format!("--{name}"), "1"]);
                    if SMALL.contains(name) {
                        command.args([&format!("--{name}-bytes"), "16m"]);
                    }
                }
                let ran = run(&mut command, Duration::from_secs(60 + seconds));
                if !ran.ok {
                    failed.insert(group.join(", "), tail(&ran.said, 40));
                }
            }
            failed
        });
    });
}
