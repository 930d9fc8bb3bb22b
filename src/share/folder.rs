//! The folder of a share through all that may happen to it: when it is followed, and when the drive stays as it is.
//!
//! | the folder | the drive |
//! |---|---|
//! | is the one that was shared | follows it |
//! | is gone, or cannot be looked at | stays |
//! | is another one, of another filesystem | stays, unless at least half of its names are in it |
//! | is another one in the same place, or empty at a start | follows what is added; what is missing stays |
//!
//! What was added from another folder says nothing for that folder: only names that were there before count for half.
//!
//! "Replace" is the user's word that all of it is meant.

use super::beneath::Beneath;
use super::import::{Report, Trust};
use super::ledger::{Ledger, SharedRoot};
use super::root::{Identity, Root, Standing};
use crate::hyper::core::storage::StorageError;
use crate::path::DrivePath;
use std::path::Path;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing was compared yet.
    Starting,
    Followed,
    /// What is missing stays.
    Additions(Identity),
    /// Not looked at; the reason.
    Away(String),
}

/// See the module.
pub struct Folder {
    root: Root,
    state: State,
    replace: bool,
    /// It was seen to be moved or deleted, and no look has told yet what came of that.
    replaced: bool,
}

/// A look at the folder that may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub trust: Trust,
    identity: Identity,
}

impl Folder {
    /// `known` is the folder that was shared before; none at the first time.
    pub fn new(path: &Path, now: Identity, known: Option<Identity>, replace: bool) -> Self {
        let root = Root::new(path.to_path_buf(), known.unwrap_or(now));
        Self { root, state: State::Starting, replace, replaced: false }
    }

    /// Whether the folder may be looked at, and how far it is believed. `whole` if all of it is looked at, `replaced` if
    /// it was seen to be moved or deleted, which counts until a look is taken in. The text is to be told.
    pub fn look(&mut self, whole: bool, replaced: bool) -> (Option<Look>, Option<String>) {
        self.replaced |= replaced;
        let Some(identity) = self.root.now() else {
            let why = match self.root.standing() {
                Standing::Missing(why) => why,
                _ => "it was away for a moment".into(),
            };
            return (None, self.away(why));
        };
        let judged_before = self.state == State::Additions(identity);
        let trust = match self.root.standing() {
            // It may be there, and not to be read.
            Standing::Missing(why) => return (None, self.away(why)),
            _ if self.replace => Trust::Meant,
            _ if judged_before => Trust::Additions,
            Standing::Same if self.replaced => Trust::IfHalf,
            Standing::Same if self.state == State::Followed => Trust::Full,
            Standing::Same => Trust::IfAny,
            Standing::Replaced => Trust::IfHalf,
            Standing::Elsewhere => Trust::OnlyHalf,
        };
        let judged = !matches!(trust, Trust::Full | Trust::Meant | Trust::Additions);
        if judged && !whole {
            // The look at everything is on its way.
            return (None, None);
        }
        (Some(Look { trust, identity }), None)
    }

    /// Whether the folder is not followed before all of it was looked at once more. No event need tell when that can be.
    pub fn awaits_look(&self) -> bool {
        matches!(self.state, State::Starting | State::Away(_))
    }

    /// Whether the folder is still the one that `look` was for.
    fn is_still(&self, look: &Look) -> bool {
        self.root.now() == Some(look.identity)
    }

    /// Whether what is held is the folder that `look` was for, and still in its place.
    pub fn holds(&self, look: &Look, held: &Beneath) -> bool {
        held.is_at(self.root.path())
            && Identity::of_held(held).is_ok_and(|held| held == look.identity)
    }

    /// Takes in what a look brought. The text is to be told.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn looked(
        &mut self,
        look: &Look,
        whole: bool,
        report: &Report,
        ledger: &Ledger,
    ) -> Result<Option<String>, StorageError> {
        let path = self.root.path().display().to_string();
        if let Some(why) = &report.blind {
            return Ok(self.away(format!("it cannot be told what is mounted in it: {why}")));
        }
        if report.refused {
            let moved = report.again.iter().any(DrivePath::is_root);
            if moved || !self.is_still(look) {
                return Ok(None);
            }
            let why = "it is on another filesystem, with other files: a disk is missing, or another one is there; if that \
                       is meant, start again with --replace";
            return Ok(self.away(why.into()));
        }
        if !whole {
            return Ok(None);
        }
        self.replaced = false;
        if report.kept > 0 {
            let state = State::Additions(look.identity);
            if self.state == state {
                return Ok(None);
            }
            self.state = state;
            let what =
                if report.files == 0 { "is empty" } else { "is not the folder that was shared" };
            let names = match report.kept {
                1 => "1 name".to_string(),
                n => format!("{n} names"),
            };
            return Ok(Some(format!(
                "{path} {what}: the drive keeps what it lacks, {names}; if they were deleted on purpose, start again \
                 with --replace"
            )));
        }
        let back = matches!(self.state, State::Away(_) | State::Additions(_));
        let changed = self.state == State::Starting || self.root.known() != look.identity;
        (self.state, self.replace) = (State::Followed, false);
        self.root.adopt(look.identity);
        if changed || back {
            ledger.forget_guests()?;
        }
        if changed {
            let root = SharedRoot { path: self.root.path().to_path_buf(), identity: look.identity };
            // That waits until all that was noted of the files is on the disk. They can be read again, but of what is
            // mounted only the notes tell that it was there.
            if ledger.root()?.as_ref() != Some(&root) || !ledger.crossed()?.is_empty() {
                ledger.set_root(&root)?;
            }
        }
        Ok(back.then(|| format!("{path} is back and followed again")))
    }

    fn away(&mut self, why: String) -> Option<String> {
        let text = format!(
            "{} cannot be followed ({why}): the drive stays as it is until the folder is back",
            self.root.path().display()
        );
        // What is there next is judged as at a start.
        self.replaced = false;
        let state = State::Away(why);
        let new = self.state != state;
        self.state = state;
        new.then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::core::storage::memory;
    use crate::key::CoreKey;
    use std::collections::BTreeSet;

    /// It moves again while it is looked at for that: the next look must not believe it any more than this one did.
    #[test]
    fn a_folder_that_was_replaced_is_judged_until_a_look_is_taken_in() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(memory(), CoreKey([1; 32]));
        let mut folder = Folder::new(dir.path(), Identity::of(dir.path()).unwrap(), None, false);
        let mut look = |whole, replaced, report: &Report| {
            let look = folder.look(whole, replaced).0;
            if let Some(look) = &look {
                folder.looked(look, whole, report, &ledger).unwrap();
            }
            look.map(|look| look.trust)
        };
        let (done, root) = (Report::default(), DrivePath::root());
        let moved = Report { refused: true, again: BTreeSet::from([root]), ..Report::default() };
        assert_eq!(look(true, false, &done), Some(Trust::IfAny));
        assert_eq!(look(true, false, &done), Some(Trust::Full));
        assert_eq!(look(true, true, &moved), Some(Trust::IfHalf));
        assert_eq!(look(false, false, &done), None, "a part of it tells nothing");
        assert_eq!(look(true, false, &moved), Some(Trust::IfHalf));
        assert_eq!(look(true, false, &done), Some(Trust::IfHalf));
        assert_eq!(look(true, false, &done), Some(Trust::Full));
    }
}
