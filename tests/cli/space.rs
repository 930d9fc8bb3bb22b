//! What a drive takes on disk: superseded contents are given back, seeds do not fetch them, and a drive can be
//! forgotten.

use crate::common::*;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const MIB: u64 = 1 << 20;

/// Bytes of a store's files on the disk.
fn space(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => space(&entry.path()),
        // Of the database only what is not a core's.
        Ok(meta) if entry.path().extension().is_some_and(|e| e == "blocks" || e == "tree") => {
            meta.blocks() * 512
        }
        _ => 0,
    };
    entries.filter_map(Result::ok).map(size).sum()
}

/// A drive of alice's with so many contents of 4 MiB in one file after the other, and one more file.
fn rewritten(lab: &Lab, times: u32) -> String {
    let key = lab.run("alice", &["create", "photos"]).text();
    let key = key.trim().trim_start_matches("key: ").to_string();
    let source = lab.path("source");
    for seed in 1..=times {
        fs::write(&source, pattern(seed, 4 * MIB as usize)).unwrap();
        let put = lab.run("alice", &["put", "photos/file", text(&source)]);
        assert_eq!(put.code, 0, "{}", put.stderr);
    }
    fs::write(&source, "small").unwrap();
    assert_eq!(lab.run("alice", &["put", "photos/other", text(&source)]).code, 0);
    key
}

fn json(done: &Done) -> Value {
    serde_json::from_str(done.text().lines().next().unwrap_or("null")).unwrap()
}

fn cat(lab: &Lab, store: &str, what: &str) -> Vec<u8> {
    let done = lab.run(store, &["cat", what]);
    assert_eq!(done.code, 0, "{what}: {}", done.stderr);
    done.stdout
}

#[test]
fn gc_gives_back_what_no_kept_version_names() {
    let lab = Lab::new();
    let key = rewritten(&lab, 5);
    let store = lab.path("alice");
    let before = space(&store);
    assert!(before > 20 * MIB, "{before}");

    let dry = json(&lab.run("alice", &["gc", "photos", "--dry-run", "--json"]));
    assert_eq!(dry["bytes"], 16 * MIB, "{dry}");
    assert_eq!(space(&store), before);

    // Versions: 2 to 6 of the file, 7 of the other.
    let some = json(&lab.run("alice", &["gc", "photos", "--keep", "3", "--json"]));
    assert_eq!((&some["bytes"], &some["oldest"]), (&(12 * MIB).into(), &5.into()), "{some}");
    let at = |version| format!("hyper://{key}/$/version/{version}/file");
    assert_eq!(cat(&lab, "alice", &at(5)), pattern(4, 4 * MIB as usize));

    let week = json(&lab.run("alice", &["gc", "photos", "--keep", "7d", "--json"]));
    assert_eq!(week["bytes"], 0, "all of it is of this week: {week}");
    let all = lab.run("alice", &["gc"]);
    assert!(all.text().contains("freed: 4.0 MiB"), "{}", all.text());
    let after = space(&store);
    println!("store: {before} bytes before, {after} after");
    assert!(after < 5 * MIB, "{after}");
    assert_eq!(cat(&lab, "alice", "photos/file"), pattern(5, 4 * MIB as usize));
    assert_eq!(cat(&lab, "alice", "photos/other"), b"small");
    assert_eq!(json(&lab.run("alice", &["gc", "photos", "--json"]))["bytes"], 0);

    // It can still be written, and the past is gone for readers too.
    let source = lab.path("source");
    fs::write(&source, pattern(9, 100_000)).unwrap();
    assert_eq!(lab.run("alice", &["put", "photos/new", text(&source)]).code, 0);
    let gone = lab.run("alice", &["cat", &at(2)]);
    assert_ne!(gone.code, 0);
    assert_eq!(cat(&lab, "alice", "photos/new"), pattern(9, 100_000));
}

#[test]
fn a_mounted_version_and_an_open_file_keep_their_bytes() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let key = rewritten(&lab, 3);
    let old = lab.mount("alice", "photos", &["--at", "2"]);
    let live = lab.folder("live");
    let mut second = lab.spawn("alice", &["mount", "photos", text(&live)]);
    second.line("mounted: ");
    eventually("the names", PATIENCE, || fs::metadata(live.join("file")).ok());
    let open = fs::File::open(live.join("file")).unwrap();
    let source = lab.path("source");
    fs::write(&source, pattern(8, 4 * MIB as usize)).unwrap();
    assert_eq!(lab.run("alice", &["put", "photos/file", text(&source)]).code, 0);
    // The second of four contents is in nobody's hands.
    assert_eq!(json(&lab.run("alice", &["gc", "photos", "--json"]))["bytes"], 4 * MIB);
    assert_eq!(fs::read(old.path("file")).unwrap(), pattern(1, 4 * MIB as usize));

    let mut old = old;
    old.process.signal(Signal::SIGINT);
    // It owned the store and goes on for the other mount.
    eventually("the unmount", PATIENCE, || {
        (fs::read_dir(&old.at).ok()?.count() == 0).then_some(())
    });
    let freed = || {
        let done = json(&lab.run("alice", &["gc", "photos", "--json"]));
        (done["bytes"] == 4 * MIB).then_some(())
    };
    eventually("the first content is free", PATIENCE, freed);
    let mut bytes = vec![0; 4 * MIB as usize];
    std::os::unix::fs::FileExt::read_exact_at(&open, &mut bytes, 0).unwrap();
    assert!(bytes == pattern(3, 4 * MIB as usize), "the open file");
    assert_eq!(fs::read(live.join("file")).unwrap(), pattern(8, 4 * MIB as usize));
    let refused = lab.run("alice", &["forget", "--yes", &key]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("in use"), "{}", refused.stderr);
    drop(open);
    second.signal(Signal::SIGTERM);
    old.process.signal(Signal::SIGTERM);
    old.process.wait(PATIENCE);
}

#[test]
fn a_share_that_runs_can_be_cleared_and_its_readers_go_on() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    let file = folder.join("file");
    fs::write(&file, pattern(1, 4 * MIB as usize)).unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let mut seed = lab.spawn("bob", &["seed", &key]);
    seed.line("complete: ");
    for n in 2..5 {
        // Of another length each time, so that nothing of it is kept from before.
        fs::write(&file, pattern(n, (4 * MIB) as usize + n as usize)).unwrap();
        let target = format!("{key}/file");
        let there = || {
            (lab.run("alice", &["cat", &target]).stdout.len() as u64 == 4 * MIB + u64::from(n))
                .then_some(())
        };
        eventually("the change", PATIENCE, there);
    }
    // A command that read the drive may still want what it saw; it has ended by now, or does in a moment.
    let mut freed = 0;
    eventually("the superseded contents are free", PATIENCE, || {
        freed += json(&lab.run("alice", &["gc", &key, "--json"]))["bytes"].as_u64()?;
        (freed >= 12 * MIB).then_some(())
    });
    assert!(space(&lab.path("alice")) < 9 * MIB, "{}", space(&lab.path("alice")));
    // A peer that has only heard of the version before may be met first.
    let newest = || lab.run("carol", &["cat", &format!("{key}/file")]).stdout;
    let newest = || (newest() == pattern(4, 4 * MIB as usize + 4)).then_some(());
    eventually("the newest content", PATIENCE, newest);
    // What the share writes next is as good as ever.
    fs::write(folder.join("next"), pattern(7, 200_000)).unwrap();
    let next = || lab.run("carol", &["cat", &format!("{key}/next")]).stdout;
    eventually("the next file", PATIENCE, || (next() == pattern(7, 200_000)).then_some(()));
    // The seed keeps its own past until it is cleared here.
    // How much of the contents in between it fetched depends on how fast they came.
    let freed = || {
        let done = json(&lab.run("bob", &["gc", &key, "--json"]));
        done["bytes"].as_u64().filter(|freed| *freed >= 4 * MIB)
    };
    eventually("the seed's past is free", PATIENCE, freed);
    let newest = || lab.run("bob", &["cat", &format!("{key}/file")]).stdout;
    let newest = || (newest() == pattern(4, 4 * MIB as usize + 4)).then_some(());
    eventually("the newest content", PATIENCE, newest);
}

#[test]
fn a_seed_fetches_what_the_current_version_names() {
    let lab = Lab::new();
    let key = rewritten(&lab, 4);
    let mut owner = lab.spawn("alice", &["seed", &key]);
    owner.line("complete: ");
    for (store, more, least, most) in
        [("bob", &[][..], 4 * MIB, 5 * MIB), ("carol", &["--history"], 16 * MIB, 17 * MIB)]
    {
        let mut seed = lab.spawn(store, &[&["seed", &key][..], more].concat());
        seed.line("complete: ");
        seed.signal(Signal::SIGINT);
        seed.wait(PATIENCE);
        let held = space(&lab.path(store));
        println!("seed {more:?}: {held} bytes");
        assert!((least..most).contains(&held), "{store}: {held}");
    }
    owner.signal(Signal::SIGINT);
    owner.wait(PATIENCE);
    // What it holds is enough to serve the drive.
    let mut seed = lab.spawn("bob", &["seed", &key]);
    seed.line("complete: ");
    assert!(cat(&lab, "dave", &format!("{key}/file")) == pattern(4, 4 * MIB as usize));
}

#[test]
fn a_forgotten_drive_is_gone_and_its_key_does_not_come_back() {
    let lab = Lab::new();
    let key = rewritten(&lab, 2);
    let mut seed = lab.spawn("bob", &["seed", &key]);
    let mut owner = lab.spawn("alice", &["seed", &key]);
    owner.line("complete: ");
    seed.line("complete: ");
    owner.signal(Signal::SIGINT);
    owner.wait(PATIENCE);
    let asked = lab.run("alice", &["forget", "photos"]);
    assert_eq!(asked.code, 2, "{}", asked.stderr);
    assert!(asked.stderr.contains("--yes"), "{}", asked.stderr);
    let done = lab.run("alice", &["forget", "photos", "--yes"]);
    assert_eq!((done.code, done.text()), (0, format!("forgotten: {key}\n")), "{}", done.stderr);
    assert!(done.stderr.contains("nobody can change this drive"), "{}", done.stderr);
    assert!(space(&lab.path("alice")) < 100_000);
    assert_eq!(lab.run("alice", &["forget", "photos", "--yes"]).code, 3, "no such name");
    assert_eq!(lab.run("alice", &["forget", &key, "--yes"]).code, 3);

    // A drive of the same name is another one: readers of the first would find its log cut.
    let again = lab.run("alice", &["create", "photos"]).text();
    assert_ne!(again.trim(), format!("key: {key}"));
    assert_eq!(lab.run("alice", &["put", "photos/x", text(&lab.path("source"))]).code, 0);
    assert_eq!(cat(&lab, "alice", "photos/x"), b"small");

    // A copy of somebody else's drive comes back when it is asked for.
    assert!(cat(&lab, "carol", &format!("{key}/file")) == pattern(2, 4 * MIB as usize));
    let done = lab.run("carol", &["forget", &key, "--yes"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(!done.stderr.contains("secret key"), "{}", done.stderr);
    assert!(space(&lab.path("carol")) < 100_000);
    assert!(cat(&lab, "carol", &format!("{key}/file")) == pattern(2, 4 * MIB as usize));
}

#[test]
fn a_log_lists_versions_with_what_they_changed() {
    let lab = Lab::new();
    let key = lab.run("alice", &["create", "notes"]).text();
    let key = key.trim().trim_start_matches("key: ").to_string();
    let folder = lab.folder("notes");
    for name in ["a", "b", "c"] {
        fs::write(folder.join(name), name).unwrap();
    }
    assert_eq!(lab.run("alice", &["put", "notes", text(&folder)]).code, 0);
    fs::write(folder.join("b"), "changed").unwrap();
    assert_eq!(lab.run("alice", &["put", "notes/b", text(&folder.join("b"))]).code, 0);
    assert_eq!(lab.run("alice", &["rm", "notes/a"]).code, 0);

    let told = lab.run("alice", &["log", "notes"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let lines: Vec<String> = told.text().lines().map(str::to_string).collect();
    let heads: Vec<&String> = lines.iter().filter(|line| line.starts_with("version")).collect();
    assert_eq!(heads.len(), 3, "{lines:?}");
    assert!(heads[0].starts_with("version 6  20") && heads[0].ends_with("1 removed"), "{lines:?}");
    assert!(heads[1].starts_with("version 5  20") && heads[1].ends_with("1 changed"), "{lines:?}");
    assert!(heads[2].starts_with("version 4  20") && heads[2].ends_with("3 added"), "{lines:?}");
    assert!(lines.contains(&"  - /a".to_string()), "{lines:?}");

    // Elsewhere too, and as JSON.
    let mut owner = lab.spawn("alice", &["seed", &key]);
    owner.line("complete: ");
    let told = lab.run("bob", &["log", &key, "--json"]);
    let versions: Vec<Value> =
        told.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(versions.len(), 3, "{}", told.stderr);
    assert_eq!((&versions[0]["version"], &versions[0]["removed"][0]), (&6.into(), &"/a".into()));
    assert_eq!(versions[1]["changed"][0], "/b");
    assert!(versions[2]["time"].is_number() && versions[2]["added"].as_array().unwrap().len() == 3);
}

#[test]
fn a_path_behind_the_drive_is_refused_and_nothing_is_freed() {
    let lab = Lab::new();
    assert_eq!(lab.run("alice", &["create", "mine"]).code, 0);
    let file = lab.path("file-to-put");
    for content in ["old", "new"] {
        fs::write(&file, content).unwrap();
        assert_eq!(lab.run("alice", &["put", "mine/f", text(&file)]).code, 0);
    }
    let done = lab.run("alice", &["gc", "mine/f"]);
    assert_eq!((done.code, done.text().as_str()), (2, ""), "{}", done.stderr);
    assert!(done.stderr.contains("leave '/f' away"), "{}", done.stderr);
    let dry = json(&lab.run("alice", &["gc", "mine", "--dry-run", "--json"]));
    assert_eq!(dry["bytes"], 3, "the old content is still there");
}

#[test]
fn a_part_of_the_store_that_cannot_be_opened_keeps_no_other_drive_from_being_cleared() {
    use hdrive::hyper::core::storage::{Durability, Table, Writes, open_disk};
    let lab = Lab::new();
    assert_eq!(lab.run("alice", &["create", "lost"]).code, 0);
    assert_eq!(lab.run("alice", &["create", "mine"]).code, 0);
    let file = lab.path("file-to-put");
    for content in ["old", "new"] {
        fs::write(&file, content).unwrap();
        assert_eq!(lab.run("alice", &["put", "mine/f", text(&file)]).code, 0);
    }
    let lost = lab.run("alice", &["info", "lost", "--json"]).text();
    let lost: Value = serde_json::from_str(lost.lines().next().unwrap()).unwrap();
    let lost: hdrive::key::DriveLink = lost["key"].as_str().unwrap().parse().unwrap();
    {
        // One core of a drive, and one that may be anything.
        let storage = open_disk(&lab.path("alice")).unwrap();
        let mut writes = Writes::default();
        for id in [lost.key.discovery_key(), hdrive::key::DiscoveryKey([7; 32])] {
            writes.put(Table::Cores, *id.as_bytes(), vec![0xff; 3]);
        }
        storage.commit(writes, &[], Durability::Durable).unwrap();
    }
    let done = lab.run("alice", &["gc"]);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.text().ends_with("freed: 3 B\n"), "{}", done.text());
    assert!(done.stderr.contains("something in this store cannot be opened"), "{}", done.stderr);
    assert!(done.stderr.contains(&format!("drive {}: nothing was freed", lost.key)));
    assert!(done.stderr.contains("not every drive could be cleared"), "{}", done.stderr);
    assert_eq!(cat(&lab, "alice", "mine/f"), b"new");
    assert_eq!(lab.run("alice", &["gc", "mine"]).code, 0);
}

#[test]
fn what_nothing_names_at_the_end_is_given_back_while_the_folder_is_shared() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("first"), pattern(1, MIB as usize)).unwrap();
    fs::write(folder.join("second"), pattern(2, 4 * MIB as usize)).unwrap();
    let (_share, key) = lab.share("alice", &folder);
    fs::remove_file(folder.join("second")).unwrap();
    eventually("the file to go", PATIENCE, || {
        (lab.run("alice", &["ls", &key]).text() == "first\n").then_some(())
    });
    let freed = json(&lab.run("alice", &["gc", &key, "--json"]));
    assert_eq!(freed["bytes"], 4 * MIB, "{freed}");
    assert!(space(&lab.path("alice")) < 3 * MIB, "{}", space(&lab.path("alice")));
    assert_eq!(cat(&lab, "alice", &format!("{key}/first")), pattern(1, MIB as usize));
    // And it comes back as a whole.
    fs::write(folder.join("again"), pattern(2, 4 * MIB as usize)).unwrap();
    eventually("the file to come", PATIENCE, || {
        let done = lab.run("alice", &["cat", &format!("{key}/again")]);
        (done.stdout == pattern(2, 4 * MIB as usize)).then_some(())
    });
}
