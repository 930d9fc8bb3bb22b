//! Standard input on its way into a drive: taken in as a file of the store that nobody sees, however long that takes,
//! so that the drive is free meanwhile and no input need fit into memory.

use super::exit::{Exit, Fail, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const BUFFER: usize = 256 << 10;

/// Buffers that are taken in before it is asked for more.
const BUFFERS: usize = 16;

/// What was taken in so far. It is gone when it is dropped, and when the process ends.
pub struct Spool {
    file: File,
    buf: Vec<u8>,
    pub length: u64,
}

pub enum Taking {
    More(Spool),
    /// Everything, to be read from its beginning.
    All(File),
}

impl Spool {
    pub fn new(store: &Path) -> Result<Self> {
        let file = nameless(store).or_fail(Exit::Store, store.display())?;
        Ok(Self { file, buf: vec![0; BUFFER], length: 0 })
    }

    /// Takes in what comes, as long as `has_more` says that more is there.
    pub fn take<R: Read>(mut self, input: &mut R, has_more: impl Fn(&R) -> bool) -> Result<Taking> {
        for _ in 0..BUFFERS {
            match input.read(&mut self.buf) {
                Ok(0) => {
                    self.file.rewind().or_exit(Exit::Store)?;
                    return Ok(Taking::All(self.file));
                }
                Ok(n) => {
                    let written = self.file.write_all(&self.buf[..n]);
                    written.or_fail(Exit::Store, "standard input, on its way into the store")?;
                    self.length += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).or_fail(Exit::Failed, "standard input"),
            }
            if !has_more(input) {
                break;
            }
        }
        Ok(Taking::More(self))
    }
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
        let (mut back, mut left) = (Vec::new(), &input[..]);
        let mut spool = Spool::new(dir.path()).unwrap();
        let mut all = loop {
            match spool.take(&mut left, |left| left.len() % 3 > 0).unwrap() {
                Taking::More(more) => spool = more,
                Taking::All(file) => break file,
            }
        };
        all.read_to_end(&mut back).unwrap();
        assert!(back == input);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Spool::new(&dir.path().join("none")).is_err());
    }
}
