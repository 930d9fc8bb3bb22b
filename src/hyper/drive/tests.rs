//! The drive against the reference's vectors.

use super::names::FILES;
use super::*;
use crate::crypto::hash;
use crate::hyper::bee::{Difference, run, vectors};
use crate::hyper::blobs::{BlobId, BlockMap};
use crate::hyper::source::memory::MemoryLog;
use crate::key::{hex, unhex};
use bytes::Bytes;
use serde_json::{Value, json};

pub(super) fn path(text: &str) -> DrivePath {
    DrivePath::from_entry_key(text).unwrap()
}

pub(super) struct Fixture {
    pub db: Arc<MemoryLog>,
    pub content: Arc<MemoryLog>,
    pub drive: Drive,
}

pub(super) fn fixture(content_feed: Option<CoreKey>) -> Fixture {
    let (db, content) = (MemoryLog::new(), MemoryLog::new());
    let drive = Drive::writable(db.clone(), content.clone(), content_feed);
    Fixture { db, content, drive }
}

impl Drive {
    /// The entry at `path` and the number of the bee block that holds it.
    pub async fn entry(&self, path: &DrivePath) -> Result<Option<(u64, Entry)>> {
        match self.bee.get(&names::leaf_key(path)).await? {
            Some(found) => Ok(Some((found.seq, Entry::decode(&found.value)?))),
            None => Ok(None),
        }
    }
}

impl Fixture {
    pub(super) fn put(&self, name: &str, content: &[u8]) {
        self.drive.put(&path(name), content, Entry::default()).unwrap();
    }

    fn put_entry(&self, name: &str, entry: &Entry) {
        let mut batch = self.drive.batch().unwrap();
        batch.put(&path(name), entry).unwrap();
        batch.flush().unwrap();
    }

    fn delete(&self, name: &str) {
        let mut batch = self.drive.batch().unwrap();
        batch.delete(&path(name)).unwrap();
        batch.flush().unwrap();
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> Vec<u8> {
        let index = run(self.drive.index()).unwrap();
        let Some(Found::File(file)) = index.lookup(&path(name)) else { panic!("{name}") };
        let reader = self.drive.open(file).unwrap();
        let local = reader.read_local(offset, len).unwrap().unwrap().concat();
        assert_eq!(run(reader.read(offset, len)).unwrap().concat(), local);
        local
    }

    fn blob(&self, name: &str) -> BlobId {
        run(self.drive.entry(&path(name))).unwrap().unwrap().1.blob.unwrap()
    }
}

fn content(name: &str, len: usize) -> Vec<u8> {
    let chunk = |j: usize| {
        let text = format!("hdrive-vector:{name}:{j}");
        blake2b_simd::Params::new().hash_length(64).hash(text.as_bytes()).as_bytes().to_vec()
    };
    let mut out: Vec<u8> = (0..len.div_ceil(64)).flat_map(chunk).collect();
    out.truncate(len);
    out
}

fn plain(field: &Value) -> Vec<Bytes> {
    let hexed = |block: &Value| Bytes::from(unhex(block.as_str().unwrap()).unwrap());
    field.as_array().unwrap().iter().map(hexed).collect()
}

/// Compares with blocks that are given in full or by length and hash.
fn assert_blocks(log: &MemoryLog, expected: &Value) {
    let (ours, theirs) = (log.blocks(), expected.as_array().unwrap());
    for (i, (our, their)) in ours.iter().zip(theirs).enumerate() {
        match their.as_str() {
            Some(their) => assert_eq!(hex(our), their, "block {i}"),
            None => {
                assert_eq!(hex(&hash::hash(&[our])), their["b2"].as_str().unwrap(), "block {i}")
            }
        }
    }
    assert_eq!(ours.len(), theirs.len());
}

/// Entries in key order as `[seq, path, value]`.
fn listing(drive: &Drive) -> Value {
    let files = crate::hyper::bee::RangeOptions::prefix(FILES);
    let entries = run(drive.bee().range(files).collect()).unwrap();
    let row = |entry: &crate::hyper::bee::Entry| {
        let value = Entry::decode(&entry.value).unwrap().encode();
        let value: Value = serde_json::from_slice(&value).unwrap();
        json!([entry.seq, std::str::from_utf8(&entry.key[FILES.len()..]).unwrap(), value])
    };
    entries.iter().map(row).collect()
}

fn names(drive: &Drive) -> Vec<String> {
    let rows = listing(drive);
    rows.as_array().unwrap().iter().map(|row| row[1].as_str().unwrap().into()).collect()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().into()).collect()
}

#[test]
fn a_drive_is_written_as_by_the_reference() {
    let vector = &vectors()["drivePlain"];
    let f = fixture(None);
    let mut steps = vector["steps"].as_array().unwrap().iter().skip(1);
    let mut step = || {
        let want = steps.next().unwrap();
        let op = want["op"].as_str().unwrap();
        assert_eq!(listing(&f.drive), want["list"], "{op}");
        assert_eq!(f.drive.version(), want["version"].as_u64().unwrap(), "{op}");
        assert_eq!(f.content.length(), want["blobsLength"].as_u64().unwrap(), "{op}");
        assert_eq!(f.content.byte_length(), want["blobsByteLength"].as_u64().unwrap(), "{op}");
    };
    f.put("/README.md", b"# hello\n");
    step();
    let mut script = Entry::default();
    script.set_mode(0o755);
    f.drive.put(&path("/bin/run.sh"), &b"#!/bin/sh\necho hi\n"[..], script).unwrap();
    step();
    f.put("/src/lib/deep/a.txt", b"a");
    step();
    f.put("/src/lib/b.txt", b"b");
    step();
    f.put("/empty", b"");
    step();
    f.put("/data/big.bin", &content("big", 3_000_000));
    step();
    f.put("/data/exact.bin", &content("exact", 65536));
    step();
    f.put_entry("/link-rel", &Entry::symlink("src/lib/b.txt"));
    step();
    f.put_entry("/bin/link-abs", &Entry::symlink("/README.md"));
    step();
    f.put("/uni/\u{e9}\u{4e2d}\"/q\u{1}.txt", b"u");
    step();
    let mut entry = Entry::default();
    entry.set_metadata(Some(r#"{"mtime":1700000000123,"note":"x"}"#.into()));
    f.drive.put(&path("/meta.txt"), &b"m"[..], entry).unwrap();
    step();
    f.delete("/empty");
    step();
    f.delete("/nothing");
    step();
    let (_, moved) = run(f.drive.entry(&path("/src/lib/b.txt"))).unwrap().unwrap();
    let mut batch = f.drive.batch().unwrap();
    batch.put(&path("/src/moved.txt"), &moved).unwrap();
    batch.delete(&path("/src/lib/b.txt")).unwrap();
    batch.flush().unwrap();
    step();
    f.put("/log", b"line1\n");
    let id = f.blob("/log");
    let longer = f.drive.blobs().extend(&id, &b"line2\n"[..]).unwrap().unwrap();
    let longer = f.drive.blobs().extend(&longer, &b"line3\n"[..]).unwrap().unwrap();
    f.put_entry("/log", &Entry::file(longer));
    let read = &vector["steps"][16 - 1]["read"];
    assert_eq!(f.read("/log", 0, 100), read["get"].as_str().unwrap().as_bytes());
    assert_eq!(f.read("/log", 4, 9), read["range_4_9"].as_str().unwrap().as_bytes());
    step();
    f.put_entry("/data/hard.bin", &Entry::file(f.blob("/data/exact.bin")));
    step();
    assert_blocks(&f.db, &vector["db"]["blocks"]);
    assert_blocks(&f.content, &vector["blobs"]["blocks"]);

    assert_eq!(listing(&f.drive.checkout(7)), vector["checkout7"]);
    let case = &vector["diff"];
    let version = |side: &str| f.drive.checkout(case[side].as_u64().unwrap());
    let mut diff = version("left").bee().diff(version("right").bee());
    let mut rows = Vec::new();
    while let Some(Difference { left, right }) = run(diff.next()).unwrap() {
        let name = |entry: Option<crate::hyper::bee::Entry>| {
            entry.map(|e| String::from_utf8(e.key[FILES.len()..].to_vec()).unwrap())
        };
        rows.push(json!([name(left), name(right)]));
    }
    assert_eq!(Value::from(rows), case["entries"]);
    let index = run(f.drive.index()).unwrap();
    for (dir, want) in vector["readdir"].as_object().unwrap() {
        let names: Vec<String> = match index.list(&DrivePath::from_user(dir).unwrap()) {
            Some(dir) => dir.iter().map(|(name, _)| name.to_owned()).collect(),
            None => Vec::new(),
        };
        assert_eq!(names, strings(want), "{dir}");
    }
    for read in vector["ranges"]["reads"].as_array().unwrap() {
        let start = read[0]["start"].as_u64().unwrap();
        let len = read[1].as_u64().unwrap() as usize;
        let bytes = f.read("/data/big.bin", start, len);
        assert_eq!(hex(&hash::hash(&[&bytes])), read[2].as_str().unwrap());
    }
    let all = f.read("/data/big.bin", 0, 1 << 30);
    assert_eq!(hex(&hash::hash(&[&all])), vector["bigHash"].as_str().unwrap());
}

#[test]
fn a_batch_of_forty_changes_is_written_as_by_the_reference() {
    let vector = &vectors()["driveBatch"];
    let f = fixture(None);
    let mut batch = f.drive.batch().unwrap();
    for i in 0..30 {
        let id = f.drive.blobs().put(format!("n{i}").as_bytes()).unwrap();
        batch.put(&path(&format!("/f/{:02}", i * 7 % 30)), &Entry::file(id)).unwrap();
    }
    for i in (0..30).step_by(3) {
        assert!(batch.delete(&path(&format!("/f/{i:02}"))).unwrap());
    }
    batch.flush().unwrap();
    assert_blocks(&f.db, &vector["db"]["blocks"]);
    assert_eq!(f.content.length(), vector["blobsLength"].as_u64().unwrap());
    let rows = listing(&f.drive);
    let rows = rows.as_array().unwrap().iter().map(|row| json!([row[0], row[1]]));
    assert_eq!(rows.collect::<Value>(), vector["list"]);
}

#[test]
fn odd_blobs_block_maps_and_foreign_keys_read_right() {
    let vector = &vectors()["driveEdge"];
    let f = fixture(None);
    for name in ["/d/x", "/d0", "/d-", "/d1", "/f", "/f/g", "/f.txt"] {
        f.put(name, b"x");
    }
    assert_eq!(names(&f.drive), strings(&vector["list"]));
    let index = run(f.drive.index()).unwrap();
    let root: Vec<&str> = index.list(&DrivePath::root()).unwrap().iter().map(|(n, _)| n).collect();
    assert_eq!(root, ["d", "d-", "d0", "d1", "f", "f.txt"]);
    assert!(matches!(index.lookup(&path("/f")), Some(Found::Directory(_))));
    assert!(matches!(index.lookup(&path("/f/g")), Some(Found::File(_))));

    f.put("/dd", b"dedup base");
    let blobs = f.drive.blobs();
    let data = |name: &str, len| Bytes::from(content(name, len));
    let push = |list: &[(u64, u64)]| {
        let mut map = BlockMap::default();
        list.iter().for_each(|&(block, length)| map.push(block, length).unwrap());
        map
    };
    let check = |name: &str, value: &Value, id: BlobId| {
        f.put_entry(name, &Entry::file(id));
        let (_, entry) = run(f.drive.entry(&path(name))).unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&entry.encode()).unwrap(), *value, "{name}");
    };
    let dedup = &vector["dedup"];
    let first = dedup["firstBlock"].as_u64().unwrap();
    assert_eq!(f.content.length(), first);
    blobs.put_blocks([data("c1", 1000), data("c2", 2000), data("c3", 10)]).unwrap();
    let map = push(&[(first, 1000), (first + 1, 2000), (first, 1000), (first + 2, 10)]);
    assert_eq!(map.size(), dedup["size1"].as_u64().unwrap());
    check("/dedup", &dedup["value1"], blobs.put_map(&map).unwrap());
    assert_eq!(hex(&f.content.blocks()[11]), dedup["map1"][0].as_str().unwrap());
    blobs.put_blocks([data("c4", 500)]).unwrap();
    let map = push(&[(first, 1000), (first + 4, 500), (first + 1, 2000)]);
    check("/dedup", &dedup["value2"], blobs.put_map(&map).unwrap());
    assert_eq!(hex(&f.content.blocks()[13]), dedup["map2"][0].as_str().unwrap());
    let all = f.read("/dedup", 0, 1 << 20);
    assert_eq!(all.len() as u64, dedup["size2"].as_u64().unwrap());
    assert_eq!(hex(&hash::hash(&[&all])), dedup["content2"].as_str().unwrap());
    let part = f.read("/dedup", 900, 700);
    assert_eq!(hex(&hash::hash(&[&part])), dedup["range2"][1].as_str().unwrap());

    let odd = blobs.put_blocks(["ab", "cde", "f"].map(Bytes::from)).unwrap();
    check("/odd", &vector["odd"]["value"], odd);
    assert_eq!(f.read("/odd", 1, 4), vector["odd"]["read_1_4"].as_str().unwrap().as_bytes());
    f.put_entry("/short", &Entry::file(BlobId { byte_length: 4, ..odd }));
    assert_eq!(f.read("/short", 0, 9), vector["short"]["stream"].as_str().unwrap().as_bytes());
    let joined = blobs.put_map(&push(&[(odd.block_offset + 1, 3), (10, 10)])).unwrap();
    check("/joined", &vector["joined"]["value"], joined);
    assert_eq!(hex(&f.read("/joined", 0, 99)), vector["joined"]["content"].as_str().unwrap());

    let extra = vector["extra"]["entry"].to_string();
    let mut batch = f.drive.bee().batch().unwrap();
    batch.put(names::leaf_key(&path("/extra")), extra.clone()).unwrap();
    batch.put("bundle\0other", r#"{"any":1}"#).unwrap();
    batch.flush().unwrap();
    let (_, entry) = run(f.drive.entry(&path("/extra"))).unwrap().unwrap();
    assert_eq!(entry.encode(), extra.as_bytes());
    assert_eq!(f.read("/extra", 0, 99), vector["extra"]["get"].as_str().unwrap().as_bytes());
    assert_eq!(names(&f.drive), strings(&vector["foreignKey"]["list"]));
    let index = run(f.drive.index()).unwrap();
    assert_eq!((index.files(), index.left_out(), index.unsized_files()), (13, 0, 0));
}

#[test]
fn encrypted_and_legacy_drives_read_right() {
    let vector = &vectors()["driveEncrypted"];
    let log = |core: &str| MemoryLog::from_blocks(plain(&vector[core]["plain"]));
    // The blocks of this blob are long, so the vector has hashes only: written anew they must agree.
    let f = fixture(None);
    f.put("/secret.txt", b"top secret");
    let mut run_file = Entry::default();
    run_file.set_mode(0o755);
    f.drive.put(&path("/dir/run"), &b"x"[..], run_file).unwrap();
    f.put_entry("/l", &Entry::symlink("secret.txt"));
    f.put("/two.bin", &content("two", 100_000));
    f.delete("/dir/run");
    assert_blocks(&f.content, &vector["blobs"]["plain"]);
    assert_blocks(&f.db, &vector["db"]["plain"]);
    let drive = Drive::reader(log("db"), f.content.clone());
    assert_eq!(listing(&drive), vector["list"]);
    assert_eq!(hex(&f.read("/two.bin", 65530, 12)), vector["range"][1].as_str().unwrap());

    for name in ["manifestV0", "compat"] {
        let vector = &vectors()["driveLegacy"][name];
        let feed = unhex(vector["blobs"]["key"].as_str().unwrap()).unwrap();
        let f = fixture(Some(CoreKey(feed.try_into().unwrap())));
        f.put("/old.txt", b"old");
        assert_blocks(&f.db, &vector["db"]["blocks"]);
        assert_eq!(listing(&f.drive), vector["list"]);
        assert_eq!(f.read("/old.txt", 0, 9), b"old");
    }
}

/// Everything that waits can be handed to another thread.
#[allow(dead_code, reason = "it only has to compile")]
fn futures_are_send(drive: &'static Drive, index: &'static DriveIndex, reader: &FileReader) {
    fn send(_: impl Send) {}
    send(drive.index());
    send(drive.refresh(index));
    send(drive.bee().header());
    send(drive.bee().get(b"key"));
    send(drive.bee().range(Default::default()).collect());
    send(async { drive.bee().diff(drive.bee()).next().await });
    send(async { drive.bee().history(1).next().await });
    send(drive.bee().walk(drop));
    send(reader.read(0, 1));
}

/// Gives so much, then does something, then as much again.
struct Midway<F: FnMut()>(usize, F);

impl<F: FnMut()> Read for Midway<F> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.0 == 16 << 20 {
            (self.1)();
        }
        let n = buf.len().min(self.0);
        buf[..n].fill(7);
        self.0 -= n;
        Ok(n)
    }
}

#[test]
fn a_right_that_ended_writes_nothing_any_more_whatever_was_begun_with_it() {
    let (db, contents) = (MemoryLog::new(), MemoryLog::new());
    let drive = Drive::writable(db.clone(), contents.clone(), None);
    let lease = Lease::default();
    let late = drive.under(&lease);
    let path = |name: &str| DrivePath::root().join(name).unwrap();
    let mut batch = late.batch().unwrap();
    batch.put(&path("late"), &Entry::symlink("x".to_string())).unwrap();
    let mut writer = late.blobs().writer().unwrap();
    // In the middle of a content somebody else takes over, and is done before that goes on.
    let mut other = None;
    let content = Midway(24 << 20, || {
        if other.is_none() {
            lease.end();
            other = Some(drive.blobs().put(&b"other"[..]).unwrap());
        }
    });
    let put = writer.put(content).and_then(|_| writer.flush());
    assert!(matches!(put, Err(BlobError::CalledOff)), "{put:?}");
    assert!(matches!(writer.flush(), Err(BlobError::CalledOff)));
    assert!(matches!(late.blobs().writer().err(), Some(BlobError::CalledOff)));
    assert!(matches!(batch.flush(), Err(DriveError::Blob(BlobError::CalledOff))));
    assert_eq!((db.length(), contents.length()), (0, 1));
    let reader = drive.blobs().reader(other.unwrap(), None);
    assert_eq!(reader.read_local(0, 10).unwrap().unwrap().concat(), b"other");
    let mut batch = drive.batch().unwrap();
    batch.put(&path("mine"), &Entry::symlink("x".to_string())).unwrap();
    batch.flush().unwrap();
}
