//! Speed of a volume in memory through the mount: no network, no disk, no hashing.
//!
//! `cargo test --release --test fuse speed -- --ignored --nocapture --test-threads=1`, with other mount options
//! in `HDRIVE_TEST_OPTIONS` to compare.

use crate::common::{TestMount, mounted_with, pattern};
use crate::volume::TestVolume;
use hdrive::fs::MountOptions;
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

/// Processor time of this process, in seconds: steadier than the clock on a busy machine.
fn processor_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

fn mounted(volume: &std::sync::Arc<TestVolume>) -> Option<TestMount> {
    let mut options = MountOptions::default();
    for option in std::env::var("HDRIVE_TEST_OPTIONS").unwrap_or_default().split(',') {
        assert!(option.is_empty() || options.apply(option).unwrap(), "{option}");
    }
    mounted_with(volume, &options)
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
        let mut spent = 0.0;
        for i in 0..5 {
            let path = mount.at(&format!("f{i}"));
            let before = processor_seconds();
            cold.push(megabytes_per_second(&path));
            spent += processor_seconds() - before;
            warm.push(megabytes_per_second(&path));
            // Room for the next one.
            volume.file(&format!("/f{i}"), "");
            volume.changed(&[&format!("/f{i}")]);
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        let what = if frozen { "frozen" } else { "live" };
        let spent = spent * 1e9 / (5 * SIZE) as f64;
        println!(
            "\n{what}: cold {:.0} MB/s ({spent:.2} s of processor per GB), warm {:.0} MB/s",
            median(cold),
            median(warm)
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk");
    fs::write(&file, pattern(SIZE)).unwrap();
    let warm = (0..5).map(|_| megabytes_per_second(&file)).collect();
    println!("\nthis machine's own disk filesystem: warm {:.0} MB/s", median(warm));
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
            println!("\nfrozen {frozen}: {what} {rate:.0} files/s");
        };
        round("list and stat, cold", &|path| {
            assert!(fs::symlink_metadata(path).unwrap().is_file())
        });
        round("list and stat, warm", &|path| {
            assert!(fs::symlink_metadata(path).unwrap().is_file())
        });
        round("read, cold", &|path| drop(fs::read(path).unwrap()));
        round("read, warm", &|path| drop(fs::read(path).unwrap()));
    }
}
