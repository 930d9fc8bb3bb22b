//! Tests of the writer: a pipe takes what both streams say.

use super::attempt::{self, ERASE};
use super::*;
use rustix::fs::{Mode, OFlags};
use std::io::{PipeReader, Read};

const LIMIT: Duration = Duration::from_secs(20);

/// Both streams go into one pipe.
fn writer() -> (Arc<Writer>, PipeReader) {
    let (reader, pipe) = std::io::pipe().unwrap();
    let also = pipe.try_clone().unwrap();
    (Writer::new([Box::new(pipe), Box::new(also)], None, None), reader)
}

fn result(text: &str) -> Piece {
    Piece::Result { bytes: Bytes::copy_from_slice(text.as_bytes()), log: None }
}

fn said(text: &str) -> Piece {
    Piece::Said(text.into())
}

fn all(mut reader: PipeReader, writer: Arc<Writer>) -> String {
    writer.settle();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn lines_of_both_streams_stay_in_order_and_a_bar_is_not_in_their_way() {
    let (writer, reader) = writer();
    writer.push(result("1\n"));
    writer.push(said("2\n"));
    writer.settle();
    writer.draw("bar".into());
    while lock(&writer.bar).is_none() {
        std::thread::sleep(LOOK);
    }
    writer.push(result("3\n"));
    writer.clear();
    writer.push(said("4\n"));
    let erase = str::from_utf8(ERASE).unwrap();
    let wanted = format!("1\n2\n{erase}bar{erase}3\nbar{erase}4\n");
    assert_eq!(all(reader, writer), wanted);
}

#[test]
fn a_bar_that_nobody_sees_is_drawn_once_in_its_last_state() {
    let (writer, mut reader) = writer();
    writer.push(result(&"x".repeat(200 << 10)));
    (0..1000).for_each(|n| writer.draw(format!("bar {n}")));
    let shown = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text.trim_start_matches('x').to_string())
    });
    while lock(&writer.bar).is_none() {
        std::thread::sleep(LOOK);
    }
    writer.clear();
    writer.settle();
    drop(writer);
    let erase = str::from_utf8(ERASE).unwrap();
    assert_eq!(shown.join().unwrap().unwrap(), format!("{erase}bar 999{erase}"));
}

#[tokio::test]
async fn what_nobody_reads_is_bounded_and_the_rest_is_counted() {
    let (writer, mut reader) = writer();
    let line = format!("{}\n", "x".repeat(999));
    (0..1000).for_each(|_| writer.push(said(&line)));
    writer.push(Piece::Error(b"error\n".to_vec()));
    assert!(tokio::time::timeout(LIMIT / 100, writer.room()).await.is_err());
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    tokio::time::timeout(LIMIT, writer.written()).await.unwrap();
    writer.push(said("after\n"));
    writer.settle();
    drop(writer);
    let text = reader.join().unwrap().unwrap();
    let kept = text.lines().filter(|line| line.starts_with('x')).count();
    assert!(kept * 1000 >= FULL && kept * 1000 <= FULL + (100 << 10), "{kept}");
    let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with('x')).collect();
    let left_out =
        format!("warning: {} lines left out here: what was said before was not read", 1000 - kept);
    assert_eq!(rest, ["error", left_out.as_str(), "after"]);
}

#[tokio::test]
async fn a_result_that_nobody_reads_is_owed_until_it_is_given_up_and_its_thread_ends() {
    let (writer, reader) = writer();
    let line = "x".repeat(1000);
    (0..100).for_each(|_| writer.push(result(&line)));
    assert!(tokio::time::timeout(LIMIT / 100, writer.written()).await.is_err());
    assert!(writer.owes());
    writer.close();
    writer.push(result("more"));
    tokio::time::timeout(LIMIT, writer.written()).await.unwrap();
    assert!(!writer.owes() && writer.failure().is_ok());
    let ended = Instant::now();
    while lock(&writer.queue).running {
        assert!(ended.elapsed() < LIMIT, "it waits on");
        std::thread::sleep(LOOK);
    }
    drop(reader);
}

/// The pipe takes a part of it only, and nobody reads.
#[test]
fn where_no_thread_can_be_made_nobody_waits_and_nothing_is_lost() {
    let (writer, mut reader) = writer();
    writer.no_threads.store(true, Ordering::SeqCst);
    writer.push(result("first\n"));
    assert_eq!(lock(&writer.queue).bytes, 0, "what is taken at once is written at once");
    let saying = Arc::clone(&writer);
    let said = std::thread::spawn(move || {
        (0..100).for_each(|n| saying.push(result(&format!("{n}{}\n", "x".repeat(9_999)))));
    });
    let begun = Instant::now();
    while !said.is_finished() {
        assert!(begun.elapsed() < LIMIT, "it waits for a reader");
        std::thread::sleep(LOOK);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let early = tokio::time::timeout(4 * LOOK, writer.room()).await;
        assert!(early.is_err() && writer.owes(), "nobody has read it");
    });
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    runtime.block_on(async {
        tokio::time::timeout(LIMIT, writer.room()).await.expect("a reader came");
        tokio::time::timeout(LIMIT, writer.written()).await.expect("a reader came");
    });
    assert!(!writer.owes() && !lock(&writer.queue).running);
    writer.push(result("the end\n"));
    writer.settle();
    drop(writer);
    let text = reader.join().unwrap().unwrap();
    assert_eq!(text.len(), 6 + 1_000_000 + 190 + 8);
    let lines: Vec<&str> = text.lines().collect();
    assert!((0..100).all(|n| lines[n + 1].starts_with(&format!("{n}x"))));
    assert_eq!((lines[0], lines[101]), ("first", "the end"));
}

#[test]
fn errors_of_stdout_are_kept_apart() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (_, pipe) = std::io::pipe().unwrap();
    for (stdout, is_lost) in [(Box::new(full) as Stream, true), (Box::new(pipe), false)] {
        let writer = Writer::new([stdout, Box::new(io::stderr())], None, None);
        writer.push(result("x\n"));
        writer.settle();
        assert_eq!((writer.failure().is_err(), writer.is_gone()), (is_lost, !is_lost));
    }
}

/// Lines about it are left out while nobody reads; of the result itself no byte is.
#[tokio::test]
async fn a_result_has_no_hole_where_other_lines_are_left_out() {
    let (writer, mut reader) = writer();
    let line = format!("{}\n", "x".repeat(999));
    (0..1000).for_each(|_| writer.push(said(&line)));
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    for n in 0..100 {
        tokio::time::timeout(LIMIT, writer.room()).await.unwrap();
        writer.push(result(&format!("{n}{}\n", "y".repeat(9_999))));
        writer.push(said(&line));
    }
    writer.settle();
    drop(writer);
    let text = reader.join().unwrap().unwrap();
    let results: Vec<&str> = text.lines().filter(|line| line.ends_with('y')).collect();
    let starts = |(n, line): (usize, &&str)| line.starts_with(&format!("{n}y"));
    assert!(results.len() == 100 && results.iter().enumerate().all(starts), "{}", results.len());
    assert!(text.contains("left out here"));
}

/// A terminal whose reader pauses says that there is room for a part, and keeps whoever writes more.
#[test]
fn nobody_waits_for_a_paused_terminal_without_a_thread() {
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut raw = rustix::termios::tcgetattr(&pty.slave).unwrap();
    raw.make_raw();
    rustix::termios::tcsetattr(&pty.slave, rustix::termios::OptionalActions::Now, &raw).unwrap();
    let also = pty.slave.try_clone().unwrap();
    let writer = Writer::new([Box::new(pty.slave), Box::new(also)], None, None);
    writer.no_threads.store(true, Ordering::SeqCst);
    let text = "x".repeat(100 << 10);
    let (said, done) = std::sync::mpsc::channel();
    let (own, piece) = (Arc::clone(&writer), result(&text));
    std::thread::spawn(move || {
        own.push(piece);
        let _ = said.send(());
    });
    done.recv_timeout(LIMIT).expect("nobody waits");
    let mut reader = std::fs::File::from(pty.master);
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; text.len()];
        reader.read_exact(&mut got).map(|()| got.iter().all(|byte| *byte == b'x'))
    });
    writer.settle();
    assert!(reader.join().unwrap().unwrap());
}

/// Nobody may be kept waiting for ever by a terminal that cannot be opened anew.
#[tokio::test]
async fn a_terminal_that_is_not_ours_to_open_is_written_to_as_it_is() {
    let pty = nix::pty::openpty(None, None).unwrap();
    let [slave, also] = [(), ()].map(|()| pty.slave.try_clone().unwrap());
    let stream: Stream = Box::new(pty.slave);
    assert!(attempt::opened_anew(&stream).is_some());
    // The terminal of whoever opens it, be that the owner of the store.
    let theirs = rustix::fs::open("/dev/tty", OFlags::PATH, Mode::empty()).unwrap();
    assert!(attempt::opened_anew(&(Box::new(theirs) as Stream)).is_none());
    drop(pty.master);
    assert!(attempt::opened_anew(&stream).is_none());
    let writer = Writer::new([Box::new(slave), Box::new(also)], None, None);
    writer.no_threads.store(true, Ordering::SeqCst);
    writer.push(result("text"));
    tokio::time::timeout(LIMIT, writer.written()).await.expect("nobody waits for ever");
    assert!(writer.failure().is_err());
}
