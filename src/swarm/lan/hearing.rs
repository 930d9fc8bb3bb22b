//! Whether our own calls are heard here: where they are not, neighbours hear none of them either, or we none of theirs.
//!
//! What is called to everybody comes back to the host that called. Where it does not, a firewall keeps it, most likely this
//! machine's own, and nobody finds anybody. Nothing is sent for it that was not to be sent anyway.

use super::ASKED;
use super::link::Link;
use super::message::Nonce;
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
    /// Of the last call, and how many were made since one was heard.
    nonce: Nonce,
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
            nonce: Nonce::default(),
            unheard: 0,
            judge_at: None,
        };
        self.0 = links.iter().map(ear).collect();
    }

    /// Everybody is called on a link.
    pub fn called(&mut self, link: &Link, nonce: Nonce, now: Instant) {
        let Some(ear) = self.0.iter_mut().find(|ear| ear.addr == link.addr) else { return };
        (ear.nonce, ear.unheard) = (nonce, ear.unheard + 1);
        if ear.unheard >= ASKED && ear.hearing != Hearing::Unheard {
            ear.judge_at.get_or_insert(now + PATIENCE);
        }
    }

    /// A call came that has an address of ours: another host may have put that there, but knows no nonce before.
    pub fn heard(&mut self, from: &SocketAddr, nonce: &Nonce) {
        let is_its = |ear: &&mut Ear| ear.addr == *from && ear.nonce == *nonce;
        if let Some(ear) = self.0.iter_mut().find(is_its).filter(|ear| ear.unheard > 0) {
            (ear.hearing, ear.unheard, ear.judge_at) = (Hearing::Heard, 0, None);
        }
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
