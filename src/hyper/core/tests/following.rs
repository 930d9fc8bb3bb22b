//! A fork that is followed in steps, and what else is asked of the core in between.

use super::super::storage::Staged;
use super::super::storage::crash::CrashMedium;
use super::*;

/// A copy of 20 blocks, and the proof of a fork at 13 that goes on to 15.
fn forked(storage: &Arc<dyn Storage>) -> (Core, Core, Proof) {
    let here = memory();
    let mut source = writer(&here);
    source.append(&blocks(0..20), Durability::Buffered).unwrap();
    let mut copy = reader(storage, &source);
    upgrade(&mut copy, &source);
    for i in 0..20 {
        fetch(&mut copy, &source, i);
    }
    source.truncate(13, 1).unwrap();
    source.append(&["fork-a".into(), "fork-b".into()], Durability::Buffered).unwrap();
    let all = Some(UpgradeRequest { start: 0, length: 15 });
    let answer = proof(&source, Request { upgrade: all, ..Request::default() });
    (copy, source, answer)
}

#[test]
fn while_a_fork_is_stored_the_core_is_read_and_nothing_else() {
    let storage = memory();
    let (mut copy, source, answer) = forked(&storage);
    let mut following = copy.begin_follow(&answer).unwrap();
    following.remove(&mut copy).unwrap();
    assert_eq!((copy.fork(), copy.length()), (0, 20));
    assert_reads(&copy, 0..12);
    assert_eq!(copy.get(13).unwrap(), None, "it may be overwritten at any moment");

    let busy = |error: &CoreError| matches!(error, CoreError::Busy);
    let again = copy.begin_follow(&answer);
    assert!(again.is_err_and(|e| matches!(e, ApplyError::Local(CoreError::Busy))));
    let block = Some(NodeRequest { index: 14, nodes: 0 });
    let block = proof(&source, Request { block, ..Request::default() });
    let taken = copy.apply_proof(&block, None);
    assert!(taken.is_err_and(|e| matches!(e, ApplyError::Local(CoreError::Busy))));
    assert!(copy.forget_blocks(&[0..2, 2..5]).is_err_and(|e| busy(&e)));
    assert!(copy.free_missing(0).is_err_and(|e| busy(&e)));
    assert!(copy.flush(Durability::Durable).is_err_and(|e| busy(&e)));
    assert!(copy.begin_flush().unwrap().is_none());

    let stored = following.commit();
    let applied = copy.finish_follow(following, stored).unwrap();
    assert_eq!((applied.upgraded, applied.ancestors), (Some((20, 15)), Some(12)));
    assert_eq!(copy.head(), source.head());
    fetch(&mut copy, &source, 14);
    copy.flush(Durability::Durable).unwrap();
    assert_eq!(copy.forget_blocks(&[0..2, 2..5]).unwrap(), 5);
}

#[test]
fn a_writer_appends_and_truncates_nothing_while_a_fork_is_stored() {
    let (here, there) = (memory(), memory());
    let mut other = writer(&there);
    other.append(&blocks(0..9), Durability::Buffered).unwrap();
    other.truncate(7, 1).unwrap();
    let all = Some(UpgradeRequest { start: 0, length: 7 });
    let answer = proof(&other, Request { upgrade: all, ..Request::default() });
    let mut core = writer(&here);
    core.append(&blocks(0..9), Durability::Buffered).unwrap();
    let prepared = core.prepare_append(&[]).unwrap();
    let mut following = core.begin_follow(&answer).unwrap();
    following.remove(&mut core).unwrap();
    let busy = |error: CoreError| matches!(error, CoreError::Busy);
    assert!(core.append(&blocks(9..10), Durability::Durable).is_err_and(busy));
    assert!(core.begin_append().is_err_and(busy));
    assert!(core.truncate(3, 5).is_err_and(busy));
    let late = commit(&here, &mut [(&mut core, prepared)], Durability::Durable);
    assert!(late.is_err_and(busy), "it would bring the old head back");
    let stored = following.commit();
    core.finish_follow(following, stored).unwrap();
    drop(core);
    assert_eq!(writer(&here).head(), other.head());
}

#[test]
fn a_fork_that_cannot_be_stored_leaves_all_as_it_was() {
    let medium = CrashMedium::default();
    let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).unwrap());
    let (mut copy, source, answer) = forked(&storage);
    copy.flush(Durability::Durable).unwrap();
    let mut following = copy.begin_follow(&answer).unwrap();
    following.remove(&mut copy).unwrap();
    medium.set_full(true);
    let stored = following.commit();
    assert!(copy.finish_follow(following, stored).unwrap_err().is_disk_full());
    medium.set_full(false);
    assert_eq!((copy.fork(), copy.length()), (0, 20));
    assert_reads(&copy, 0..20);
    apply_reorg(&mut copy, &answer).unwrap();
    assert_eq!(copy.head(), source.head());
    drop(copy);
    assert_eq!(reader(&storage, &source).head(), source.head());
}

#[test]
fn a_flush_from_before_does_not_bring_the_old_head_back() {
    let storage = memory();
    let (mut copy, source, answer) = forked(&storage);
    let flush = copy.begin_flush().unwrap().unwrap();
    let mut following = copy.begin_follow(&answer).unwrap();
    following.remove(&mut copy).unwrap();
    let synced = flush.sync();
    copy.finish_flush(flush, synced).unwrap();
    let stored = following.commit();
    assert!(copy.begin_flush().unwrap().is_none());
    copy.finish_follow(following, stored).unwrap();
    drop(copy);
    assert_eq!(reader(&storage, &source).head(), source.head());
}
