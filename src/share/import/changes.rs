//! What must change in a drive so that it is as a folder.

use super::super::content::now_ns;
use super::super::ledger::Seen;
use super::super::place::{drive_path, locate};
use super::super::scan::{Local, LocalKind, Scan, scan_in};
use super::{Import, Report, Trust};
use crate::hyper::core::storage::StorageError;
use crate::hyper::drive::{Content, Dir, DriveIndex, Found, Leaf, Node};
use crate::path::DrivePath;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::Duration;

/// A file that nothing is remembered of, with a time this recent, is read even if its time and size are those that the
/// drive has: two writes can fall into one millisecond.
const RECENT: Duration = Duration::from_secs(2);

/// What is told of a name that is public and cannot be followed.
const STAYS: &str = "what the drive has of it stays as it was";

/// One change to make.
pub(super) enum Change {
    Write(Local),
    Remove(DrivePath),
    /// An empty folder.
    Keep(DrivePath),
    /// A folder that is not empty any more, or gone.
    Let(DrivePath),
}

impl Change {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Write(local) => local.size(),
            _ => 0,
        }
    }

    pub(super) fn path(&self) -> &DrivePath {
        match self {
            Self::Write(local) => &local.path,
            Self::Remove(path) | Self::Keep(path) | Self::Let(path) => path,
        }
    }

    /// What it puts into the folders above it.
    fn fills(&self) -> Option<&DrivePath> {
        match self {
            Self::Write(local) => Some(&local.path),
            Self::Keep(path) => Some(path),
            Self::Remove(_) | Self::Let(_) => None,
        }
    }
}

impl Import<'_> {
    pub(super) fn changes(
        &self,
        paths: &[DrivePath],
        report: &mut Report,
    ) -> Result<Vec<Change>, StorageError> {
        let told: HashSet<&DrivePath> = paths.iter().collect();
        let mut looks = Vec::new();
        for path in topmost(paths) {
            let scan = self.scan(&path, report)?;
            looks.push((path, scan));
        }
        let linked = self.other_names(&looks)?;
        for path in linked {
            let scan = self.scan(&path, report)?;
            looks.push((path, scan));
        }
        let (mut changes, mut gone) = (Vec::new(), Vec::new());
        let mut there = 0;
        let guests = match self.trust {
            Trust::IfHalf | Trust::OnlyHalf => self.ledger.guests()?,
            _ => HashSet::new(),
        };
        for (path, scan) in looks {
            let before = scan.found.iter().filter(|local| !guests.contains(&local.path));
            there += before.filter(|local| self.is_there(local)).count() as u64;
            self.compare(&path, &told, &scan, &mut changes, &mut gone, report)?;
            report.files += scan.found.len() as u64;
            report.bytes += scan.found.iter().map(Local::size).sum::<u64>();
            let unknown: HashSet<PathBuf> =
                scan.unknown.iter().map(|path| locate(self.rules.folder(), path)).collect();
            for (full, why) in scan.skipped {
                match unknown.contains(&full) {
                    true => self.tell_unfollowed(report, full, why),
                    false => report.skipped.push((full, why)),
                }
            }
            report.again.extend(scan.again);
            report.blind = report.blind.take().or(scan.blind);
        }
        let is_leaf = |path: &&DrivePath| {
            matches!(self.index.lookup(path), Some(Found::File(_) | Found::Link(_)))
        };
        let had = self.index.files() - guests.iter().filter(is_leaf).count() as u64;
        self.judge(report, there, had, gone.len() as u64);
        let additions = report.kept > 0 || self.trust == Trust::Additions;
        if additions {
            let before = gone.len();
            gone.retain(|path| told.contains(path));
            report.kept = (before - gone.len()) as u64;
        }
        if additions {
            changes.retain(|change| !matches!(change, Change::Let(path) if !told.contains(path)));
        }
        self.keep_emptied(&gone, &mut changes, report);
        // First what goes: its name may be needed.
        changes.splice(0..0, gone.into_iter().map(Change::Remove));
        Ok(changes)
    }

    /// Tells of something that cannot be taken in now: it is left out, unless the drive has some of it, which stays.
    pub(super) fn tell_unfollowed(&self, report: &mut Report, full: PathBuf, why: String) {
        let name = drive_path(self.rules.folder(), &full);
        match name.filter(|name| !name.is_root() && self.index.lookup(name).is_some()) {
            Some(_) => report.warnings.push((full, format!("{why}: {STAYS}"))),
            None => report.skipped.push((full, why)),
        }
    }

    /// Whether the drive has a file of this name and size, or a link of this name.
    pub(super) fn is_there(&self, local: &Local) -> bool {
        match (&local.kind, self.index.lookup(&local.path)) {
            (LocalKind::File { size }, Some(Found::File(file))) => file.size() == *size,
            (LocalKind::Symlink { .. }, Some(Found::Link(_))) => true,
            _ => false,
        }
    }

    /// Decides how far a look is believed that found `there` of the names that the drive `had` of the folder that was
    /// shared, and would remove `gone`.
    fn judge(&self, report: &mut Report, there: u64, had: u64, gone: u64) {
        let accepted = match self.trust {
            Trust::Full | Trust::Meant => true,
            Trust::Additions => false,
            Trust::IfAny => report.files > 0 || had == 0,
            Trust::IfHalf | Trust::OnlyHalf => there * 2 >= had,
        };
        if accepted {
            return;
        }
        report.kept = gone;
        report.refused = self.trust == Trust::OnlyHalf;
    }

    /// Further names, in the folder, of the files that were found.
    fn other_names(
        &self,
        looks: &[(DrivePath, Scan)],
    ) -> Result<BTreeSet<DrivePath>, StorageError> {
        let found = || looks.iter().flat_map(|(_, scan)| &scan.found);
        let linked = || {
            let files = found().filter(|local| matches!(local.kind, LocalKind::File { .. }));
            files.filter(|local| local.stamp.names > 1)
        };
        let complete = looks.iter().any(|(path, _)| path.is_root());
        self.ledger.note_links(linked().map(|local| (local.stamp.file.ino, &local.path)), complete);
        let inodes: HashSet<u64> = linked().map(|local| local.stamp.file.ino).collect();
        if complete || inodes.is_empty() {
            return Ok(BTreeSet::new());
        }
        let known: HashSet<&DrivePath> = found().map(|local| &local.path).collect();
        let mut names = self.ledger.names_of(&inodes)?;
        names.retain(|name| !known.contains(name));
        Ok(names)
    }

    /// What must change so that the drive at `path` is as the scan says; what it has too much goes to `gone`.
    pub(super) fn compare(
        &self,
        path: &DrivePath,
        told: &HashSet<&DrivePath>,
        scan: &Scan,
        changes: &mut Vec<Change>,
        gone: &mut Vec<DrivePath>,
        report: &mut Report,
    ) -> Result<(), StorageError> {
        let mut known = leaves_below(self.index, path);
        // Most may be new, and a list that grows is copied again and again.
        changes.reserve(scan.found.len().saturating_sub(known.len()));
        for local in &scan.found {
            let leaf = known.remove(&local.path);
            if !leaf.is_some_and(|leaf| is_same(local, leaf) && self.has_content(leaf))
                || !self.is_untouched(local, told.contains(&local.path))?
            {
                match leaf {
                    Some(Leaf::File(_)) if self.resting.contains(&local.path) => {
                        report.rested.push(local.path.clone());
                    }
                    _ => changes.push(Change::Write(local.clone())),
                }
            } else if path.is_root() {
                report.count_private(local);
            }
        }
        let is_unknown = |path: &DrivePath| scan.unknown.iter().any(|above| is_below(path, above));
        gone.extend(known.into_keys().filter(|path| !is_unknown(path)));

        let empty: HashSet<&DrivePath> = scan.empty.iter().collect();
        let mut kept: Vec<DrivePath> = self.index.kept_below(path);
        if !scan.found.is_empty() || !scan.empty.is_empty() {
            // A folder above is not empty for that.
            let above = std::iter::successors(path.parent(), DrivePath::parent);
            kept.extend(above.filter(|dir| self.is_kept(dir)));
        }
        let filled = kept.iter().filter(|dir| !empty.contains(dir) && !is_unknown(dir));
        changes.extend(filled.cloned().map(Change::Let));
        let kept: HashSet<&DrivePath> = kept.iter().collect();
        let new = scan.empty.iter().filter(|dir| !kept.contains(dir));
        changes.extend(new.cloned().map(Change::Keep));
        Ok(())
    }

    /// Whether the content of a name is here. One that was cleared, or lost, is taken from the folder again.
    fn has_content(&self, leaf: &Leaf) -> bool {
        match leaf {
            Leaf::File(file) => file.blob().is_none_or(|id| self.drive.blobs().is_here(&id)),
            Leaf::Link(_) | Leaf::Special(_) => true,
        }
    }

    /// Whether a file that looks as the drive says it does need not be read. `told` if somebody says it changed.
    fn is_untouched(&self, local: &Local, told: bool) -> Result<bool, StorageError> {
        let LocalKind::File { .. } = local.kind else { return Ok(true) };
        Ok(match self.ledger.seen(&local.path)? {
            Some(seen) => seen.is(&local.stamp) && !self.ledger.is_doubtful(&local.path, &seen),
            // Imported before anything was remembered.
            None if told || is_recent(local.mtime_ms) => false,
            None => {
                self.ledger.note(&local.path, Seen::of(&local.stamp, now_ns()));
                true
            }
        })
    }

    pub(super) fn is_kept(&self, dir: &DrivePath) -> bool {
        self.index.list(dir).is_some_and(|dir| dir.is_kept())
    }

    /// Folders that are empty now because of what goes.
    fn keep_emptied(&self, gone: &[DrivePath], changes: &mut Vec<Change>, report: &mut Report) {
        let is_let = |change: &Change| match change {
            Change::Let(dir) => Some(dir.clone()),
            _ => None,
        };
        let let_go: Vec<DrivePath> = changes.iter().filter_map(is_let).collect();
        let removed: HashSet<&DrivePath> = gone.iter().chain(&let_go).collect();
        // A folder that is let go because something is in it now leaves none empty.
        let mut filled: HashSet<DrivePath> = HashSet::new();
        for path in changes.iter().filter_map(Change::fills).filter(|_| !let_go.is_empty()) {
            let above = std::iter::successors(path.parent(), DrivePath::parent);
            above.take_while(|dir| filled.insert(dir.clone())).for_each(drop);
        }
        let vanished = let_go.iter().filter(|dir| !filled.contains(dir));
        let (mut looked_at, mut kept) = (HashSet::new(), Vec::new());
        for path in gone.iter().chain(vanished) {
            let above = std::iter::successors(path.parent(), DrivePath::parent);
            for dir in above.take_while(|dir| !dir.is_root()) {
                if !looked_at.insert(dir.clone()) {
                    break;
                }
                if self.index.list(&dir).is_some_and(|node| has_rest(node, &dir, &removed)) {
                    break;
                }
                let scan = scan_in(self.rules, self.held, &dir);
                report.again.extend(scan.again);
                if scan.empty.contains(&dir) && !self.is_kept(&dir) {
                    kept.push(dir);
                    break;
                }
            }
        }
        changes.extend(kept.into_iter().map(Change::Keep));
    }
}

/// Whether anything is left in a folder without `removed`.
fn has_rest(dir: &Dir, path: &DrivePath, removed: &HashSet<&DrivePath>) -> bool {
    dir.iter().any(|(name, node)| {
        let Ok(path) = path.join(name) else { return true };
        let leaf = node.leaf().is_some() && !removed.contains(&path);
        let kept = |below: &Dir| below.is_kept() && !removed.contains(&path);
        leaf || node.dir().is_some_and(|below| kept(below) || has_rest(below, &path, removed))
    })
}

/// The paths that lie below no other of them.
pub fn topmost(paths: &[DrivePath]) -> BTreeSet<DrivePath> {
    let all: BTreeSet<&DrivePath> = paths.iter().collect();
    let has_above = |path: &DrivePath| {
        std::iter::successors(path.parent(), DrivePath::parent).any(|above| all.contains(&above))
    };
    all.iter().filter(|path| !has_above(path)).map(|path| (*path).clone()).collect()
}

fn is_same(local: &Local, leaf: &Leaf) -> bool {
    match (&local.kind, leaf) {
        (LocalKind::File { size }, Leaf::File(file)) => {
            file.size() == *size
                && file.mtime_ms() == Some(local.mtime_ms)
                && u32::from(file.permissions()) == local.mode
                && !matches!(file.content, Content::Damaged(_))
        }
        (LocalKind::Symlink { target }, Leaf::Link(link)) => *link.target == **target,
        _ => false,
    }
}

fn is_recent(mtime_ms: i64) -> bool {
    now_ns() / 1_000_000 - mtime_ms < RECENT.as_millis() as i64
}

/// Whether `path` is `dir` or below it.
pub fn is_below(path: &DrivePath, dir: &DrivePath) -> bool {
    dir.is_root()
        || path == dir
        || path.as_str().strip_prefix(dir.as_str()).is_some_and(|rest| rest.starts_with('/'))
}

/// Paths of every file and link of the drive at or below `start`.
pub fn paths_below(index: &DriveIndex, start: &DrivePath) -> Vec<DrivePath> {
    leaves_below(index, start).into_keys().collect()
}

/// Every file and link of the drive at or below `start`, with its path.
pub(super) fn leaves_below<'a>(
    index: &'a DriveIndex,
    start: &DrivePath,
) -> BTreeMap<DrivePath, &'a Leaf> {
    let mut found = BTreeMap::new();
    let mut todo: Vec<(DrivePath, &Node)> = Vec::new();
    let children = |dir: &DrivePath, todo: &mut Vec<(DrivePath, &'a Node)>| {
        if let Some(names) = index.list(dir) {
            todo.extend(names.iter().filter_map(|(name, node)| Some((dir.join(name).ok()?, node))));
        }
    };
    match start.parent() {
        None => children(start, &mut todo),
        Some(parent) => {
            let node = index.list(&parent).and_then(|names| names.get(start.name()));
            todo.extend(node.map(|node| (start.clone(), node)));
        }
    }
    while let Some((path, node)) = todo.pop() {
        if node.dir().is_some() {
            children(&path, &mut todo);
        }
        if let Some(leaf) = node.leaf() {
            found.insert(path, leaf);
        }
    }
    found
}
