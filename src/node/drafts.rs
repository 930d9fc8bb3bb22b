//! Drives of ours that programs work on: one draft for each, whoever has it mounted, and when it is published.
//!
//! What is closed is published a moment later, together with whatever else is; what is written on and on, when it has been
//! left alone for a while. A publication that fails is tried again, less and less often, and told; nothing is lost by it.

use super::claims::Writing;
use super::{DriveUse, Node, NodeError, on_disk};
use crate::hyper::draft::{Draft, DraftError, Which};
use crate::key::CoreKey;
use crate::lock::lock;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// What is done within this is published together: a program that saves a file does several things at once.
const TOGETHER: Duration = Duration::from_millis(30);
/// While a lot is done, publications keep this many times their own length apart, up to [`MAX_APART`].
const APART: u32 = 4;
const MAX_APART: Duration = Duration::from_secs(1);
/// After a failed one the next comes after this, then after twice as long, up to [`MAX_RETRY`].
const RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Drafts of drives that are being worked on.
#[derive(Default)]
pub(super) struct Drafts(Mutex<BTreeMap<CoreKey, Weak<Drafting>>>);

/// A drive that is being worked on; see the module.
pub struct Drafting {
    draft: Arc<Draft>,
    drive: Arc<DriveUse>,
    /// Why the last publication failed; none if it did not.
    trouble: watch::Receiver<Option<Arc<DraftError>>>,
    publisher: JoinHandle<()>,
    node: Arc<Node>,
    _writing: Writing,
}

impl Deref for Drafting {
    type Target = Arc<Draft>;

    fn deref(&self) -> &Arc<Draft> {
        &self.draft
    }
}

impl Drop for Drafting {
    fn drop(&mut self) {
        self.publisher.abort();
    }
}

impl Node {
    /// Lets the caller work on a drive of this store, together with all others who do. None if a share makes the drive what
    /// a folder is. `quiet` is how long a file that is open must be left alone to be published.
    pub async fn draft(
        self: &Arc<Self>,
        drive: Arc<DriveUse>,
        quiet: Duration,
    ) -> Result<Option<Arc<Drafting>>, NodeError> {
        let key = drive.key();
        let Some(writing) = self.claim_changing(key) else { return Ok(None) };
        // Whoever else is making it has the lock.
        let mut drafts = self.drafts.0.lock().await;
        if let Some(drafting) = drafts.get(&key).and_then(Weak::upgrade) {
            return Ok(Some(drafting));
        }
        todo!()
    }
}
