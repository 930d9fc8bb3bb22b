//! What people do with files every day, a script for each program; afterwards a JavaScript Hyperdrive has every file of it.

use super::alone::alone;
use super::ground::{Failed, Ground};
use super::running::{TRACED, folder, run, tail};
use super::share;
use crate::common::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Name, what it takes, and what a shell does in an empty folder; see `programs/common.sh`.
const STEPS: &[(&str, &[&str], &str)] = &[
    ("redirection", &[], include_str!("programs/redirection.sh")),
    ("cp", &[], include_str!("programs/cp.sh")),
    ("rsync", &["rsync"], include_str!("programs/rsync.sh")),
    ("tar", &["tar"], include_str!("programs/tar.sh")),
    ("sed", &["sed"], include_str!("programs/sed.sh")),
    ("vim", &["vim"], include_str!("programs/vim.sh")),
    ("nano", &["nano", "script"], include_str!("programs/nano.sh")),
    ("git", &["git"], include_str!("programs/git.sh")),
    ("sqlite", &["python3"], include_str!("programs/sqlite.sh")),
    ("npm", &["npm", "node"], include_str!("programs/npm.sh")),
    ("cargo", &[], include_str!("programs/cargo.sh")),
    ("tail", &["tail"], include_str!("programs/tail.sh")),
];

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    available(program, here)
}

fn step(ground: &Ground, at: &Path, name: &str, script: &str) -> Result<(), String> {
    let dir = folder(at, name);
    // What is not to lie where it is tried.
    let aside = folder(ground.beside.path(), "aside");
    let aside = tempfile::tempdir_in(aside).unwrap();
    let text = format!("{TRACED}{}\n{script}", include_str!("programs/common.sh"));
    let mut command = Command::new("bash");
    command.args(["-euxc", &text]).current_dir(&dir).env("ASIDE", aside.path());
    command.env("SECONDS_OF_WRITING", share(1, 5).to_string());
    command.env("CARGO", env!("CARGO")).env("TERM", "xterm").env_remove("CARGO_TARGET_DIR");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "n").env(format!("GIT_{role}_EMAIL"), "n@example");
    }
    let ran = run(&mut command, Duration::from_secs(90));
    if ran.ok { Ok(()) } else { Err(tail(&ran.said, 40)) }
}

/// Every file below `dir` by its name in the drive: the hash of a file, the target of a link.
fn files(at: &Path, dir: &Path, all: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let name = format!("/{}", text(path.strip_prefix(at).unwrap()));
        if kind.is_dir() {
            files(at, &path, all);
        } else if kind.is_symlink() {
            all.insert(name, text(&fs::read_link(&path).unwrap()).to_string());
        } else if !kind.is_fifo() {
            all.insert(name, sha256(&fs::read(&path).unwrap()));
        }
    }
}

#[test]
fn everyday_work_and_a_javascript_peer_has_it_all() {
    alone(Duration::from_secs(300), || {
        let Some(ground) = Ground::new() else { return };
        ground.compare(&[], |at| {
            let mut failed = Failed::new();
            for (name, needed, script) in STEPS {
                if !needed.iter().all(|program| is_installed(program)) {
                    continue;
                }
                if let Err(said) = step(&ground, at, name, script) {
                    failed.insert((*name).into(), said);
                }
            }
            failed
        });
        if js_available() {
            compare_with_javascript(&ground);
        }
    });
}

fn compare_with_javascript(ground: &Ground) {
    let at = &ground.mount.at;
    // It has empty folders and pipes where JavaScript does not look.
    File::open(at).unwrap().sync_all().unwrap();
    let mut here = BTreeMap::new();
    files(at, at, &mut here);
    let mut js = ground.lab.js();
    let key = hdrive::key::hex(&hdrive::key::parse_key(&ground.key).unwrap());
    js.call("open", json!({"key": key}));
    let listed = js.call_within(2 * PATIENCE, "list", json!({"key": key}));
    let there: BTreeMap<String, String> = listed["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let value = entry["linkname"].as_str().or(entry["sha256"].as_str());
            // An empty file may have no blob.
            let value = value.map_or_else(|| sha256(b""), str::to_string);
            (entry["path"].as_str().unwrap().to_string(), value)
        })
        .collect();
    println!("{} files, {} at the peer", here.len(), there.len());
    let different: Vec<_> = here
        .keys()
        .chain(there.keys())
        .filter(|name| here.get(*name) != there.get(*name))
        .map(|name| (name, here.get(name), there.get(name)))
        .collect();
    assert!(different.is_empty(), "other at the JavaScript peer: {different:#?}");
    assert!(here.len() > 50, "hardly anything was left to compare: {}", here.len());
}

#[test]
fn tail_follows_what_another_machine_writes() {
    alone(Duration::from_secs(120), || {
        let Some(ground) = Ground::new() else { return };
        let log = ground.mount.path("log");
        fs::write(&log, "first\n").unwrap();
        let peer = ground.lab.mount("bob", &ground.key, &[]);
        let followed = ground.beside.path().join("followed");
        let mut tail = Command::new("tail");
        tail.args(["-n", "+1", "-F", "-s", "0.2"]).arg(peer.path("log"));
        let mut tail = tail.stdout(File::create(&followed).unwrap()).spawn().unwrap();
        for line in 0..5 {
            let line = format!("line {line}\n");
            let mut log = File::options().append(true).open(&log).unwrap();
            std::io::Write::write_all(&mut log, line.as_bytes()).unwrap();
            drop(log);
            eventually("the line on the other machine", AT_ONCE, || {
                // It takes what the writer saved for another file, and tells it from its start.
                fs::read_to_string(&followed).unwrap().ends_with(&line).then_some(())
            });
        }
        tail.kill().unwrap();
        tail.wait().unwrap();
    });
}
