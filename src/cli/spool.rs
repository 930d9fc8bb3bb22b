//! Standard input on its way into a drive: taken in as a file of the store that nobody sees, however long that takes,
//! so that the drive is free meanwhile and no input need fit into memory.

use super::exit::{Exit, Fail, Failure, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const BUFFER: usize = 256 << 10;

/// All of `input`, to be read from its beginning. It is gone when it is dropped, and when the process ends.
pub fn spool(store: &Path, mut input: impl Read) -> Result<File> {
    let mut file = nameless(store).or_fail(Exit::Store, store.display())?;
    let mut buf = vec![0; BUFFER];
    loop {
        match input.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => file.write_all(&buf[..n]).map_err(|error| {
                let text = format!("standard input, on its way into {}: {error}", store.display());
                Failure::new(Exit::Store, text)
            })?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).or_fail(Exit::Failed, "standard input"),
        }
    }
    file.rewind().or_exit(Exit::Store)?;
    Ok(file)
}

fn nameless(folder: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR) {
        return Ok(file.into());
    }
    // Not every filesystem can: then it has a name for a moment.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("spool-{}-{next}", std::process::id()));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_input_comes_back_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let input: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
        let mut back = Vec::new();
        spool(dir.path(), &input[..]).unwrap().read_to_end(&mut back).unwrap();
        assert!(back == input);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(spool(&dir.path().join("none"), &input[..]).is_err());
    }
}
