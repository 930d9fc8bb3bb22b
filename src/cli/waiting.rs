//! A line for whoever waits for another command.

use super::output::Output;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Shorter waits are not worth a word.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says, unless it is dropped soon, what is waited for.
pub struct Waiting(JoinHandle<()>);

impl Waiting {
    /// `drive` is what people call the drive that somebody else writes.
    pub fn start(out: &Arc<Output>, drive: &str) -> Self {
        let (out, text) =
            (Arc::clone(out), format!("waiting for another command that writes {drive}"));
        Self(tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            out.note(text);
        }))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abort();
    }
}
