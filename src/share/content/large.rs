//! Large files: too much to be held until it is known that the reading was whole, so they are stored as they are read.
//!
//! The first reading of a file is, and ends at once if somebody writes into it meanwhile. What was stored by then is named by
//! nothing. So that this stays all that a file costs which never rests, the next readings store nothing before one has
//! shown that the file stays as it is for so long, or only grows; the ledger remembers that. If the one after it comes to
//! nothing all the same, the file has to rest the longer the more often that happened, and what was stored is what the
//! next is compared with, so that only what changed since is stored again.

use super::super::ledger::{Seen, Torn, head, print};
use super::super::scan::Look;
use super::super::stores::is_store_database;
use super::attempt::{Earlier, Part, Reading};
use super::reading::{Content, ReadPart};
use super::{Group, Stored, Wanted, input, now_ns};
use crate::crypto::hash::{Hash, Hasher};
use crate::hyper::blobs::{BlobError, BlobId};
use crate::hyper::source::SourceError;
use std::fs::File;
use std::io::Read;
use std::time::Duration;

/// A file of which two stored readings came to nothing must have rested for twice this before the next, and for each further
/// one twice as long, up to 17 minutes.
const TORN_REST: Duration = Duration::from_millis(250);
const MAX_DOUBLED: u64 = 12;

/// Bytes that are read at a time where nothing is kept of them.
const STEP: usize = 1 << 20;

/// What a file held at one moment.
struct Proof {
    look: Look,
    size: u64,
    hash: Hash,
    /// It does not rest, but it does nothing else than grow.
    grows: bool,
}

/// What a reading is of.
struct Source<'a> {
    file: &'a File,
    before: Look,
    /// What it begins with, and how much of it is read.
    begins: Vec<u8>,
    size: u64,
    /// It was read before, and was whole: now it is read to its end.
    proven: bool,
    /// That was because it rested.
    rests: bool,
    may_wait: bool,
}

/// What one reading gave.
enum Taken {
    Blob(BlobId),
    /// Another file that is not in the drive yet may hold the same.
    Later,
    /// Somebody wrote into it; what was stored by then.
    Torn(Option<BlobId>),
}

impl Group<'_> {
    /// None if it has to be tried in the next round.
    pub(super) fn read_large(
        &mut self,
        wanted: &Wanted<'_>,
        reading: &mut Reading,
        file: &File,
        before: Look,
    ) -> Result<Option<Stored>, BlobError> {
        let ledger = self.contents.ledger;
        let seen = Seen::of(&before.stamp, now_ns());
        let begins = head(file, before.size).map_err(input)?;
        if is_store_database(&begins, file).map_err(input)? {
            return Ok(Some(Stored::Secret));
        }
        let torn = ledger.torn(wanted.name);
        let torn = torn.map_err(|error| SourceError::Storage(error.to_string()))?;
        let proof = match reading.tries == 0 && torn.times == 0 {
            true => None,
            false => match self.prove(reading, file, before)? {
                Some(proof) => Some(proof),
                None => return Ok(reading.failed()),
            },
        };
        let size = proof.as_ref().map_or(before.size, |proof| proof.size);
        let rests = proof.as_ref().is_some_and(|proof| !proof.grows);
        // Who asks for it by a command pays for it once.
        if rests && !self.contents.all_or_nothing && is_fresh(&before, &torn) {
            return Ok(Some(Stored::Fresh));
        }
        let (proven, may_wait) = (proof.is_some(), !reading.waited);
        let source = Source { file, before, begins, size, proven, rests, may_wait };
        let (id, stored) = match self.store_large(source, [torn.last, wanted.old])? {
            Taken::Blob(id) => (Some(id), Some(id)),
            Taken::Torn(stored) => (None, stored),
            Taken::Later => {
                reading.waited = true;
                return Ok(None);
            }
        };
        if let Some(id) = id {
            let now = Look::at(file).map_err(input)?;
            let (look, is_now) = match &proof {
                Some(proof) => (proof.look, !proof.grows && now == before),
                None => (before, now == before),
            };
            // Whatever became of the file since: this is what it held then.
            let is_then = !is_now && proof.is_some_and(|proof| self.holds(&id, &proof));
            if is_now || is_then {
                if torn.times > 0 {
                    ledger.forget_torn(wanted.name);
                }
                let seen = if is_now { seen } else { Seen::unsure(&before.stamp) };
                return Ok(Some(Stored::Blob(id, look, seen)));
            }
        }
        if stored.is_some() {
            // So that it can be compared with.
            self.writer.flush()?;
            ledger.note_torn(wanted.name, &Torn { times: torn.times + 1, last: stored });
        }
        Ok(reading.failed())
    }

    /// Reads a file, and stores nothing. None if it changed meanwhile, unless it only grows and held the same before.
    fn prove(
        &self,
        reading: &mut Reading,
        file: &File,
        before: Look,
    ) -> Result<Option<Proof>, BlobError> {
        let size = match reading.earlier.as_deref() {
            // Of one that grows, once no more than before: then they may agree.
            Some(Earlier { what: Part::Large(_, size), .. }) if reading.tries == 2 => *size,
            _ => before.size,
        };
        let still = Some((before, true));
        let mut content = Content::new((self.contents, self.done), file, size, still);
        let (mut hasher, mut buf) = (Hasher::default(), vec![0; STEP]);
        loop {
            match content.read(&mut buf) {
                Ok(0) if content.is_torn() => return Ok(None),
                Ok(0) => break,
                Ok(n) => hasher.update(&buf[..n]),
                Err(error) => return Err(input(error)),
            }
        }
        let (hash, after) = (hasher.finish(), Look::at(file).map_err(input)?);
        if size == before.size && after == before {
            return Ok(Some(Proof { look: before, size, hash, grows: false }));
        }
        let now = Earlier { before, after, what: Part::Large(hash, size) };
        let earlier = reading.earlier.take();
        if let Some(earlier) = earlier.filter(|earlier| earlier.is_confirmed_by(&now)) {
            return Ok(Some(Proof { look: earlier.before, size, hash, grows: true }));
        }
        reading.earlier = Some(Box::new(now));
        Ok(None)
    }

    /// Whether a blob is what was read for the proof.
    fn holds(&mut self, id: &BlobId, proof: &Proof) -> bool {
        if self.writer.flush().is_err() {
            return false;
        }
        let reader = self.contents.blobs.reader(*id, Some(proof.size));
        let (mut hasher, mut at) = (Hasher::default(), 0);
        while at < proof.size {
            let Ok(Some(pieces)) = reader.read_local(at, STEP) else { return false };
            let read: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
            if read == 0 {
                return false;
            }
            pieces.iter().for_each(|piece| hasher.update(piece));
            at += read;
        }
        at == proof.size && hasher.finish() == proof.hash
    }

    /// Takes the beginning of a file, by what is known of it: the first of `bases` that it shares much with, or another
    /// content that is equal.
    fn store_large(
        &mut self,
        source: Source<'_>,
        bases: [Option<BlobId>; 2],
    ) -> Result<Taken, BlobError> {
        let Source { file, before, begins, size, proven, rests, may_wait } = source;
        let ledger = self.contents.ledger;
        let still = Some((before, !rests));
        let mut content = Content::new((self.contents, self.done), file, size, still);
        for base in bases.into_iter().flatten() {
            let plan = match self.writer.compare(&base, &mut content) {
                // What the drive says of the old content may be damaged: then it is written anew.
                Err(BlobError::Damaged(_) | BlobError::MapVersion(_)) => continue,
                compared => compared?,
            };
            if content.is_torn() {
                return Ok(Taken::Torn(None));
            }
            let Some(plan) = plan else { continue };
            // It is the less, and all of it is of use the next time.
            content.watch(None);
            let id = self.writer.apply(&base, plan, &mut content)?;
            if id != base
                && let Ok(print) = print(file, begins, size)
            {
                ledger.note_content(&print, &id);
            }
            return Ok(Taken::Blob(id));
        }
        // A file that shrinks at this very moment has no print.
        let print = print(file, begins, size).ok();
        let alike = print.as_ref().map(|print| ledger.contents(print).unwrap_or_default());
        let (here, coming): (Vec<_>, Vec<_>) =
            alike.unwrap_or_default().into_iter().partition(|id| self.is_committed(id));
        let equal = |id: &&BlobId| self.is_content(id, size, |buf, at| content.read_part(buf, at));
        if let Some(id) = here.iter().find(equal) {
            return Ok(Taken::Blob(*id));
        }
        if content.is_torn() {
            return Ok(Taken::Torn(None));
        }
        if may_wait && !coming.is_empty() {
            return Ok(Taken::Later);
        }
        content.at = 0;
        content.watch(still.filter(|_| !proven));
        let id = self.writer.put_long(&mut content, size)?;
        if content.is_torn() {
            return Ok(Taken::Torn(Some(id)));
        }
        if let Some(print) = &print {
            ledger.note_content(print, &id);
        }
        Ok(Taken::Blob(id))
    }
}

/// Whether a file must rest for longer before it is stored, by what became of it before.
fn is_fresh(before: &Look, torn: &Torn) -> bool {
    let Some(doubled @ 1..) = torn.times.checked_sub(1) else { return false };
    let rest = (TORN_REST * (1 << doubled.min(MAX_DOUBLED))).as_nanos() as i64;
    let rested = now_ns().saturating_sub(before.stamp.ctime_ns);
    // The clock of the filesystem may be ahead.
    (0..rest).contains(&rested)
}
