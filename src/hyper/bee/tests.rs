//! The bee against the reference's vectors and against a `BTreeMap`.

mod damage;
mod far;

use super::*;
use crate::crypto::hash;
use crate::hyper::source::memory::MemoryLog;
use crate::key::{hex, unhex};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Runs a future that never has to wait, as all over a memory log.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a memory log never makes anyone wait"),
    }
}

fn blocks_of(core: &Value) -> Vec<Bytes> {
    let blocks = core["blocks"].as_array().unwrap();
    blocks.iter().map(|block| unhex(block.as_str().unwrap()).unwrap().into()).collect()
}

fn bee_of(core: &Value) -> Bee {
    Bee::new(MemoryLog::from_blocks(blocks_of(core)))
}

fn writer() -> (Arc<MemoryLog>, Bee) {
    let log = MemoryLog::new();
    let bee = Bee::writable(log.clone(), None);
    (log, bee)
}

/// Compares block by block, so that a difference names its block.
fn assert_blocks(log: &MemoryLog, core: &Value) {
    let (ours, theirs) = (log.blocks(), blocks_of(core));
    for (i, (our, their)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(hex(our), hex(their), "block {i}");
    }
    assert_eq!(ours.len(), theirs.len());
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn apply(batch: &mut Batch<'_>, operation: &Value) {
    let field = |i: usize| operation[i].as_str().unwrap().to_owned();
    match operation[0].as_str().unwrap() {
        "p" => batch.put(field(1), field(2)).unwrap(),
        _ => drop(batch.delete(field(1)).unwrap()),
    }
}

fn keys(bee: &Bee, options: RangeOptions) -> Vec<String> {
    run(bee.range(options).collect()).unwrap().iter().map(|entry| text(&entry.key)).collect()
}

fn all(bee: &Bee) -> Vec<String> {
    keys(bee, RangeOptions::default())
}

fn as_json(entry: &Entry) -> Value {
    serde_json::json!([entry.seq, text(&entry.key), text(&entry.value)])
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|key| key.as_str().unwrap().into()).collect()
}

#[test]
fn single_operations_write_the_reference_bytes() {
    let vector = &vectors()["beeRandom"];
    let (log, bee) = writer();
    for operation in vector["ops"].as_array().unwrap() {
        let mut batch = bee.batch().unwrap();
        apply(&mut batch, operation);
        batch.flush().unwrap();
    }
    assert_blocks(&log, &vector["core"]);
}

#[test]
fn batches_write_the_reference_bytes() {
    let vector = &vectors()["beeBatch"];
    let (log, bee) = writer();
    let mut lengths = Vec::new();
    for operations in vector["batches"].as_array().unwrap() {
        let mut batch = bee.batch().unwrap();
        for operation in operations.as_array().unwrap() {
            apply(&mut batch, operation);
        }
        lengths.push(batch.flush().unwrap());
    }
    assert_blocks(&log, &vector["core"]);
    assert_eq!(serde_json::json!(lengths), vector["lengthAfter"]);
    assert_eq!(all(&bee), Vec::<String>::new());
}

#[test]
fn whole_versions_of_the_reference_are_told_from_the_insides_of_its_batches() {
    for (name, batched) in [("beeBatch", true), ("beeRandom", false)] {
        let vector = &vectors()[name];
        let blocks: Vec<Bytes> = blocks_of(&vector["core"]);
        let newest = blocks.len() as u64;
        let mut whole: Vec<u64> = match batched {
            true => serde_json::from_value(vector["lengthAfter"].clone()).unwrap(),
            false => (1..=newest).collect(),
        };
        whole.insert(0, 1);
        let bee = Bee::new(MemoryLog::from_blocks(blocks));
        for version in 0..newest + 3 {
            let want = whole.iter().rev().find(|&&whole| whole <= version.max(1)).copied();
            assert_eq!(Some(run(bee.whole_version(version)).unwrap()), want, "{name} {version}");
        }
    }
}

/// The generator the vectors were made with.
struct XorShift(u32);

impl XorShift {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % n
    }
}

#[test]
fn four_thousand_operations_write_the_reference_bytes() {
    let vector = &vectors()["beeLarge"];
    let (log, bee) = writer();
    let mut random = XorShift(0x1234_5678);
    let mut from = 0;
    let mut marks = vector["marks"].as_array().unwrap().iter();
    for i in 0..4000 {
        let r = random.below(100);
        let key = format!("f/{:05}", random.below(1500));
        let mut batch = bee.batch().unwrap();
        if r < if i < 2500 { 25 } else { 80 } {
            batch.delete(key).unwrap();
        } else {
            batch.put(key, i.to_string()).unwrap();
        }
        batch.flush().unwrap();
        if (i + 1) % 400 == 0 {
            let mark = marks.next().unwrap();
            let blocks = log.blocks();
            assert_eq!(blocks.len() as u64, mark[1].as_u64().unwrap(), "after {i}");
            let new: Vec<&[u8]> = blocks[from..].iter().map(|block| &block[..]).collect();
            assert_eq!(hex(&hash::hash(&new)), mark[3].as_str().unwrap(), "after {i}");
            from = blocks.len();
        }
    }
    assert_eq!(all(&bee).len() as u64, vector["remaining"].as_u64().unwrap());
}

#[test]
fn versions_and_ranges_read_as_in_the_reference() {
    let vector = &vectors()["beeRandom"];
    let bee = bee_of(&vector["core"]);
    let entries = run(bee.range(RangeOptions::default()).collect()).unwrap();
    let entries: Vec<Value> = entries.iter().map(as_json).collect();
    assert_eq!(Value::from(entries), vector["finalEntries"]);
    for version in vector["versions"].as_array().unwrap() {
        let bee = bee.checkout(version[0].as_u64().unwrap());
        assert_eq!(all(&bee), strings(&version[1]), "version {}", version[0]);
        for key in strings(&version[1]) {
            assert!(run(bee.get(key.as_bytes())).unwrap().is_some());
        }
    }
    let bee = bee.checkout(vector["rangesVersion"].as_u64().unwrap());
    for range in vector["ranges"].as_array().unwrap() {
        let key = |name: &str| range[0][name].as_str().map(|s| Bytes::from(s.to_owned()));
        let bound = |excluded: &str, included: &str| match (key(excluded), key(included)) {
            (Some(key), _) => Bound::Excluded(key),
            (None, Some(key)) => Bound::Included(key),
            (None, None) => Bound::Unbounded,
        };
        let options = RangeOptions {
            lower: bound("gt", "gte"),
            upper: bound("lt", "lte"),
            reverse: range[0]["reverse"].as_bool().unwrap_or(false),
            limit: range[0]["limit"].as_u64().map_or(usize::MAX, |n| n as usize),
        };
        assert_eq!(keys(&bee, options), strings(&range[1]), "{range}");
    }
}

#[test]
fn diffs_and_history_read_as_in_the_reference() {
    let vector = &vectors()["beeRandom"];
    let bee = bee_of(&vector["core"]);
    for case in vector["diffs"].as_array().unwrap() {
        let version = |side: &str| bee.checkout(case[side].as_u64().unwrap());
        let mut diff = version("left").diff(&version("right"));
        let mut entries = Vec::new();
        while let Some(Difference { left, right }) = run(diff.next()).unwrap() {
            let side = |entry: &Option<Entry>| entry.as_ref().map_or(Value::Null, as_json);
            entries.push(serde_json::json!([side(&left), side(&right)]));
        }
        assert_eq!(Value::from(entries), case["entries"], "{} {}", case["left"], case["right"]);
    }
    let mut history = bee.checkout(90).history(60);
    let mut entries = Vec::new();
    while let Some(change) = run(history.next()).unwrap() {
        entries.push(match change {
            Change::Put(e) => serde_json::json!([e.seq, "put", text(&e.key), text(&e.value)]),
            Change::Delete(e) => serde_json::json!([e.seq, "del", text(&e.key), null]),
        });
    }
    assert_eq!(Value::from(entries), vector["history"]);
}

#[test]
fn refused_changes_append_nothing() {
    let (log, bee) = writer();
    let put = |key: &str, value: &str, allow: &dyn Fn(&Entry) -> bool| {
        let mut batch = bee.batch().unwrap();
        // The vector's bee also leaves equal values alone.
        let new = Bytes::from(value.to_owned());
        let both = |old: &Entry| allow(old) && old.value != new;
        batch.put_if(key.to_owned(), new.clone(), both).unwrap();
        batch.flush().unwrap();
    };
    let delete = |key: &'static str, allow: bool| {
        let mut batch = bee.batch().unwrap();
        batch.delete_if(key, |_| allow).unwrap();
        batch.flush().unwrap();
    };
    put("a", "1", &|_| true);
    put("a", "1", &|_| true);
    put("b", "1", &|_| false);
    put("b", "2", &|_| false);
    put("a", "2", &|old| &old.value[..] == b"1");
    delete("a", false);
    delete("a", true);
    assert_blocks(&log, &vectors()["bee"]["cas"]["core"]);
}

#[test]
fn a_refused_put_in_a_batch_rewrites_what_it_walked() {
    let (log, bee) = writer();
    for i in 0..40 {
        let mut batch = bee.batch().unwrap();
        batch.put(format!("r{i:02}"), "x").unwrap();
        batch.flush().unwrap();
    }
    let mut batch = bee.batch().unwrap();
    batch.put("r00", "y").unwrap();
    assert!(!batch.put_if("r35", "n", |_| false).unwrap());
    batch.put("r05", "z").unwrap();
    batch.flush().unwrap();
    assert_blocks(&log, &vectors()["bee"]["batchRefused"]["core"]);
}

#[test]
fn subs_are_key_prefixes() {
    let vector = &vectors()["bee"]["subs"];
    let (log, bee) = writer();
    for (key, value) in [("one\0k", "1"), ("one\0two\0k", "2"), ("sep!k", "3"), ("k", "4")] {
        let mut batch = bee.batch().unwrap();
        batch.put(key, value).unwrap();
        batch.flush().unwrap();
    }
    assert_blocks(&log, &vector["core"]);
    let raw: Vec<String> = all(&bee).iter().map(|key| hex(key.as_bytes())).collect();
    assert_eq!(raw, strings(&vector["rawKeys"]));
    let one: Vec<String> = keys(&bee, RangeOptions::prefix(b"one\0"))
        .iter()
        .map(|key| key.strip_prefix("one\0").unwrap().into())
        .collect();
    assert_eq!(one, strings(&vector["one"]));
    let encoder = &vector["subEncoder"]["rangeOne"];
    let options = RangeOptions::prefix(b"one\0");
    let (Bound::Included(lower), Bound::Excluded(upper)) = (options.lower, options.upper) else {
        panic!("a prefix has both bounds");
    };
    assert_eq!(hex(&lower), encoder["gte"].as_str().unwrap());
    assert_eq!(hex(&upper), encoder["lt"].as_str().unwrap());
}

#[test]
fn an_emptied_tree_grows_again() {
    let (log, bee) = writer();
    for operation in [("a", Some("1")), ("a", None), ("b", Some("2"))] {
        let mut batch = bee.batch().unwrap();
        match operation {
            (key, Some(value)) => batch.put(key, value).unwrap(),
            (key, None) => assert!(batch.delete(key).unwrap()),
        }
        batch.flush().unwrap();
    }
    assert_blocks(&log, &vectors()["bee"]["emptyAgain"]["core"]);
    assert_eq!(all(&bee.checkout(3)), Vec::<String>::new());
    assert_eq!(all(&bee), ["b"]);
}

#[test]
fn a_deleted_median_is_not_found() {
    let vector = &vectors()["bee"]["staleGet"];
    let (log, bee) = writer();
    for operation in vector["ops"].as_array().unwrap() {
        let mut batch = bee.batch().unwrap();
        apply(&mut batch, operation);
        batch.flush().unwrap();
    }
    assert_blocks(&log, &vector["core"]);
    assert_eq!(all(&bee), strings(&vector["listing"]));
    assert_eq!(run(bee.get(b"k5")).unwrap(), None);
    assert_eq!(bee.get_local(b"k5").unwrap(), None);
}

#[test]
fn a_header_of_another_protocol_is_refused() {
    let log = MemoryLog::from_blocks([Bytes::from(unhex("0a0968797065727472696565").unwrap())]);
    assert!(matches!(run(Bee::new(log).header()), Err(BeeError::Damaged { .. })));
    let header = Header { protocol: "hypertrie".into(), metadata: None };
    let log = MemoryLog::from_blocks([Bytes::from(header.encode())]);
    assert!(
        matches!(run(Bee::new(log).header()), Err(BeeError::Protocol(name)) if name == "hypertrie")
    );
}

#[test]
fn a_missing_delete_or_an_empty_flush_appends_nothing() {
    let (log, bee) = writer();
    bee.batch().unwrap().flush().unwrap();
    let mut batch = bee.batch().unwrap();
    assert!(!batch.delete("a").unwrap());
    assert_eq!(batch.flush().unwrap(), 1);
    assert_eq!((log.blocks().len(), bee.version()), (0, 1));
    assert!(bee.checkout(1).batch().is_err());
}

#[test]
fn a_batch_sees_its_own_changes() {
    let (_, bee) = writer();
    let mut batch = bee.batch().unwrap();
    assert_eq!(batch.get(b"a").unwrap(), None);
    batch.put("a", "1").unwrap();
    assert_eq!(&batch.get(b"a").unwrap().unwrap().value[..], b"1");
    batch.delete("a").unwrap();
    assert_eq!(batch.get(b"a").unwrap(), None);
    batch.put("b", "2").unwrap();
    batch.flush().unwrap();
    let mut batch = bee.batch().unwrap();
    assert_eq!(&batch.get(b"b").unwrap().unwrap().value[..], b"2");
}

#[test]
fn a_core_that_grew_meanwhile_gets_no_batch() {
    let (log, bee) = writer();
    let mut batch = bee.batch().unwrap();
    batch.put("a", "1").unwrap();
    log.append(vec![Bytes::from_static(b"x")]).unwrap();
    assert!(matches!(batch.flush(), Err(BeeError::Raced)));
}

proptest! {
    #![proptest_config(crate::sim::cases(48))]

    #[test]
    fn a_bee_is_an_ordered_map_with_a_past(
        batches in proptest::collection::vec(
            proptest::collection::vec((0u16..90, any::<bool>(), any::<u8>()), 1..30), 1..25)
    ) {
        let (log, bee) = writer();
        let mut model = BTreeMap::new();
        let mut past = vec![(1, model.clone())];
        let mut steps = vec![model.clone(); 2];
        for operations in batches {
            let mut batch = bee.batch().unwrap();
            for (key, put, value) in operations {
                let key = format!("{key:03}");
                if put {
                    batch.put(key.clone(), vec![value]).unwrap();
                    model.insert(key, value);
                } else {
                    prop_assert_eq!(batch.delete(key.clone()).unwrap(), model.remove(&key).is_some());
                }
                steps.resize(batch.version() as usize + 1, model.clone());
            }
            past.push((batch.flush().unwrap(), model.clone()));
        }
        let contents = |bee: &Bee| -> BTreeMap<String, u8> {
            let entries = run(bee.range(RangeOptions::default()).collect()).unwrap();
            entries.iter().map(|e| (text(&e.key), e.value[0])).collect()
        };
        for version in 1..=bee.version() {
            let whole = run(bee.whole_version(version)).unwrap();
            let least = past.iter().map(|(version, _)| *version).filter(|&at| at <= version).max();
            prop_assert!(Some(whole) >= least && whole <= version, "{version}: {whole}, {least:?}");
            // A length inside a batch may do if what it shows was so at that time or later in the batch.
            let end = past.iter().map(|(version, _)| *version).find(|&at| at >= whole).unwrap();
            let shown = contents(&bee.checkout(whole));
            let mut steps = steps[whole as usize..=end as usize].iter();
            prop_assert!(steps.any(|step| *step == shown), "{whole}: {shown:?}");
        }
        let far = Bee::new(MemoryLog::sparse(&log));
        for (version, model) in &past {
            let bee = far.checkout(*version);
            prop_assert_eq!(&contents(&bee), model);
            let mut walked = BTreeMap::new();
            run(bee.walk(|e| {
                walked.insert(text(&e.key), e.value[0]);
            }))
            .unwrap();
            prop_assert_eq!(&walked, model);
            let back = RangeOptions { reverse: true, ..RangeOptions::default() };
            let mut reversed = keys(&bee, back);
            reversed.reverse();
            prop_assert!(reversed.iter().eq(model.keys()));
        }
        // Applying the difference to the older version gives the newer one.
        let (old_version, mut old) = past[past.len() / 2].clone();
        let mut diff = bee.diff(&bee.checkout(old_version));
        while let Some(Difference { left, right }) = run(diff.next()).unwrap() {
            prop_assert!(left.is_some() || right.is_some());
            match left {
                Some(e) => old.insert(text(&e.key), e.value[0]),
                None => old.remove(&text(&right.unwrap().key)),
            };
        }
        prop_assert_eq!(&old, &model);
    }
}
