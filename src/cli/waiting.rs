//! How a command waits for another: with a line for whoever asked, and not longer than it is wanted.

use super::exit::{Exit, Fail, Failure, Result};
use super::gate::Gate;
use super::output::Output;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Shorter waits are not worth a word.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a wait on a thread looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

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

/// Waits on the thread of some work, until the gate is shut. With a clock of its own: work that was called off may still
/// be at it when the process ends, and the runtime's clock with it.
///
/// # Errors
/// The work was called off.
pub fn wait_until_shut<T>(gate: &Gate, what: impl Future<Output = T>) -> Result<T> {
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let clock = clock.or_fail(Exit::Failed, "cannot start a clock")?;
    clock.block_on(async {
        let shut = async {
            while !gate.is_shut() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            biased;
            done = what => Ok(done),
            () = shut => Err(Failure::new(Exit::Interrupted, "interrupted")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn work_that_is_called_off_waits_to_its_end_while_the_runtime_is_gone() {
        let runtime = crate::cli::runtime(1).unwrap();
        let gate = Arc::new(Gate::default());
        let (begun, begins) = channel();
        let (told, ended) = channel();
        let called_off = Arc::clone(&gate);
        runtime.spawn_blocking(move || {
            let long = async {
                begun.send(()).unwrap();
                tokio::time::sleep(Duration::from_secs(3600)).await;
            };
            let _ = told.send(wait_until_shut(&called_off, long));
        });
        begins.recv().unwrap();
        runtime.shutdown_timeout(Duration::from_millis(300));
        assert!(ended.try_recv().is_err(), "it waits on");
        assert!(gate.shut());
        let ended = ended.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(ended.unwrap_err().exit, Exit::Interrupted);
    }
}
