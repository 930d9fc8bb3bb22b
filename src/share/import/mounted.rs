//! Filesystems mounted in a shared folder, with `--cross-mounts`: each is believed as the folder itself is.
//!
//! A disk that is missing leaves an empty folder, and another disk in its place has other files; neither means that what
//! was shared was deleted. So what is mounted is known by its [`Identity`], which the ledger keeps. At a mount point where
//! nothing is mounted any more what the drive holds stays. Of another filesystem than before nothing is taken, unless at
//! least half of the drive's names are in it.

use super::super::mounts::Mounts;
use super::super::place::{drive_path, locate};
use super::super::root::Identity;
use super::super::scan::{Scan, scan_in};
use super::changes::{is_below, leaves_below};
use super::{Import, Report, Trust};
use crate::hyper::core::storage::StorageError;
use crate::hyper::drive::Found;
use crate::path::DrivePath;
use std::collections::BTreeMap;

const GONE: &str = "nothing is mounted there any more: what it held stays in the drive";
const OTHER: &str = "another filesystem is mounted there, with other files: what was shared stays in the drive; if it is \
                     meant, start again with --replace";

/// Mount points, and what is mounted there; none where it cannot be looked at.
type Mounted = BTreeMap<DrivePath, Option<Identity>>;

impl Import<'_> {
    /// What is in the folder at and below `path`, without what is not believed.
    pub(super) fn scan(&self, path: &DrivePath, report: &mut Report) -> Result<Scan, StorageError> {
        let at_first = Mounts::below(self.rules.folder());
        let before = self.mounted(path);
        let mut scan = self.scan_open(path, report);
        let now = Mounts::below(self.rules.folder());
        let (at_first, now) = match (at_first, now) {
            (Ok(at_first), Ok(now)) => (at_first, now),
            (Err(error), _) | (_, Err(error)) => {
                scan.blind = Some(error.to_string());
                return Ok(scan);
            }
        };
        for at in at_first.changed(&now) {
            let at = drive_path(self.rules.folder(), at);
            if let Some(at) = at.filter(|at| is_below(at, path) || is_below(path, at)) {
                disbelieve(&mut scan, &at);
                scan.again.push(at);
            }
        }
        let known = self.ledger.crossed()?;
        if before.is_empty() && known.is_empty() && scan.crossed.is_empty() {
            return Ok(scan);
        }
        let after = self.mounted(path);
        for at in known.keys() {
            let looked_at = is_below(at, path);
            if (looked_at || is_below(path, at)) && !after.contains_key(at) {
                if looked_at {
                    report.warnings.push((locate(self.rules.folder(), at), GONE.into()));
                }
                scan.unknown.push(at.clone());
            }
        }
        let crossed = std::mem::take(&mut scan.crossed);
        let above = after.keys().filter(|at| *at != path && is_below(path, at));
        for at in above.cloned().chain(crossed) {
            let now = after.get(&at).copied().flatten();
            let stood_still = before.get(&at).copied().flatten() == now;
            let same = |known: &Identity| now.is_some_and(|now| now.is(known));
            let is_known = known.get(&at).is_some_and(|known| known.as_ref().is_some_and(same));
            match now {
                Some(_) if stood_still && is_known => {}
                Some(now) if stood_still && self.is_accepted(path, &at, &scan) => {
                    self.ledger.note_crossed(&at, &now);
                }
                // Nobody knows what it is, at this moment.
                None => {
                    disbelieve(&mut scan, &at);
                    scan.again.push(at);
                }
                _ => {
                    report.warnings.push((locate(self.rules.folder(), &at), OTHER.into()));
                    disbelieve(&mut scan, &at);
                }
            }
        }
        self.ledger.write()?;
        Ok(scan)
    }

    /// Without what is new in folders of which it is not known what is to be left out.
    fn scan_open(&self, path: &DrivePath, report: &mut Report) -> Scan {
        let mut scan = scan_in(self.rules, self.held, path);
        report.warnings.append(&mut scan.warnings);
        if !scan.closed.is_empty() {
            let closed = std::mem::take(&mut scan.closed);
            let is_open = |path: &DrivePath| !closed.iter().any(|dir| is_below(path, dir));
            let is_old = |path: &DrivePath| {
                matches!(self.index.lookup(path), Some(Found::File(_) | Found::Link(_)))
            };
            scan.found.retain(|local| is_open(&local.path) || is_old(&local.path));
            scan.empty.retain(|dir| is_open(dir) || self.is_kept(dir));
        }
        scan
    }

    /// Whether another filesystem than before is taken for what was shared at `at`.
    fn is_accepted(&self, path: &DrivePath, at: &DrivePath, scan: &Scan) -> bool {
        if self.trust == Trust::Meant {
            return true;
        }
        let had = leaves_below(self.index, at).len();
        // A look at a part of it cannot tell; one at everything is on its way.
        let whole = is_below(at, path);
        let below = scan.found.iter().filter(|local| is_below(&local.path, at));
        let there = below.filter(|local| self.is_there(local)).count();
        had == 0 || (whole && there * 2 >= had)
    }

    /// What is mounted, and shared, above and below `path`.
    fn mounted(&self, path: &DrivePath) -> Mounted {
        // Who cannot tell what is mounted has said so.
        let Ok(judge) = self.rules.begin() else { return Mounted::new() };
        let shared = judge.mounts().paths().filter(|full| judge.hidden(full).is_none());
        let shared = shared.filter_map(|full| drive_path(self.rules.folder(), full));
        let near = shared.filter(|at| is_below(at, path) || is_below(path, at));
        near.map(|at| {
            let identity = Identity::of(&locate(self.rules.folder(), &at)).ok();
            (at, identity)
        })
        .collect()
    }
}

/// Forgets what was found at and below `at`: what the drive holds there stays.
fn disbelieve(scan: &mut Scan, at: &DrivePath) {
    scan.found.retain(|local| !is_below(&local.path, at));
    scan.empty.retain(|dir| !is_below(dir, at));
    scan.unknown.push(at.clone());
}
