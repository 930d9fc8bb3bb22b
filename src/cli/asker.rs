//! The process that asked for a command which another one runs.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Once;
use tokio::sync::watch;

/// The other process behind the streams; see `request.rs`.
pub struct Asker {
    begun: Once,
    /// The byte that says "begun", and where it goes.
    mark: u8,
    /// And the one that says that a line was told once.
    pub told: u8,
    stream: UnixStream,
    /// Becomes true when it has sent all of its standard input.
    pub ended: watch::Receiver<bool>,
}

impl Asker {
    pub fn new(stream: UnixStream, [mark, told]: [u8; 2], ended: watch::Receiver<bool>) -> Self {
        Self { begun: Once::new(), mark, told, stream, ended }
    }

    /// Lets it know that it cannot start over from here on.
    pub fn begin(&self) {
        self.begun.call_once(|| self.say(self.mark));
    }

    /// It does not wait: the stream is not one that blocks.
    pub fn say(&self, byte: u8) {
        let _ = (&self.stream).write_all(&[byte]);
    }
}
