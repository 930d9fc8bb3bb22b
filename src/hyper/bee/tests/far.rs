//! A bee whose blocks are far away, or do not come.

use super::*;

fn grown(entries: usize, batch: usize) -> Arc<MemoryLog> {
    let (log, bee) = writer();
    let all: Vec<usize> = (0..entries).collect();
    for chunk in all.chunks(batch) {
        let mut batch = bee.batch().unwrap();
        for i in chunk {
            batch.put(format!("key {:06}", i * 7919 % entries), i.to_string()).unwrap();
        }
        batch.flush().unwrap();
    }
    log
}

#[test]
fn a_walk_finds_everything_in_few_round_trips() {
    for batch in [1, 5000] {
        let log = grown(5000, batch);
        let far = MemoryLog::sparse(&log);
        let mut found = BTreeMap::new();
        run(Bee::new(far.clone()).walk(|e| assert!(found.insert(e.key, e.seq).is_none()))).unwrap();
        assert_eq!(found.len(), 5000);
        assert!(far.waits() <= 2, "{} blocks were waited for alone", far.waits());
    }
}

#[test]
fn a_far_away_lookup_waits_once_per_level() {
    let far = MemoryLog::sparse(&grown(5000, 1));
    let bee = Bee::new(far.clone());
    assert!(run(bee.get(b"key 002500")).unwrap().is_some());
    assert!(far.waits() <= 2, "{}", far.waits());
    assert!(far.hinted() < 150, "{}", far.hinted());
}

#[test]
fn a_missing_block_is_an_error_and_not_a_hang() {
    let log = grown(500, 1);
    let far = MemoryLog::sparse(&log);
    far.lose(300);
    let bee = Bee::new(far);
    let error = run(bee.walk(drop)).unwrap_err();
    assert!(matches!(error, BeeError::Source(SourceError::TimedOut(300))), "{error}");
    assert!(matches!(bee.get_local(b"key 000001"), Err(BeeError::NotHere(_)) | Ok(_)));
}
