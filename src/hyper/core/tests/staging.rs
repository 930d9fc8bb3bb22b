//! Appends in pieces.

use super::super::storage::Staged;
use super::super::storage::crash::CrashMedium;
use super::*;

/// Appends `range` in pieces of three blocks; the pieces are written last to first.
fn append_staged(core: &mut Core, range: Range<u64>) -> Result<()> {
    append_pieces(core, &blocks(range))
}

pub(super) fn append_pieces(core: &mut Core, all: &[Bytes]) -> Result<()> {
    let mut staging = core.begin_append()?;
    let pieces: Vec<Piece> = all.chunks(3).map(|part| staging.push(part)).collect::<Result<_>>()?;
    pieces.iter().rev().try_for_each(Piece::write)?;
    let prepared = core.prepare_staged(&mut staging)?;
    let storage = core.storage().clone();
    commit(&storage, &mut [(core, prepared)], Durability::Durable)?;
    core.restart_staging(&mut staging);
    Ok(())
}

#[test]
fn pieces_make_the_same_core_as_one_append() {
    for encryption_key in [None, Some([7; 32])] {
        let (one, many) = (memory(), memory());
        let options = || CreateOptions { encryption_key, ..CreateOptions::writer(key_pair(0)) };
        let mut whole = Core::create(&one, options()).unwrap();
        let mut pieces = Core::create(&many, options()).unwrap();
        for range in [0..10, 10..11, 11..40] {
            whole.append(&blocks(range.clone()), Durability::Durable).unwrap();
            append_staged(&mut pieces, range).unwrap();
            assert_eq!(whole.head(), pieces.head());
        }
        assert_reads(&pieces, 0..40);
        assert_eq!(whole.stored_block(20).unwrap(), pieces.stored_block(20).unwrap());
    }
}

#[test]
fn a_core_takes_one_append_at_a_time() {
    let storage = memory();
    let mut core = writer(&storage);
    append_staged(&mut core, 0..5).unwrap();
    let mut staging = core.begin_append().unwrap();
    staging.push(&blocks(5..9)).unwrap().write().unwrap();
    assert!(matches!(core.begin_append(), Err(CoreError::Busy)));
    let other = core.append(&blocks(5..6), Durability::Durable);
    assert!(matches!(other, Err(CoreError::Busy)));
    drop(staging);
    core.append(&blocks(5..8), Durability::Durable).unwrap();
    assert_reads(&core, 0..8);
}

#[test]
fn what_is_not_committed_leaves_nothing() {
    let storage = memory();
    let mut core = writer(&storage);
    append_staged(&mut core, 0..5).unwrap();
    let end = core.head().byte_length();
    let mut staging = core.begin_append().unwrap();
    staging.push(&blocks(5..9)).unwrap().write().unwrap();
    let files = staging.files().clone();
    assert!(files.blocks.read_at(end, &mut [0; 8]).unwrap() > 0);
    drop(staging);
    assert_eq!(files.blocks.read_at(end, &mut [0; 8]).unwrap(), 0);
    assert_eq!(core.length(), 5);
    assert_reads(&core, 0..5);
}

#[test]
fn a_commit_that_finds_no_room_leaves_nothing() {
    let medium = CrashMedium::default();
    let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).unwrap());
    let mut core = writer(&storage);
    append_staged(&mut core, 0..5).unwrap();
    let end = core.head().byte_length();
    let mut staging = core.begin_append().unwrap();
    staging.push(&blocks(5..9)).unwrap().write().unwrap();
    let prepared = core.prepare_staged(&mut staging).unwrap();
    medium.set_full(true);
    let done = commit(&storage, &mut [(&mut core, prepared)], Durability::Durable);
    assert!(done.is_err_and(|error| error.is_disk_full()));
    medium.set_full(false);
    drop(staging);
    let files = storage.files(core.discovery_key());
    assert_eq!(files.blocks.read_at(end, &mut [0; 8]).unwrap(), 0);
    append_staged(&mut core, 5..7).unwrap();
    assert_reads(&core, 0..7);
}

#[test]
fn a_commit_that_landed_with_an_error_keeps_its_bytes() {
    let medium = CrashMedium::default();
    let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).unwrap());
    let mut core = writer(&storage);
    append_staged(&mut core, 0..5).unwrap();
    medium.fail_transactions(1, true);
    assert!(append_staged(&mut core, 5..9).is_err());
    assert_eq!(core.length(), 5);
    // It may be there, and nothing is to be put over it.
    assert!(core.append(&blocks(20..30), Durability::Durable).is_err());
    assert_reads(&core, 0..5);
    for medium in [medium.after_kill(), medium.after_power_loss(7)] {
        let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium).unwrap());
        assert_reads(&writer(&storage), 0..9);
    }
}

/// The same log elsewhere, longer.
fn longer(length: u64) -> Core {
    let mut core = writer(&memory());
    core.append(&blocks(0..length), Durability::Durable).unwrap();
    core
}

#[test]
fn a_peer_s_longer_log_waits_for_the_append_that_is_under_way() {
    let storage = memory();
    let mut core = writer(&storage);
    append_staged(&mut core, 0..5).unwrap();
    let (other, mut forked) = (longer(12), longer(12));
    forked.truncate(3, 1).unwrap();
    let ask = |start, length| {
        let upgrade = Some(UpgradeRequest { start, length });
        Request { upgrade, manifest: true, ..Request::default() }
    };
    let (upgrade, reorg) = (proof(&other, ask(5, 7)), proof(&forked, ask(0, 3)));
    let mut staging = core.begin_append().unwrap();
    let noise = [Bytes::from(vec![0xee; 4000])];
    staging.push(&noise).unwrap().write().unwrap();
    let busy = |e: ApplyError| matches!(e, ApplyError::Local(CoreError::Busy));
    assert!(core.apply_proof(&upgrade, None).is_err_and(busy));
    assert!(apply_reorg(&mut core, &reorg).is_err_and(busy));
    assert!(matches!(core.truncate(2, 1), Err(CoreError::Busy)));
    assert_eq!((core.length(), core.has(6)), (5, false));
    drop(staging);
    core.apply_proof(&upgrade, None).unwrap();
    fetch(&mut core, &other, 6);
    assert_reads(&core, 0..5);
    assert_reads(&core, 6..7);
    // What is written from now on must not be made from the old state.
    assert_eq!(core.doubt(), Some(WriterDoubt::Outgrown));
    assert!(matches!(
        core.append(&blocks(12..13), Durability::Durable),
        Err(CoreError::InDoubt(_))
    ));
    assert!(matches!(core.begin_append().err(), Some(CoreError::InDoubt(_))));
    core.trust().unwrap();
    core.append(&blocks(12..13), Durability::Durable).unwrap();
    apply_reorg(&mut core, &reorg).unwrap();
    assert_eq!(core.doubt(), Some(WriterDoubt::Outgrown));
}

#[test]
fn a_stop_anywhere_keeps_what_was_committed() {
    let write = |storage: &Arc<dyn Storage>| -> Result<u64> {
        let mut core = Core::create(storage, CreateOptions::writer(key_pair(0)))?;
        append_staged(&mut core, 0..7)?;
        if append_staged(&mut core, 7..20).is_err() {
            return Ok(7);
        }
        Ok(20)
    };
    let whole = CrashMedium::default();
    write(&(Arc::new(Staged::new(whole.clone()).unwrap()) as Arc<dyn Storage>)).unwrap();
    for stop in 0..whole.operations() {
        for lands in [false, true] {
            let medium = CrashMedium::default();
            let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).unwrap());
            medium.stop_after(stop, lands);
            let acknowledged = write(&storage).unwrap_or(0);
            let mut left = vec![medium.after_kill()];
            left.extend((0..5).map(|seed| medium.after_power_loss(seed)));
            for medium in left {
                let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium).unwrap());
                let mut core = writer(&storage);
                let length = core.length();
                assert!(length >= acknowledged && [0, 7, 20].contains(&length), "stop {stop}");
                assert_reads(&core, 0..length);
                let end = core.head().byte_length();
                let files = storage.files(core.discovery_key());
                assert_eq!(files.blocks.read_at(end, &mut [0; 8]).unwrap(), 0, "stop {stop}");
                append_staged(&mut core, length..length + 9).unwrap();
                assert_reads(&core, 0..length + 9);
            }
        }
    }
}
