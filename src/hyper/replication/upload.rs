//! The requests of one peer that wait for an answer.
//!
//! They are answered in order of arrival, those with priority first, and only while the connection has
//! not much queued: a peer that reads slowly never makes us read its blocks from disk ahead of time.

use super::held::JOB;
use super::wire::{RequestMessage, Want};
use std::collections::{BTreeMap, HashMap};

/// Something to be answered.
#[derive(Debug)]
pub(super) enum Job {
    Request(RequestMessage),
    /// A want; its answer is a quarter of a megabyte at most, so it queues as well.
    Want(Want),
}

/// Wants that wait at a time; the reference has 512 windows per peer.
const MAX_WANTS: usize = 512;

#[derive(Debug, Default)]
pub(super) struct UploadQueue {
    /// Not priority, sequence.
    jobs: BTreeMap<(bool, u64), Job>,
    by_id: HashMap<u64, (bool, u64)>,
    wants: usize,
    next: u64,
}

impl UploadQueue {
    /// Takes a request; one of the same id is replaced. False if there are `max` already.
    pub fn push(&mut self, message: RequestMessage, max: usize) -> bool {
        self.cancel(message.id);
        if self.by_id.len() >= max {
            return false;
        }
        let at = self.place(message.request.priority == 0);
        self.by_id.insert(message.id, at);
        self.jobs.insert(at, Job::Request(message));
        true
    }

    /// Takes a want; beyond the bound it is dropped.
    pub fn push_want(&mut self, want: Want) {
        if self.wants < MAX_WANTS {
            self.wants += 1;
            let at = self.place(false);
            self.jobs.insert(at, Job::Want(want));
        }
    }

    pub fn cancel(&mut self, id: u64) {
        if let Some(at) = self.by_id.remove(&id) {
            self.jobs.remove(&at);
        }
    }

    pub fn pop(&mut self) -> Option<Job> {
        let (_, job) = self.jobs.pop_first()?;
        match &job {
            Job::Request(message) => drop(self.by_id.remove(&message.id)),
            Job::Want(_) => self.wants -= 1,
        }
        Some(job)
    }

    /// Bytes that this holds, about.
    pub fn held(&self) -> usize {
        self.jobs.len() * JOB
    }

    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    fn place(&mut self, ordinary: bool) -> (bool, u64) {
        self.next += 1;
        (ordinary, self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::core::message::Request;

    fn request(id: u64, priority: u64) -> RequestMessage {
        RequestMessage { id, fork: 0, request: Request { priority, ..Request::default() } }
    }

    fn ids(queue: &mut UploadQueue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop())
            .map(|job| match job {
                Job::Request(message) => message.id,
                Job::Want(_) => 0,
            })
            .collect()
    }

    #[test]
    fn priority_first_then_order_of_arrival() {
        let mut queue = UploadQueue::default();
        for (id, priority) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
            assert!(queue.push(request(id, priority), 10));
        }
        assert_eq!(ids(&mut queue), [2, 4, 1, 3]);
    }

    #[test]
    fn a_full_queue_refuses_and_a_cancel_makes_room() {
        let mut queue = UploadQueue::default();
        assert!(queue.push(request(1, 0), 2) && queue.push(request(2, 0), 2));
        assert!(!queue.push(request(3, 0), 2));
        assert!(queue.push(request(1, 1), 2), "the same id replaces");
        queue.cancel(2);
        assert!(queue.push(request(3, 0), 2));
        assert_eq!(ids(&mut queue), [1, 3]);
        assert!(queue.is_empty());
    }
}
