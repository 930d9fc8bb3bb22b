//! A file larger than the cache is streamed, not collected.

use crate::common::*;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};

const SIZE: u64 = 300 << 20;
const LIMIT: u64 = 150 << 20;

#[test]
fn a_streamed_file_larger_than_the_cache_does_not_grow_the_process() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    let mut file = fs::File::create(folder.join("big")).unwrap();
    let mark = pattern(9, 4096);
    for at in (0..SIZE).step_by(1 << 20) {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&at.to_le_bytes()).unwrap();
        file.write_all(&mark).unwrap();
    }
    file.set_len(SIZE).unwrap();
    drop(file);
    let (share, key) = lab.share("alice", &folder);
    let mount = lab.mount("bob", &key, &["--cache-memory", "16M"]);
    let mut file = eventually("the file", PATIENCE, || fs::File::open(mount.path("big")).ok());
    let mut buf = vec![0; 1 << 20];
    let (mut at, mut most, mut most_shared) = (0u64, 0, 0);
    while at < SIZE {
        file.read_exact(&mut buf).unwrap();
        assert_eq!(buf[..8], at.to_le_bytes());
        assert_eq!(buf[8..8 + mark.len()], mark);
        assert!(buf[8 + mark.len()..].iter().all(|byte| *byte == 0));
        most = most.max(mount.process.resident());
        most_shared = most_shared.max(share.resident());
        at += buf.len() as u64;
    }
    eprintln!("at most {} MiB in the mount, {} MiB in the share", most >> 20, most_shared >> 20);
    assert!(most > 0 && most < LIMIT, "the mount grew to {} MiB", most >> 20);
    assert!(most_shared < LIMIT, "the share grew to {} MiB", most_shared >> 20);
}
