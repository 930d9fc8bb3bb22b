//! What every command on a store is given: the node, its output, when to stop, and where it was typed.

use super::output::Output;
use crate::node::Node;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// What a running command has at hand.
#[derive(Clone)]
pub struct Context {
    pub node: Arc<Node>,
    pub out: Arc<Output>,
    pub cancel: Cancel,
    /// Folder that relative paths of the command start from.
    pub cwd: PathBuf,
}

/// Becomes true when whoever asked does not want to wait any more.
#[derive(Clone)]
pub struct Cancel(watch::Receiver<bool>);

impl Cancel {
    pub fn new(flag: watch::Receiver<bool>) -> Self {
        Self(flag)
    }

    /// Resolves when the command is cancelled.
    pub async fn cancelled(&self) {
        let mut flag = self.0.clone();
        if flag.wait_for(|c| *c).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
