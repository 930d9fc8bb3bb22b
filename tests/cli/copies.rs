//! A store that is not the one it was: restored, copied, killed; and keys that are not the drive's.

use crate::common::*;
use nix::sys::signal::Signal;
use std::fs;
use std::process::Command;
use std::time::Duration;

const RIGHT: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const WRONG: &str = "2222222222222222222222222222222222222222222222222222222222222222";

/// A new drive of alice's; its key.
fn create(lab: &Lab, name: &str) -> String {
    let key = lab.run("alice", &["create", name]).text();
    key.trim_start_matches("key:").trim().to_string()
}

fn put(lab: &Lab, key: &str, name: &str, more: &[&str]) -> Done {
    let file = lab.path("file-to-put");
    fs::write(&file, name).unwrap();
    let target = format!("{key}/{name}");
    let mut args = vec!["put", &target, text(&file)];
    args.extend(more);
    lab.run("alice", &args)
}

#[test]
fn a_restored_store_does_not_fork_what_was_published() {
    let lab = Lab::new();
    let key = create(&lab, "notes");
    assert_eq!(put(&lab, &key, "a", &[]).code, 0);
    copy(&lab.path("alice"), &lab.path("backup"));
    fs::write(lab.path("large"), pattern(2, 200_000)).unwrap();
    let target = format!("{key}/b");
    assert_eq!(lab.run("alice", &["put", &target, text(&lab.path("large"))]).code, 0);
    let serving = lab.owner("alice", &["seed", &key]);
    let mut seed = lab.owner("bob", &["seed", &key]);
    let copied = || (lab.run("bob", &["ls", &key]).text() == "a\nb\n").then_some(());
    eventually("a whole copy at the peer", PATIENCE, copied);
    let out = lab.path("out");
    assert_eq!(lab.run("bob", &["get", &format!("{key}/b"), text(&out)]).code, 0);
    stop(serving);

    fs::remove_dir_all(lab.path("alice")).unwrap();
    copy(&lab.path("backup"), &lab.path("alice"));
    let refused = put(&lab, &key, "c", &[]);
    assert_ne!(refused.code, 0, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("this store is older than what was published"),
        "{}",
        refused.stderr
    );
    // Meanwhile the store was brought up to date.
    let again = put(&lab, &key, "c", &[]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(lab.run("alice", &["ls", &key]).text(), "a\nb\nc\n");
    let third = put(&lab, &key, "d", &[]);
    assert_eq!(third.code, 0, "{}", third.stderr);

    // Its readers follow.
    let mut served = lab.owner("alice", &["seed", &key]);
    let seen = || (lab.run("bob", &["ls", &key]).text() == "a\nb\nc\nd\n").then_some(());
    eventually("the new files at the peer", PATIENCE, seen);
    assert_eq!(lab.run("bob", &["cat", &format!("{key}/d")]).text(), "d");
    assert_eq!(lab.run("bob", &["cat", &format!("{key}/b")]).stdout, pattern(2, 200_000));
    for process in [&mut served, &mut seed] {
        process.signal(Signal::SIGINT);
    }
}

#[test]
fn a_restored_store_shows_what_peers_have_before_anybody_writes_it() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let key = create(&lab, "notes");
    assert_eq!(put(&lab, &key, "a", &[]).code, 0);
    copy(&lab.path("alice"), &lab.path("backup"));
    assert_eq!(put(&lab, &key, "b", &[]).code, 0);
    let serving = lab.owner("alice", &["seed", &key]);
    let seed = lab.owner("bob", &["seed", &key]);
    let copied = || (lab.run("bob", &["cat", &format!("{key}/b")]).text() == "b").then_some(());
    eventually("a whole copy at the peer", PATIENCE, copied);
    stop(serving);
    fs::remove_dir_all(lab.path("alice")).unwrap();
    copy(&lab.path("backup"), &lab.path("alice"));
    let at = lab.folder("mnt");
    let reading = lab.owner("alice", &["mount", &key, text(&at)]);
    let read = || {
        let done = lab.run("alice", &["cat", &format!("{key}/b")]);
        (done.code == 0).then(|| done.text())
    };
    assert_eq!(eventually("the newer file", PATIENCE, read), "b");
    stop(reading);
    stop(seed);
}

#[test]
fn a_copy_that_can_ask_nobody_is_not_written_unless_somebody_vouches_for_it() {
    let lab = Lab::new();
    let key = create(&lab, "notes");
    assert_eq!(put(&lab, &key, "a", &[]).code, 0);
    fs::rename(lab.path("alice"), lab.path("moved")).unwrap();
    // Moved, it is the one that it was.
    fs::rename(lab.path("moved"), lab.path("alice")).unwrap();
    assert_eq!(put(&lab, &key, "b", &[]).code, 0);

    copy(&lab.path("alice"), &lab.path("copy"));
    fs::remove_dir_all(lab.path("alice")).unwrap();
    fs::rename(lab.path("copy"), lab.path("alice")).unwrap();
    assert_eq!(lab.run("alice", &["status"]).code, 0);
    let refused = put(&lab, &key, "c", &[]);
    assert_ne!(refused.code, 0, "{}", refused.stderr);
    assert!(refused.stderr.contains("--trust-store"), "{}", refused.stderr);
    let vouched = put(&lab, &key, "c", &["--trust-store"]);
    assert_eq!(vouched.code, 0, "{}", vouched.stderr);
    assert_eq!(put(&lab, &key, "d", &[]).code, 0);
}

/// Who joins a running owner vouches for the store as well, and what cannot be passed on is told.
#[test]
fn who_vouches_for_a_copy_may_come_later_than_its_owner() {
    let lab = Lab::new();
    let key = create(&lab, "notes");
    assert_eq!(put(&lab, &key, "a", &[]).code, 0);
    copy(&lab.path("alice"), &lab.path("copy"));
    fs::remove_dir_all(lab.path("alice")).unwrap();
    fs::rename(lab.path("copy"), lab.path("alice")).unwrap();
    let serving = lab.owner("alice", &["seed", &key]);
    let refused = put(&lab, &key, "b", &[]);
    assert_ne!(refused.code, 0, "{}", refused.stderr);
    assert!(refused.stderr.contains("--trust-store"), "{}", refused.stderr);
    let vouched = put(&lab, &key, "b", &["--trust-store"]);
    assert_eq!((vouched.code, vouched.stderr.lines().count()), (0, 1), "{}", vouched.stderr);
    // It was said of the store, and is remembered.
    assert_eq!(put(&lab, &key, "c", &[]).code, 0);
    stop(serving);
    assert_eq!(put(&lab, &key, "d", &[]).code, 0);

    let serving = lab.owner("alice", &["seed", &key]);
    let elsewhere = ["--bootstrap", NOWHERE, "--local", "127.0.0.1:1"];
    let joined = put(&lab, &key, "e", &elsewhere);
    assert_eq!(joined.code, 0, "{}", joined.stderr);
    let told = "note: --bootstrap and --local count for the process that opened the store";
    assert!(joined.stderr.starts_with(told), "{}", joined.stderr);
    stop(serving);
}

/// The database alone, written over the one of a process that was killed.
#[test]
fn an_older_database_put_back_after_a_kill_is_a_copy() {
    let lab = Lab::new();
    let key = create(&lab, "notes");
    assert_eq!(put(&lab, &key, "a", &[]).code, 0);
    let (database, backup) = (lab.path("alice").join("store.redb"), lab.path("old.redb"));
    fs::copy(&database, &backup).unwrap();
    let mut serving = lab.owner("alice", &["seed", &key]);
    assert_eq!(put(&lab, &key, "b", &[]).code, 0);
    serving.signal(Signal::SIGKILL);
    serving.wait(PATIENCE);
    // In place, without its times.
    fs::write(&database, fs::read(&backup).unwrap()).unwrap();
    let refused = put(&lab, &key, "c", &[]);
    assert_ne!(refused.code, 0, "{}", refused.stderr);
    assert!(refused.stderr.contains("--trust-store"), "{}", refused.stderr);

    // Without that a kill is none of its business.
    let lab = Lab::new();
    let key = create(&lab, "notes");
    for name in ["a", "b", "c"] {
        let mut serving = lab.owner("alice", &["seed", &key]);
        assert_eq!(put(&lab, &key, name, &[]).code, 0);
        serving.signal(Signal::SIGKILL);
        serving.wait(PATIENCE);
    }
    assert_eq!(lab.run("alice", &["ls", &key]).text(), "a\nb\nc\n");
}

#[test]
fn a_backup_put_back_over_the_store_is_a_copy() {
    let lab = Lab::new();
    let key = create(&lab, "notes");
    assert_eq!(put(&lab, &key, "a", &[]).code, 0);
    copy(&lab.path("alice"), &lab.path("backup"));
    assert_eq!(put(&lab, &key, "b", &[]).code, 0);
    copy(&lab.path("backup/."), &lab.path("alice"));
    let refused = put(&lab, &key, "c", &[]);
    assert_ne!(refused.code, 0, "{}", refused.stderr);
    assert!(refused.stderr.contains("--trust-store"), "{}", refused.stderr);
    assert_eq!(put(&lab, &key, "c", &["--trust-store"]).code, 0);
    assert_eq!(put(&lab, &key, "d", &[]).code, 0);
}

#[test]
fn a_killed_command_keeps_nobody_from_writing() {
    let lab = Lab::new();
    let key = create(&lab, "notes");
    let mut serving = lab.owner("alice", &["seed", &key]);
    assert_eq!(put(&lab, &key, "a", &[]).code, 0);
    serving.signal(Signal::SIGKILL);
    serving.wait(PATIENCE);
    let done = put(&lab, &key, "b", &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(!done.stderr.contains("asking"), "{}", done.stderr);
}

/// As if the machine had been started anew since the store was used.
fn start_anew(lab: &Lab, store: &str) {
    let path = lab.path(store).join("witness");
    let mut note = fs::read(&path).unwrap();
    note[11..27].fill(7);
    fs::write(path, note).unwrap();
}

#[test]
fn what_peers_said_of_a_copy_holds_after_a_power_cut_and_new_drives_are_in_no_doubt() {
    let lab = Lab::new();
    let key = create(&lab, "notes");
    assert_eq!(put(&lab, &key, "a", &[]).code, 0);
    let serving = lab.owner("alice", &["seed", &key]);
    let seed = lab.owner("bob", &["seed", &key]);
    let copied = || (lab.run("bob", &["cat", &format!("{key}/a")]).text() == "a").then_some(());
    eventually("a whole copy at the peer", PATIENCE, copied);
    stop(serving);
    copy(&lab.path("alice"), &lab.path("copy"));
    fs::remove_dir_all(lab.path("alice")).unwrap();
    fs::rename(lab.path("copy"), lab.path("alice")).unwrap();
    let cleared = put(&lab, &key, "b", &[]);
    assert_eq!(cleared.code, 0, "{}", cleared.stderr);
    assert!(cleared.stderr.contains("is a copy"), "{}", cleared.stderr);

    stop(seed);
    let mut serving = lab.owner("alice", &["seed", &key]);
    serving.signal(Signal::SIGKILL);
    serving.wait(PATIENCE);
    start_anew(&lab, "alice");
    let done = put(&lab, &key, "c", &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stderr.contains("was not closed in order"), "{}", done.stderr);
    assert!(!put(&lab, &key, "d", &[]).stderr.contains("asking"));

    let fresh = create(&lab, "fresh");
    let done = put(&lab, &fresh, "a", &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(!done.stderr.contains("asking"), "{}", done.stderr);
}

/// Whoever makes a drive of the same name in both has two drives.
#[test]
fn a_copy_gives_no_drive_a_key_that_the_other_store_gives() {
    let lab = Lab::new();
    create(&lab, "notes");
    copy(&lab.path("alice"), &lab.path("twin"));
    let theirs = lab.run("twin", &["create", "fresh"]).text();
    let ours = create(&lab, "fresh");
    assert!(!theirs.contains(&ours), "{theirs}");
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|done| done.status.success())
}

/// As the beginning of many a container does it.
#[test]
fn new_rights_for_the_whole_store_at_each_start_are_no_copy() {
    let lab = Lab::new();
    let key = create(&lab, "notes");
    let me = nix::unistd::Uid::current().to_string();
    for (n, end) in ["closed", "killed", "cut", "closed"].iter().enumerate() {
        let mut serving = lab.owner("alice", &["seed", &key]);
        assert_eq!(put(&lab, &key, &format!("{n}a"), &[]).code, 0);
        match *end {
            "closed" => stop(serving),
            _ => {
                serving.signal(Signal::SIGKILL);
                serving.wait(PATIENCE);
            }
        }
        if *end == "cut" {
            start_anew(&lab, "alice");
        }
        std::thread::sleep(Duration::from_millis(1200));
        assert!(succeeds(Command::new("chown").arg("-R").arg(&me).arg(lab.path("alice"))));
        let done = put(&lab, &key, &format!("{n}b"), &[]);
        assert_eq!(done.code, 0, "{end}: {}", done.stderr);
        assert_eq!(done.stderr.contains("asking"), *end == "cut", "{end}: {}", done.stderr);
    }
    // A backup that is put back over it is one all the same.
    copy(&lab.path("alice"), &lab.path("backup"));
    assert_eq!(put(&lab, &key, "more", &[]).code, 0);
    copy(&lab.path("backup/."), &lab.path("alice"));
    let refused = put(&lab, &key, "last", &[]);
    assert!(refused.stderr.contains("--trust-store"), "{}", refused.stderr);
}

#[test]
fn a_store_whose_note_cannot_be_written_is_read_and_not_changed() {
    let lab = Lab::new();
    let key = create(&lab, "notes");
    assert_eq!(put(&lab, &key, "a", &[]).code, 0);
    let note = lab.path("alice").join("witness");
    if !available("chattr", succeeds(Command::new("chattr").arg("+i").arg(&note))) {
        return;
    }
    let refused = put(&lab, &key, "b", &[]);
    let listed = lab.run("alice", &["ls", &key]);
    // Its files have to be looked through, which would be noted.
    let cores = lab.path("alice").join("cores");
    let anew = succeeds(Command::new("chmod").args(["-R", "u+x"]).arg(cores));
    let looked = lab.run("alice", &["cat", &format!("{key}/a")]);
    assert!(succeeds(Command::new("chattr").arg("-i").arg(&note)));
    assert!(anew);
    assert_eq!((looked.code, looked.text().as_str()), (0, "a"), "{}", looked.stderr);
    let told = looked.stderr.matches("only read: cannot change").count();
    assert_eq!(told, 1, "{}", looked.stderr);
    assert!(looked.stderr.contains("/witness: "), "{}", looked.stderr);
    assert_eq!(refused.code, 6, "{}", refused.stderr);
    assert!(refused.stderr.contains("cannot change the store without"), "{}", refused.stderr);
    assert_eq!((listed.code, listed.text().as_str()), (0, "a\n"), "{}", listed.stderr);
    // Nothing was fetched that could be lost, and who asked for a change was told.
    for Done { stderr, .. } in [&refused, &listed, &looked] {
        assert!(!stderr.contains("is lost") && !stderr.contains("at the end"), "{stderr}");
    }
    let done = put(&lab, &key, "b", &[]);
    assert_eq!((done.code, done.stderr.contains("asking")), (0, false), "{}", done.stderr);
}

#[test]
fn the_image_of_a_file_system_is_a_copy_of_the_store_on_it() {
    let lab = Lab::new();
    let (first, second) = (lab.path("first.img"), lab.path("second.img"));
    fs::File::create(&first).unwrap().set_len(64 << 20).unwrap();
    let made = succeeds(Command::new("mkfs.ext4").arg("-q").arg(&first));
    let mounted = made.then(|| Place::image(&first, &lab.folder("disk"))).flatten();
    if !available("a mounted ext4 image", mounted.is_some()) {
        return;
    }
    let on = |disk: &str, args: &[&str]| lab.run(&format!("{disk}/store"), args);
    let key = on("disk", &["create", "notes"]).text();
    let key = key.trim_start_matches("key:").trim().to_string();
    let file = lab.path("file");
    fs::write(&file, "content").unwrap();
    let puts = |disk: &str, name: &str| on(disk, &["put", &format!("{key}/{name}"), text(&file)]);
    assert_eq!(puts("disk", "a").code, 0);
    // Taken while the store is open, and looked at beside the one that it is of.
    let serving = lab.owner("disk/store", &["seed", &key]);
    assert_eq!(puts("disk", "b").code, 0);
    assert!(succeeds(Command::new("sync").arg("-f").arg(lab.path("disk"))));
    fs::copy(&first, &second).unwrap();
    stop(serving);
    let refused = |disk: &str| {
        let refused = puts(disk, "c");
        assert_eq!(refused.code, 1, "{disk}: {}", refused.stderr);
        assert!(refused.stderr.contains("--trust-store"), "{disk}: {}", refused.stderr);
    };
    let beside = Place::image(&second, &lab.folder("beside")).unwrap();
    refused("beside");
    drop(beside);
    // The one goes on, and the other takes its place, where nothing but the disk behind the device is another.
    assert_eq!(puts("disk", "d").code, 0);
    let serving = lab.owner("disk/store", &["seed", &key]);
    assert_eq!(puts("disk", "e").code, 0);
    assert!(succeeds(Command::new("sync").arg("-f").arg(lab.path("disk"))));
    fs::copy(&first, &second).unwrap();
    stop(serving);
    drop(mounted);
    let instead = Place::image(&second, &lab.path("disk")).unwrap();
    refused("disk");
    drop(instead);
}

#[test]
fn a_wrong_encryption_key_is_an_error_and_changes_nothing() {
    let lab = Lab::new();
    let create = |name: &str, more: &[&str]| {
        let mut args = vec!["create", name];
        args.extend(more);
        lab.run("alice", &args).text().trim_start_matches("key:").trim().to_string()
    };
    let key = create("secret", &["--encryption-key", RIGHT]);
    assert_eq!(put(&lab, &key, "a", &[]).code, 0);
    let plain = create("plain", &[]);
    assert_eq!(put(&lab, &plain, "a", &[]).code, 0);
    let at = lab.folder("mnt");
    let file = lab.path("file-to-put");
    for (key, given, words) in [
        (&key, WRONG, "the encryption key is not this drive's"),
        (&plain, RIGHT, "this drive is not encrypted"),
    ] {
        let inside = format!("{key}/a");
        let commands: [&[&str]; 6] = [
            &["ls", key],
            &["info", key],
            &["cat", &inside],
            &["mount", key, text(&at)],
            &["put", &inside, text(&file)],
            &["rm", &inside],
        ];
        for command in commands {
            let mut process = lab.command("alice", command);
            process.env("HDRIVE_ENCRYPTION_KEY", given);
            let done = run(process);
            assert_ne!(done.code, 0, "{command:?}");
            assert!(done.stderr.contains(words), "{command:?}: {}", done.stderr);
        }
        assert_eq!(put(&lab, key, "b", &[]).code, 0);
        assert_eq!(lab.run("alice", &["cat", &format!("{key}/b")]).text(), "b");
    }
    let served = lab.owner("alice", &["seed", &key]);
    let right = ["cat", &format!("{key}/b"), "--encryption-key", RIGHT];
    let read = || (lab.run("bob", &right).text() == "b").then_some(());
    eventually("the file at a reader", PATIENCE, read);
    stop(served);
}

/// Takes all the room there is in a file system; removing the file gives it back.
fn fill(at: &std::path::Path) -> std::path::PathBuf {
    let filler = at.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    for size in [1 << 16, 4096] {
        while std::io::Write::write_all(&mut file, &vec![1; size]).is_ok() {}
    }
    filler
}

#[test]
fn a_full_disk_at_the_first_start_and_later() {
    let lab = Lab::new();
    let small = lab.folder("small");
    let place = Place::of("tmpfs", &small, "size=16m,mode=0700");
    if !available("a tmpfs of its own", place.is_some()) {
        return;
    }
    let on = |args: &[&str]| lab.run("small/store", args);
    let filler = fill(&small);
    let full = on(&["create", "notes"]);
    assert_eq!(full.code, 6, "{}", full.stderr);
    assert!(full.stderr.contains("no space left"), "{}", full.stderr);
    fs::remove_file(&filler).unwrap();
    let made = on(&["create", "notes"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let file = lab.path("file");
    fs::write(&file, pattern(3, 300_000)).unwrap();
    let done = on(&["put", "notes/file", text(&file)]);
    assert_eq!(done.code, 0, "{}", done.stderr);

    // Closed in order, and killed in the middle.
    for kill in [false, true] {
        if kill {
            let mut seed = lab.owner("small/store", &["seed", "notes"]);
            assert_eq!(on(&["put", "notes/other", text(&file)]).code, 0);
            seed.signal(Signal::SIGKILL);
            seed.wait(PATIENCE);
        }
        let filler = fill(&small);
        let listed = on(&["ls", "notes"]);
        assert_eq!(listed.code, 0, "killed: {kill}: {}", listed.stderr);
        assert!(listed.text().starts_with("file\n"));
        let read = on(&["cat", "notes/file"]);
        assert_eq!(read.code, 0, "killed: {kill}: {}", read.stderr);
        assert!(read.stdout == pattern(3, 300_000));
        // What the drive has already would need no room.
        fs::write(&file, pattern(4 + u32::from(kill), 300_000)).unwrap();
        let refused = on(&["put", "notes/more", text(&file)]);
        assert!(refused.stderr.contains("no space left"), "{}", refused.stderr);
        fs::remove_file(&filler).unwrap();
        let done = on(&["put", "notes/more", text(&file)]);
        assert_eq!(done.code, 0, "killed: {kill}: {}", done.stderr);
    }
}

/// Of a copy that once went on by itself, a copy: nothing that anybody says of one of the two histories makes it right to
/// write the other.
#[test]
fn a_copy_of_a_split_drive_is_not_written_whoever_is_online() {
    let lab = Lab::new();
    let key = create(&lab, "notes");
    assert_eq!(put(&lab, &key, "a", &[]).code, 0);
    copy(&lab.path("alice"), &lab.path("once"));
    let file = lab.path("other-file-to-put");
    // The contents are the same in both histories, as far as they go.
    fs::write(&file, "b").unwrap();
    let target = format!("{key}/other");
    let done = lab.run("once", &["put", &target, text(&file), "--trust-store"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    copy(&lab.path("once"), &lab.path("twice"));
    for name in ["b", "c"] {
        assert_eq!(put(&lab, &key, name, &[]).code, 0);
    }
    let serving = lab.owner("alice", &["seed", &key]);
    // Without who is connected just then.
    let held = || {
        let info = lab.run("twice", &["info", &key]).text();
        info.split("peers: ").next().unwrap().to_string()
    };
    let before = held();
    fs::write(&file, "more").unwrap();
    let refused = |store: &str| {
        let refused = lab.run(store, &["put", &target, text(&file)]);
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        assert!(refused.stderr.contains("two different histories"), "{}", refused.stderr);
        assert!(!refused.stderr.contains("run the command again"), "{}", refused.stderr);
    };
    refused("twice");
    refused("twice");
    assert_eq!(held(), before, "it took nothing");
    stop(serving);
    // It is not forgotten either when nobody is there to say it, nor whom it was said of.
    refused("twice");
    let vouched = lab.run("twice", &["put", &target, text(&file), "--trust-store"]);
    assert_eq!(vouched.code, 0, "{}", vouched.stderr);
    let again = lab.run("twice", &["put", &target, text(&file)]);
    assert_eq!(again.code, 0, "{}", again.stderr);
}

#[test]
fn a_full_disk_is_told_once() {
    let lab = Lab::new();
    let (small, image) = (lab.folder("small"), lab.path("small.img"));
    fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    let made = succeeds(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image));
    let place = made.then(|| Place::image(&image, &small)).flatten();
    if !available("an ext4 of its own", place.is_some()) {
        return;
    }
    let on = |args: &[&str]| lab.run("small/store", args);
    assert_eq!(on(&["create", "notes"]).code, 0);
    let file = lab.path("file");
    let mut refused = 0;
    // Among these there is room for the contents, and none for what speaks of them.
    for free in (280..340).step_by(4) {
        fs::write(&file, pattern(free, 300_000)).unwrap();
        let filler = fill(&small);
        let size = fs::metadata(&filler).unwrap().len() - u64::from(free) * 1024;
        fs::File::options().write(true).open(&filler).unwrap().set_len(size).unwrap();
        let target = format!("notes/{free}");
        let done = on(&["put", &target, text(&file)]);
        fs::remove_file(&filler).unwrap();
        if done.code != 0 {
            let told: Vec<_> = done.stderr.lines().collect();
            let first = told.first().is_some_and(|line| line.contains("no space left"));
            // What else waited for room has a line of its own.
            assert!(first && told.len() <= 2, "{}", done.stderr);
            assert!(!done.stderr.contains("started again"), "{}", done.stderr);
            assert!(!done.stderr.contains("earlier sync"), "{}", done.stderr);
            refused += 1;
        }
        let again = on(&["put", &target, text(&file)]);
        assert_eq!(again.code, 0, "{free}: {}", again.stderr);
        assert!(on(&["cat", &target]).stdout == pattern(free, 300_000));
    }
    assert!(refused > 0);
}

#[test]
fn of_a_drive_with_two_histories_nobody_reads_the_newest() {
    let lab = Lab::new();
    let key = create(&lab, "notes");
    assert_eq!(put(&lab, &key, "a", &[]).code, 0);
    copy(&lab.path("alice"), &lab.path("twin"));
    assert_eq!(put(&lab, &key, "b", &["--trust-store"]).code, 0);
    let file = lab.path("file-to-put");
    fs::write(&file, "other").unwrap();
    let target = format!("{key}/c");
    let done = lab.run("twin", &["put", &target, text(&file), "--trust-store"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let serving = [lab.owner("alice", &["seed", &key]), lab.owner("twin", &["seed", &key])];
    let mut reader = lab.owner("bob", &["seed", &key]);
    let told = reader.told("two different histories");
    assert!(told.starts_with(&format!("warning: drive {key}: ")), "{told}");
    for command in ["ls", "info", "log"] {
        let done = lab.run("bob", &[command, &key]);
        assert_eq!(done.code, 1, "{command}: {}", done.text());
        assert!(done.stderr.contains("two different histories"), "{}", done.stderr);
    }
    serving.into_iter().chain([reader]).for_each(stop);
}
