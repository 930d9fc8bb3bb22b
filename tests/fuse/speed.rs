//! Speed of a volume in memory through the mount: no network, no disk, no hashing.
//!
//! `cargo test --release --test fuse speed -- --ignored --nocapture`

use crate::common::{mounted, pattern};
use crate::volume::TestVolume;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Instant;

const SIZE: usize = 512 << 20;

fn megabytes_per_second(path: &Path) -> f64 {
    let mut buf = vec![0; 1 << 20];
    let started = Instant::now();
    let mut file = File::open(path).unwrap();
    let mut total = 0;
    loop {
        match file.read(&mut buf).unwrap() {
            0 => break,
            len => total += len,
        }
    }
    total as f64 / 1e6 / started.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "prints figures"]
fn sequential_reads() {
    for frozen in [false, true] {
        let volume = if frozen { TestVolume::frozen() } else { TestVolume::new() };
        let bytes = bytes::Bytes::from(pattern(SIZE));
        for i in 0..5 {
            volume.file(&format!("/f{i}"), bytes.clone());
        }
        let Some(mount) = mounted(&volume) else { return };
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        for i in 0..5 {
            let path = mount.at(&format!("f{i}"));
            cold.push(megabytes_per_second(&path));
            warm.push(megabytes_per_second(&path));
            // Room for the next one.
            volume.file(&format!("/f{i}"), "");
            volume.changed(&[&format!("/f{i}")]);
        }
        let what = if frozen { "frozen" } else { "live" };
        println!("{what}: cold {:.0} MB/s, warm {:.0} MB/s", median(cold), median(warm));
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk");
    fs::write(&file, pattern(SIZE)).unwrap();
    let warm = (0..5).map(|_| megabytes_per_second(&file)).collect();
    println!("this machine's own disk filesystem: warm {:.0} MB/s", median(warm));
}

#[test]
#[ignore = "prints figures"]
fn many_small_files() {
    for frozen in [false, true] {
        let volume = if frozen { TestVolume::frozen() } else { TestVolume::new() };
        for i in 0..5000 {
            volume.file(&format!("/d{}/f{i:04}", i % 50), pattern(2000));
        }
        let Some(mount) = mounted(&volume) else { return };
        let round = |what: &str, work: &dyn Fn(&Path)| {
            let started = Instant::now();
            let mut count = 0;
            for dir in fs::read_dir(mount.at("")).unwrap() {
                for file in fs::read_dir(dir.unwrap().path()).unwrap() {
                    work(&file.unwrap().path());
                    count += 1;
                }
            }
            let rate = f64::from(count) / started.elapsed().as_secs_f64();
            println!("frozen {frozen}: {what} {rate:.0} files/s");
        };
        round("list and stat, cold", &|path| drop(fs::symlink_metadata(path).unwrap()));
        round("list and stat, warm", &|path| drop(fs::symlink_metadata(path).unwrap()));
        round("read, cold", &|path| drop(fs::read(path).unwrap()));
        round("read, warm", &|path| drop(fs::read(path).unwrap()));
    }
}
