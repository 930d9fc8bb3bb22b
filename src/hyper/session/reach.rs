//! Who could still send something for a core, and the waits that hang on it: for the newest head, for a length, and
//! for the certainty that nobody is there.

use super::CoreHandle;
use super::wish::Wish;
use crate::hyper::replication::Company;
use crate::hyper::source::{BlockSource, SourceError};
use std::time::Duration;
use tokio::sync::watch;

/// The longest wait for a proof that a block exists at all.
const UPGRADE_WAIT: Duration = Duration::from_secs(3);

/// How long a peer that is connected may take to answer whether it has the core: what it says may get lost some times.
const COMING: Duration = Duration::from_secs(5);

/// Who could still send something for a core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Peers with an open channel for it that may have something: all but those who said that they know no more of it
    /// than its key. Two who wait for the same writer are no help to each other.
    pub peers: usize,
    /// Those of them that said that they know it.
    pub holders: usize,
    /// Peers with an open channel who know no more than the key.
    pub blank: usize,
    /// Peers that are connected and have not answered whether they open a channel for it.
    pub coming: usize,
    /// A round of discovery has ended, so that no peer means there is none.
    pub discovered: bool,
    /// Nobody could be asked just before that round began: who only wants to read need not wait for its end. It says
    /// nothing about who is there, so it is no reason to write.
    pub alone: bool,
    /// Another round is under way, for somebody who came after that. Who waits for what is not here waits for its end too;
    /// what is here is read without it.
    pub again: bool,
    /// Times that all open peers had told their length and what they offered was applied.
    pub syncs: u64,
    /// That goes for the peers that are open now.
    pub synced: bool,
    /// A peer that knows the core has said that nothing is in it, and none has said otherwise. Somebody who knows
    /// no more than the key does not count.
    pub empty: bool,
    /// Peers have other blocks than we, signed by the same writer.
    pub two_histories: bool,
}

impl Reach {
    /// Whether it is worth while to wait for a first peer.
    fn hopes(&self) -> bool {
        !self.discovered && !self.alone
    }

    /// Takes who is there now.
    pub fn meet(&mut self, company: Company) {
        let Company { told, silent, blank, coming } = company;
        (self.peers, self.holders, self.blank) = (told + silent, told, blank);
        self.coming = coming;
    }
}

impl CoreHandle {
    pub fn reach(&self) -> watch::Receiver<Reach> {
        self.0.reach.subscribe()
    }

    /// Tells waiters who can be asked; called by the owner of discovery and of the hub.
    pub fn set_reach(&self, change: impl FnOnce(&mut Reach)) {
        self.0.reach.send_modify(change);
    }

    /// Waits until every connected peer has told its length and what it offered is here: the head is
    /// current. False if that did not happen within `limit`, or if nobody is there to ask.
    pub async fn update(&self, limit: Duration) -> bool {
        let mut reach = self.reach();
        let current = async {
            loop {
                // The hub answers when all have told who are connected, be it that our channel is only
                // just on its way to them; at once if nobody is.
                let before = reach.borrow().syncs;
                self.wish(Wish::Update { core: self.0.discovery_key });
                let told = |r: &Reach| r.syncs > before && (r.synced || r.peers == 0);
                let now = *reach.wait_for(told).await.ok()?;
                if now.peers > 0 || !now.hopes() {
                    return Some(now.peers > 0);
                }
                reach.wait_for(|r| r.peers > 0 || !r.hopes()).await.ok()?;
            }
        };
        tokio::time::timeout(limit, current).await.ok().flatten().unwrap_or(false)
    }

    /// Resolves when discovery has ended a round, or has nobody to ask, and for [`Patience::lonely`] no peer has been there,
    /// nor one that may answer yet.
    pub async fn deserted(&self) {
        let mut reach = self.reach();
        loop {
            if reach.wait_for(|r| r.peers == 0 && !r.hopes() && !r.again).await.is_err() {
                return std::future::pending().await;
            }
            let company = reach.wait_for(|r| r.peers > 0);
            if tokio::time::timeout(self.0.patience.lonely, company).await.is_ok() {
                continue;
            }
            let answered = reach.wait_for(|r| r.peers > 0 || r.coming == 0);
            let _ = tokio::time::timeout(COMING, answered).await;
            if reach.borrow().peers == 0 {
                return;
            }
        }
    }

    /// Waits until the verified length covers block `index`. An entry may name blocks of another core whose
    /// own upgrade is still on its way; one that names blocks no peer knows of must not wait for long.
    pub(super) async fn reaches(&self, index: u64) -> Result<(), SourceError> {
        let mut versions = self.versions();
        if self.length() <= index && self.core().waits_for_names() {
            // It follows nobody by itself; the names that are followed speak of it.
            self.wish(Wish::Update { core: self.0.discovery_key });
        }
        tokio::select! {
            biased;
            _ = versions.wait_for(|version| version.length > index) => Ok(()),
            ended = self.ended() => Err(ended),
            () = self.deserted() => Err(SourceError::TimedOut(index)),
            () = tokio::time::sleep(UPGRADE_WAIT.min(self.patience())) => {
                Err(SourceError::OutOfRange { index, length: self.length() })
            }
        }
    }
}
