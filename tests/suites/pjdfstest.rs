//! pjdfstest: what POSIX says of each call that has to do with names and attributes, with three users.

use super::alone::alone;
use super::ground::{Failed, Ground};
use super::running::{run, tool};
use super::share;
use crate::common::Place;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The beginnings of names that fail on a mount, and why.
const KNOWN: &[(&str, &str)] = &[
    ("chmod::clear_isgid_bit", OWNER),
    ("link::share_metadata", OWNER),
    ("mkdir::uid_gid_eq_euid_egid", OWNER),
    ("mkfifo::uid_gid_eq_euid_egid", OWNER),
    ("mknod::uid_gid_eq_euid_egid", OWNER),
    ("open::uid_gid_eq_euid_egid", OWNER),
    ("rename::updates_link_parent", "the link count of a folder is always 1"),
];
const OWNER: &str = "all belongs to who mounted";

/// So many of its cases have to pass, so that nothing is proven by leaving them out.
const LEAST: usize = 350;

const SETTINGS: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utimensat = {}
utime_now = {}
[dummy_auth]
entries = [["nobody", "nogroup"], ["suite1", "suite1"], ["suite2", "suite2"]]
[settings]
naptime = 0.01
allow_remount = false
"#;

/// Users that it may become, in this mount namespace alone.
fn users(at: &Path) -> Vec<Place> {
    let more = [
        ("passwd", "suite1:x:64201:64201::/:/bin/sh\nsuite2:x:64202:64202::/:/bin/sh\n"),
        ("group", "suite1:x:64201:\nsuite2:x:64202:\n"),
    ];
    let shown = more.map(|(name, lines)| {
        let (known, here) = (Path::new("/etc").join(name), at.join(name));
        fs::write(&here, fs::read_to_string(&known).unwrap() + lines).unwrap();
        Place::bind(&here, &known).expect("root may mount in a namespace of its own")
    });
    shown.into()
}

/// The cases that failed, each with why, and how many passed.
fn judged(said: &str) -> (Failed, usize) {
    let (mut failed, mut passed) = (Failed::new(), 0);
    let mut lines = said.lines();
    while let Some(line) = lines.next() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(_), Some("ok"), None) => passed += 1,
            (Some(name), Some("FAILED"), None) => {
                failed.insert(name.into(), lines.next().unwrap_or_default().trim().into());
            }
            _ => {}
        }
    }
    (failed, passed)
}

#[test]
fn every_case_of_it() {
    alone(Duration::from_secs(share(180, 400)), || {
        let (Some(pjdfstest), Some(ground)) = (tool("pjdfstest"), Ground::new()) else { return };
        let _users = users(ground.beside.path());
        let settings = ground.beside.path().join("pjdfstest.toml");
        fs::write(&settings, SETTINGS).unwrap();
        ground.compare(KNOWN, |at| {
            let mut command = Command::new(&pjdfstest);
            command.arg("-c").arg(&settings).arg("-p").arg(at).arg("-s");
            command.arg(if at == ground.mount.at {
                ground.beside.path()
            } else {
                &ground.mount.at
            });
            let ran = run(&mut command, Duration::from_secs(150));
            let (mut failed, passed) = judged(&ran.said);
            println!("{}: {passed} passed, {} failed", at.display(), failed.len());
            if passed < LEAST {
                failed.insert("the whole".into(), ran.said);
            }
            failed
        });
    });
}
