//! How far a drive that is held here can be found, which is waited for before it is told.

use super::looking::{FIRST_WORD, LOOK};
use super::outlook::{Outlook, Wait};
use crate::key::Topic;
use crate::node::Node;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Findable {
    NotYet,
    /// On the local networks, where neighbours call for it. No node of the DHT answers.
    Near,
    /// By everybody: nodes of the DHT name us.
    Everywhere,
}

impl Findable {
    /// By whom, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotYet => "nobody",
            Self::Near => "neighbours",
            Self::Everywhere => "everybody",
        }
    }
}

/// Waits for `limit` at most until a drive that was joined at `since` can be found as far as it ever will.
pub async fn findable(node: &Node, topic: Topic, since: Instant, limit: Duration) -> Findable {
    let near = async {
        loop {
            tokio::time::sleep(LOOK).await;
            let waited = since.elapsed();
            let wait = Wait { waited, ..Wait::default() };
            let status = node.network_status().await;
            let outlook = Outlook::of(status.as_ref(), topic, true, wait);
            if waited >= FIRST_WORD && outlook == Outlook::Near {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        announced = node.announced(topic, limit) => match announced {
            true => Findable::Everywhere,
            false => Findable::NotYet,
        },
        () = near => Findable::Near,
    }
}
