//! What every command on a store is given: the node, its output, when to stop, and where it was typed.

use super::exit::{Exit, Failure, Result};
use super::fault::joined;
use super::output::Output;
use super::running::{Commands, Running};
use super::signals::LAST_WAIT;
use crate::disk;
use crate::node::Node;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A process that hands its commands over waits no longer than this for the end of a mount, which dies with it then.
const HAND_OVER: Duration = Duration::from_secs(3);

/// What a running command has at hand.
#[derive(Clone)]
pub struct Context {
    pub node: Arc<Node>,
    pub out: Arc<Output>,
    pub cancel: Cancel,
    /// Folder that relative paths of the command start from.
    pub cwd: PathBuf,
    /// Everything that runs in this process, and this command among it.
    pub commands: Arc<Commands>,
    pub running: Arc<Running>,
    /// Whoever started it waits only until it is ready.
    pub background: bool,
    /// So many of the lines that are printed once were printed by a process that has ended.
    pub told: u32,
}

impl Context {
    /// Lets `work` ask the file system of a person, which may hang for ever.
    ///
    /// # Errors
    /// The command was called off first. What the work brings is dropped then.
    pub async fn ask_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.wait_for(disk::begin(work)).await
    }

    /// Waits for such work.
    ///
    /// # Errors
    /// As above.
    pub async fn wait_for<T: Send + 'static>(&self, work: disk::Begun<T>) -> Result<T> {
        tokio::select! {
            done = work => joined(done),
            () = self.cancel.cancelled() => Err(Failure::new(Exit::Interrupted, "interrupted")),
        }
    }

    /// Waits until there is room for more lines.
    ///
    /// # Errors
    /// The command was called off, and there is none.
    pub async fn room(&self) -> Result {
        tokio::select! {
            biased;
            () = self.out.room() => Ok(()),
            () = self.cancel.cancelled() => Err(Failure::new(Exit::Interrupted, "interrupted")),
        }
    }

    /// What is told of a change that was called off before it was made.
    pub fn called_off(&self) -> Failure {
        match self.cancel.is_hand_over() {
            true => {
                let text = "the process that worked on the store ended: the drive is as it was before; run it again";
                Failure::new(Exit::Failed, text)
            }
            false => {
                self.out.note("interrupted: the drive is as it was before");
                Failure::new(Exit::Interrupted, "interrupted")
            }
        }
    }
}

/// Why a command shall end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Not,
    /// Whoever asked wants it no more.
    Asked,
    /// The process that runs it ends; another goes on with it.
    HandOver,
}

/// Tells when a command shall end.
#[derive(Clone)]
pub struct Cancel(watch::Receiver<Stop>);

impl Cancel {
    pub fn new(flag: watch::Receiver<Stop>) -> Self {
        Self(flag)
    }

    /// Resolves when the command is cancelled.
    pub async fn cancelled(&self) {
        let mut flag = self.0.clone();
        if flag.wait_for(|stop| *stop != Stop::Not).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Resolves when a disk was waited for as long as whoever asked allows, who wants it no more; or the process, which
    /// another follows.
    pub async fn given_up(&self) {
        let asked = async {
            let mut flag = self.0.clone();
            if flag.wait_for(|stop| *stop == Stop::Asked).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(LAST_WAIT).await;
        };
        let handed_over = async {
            self.cancelled().await;
            tokio::time::sleep(HAND_OVER).await;
        };
        tokio::select! {
            () = asked => {}
            () = handed_over => {}
        }
    }

    /// Resolves when the command is called off, for whatever reason, and something was waited for as long as that allows.
    pub async fn overdue(&self) {
        self.cancelled().await;
        tokio::time::sleep(LAST_WAIT).await;
    }

    pub fn is_hand_over(&self) -> bool {
        *self.0.borrow() == Stop::HandOver
    }
}
