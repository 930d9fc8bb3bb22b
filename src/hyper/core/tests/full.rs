//! A real file system without room. Needs one to be given, since making one takes rights:
//! `mount -t tmpfs -o size=8m none DIR; HDRIVE_SMALL_DISK=DIR cargo test --lib full -- --ignored`

use super::super::storage::open_disk;
use super::*;

fn fill(core: &mut Core, block: usize, durability: Durability) -> CoreError {
    loop {
        let at = core.length();
        let bytes = Bytes::from(vec![at as u8; block]);
        if let Err(error) = core.append(&[bytes], durability) {
            assert_eq!(core.length(), at);
            return error;
        }
    }
}

fn assert_filled(core: &Core, block: usize, range: Range<u64>) {
    for i in range {
        assert_eq!(core.get(i).unwrap().unwrap(), vec![i as u8; block]);
    }
}

#[test]
#[ignore = "needs a small file system"]
fn a_full_disk_is_named_and_passes() {
    let Ok(small) = std::env::var("HDRIVE_SMALL_DISK") else { return };
    for (block, durability) in [
        (64 << 10, Durability::Durable),
        (700, Durability::Durable),
        (20 << 10, Durability::Buffered),
    ] {
        let dir = tempfile::tempdir_in(&small).unwrap();
        let filler = dir.path().join("filler");
        std::fs::write(&filler, vec![1; 1 << 20]).unwrap();
        let storage = open_disk(&dir.path().join("store")).unwrap();
        let mut core = writer(&storage);
        let error = fill(&mut core, block, durability);
        assert!(error.is_disk_full(), "{error}");
        let full = core.length();
        assert!(full > 10);
        assert_filled(&core, block, 0..full);
        for _ in 0..3 {
            let again = core.append(&[Bytes::from(vec![0; block])], Durability::Durable);
            if let Err(error) = again {
                assert!(error.is_disk_full(), "{error}");
                continue;
            }
            core.truncate(full, core.fork() + 1).unwrap();
        }
        std::fs::remove_file(&filler).unwrap();
        core.append(&[Bytes::from(vec![full as u8; block])], Durability::Durable).unwrap();
        assert_filled(&core, block, 0..full + 1);
        let key = *core.discovery_key();
        drop((core, storage));
        let storage = open_disk(&dir.path().join("store")).unwrap();
        let core = Core::open(&storage, &key).unwrap().unwrap();
        assert_eq!(core.contiguous_length(), full + 1);
        assert_filled(&core, block, 0..full + 1);
        println!("{block}-byte blocks, {durability:?}: full at {full}");
    }
}
