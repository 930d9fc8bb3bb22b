//! A small file in memory, and on its way out of it.

use super::tests::{base, content, taken_up};
use super::*;
use crate::hyper::core::storage::crash::CrashMedium;
use crate::hyper::core::storage::{Staged, memory};
use crate::hyper::source::memory::MemoryLog;

fn all(file: &LocalFile) -> Vec<u8> {
    file.read_local(0, 200_000).unwrap().unwrap().concat()
}

#[test]
fn a_small_file_needs_no_disk_and_one_record_is_all_of_it() {
    let (storage, memory) = (memory(), Memory::new(1 << 20));
    let blobs = Blobs::writable(MemoryLog::new());
    let old = base(&blobs, &content(100_000), false);
    let file = Arc::new(LocalFile::new(&storage, &memory, Some(old)));
    let mut model = content(100_000);
    let mut version = None;
    for change in [
        (|file| file.write(10, b"a small change").unwrap()) as fn(&LocalFile),
        |file| file.write(SMALL - 1, b"!").unwrap(),
        |file| file.punch(12..14),
        |file| file.truncate(150_000).unwrap(),
        |file| file.set_mtime(77),
    ] {
        change(&file);
        let recorded = file.record().unwrap();
        assert_ne!(version.replace(recorded.version), Some(recorded.version));
        file.recorded(recorded.version);
        let again = taken_up(&recorded.bytes, &storage, &blobs).unwrap();
        assert_eq!((all(&again), again.mtime()), (all(&file), file.mtime()));
        assert!(LocalFile::staging_of(&recorded.bytes).is_none() && file.files().is_none());
        assert!(recorded.bytes.len() < 200);
    }
    model.resize(150_000, 0);
    model[10..24].copy_from_slice(b"a \0\0all change");
    model[SMALL as usize - 1] = b'!';
    assert!(all(&file) == model && storage.cores_with_files().unwrap().is_empty());
    assert_eq!(memory.taken(), SMALL as usize);
    file.truncate(100).unwrap();
    assert_eq!(memory.taken(), 24);
    file.append(&[5; SMALL as usize]).unwrap();
    let recorded = file.record().unwrap();
    assert!(file.staging().is_some() && memory.taken() == 0);
    assert_eq!(LocalFile::staging_of(&recorded.bytes), file.staging());
    file.truncate(5).unwrap();
    assert!(file.staging().is_some(), "it stays there until it is published");
    let id = blobs.put(&content(5)[..]).unwrap();
    let base = Base { reader: blobs.reader(id, None), id, size: 5 };
    assert!(matches!(file.rebase(file.generation(), base), Rebased::Whole(Some(_))));
    file.append(b"small again").unwrap();
    assert!(file.staging().is_none());
}

#[test]
fn what_finds_no_room_on_the_disk_stays_in_memory_as_it_was() {
    let medium = CrashMedium::default();
    let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).unwrap());
    let blobs = Blobs::writable(MemoryLog::new());
    let memory = Memory::new(600);
    let file = LocalFile::new(&storage, &memory, Some(base(&blobs, &content(1000), false)));
    let mut model = content(1000);
    model[500..506].copy_from_slice(b"before");
    medium.set_full(true);
    file.write(500, b"before").unwrap();
    let before = (file.record(), file.generation(), memory.taken());
    for (at, len) in [(1000, 1), (499, 500), (SMALL, 10)] {
        let done = file.write(at, &vec![7; len]);
        assert!(matches!(done, Err(LocalError::Storage(error)) if error.is_disk_full()));
        assert_eq!((file.record(), file.generation(), memory.taken()), before);
        assert!(all(&file) == model && file.staging().is_none());
    }
    medium.set_full(false);
    assert!(storage.cores_with_files().unwrap().is_empty(), "what was tried left nothing");
    file.append(b"room").unwrap();
    model.extend(b"room");
    assert!(all(&file) == model && file.staging().is_some());
    assert_eq!(memory.taken(), 0);
}
