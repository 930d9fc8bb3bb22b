//! Whether our own calls are heard here: where they are not, neighbours hear none of them either, or we none of theirs.
//!
//! What is called to everybody comes back to the host that called. Where it does not, nor anybody else's call comes, a firewall
//! keeps it, most likely this machine's own, and nobody finds anybody. Calls are those that are made anyway; but who has
//! something and hears nothing goes on to call, as those do who look: the firewall may be opened.

use super::ASKED;
use super::link::Link;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// So long after the last of [`ASKED`] calls none of them comes back any more.
const PATIENCE: Duration = Duration::from_millis(500);

/// How it is on one local network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hearing {
    /// Nobody was called yet, or just now.
    #[default]
    Unknown,
    Heard,
    Unheard,
}

/// A local network, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkStatus {
    /// The address of ours that neighbours are called from.
    pub addr: IpAddr,
    pub hearing: Hearing,
}

#[derive(Debug)]
struct Ear {
    addr: SocketAddr,
    hearing: Hearing,
    /// Calls that were made since one was heard.
    unheard: usize,
    judge_at: Option<Instant>,
}

/// That of each link.
#[derive(Debug, Default)]
pub struct Ears(Vec<Ear>);

impl Ears {
    /// All is forgotten.
    pub fn set_links(&mut self, links: &[Link]) {
        let ear = |link: &Link| Ear {
            addr: link.addr,
            hearing: Hearing::Unknown,
            unheard: 0,
            judge_at: None,
        };
        self.0 = links.iter().map(ear).collect();
    }

    /// Everybody is called on a link.
    pub fn called(&mut self, link: &Link, now: Instant) {
        let Some(ear) = self.0.iter_mut().find(|ear| ear.addr == link.addr) else { return };
        ear.unheard += 1;
        if ear.unheard >= ASKED && ear.hearing != Hearing::Unheard {
            ear.judge_at.get_or_insert(now + PATIENCE);
        }
    }

    /// What was called to everybody came by a link, whoever said it.
    pub fn heard(&mut self, link: &Link) {
        if let Some(ear) = self.0.iter_mut().find(|ear| ear.addr == link.addr) {
            (ear.hearing, ear.unheard, ear.judge_at) = (Hearing::Heard, 0, None);
        }
    }

    /// Whether nothing comes on some link.
    pub fn is_deaf(&self) -> bool {
        self.0.iter().any(|ear| ear.hearing == Hearing::Unheard)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        for ear in self.0.iter_mut().filter(|ear| ear.judge_at.is_some_and(|at| at <= now)) {
            (ear.hearing, ear.judge_at) = (Hearing::Unheard, None);
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.0.iter().filter_map(|ear| ear.judge_at).min()
    }

    pub fn status(&self) -> Vec<LinkStatus> {
        let status = |ear: &Ear| LinkStatus { addr: ear.addr.ip(), hearing: ear.hearing };
        self.0.iter().map(status).collect()
    }
}
