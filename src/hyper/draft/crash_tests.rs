//! A draft over a power cut or a kill at any operation of the medium, and over a medium that is full or fails.

mod history;

use super::*;
use crate::hyper::core::storage::crash::CrashMedium;
use crate::hyper::core::storage::{Records, Staged};
use crate::hyper::local::is_staging;
use bytes::Bytes;
use history::{History, signed, start};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::atomic::AtomicBool;

/// Staging files and records of files in the store.
fn left_behind(bench: &Bench) -> usize {
    let files = bench.storage.cores_with_files().unwrap();
    let records = Records::new(bench.storage.clone());
    files.iter().filter(|(id, _)| is_staging(id)).count() + records.records("draft/").unwrap().len()
}

/// That all of it can be published, and that nothing is left then that nothing names.
fn ends_clean(bench: &Bench, what: &str) {
    let here = bench.here();
    bench.draft.publish(Which::All).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(bench.seen(), here, "{what}");
    assert_eq!(left_behind(bench), 0, "{what}");
}

fn sync_all(bench: &Bench) {
    let names = bench.draft.names();
    for path in bench.here().keys() {
        if let Some(local) = names.leaf(path).and_then(|leaf| leaf.local()) {
            bench.draft.sync(path, &local.file).unwrap();
        }
    }
}

/// Runs a history, ends it anywhere, and looks at what is left; a few times, each from what the one before left.
fn crash(seed: u64) {
    let rng = &mut StdRng::seed_from_u64(seed);
    // Files are in memory, or staged at once.
    IN_MEMORY.set(if seed.is_multiple_of(2) { MAX_IN_MEMORY } else { 0 });
    let mut medium = CrashMedium::default();
    let mut bench = start(&medium).unwrap();
    for round in 0..3 {
        let mut history = History::begin(medium.clone(), bench);
        medium.stop_after(rng.random_range(0..250), rng.random());
        let steps = rng.random_range(5..70);
        let stopped = (0..steps).take_while(|_| history.step(rng).is_ok()).count();
        let shown = signed(&history.bench);
        let mut left = None;
        for way in 0..3 {
            let what = format!("seed {seed} round {round} step {stopped} way {way}");
            let mut found = match way {
                0 => medium.after_kill(),
                _ => medium.after_power_loss(rng.random()),
            };
            // Another end while it recovers.
            if way == 2 {
                found.stop_after(rng.random_range(0..40), rng.random());
                if let Some(bench) = start(&found) {
                    let _ = bench.draft.publish(Which::All);
                }
                found = match rng.random() {
                    true => found.after_kill(),
                    false => found.after_power_loss(rng.random()),
                };
            }
            let again = start(&found).unwrap_or_else(|| panic!("{what}: it starts"));
            history.check(&again, &what);
            for (was, is) in shown.iter().zip(signed(&again)) {
                assert!(is.starts_with(was), "{what}: another history");
            }
            left = Some((found, again));
            if way == round {
                break;
            }
        }
        let (next, again) = left.unwrap();
        match rng.random() {
            true => ends_clean(&again, &format!("seed {seed} round {round}")),
            // What a kill left need not be on the disk yet.
            false => sync_all(&again),
        }
        drop(history);
        (medium, bench) = (next, again);
    }
}

/// So many, or as many as `CRASH_SEEDS` says, from `CRASH_FROM` on.
fn seeds(every_day: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let from = number("CRASH_FROM").unwrap_or(0);
    from..from + number("CRASH_SEEDS").unwrap_or(every_day)
}

#[test]
fn a_draft_survives_any_crash() {
    seeds(150).for_each(crash);
}

/// Runs a history on a medium that has no room for a while.
fn fill(seed: u64) {
    let rng = &mut StdRng::seed_from_u64(seed);
    // Files are in memory, or staged at once.
    IN_MEMORY.set(if seed.is_multiple_of(2) { MAX_IN_MEMORY } else { 0 });
    let medium = CrashMedium::default();
    let mut history = History::begin(medium.clone(), start(&medium).unwrap());
    for round in 0..3 {
        let what = format!("seed {seed} round {round}");
        for full in [false, true] {
            medium.set_full(full);
            history.may_restart = !full;
            for _ in 0..rng.random_range(0..25) {
                let done = history.step(rng);
                assert!(full || done.is_ok(), "{what}: there is room\n{}", history.log.join("\n"));
                assert_eq!(history.bench.here(), history.model.shown(), "{what}");
                history.check_seen(&history.bench.seen());
            }
        }
        history.check(&start(&medium.after_power_loss(seed)).unwrap(), &what);
        medium.set_full(false);
        // What failed works now.
        for nth in 0..history.model.open.len() {
            assert!(history.sync(nth).is_ok(), "{what}\n{}", history.log.join("\n"));
        }
        history.check(&start(&medium.after_power_loss(seed)).unwrap(), &what);
        if rng.random() {
            let before = history.model.tree.clone();
            assert!(history.publish(Which::All).is_ok(), "{what}\n{}", history.log.join("\n"));
            history.note(&before);
            assert_eq!(history.bench.seen(), history.bench.here(), "{what}");
        }
    }
}

/// Runs a history on a medium of which one operation fails.
fn fail(seed: u64) {
    let rng = &mut StdRng::seed_from_u64(seed);
    // Files are in memory, or staged at once.
    IN_MEMORY.set(if seed.is_multiple_of(2) { MAX_IN_MEMORY } else { 0 });
    let medium = CrashMedium::default();
    let mut history = History::begin(medium.clone(), start(&medium).unwrap());
    let kinds = [std::io::ErrorKind::Other, std::io::ErrorKind::StorageFull];
    medium.fail_after(rng.random_range(0..120), kinds[rng.random_range(0..2usize)]);
    for _ in 0..rng.random_range(10..60) {
        let _ = history.step(rng);
        assert_eq!(history.bench.here(), history.model.shown(), "seed {seed}");
    }
    for left in [medium.after_kill(), medium.after_power_loss(rng.random())] {
        let again = start(&left).unwrap();
        history.check(&again, &format!("seed {seed}"));
        ends_clean(&again, &format!("seed {seed}"));
    }
}

#[test]
fn a_full_disk_loses_nothing_of_a_draft_and_passes() {
    seeds(100).for_each(fill);
}

#[test]
fn a_fault_of_the_disk_loses_nothing_that_was_promised_of_a_draft() {
    seeds(200).for_each(fail);
}

#[test]
fn an_end_that_cannot_publish_keeps_what_was_closed_or_says_what_is_lost() {
    let medium = CrashMedium::default();
    let bench = start(&medium).unwrap();
    bench.write("/f", b"closed");
    medium.fail_transactions(1, false);
    assert!(matches!(bench.draft.end(), Err(DraftError::Kept(_))));
    let left = medium.after_power_loss(1);
    let again = start(&left).unwrap();
    are(again.here(), &[("/f", "closed")]);
    again.draft.end().unwrap();
    are(again.seen(), &[("/f", "closed")]);
    again.write("/f", b"again");
    left.set_full(true);
    let Err(error @ DraftError::Lost { .. }) = again.draft.end() else { panic!("it has no room") };
    assert!(error.is_disk_full() && error.to_string().ends_with("is lost of /f"), "{error}");
}

#[test]
fn a_fault_at_the_start_loses_nothing_that_was_synced() {
    let medium = CrashMedium::default();
    let bench = start(&medium).unwrap();
    bench.write("/f", b"old");
    bench.draft.publish(Which::Closed).unwrap();
    let file = bench.editor.open(&path("/f")).unwrap();
    file.write(0, b"new").unwrap();
    bench.draft.sync(&path("/f"), &file).unwrap();
    for after in 0..20 {
        let left = medium.after_power_loss(after);
        left.fail_after(after, std::io::ErrorKind::Other);
        // It starts with all of it, or not at all.
        for bench in [start(&left), start(&left)].into_iter().flatten() {
            are(bench.here(), &[("/f", "new")]);
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_keeps_no_other_from_being_published() {
    IN_MEMORY.set(0);
    let medium = CrashMedium::default();
    let bench = start(&medium).unwrap();
    bench.write("/bad", b"is gone");
    let staging = bench.draft.names().leaf(&path("/bad")).unwrap().local().unwrap().file.staging();
    bench.storage.remove_files(&staging.unwrap()).unwrap();
    bench.write("/good", b"content");
    assert!(bench.draft.publish(Which::Closed).is_err());
    are(bench.seen(), &[("/good", "content")]);
}

/// The power fails at moments at which files are written, synced, moved and published at once.
#[test]
fn what_is_synced_while_others_publish_survives_any_crash() {
    const BLOCK: usize = 600;
    let medium = CrashMedium::default();
    let bench = start(&medium).unwrap();
    let version = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let [written, saved]: [AtomicU64; 2] = Default::default();
    let done = AtomicBool::new(false);
    let is_done = || done.load(Ordering::Acquire);
    std::thread::scope(|scope| {
        let (tick, ticks) = std::sync::mpsc::channel();
        let writes = |tick: std::sync::mpsc::Sender<()>| {
            // Written in place, block by block in turn.
            let file = bench.editor.create(&path("/w"), 0o644, time(1)).unwrap();
            for n in (1u64..).take_while(|_| !is_done()) {
                let block = n.to_le_bytes().repeat(BLOCK / 8);
                file.write(n % 4 * BLOCK as u64, &block).unwrap();
                file.touch(n.into());
                bench.draft.sync(&path("/w"), &file).unwrap();
                written.store(n, Ordering::Release);
                let _ = tick.send(());
            }
        };
        scope.spawn(move || writes(tick));
        scope.spawn(|| {
            for n in (1u64..).take_while(|_| !is_done()) {
                let file = bench.editor.create(&path("/t"), 0o644, time(1)).unwrap();
                file.write(0, &n.to_le_bytes().repeat(BLOCK / 8)).unwrap();
                bench.draft.sync(&path("/t"), &file).unwrap();
                bench.rename("/t", "/s");
                if n % 2 == 0 {
                    bench.editor.close(&file);
                }
                bench.draft.publish(Which::Closed).unwrap();
                saved.store(n, Ordering::Release);
                if n % 2 == 1 {
                    bench.editor.close(&file);
                }
            }
        });
        scope.spawn(|| {
            while !is_done() {
                let _ = bench.draft.publish(Which::All);
            }
        });
        let _ends = Ends(&done);
        // What is looked at grows all the time.
        for seed in 0..seeds(60).end.min(500) {
            let ends = ticks.iter().nth(2).is_none();
            assert!(!ends, "the writer has failed");
            let acknowledged = [&written, &saved].map(|n| n.load(Ordering::Acquire));
            let again = start(&medium.after_power_loss(seed)).unwrap();
            let here = again.here();
            let content = |name| match here.get(&path(name)) {
                Some(Node::File(content, _)) => content.clone(),
                _ => Vec::new(),
            };
            let newest = content("/w").chunks(BLOCK).map(version).max().unwrap_or(0);
            assert!(newest >= acknowledged[0], "{newest} of {acknowledged:?}");
            let newest = version(&content("/s"));
            assert!(newest >= acknowledged[1], "saved: {newest} of {acknowledged:?}");
            ends_clean(&again, "at once");
        }
    });
}
