//! Others write the drive at the same time; and files that never rest.

use super::*;
use crate::hyper::drive::Entry;

impl Bench {
    fn put(&self, name: &str, content: &str) {
        self.drive.put(&path(name), content.as_bytes(), Entry::default()).unwrap();
    }

    fn take_out(&self, name: &str) {
        let mut batch = self.drive.batch().unwrap();
        batch.remove(&path(name)).unwrap();
        batch.flush().unwrap();
    }

    fn file(&self, name: &str) -> Option<String> {
        text(self.here().get(&path(name)))
    }

    fn seen_file(&self, name: &str) -> Option<String> {
        text(self.seen().get(&path(name)))
    }
}

fn text(node: Option<&Node>) -> Option<String> {
    match node? {
        Node::File(bytes, _) => Some(String::from_utf8_lossy(bytes).into_owned()),
        other => panic!("{other:?}"),
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.into())
}

#[test]
fn who_has_a_file_open_and_did_not_write_it_finds_what_others_made_of_it() {
    let bench = Bench::new();
    bench.write("/f", b"ours");
    bench.draft.publish(Which::Closed).unwrap();
    let file = bench.editor.open(&path("/f")).unwrap();
    // So that there is a record of what it was.
    bench.draft.sync(&path("/f"), &file).unwrap();
    bench.put("/f", "theirs");
    bench.draft.absorb();
    assert_eq!(bench.file("/f"), some("theirs"));
    assert_eq!(bench.draft.publish(Which::All).unwrap(), None, "nothing was changed here");
    assert_eq!(bench.again().file("/f"), some("theirs"), "the record went");
    file.write(0, b"T").unwrap();
    bench.draft.sync(&path("/f"), &file).unwrap();
    bench.draft.publish(Which::Closed).unwrap();
    assert_eq!(bench.seen_file("/f"), some("theirs"), "it is open");
    assert_eq!(bench.again().file("/f"), some("Theirs"), "it was synced");
    bench.editor.close(&file);
    bench.draft.publish(Which::Closed).unwrap();
    assert_eq!(bench.seen_file("/f"), some("Theirs"));
}

#[test]
fn what_was_written_and_is_open_comes_after_what_others_did() {
    let bench = Bench::new();
    for name in ["/f", "/g", "/h"] {
        bench.write(name, b"first");
    }
    bench.draft.publish(Which::Closed).unwrap();
    let open = |name| bench.editor.open(&path(name)).unwrap();
    let (f, g, h) = (open("/f"), open("/g"), open("/h"));
    f.write(0, b"F").unwrap();
    g.write(0, b"G").unwrap();
    bench.put("/f", "theirs, longer");
    bench.take_out("/g");
    bench.take_out("/h");
    bench.draft.publish(Which::Closed).unwrap();
    assert_eq!(bench.seen_file("/f"), some("theirs, longer"));
    assert_eq!(bench.seen().len(), 1);
    assert_eq!((bench.file("/f"), bench.file("/g")), (some("First"), some("Girst")));
    assert!(bench.draft.is_written(&path("/f")) && bench.file("/h").is_none());
    for file in [f, g, h] {
        bench.editor.close(&file);
    }
    bench.draft.publish(Which::Closed).unwrap();
    assert_eq!(bench.seen_file("/f"), some("First"));
    assert_eq!(bench.seen_file("/g"), some("Girst"));
    assert_eq!(bench.seen().len(), 2);
}

#[test]
fn what_others_did_just_before_a_publication_is_in_it() {
    let bench = Bench::new();
    bench.write("/f", b"f");
    bench.editor.make_dir(&path("/d")).unwrap();
    bench.draft.publish(Which::Closed).unwrap();
    bench.put("/d/theirs", "1");
    bench.write("/d/ours", b"2");
    bench.editor.set(&path("/f"), &Set { mode: Some(0o600), ..Set::default() }).unwrap();
    bench.put("/f", "theirs");
    bench.draft.publish(Which::Closed).unwrap();
    let here = bench.here();
    assert_eq!(bench.seen(), here);
    assert_eq!(here[&path("/f")], Node::File(b"theirs".into(), 0o600), "theirs, and our mode");
    assert_eq!((here.len(), bench.file("/d/theirs")), (4, some("1")));
    assert_eq!(bench.draft.publish(Which::All).unwrap(), None);
}

#[test]
fn a_log_is_published_while_it_grows_and_what_is_written_over_is_not_at_once() {
    let bench = Bench::new();
    let create = |name| bench.editor.create(&path(name), 0o644, time(1)).unwrap();
    let (log, copy) = (create("/log"), create("/copy"));
    log.append(b"1").unwrap();
    copy.write(0, b"1").unwrap();
    bench.draft.publish(Which::Quiet).unwrap();
    assert_eq!((bench.seen_file("/log"), bench.seen_file("/copy")), (some("1"), None));
    for n in 2..5u8 {
        let digit = [b'0' + n];
        log.append(&digit).unwrap();
        log.touch(n.into());
        copy.write(u64::from(n), &digit).unwrap();
        let blobs = bench.drive.blobs().source().byte_length();
        bench.draft.publish(Which::Quiet).unwrap();
        assert_eq!(bench.seen_file("/log"), some(&"1234"[..n.into()]));
        assert_eq!(bench.drive.blobs().source().byte_length(), blobs + 1, "only what is new");
    }
    copy.write(0, b"2").unwrap();
    bench.draft.publish(Which::Long).unwrap();
    assert_eq!(bench.seen_file("/copy"), None);
    copy.write(0, b"3").unwrap();
    bench.draft.publish(Which::Long).unwrap();
    assert!(bench.seen_file("/copy").unwrap().starts_with('3'), "it never rested");
}

#[test]
fn what_is_written_over_while_it_is_read_keeps_nothing_else_and_costs_nothing() {
    const SIZE: usize = 4 << 20;
    let bench = Bench::new();
    let busy = bench.editor.create(&path("/busy"), 0o644, time(1)).unwrap();
    busy.write(0, &vec![1; SIZE]).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                busy.write(SIZE as u64 / 2, b"again").unwrap();
            }
        });
        let _ends = Ends(&done);
        for n in 0..4u8 {
            let (name, before) = (format!("/f{n}"), bench.drive.blobs().source().byte_length());
            bench.write(&name, &[n; 100]);
            bench.draft.publish(Which::Long).unwrap();
            assert!(bench.seen().contains_key(&path(&name)));
            let grown = bench.drive.blobs().source().byte_length() - before;
            let size = match bench.seen().get(&path("/busy")) {
                Some(Node::File(bytes, _)) => bytes.len(),
                _ => 0,
            };
            // A snapshot may have come through after all.
            assert!(size == 0 && grown == 100 || size == 1 << 20, "{size} {grown}");
        }
    });
    bench.editor.close(&busy);
    bench.draft.publish(Which::Closed).unwrap();
    assert!(bench.seen().contains_key(&path("/busy")));
}
