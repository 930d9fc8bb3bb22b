//! What of a folder is shared: not what patterns leave out, not other filesystems, and never a store of drives.
//!
//! Patterns are those of `.gitignore`, read from `--exclude` and from files called `.hdriveignore` in the folder and
//! below it ([`super::patterns`]); a deeper file has the last word, and `--exclude` has it over all. What lies in a folder that is left out
//! is left out with it.

use super::beneath::Beneath;
use super::errors::is_gone;
use super::meta::Meta;
use super::mounts::Mounts;
use super::patterns::{IGNORE_FILE, IgnoreFiles, Patterns, Said, without_alternates};
use super::place::{locate, near};
use super::stores::{FileId, looks_like_store};
use crate::path::DrivePath;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::CWD;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

const STORE: &str = "this looks like a store of drives: secret keys are never shared";
const BACKSLASH: &str = "other programs cannot get at a name with a backslash";
const OWN_MOUNT: &str = "a drive is mounted here: share it by its key, with `hdrive seed`";
const MOUNT: &str = "another filesystem is mounted here: --cross-mounts takes it too";

const BEFORE: &str = "what it said before is left out until it can be read";
const UNKNOWN: &str = "nothing new in its folder is shared until it can be read";

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Rules {
    folder: PathBuf,
    excluded: Gitignore,
    /// What `.hdriveignore` says; none if it does not count.
    ignore_files: Option<IgnoreFiles>,
    cross_mounts: bool,
    /// The store in use.
    store: Option<FileId>,
}

/// What is done with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Shared,
    /// The user wants it left out.
    Excluded,
    /// It cannot be shared; the reason is told.
    Refused(&'static str),
    /// The same, and what the drive holds at and below it is left as it is: what was there is only hidden.
    Hidden(&'static str),
}

impl Rules {
    /// Everything in `folder`, but for stores: for what is named by itself, wherever it is mounted.
    pub fn all(folder: &Path) -> Self {
        Self {
            folder: folder.to_path_buf(),
            excluded: Gitignore::empty(),
            ignore_files: None,
            cross_mounts: true,
            store: None,
        }
    }

    /// What `share` takes of `folder`.
    ///
    /// # Errors
    /// A pattern that makes no sense, with the reason.
    pub fn of_share(
        folder: &Path,
        exclude: &[String],
        cross_mounts: bool,
        store: Option<FileId>,
    ) -> Result<Self, String> {
        let excluded = excluded(folder, exclude)?;
        let ignore_files = Some(IgnoreFiles::default());
        Ok(Self { folder: folder.to_path_buf(), excluded, ignore_files, cross_mounts, store })
    }

    /// What `put` takes of `folder`: what `share` would. The store in use is known by what it looks like.
    ///
    /// # Errors
    /// As [`Self::of_share`].
    pub fn of_put(folder: &Path, exclude: &[String], cross_mounts: bool) -> Result<Self, String> {
        Self::of_share(folder, exclude, cross_mounts, None)
    }

    /// The rules as the folder has them now.
    ///
    /// # Errors
    /// When it cannot be told what is mounted in it.
    pub fn begin(&self) -> io::Result<Judge<'_>> {
        let mounts = Mounts::below(&self.folder)?;
        Ok(Judge { rules: self, mounts, ignores: HashMap::new(), warnings: Vec::new() })
    }

    /// The folder, to be looked at and read.
    ///
    /// # Errors
    /// When it is not there.
    pub fn hold(&self) -> io::Result<Beneath> {
        Beneath::new(&self.folder, self.cross_mounts)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn ignore_files(&self) -> Option<&IgnoreFiles> {
        self.ignore_files.as_ref()
    }
}

/// The patterns of `--exclude`.
fn excluded(folder: &Path, patterns: &[String]) -> Result<Gitignore, String> {
    let mut builder = GitignoreBuilder::new(folder);
    for pattern in patterns {
        let added = builder.add_line(None, &without_alternates(pattern));
        added.map_err(|error| error.to_string())?;
    }
    builder.build().map_err(|error| error.to_string())
}

/// Rules for one look at the folder; files with patterns are read once.
pub struct Judge<'a> {
    rules: &'a Rules,
    mounts: Mounts,
    ignores: HashMap<DrivePath, Option<Patterns>>,
    warnings: Vec<(PathBuf, String)>,
}

impl Judge<'_> {
    pub fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// Whether all folders above `path` are shared.
    ///
    /// # Errors
    /// When one cannot be looked at: then nobody knows.
    pub fn reaches(&mut self, path: &DrivePath) -> io::Result<Verdict> {
        let mut above: Vec<DrivePath> =
            std::iter::successors(path.parent(), DrivePath::parent).collect();
        above.reverse();
        for dir in above.iter().filter(|dir| !dir.is_root()) {
            let full = locate(&self.rules.folder, dir);
            if let Some(hidden) = self.hidden(&full) {
                return Ok(hidden);
            }
            let meta = match Meta::at(CWD, near(&full).path()) {
                Err(error) if is_gone(&error) => continue,
                meta => meta?,
            };
            match self.judge(dir, &full, &meta)? {
                Verdict::Shared => {}
                other => return Ok(other),
            }
        }
        Ok(Verdict::Shared)
    }

    /// Whether something is mounted at `full` that is not shared; nobody need look at it to know.
    pub fn hidden(&self, full: &Path) -> Option<Verdict> {
        match self.mounts.at(full)? {
            mount if mount.is_ours() => Some(Verdict::Hidden(OWN_MOUNT)),
            _ if !self.rules.cross_mounts => Some(Verdict::Hidden(MOUNT)),
            _ => None,
        }
    }

    /// What becomes of `path`, whose folder is shared, and where nothing is [`Self::hidden`].
    ///
    /// # Errors
    /// When it cannot be told at the moment whether it is a store.
    pub fn judge(&mut self, path: &DrivePath, full: &Path, meta: &Meta) -> io::Result<Verdict> {
        if self.is_excluded(path, full, meta.is_dir()) {
            return Ok(Verdict::Excluded);
        }
        if path.name().contains('\\') {
            return Ok(Verdict::Refused(BACKSLASH));
        }
        if meta.is_dir() {
            let own = self.rules.store.is_some_and(|store| store == meta.file);
            if own || looks_like_store(near(full).path())? {
                return Ok(Verdict::Refused(STORE));
            }
        }
        Ok(Verdict::Shared)
    }

    /// Whether patterns leave `path` out; those of folders above may leave it out with them.
    pub fn is_excluded(&mut self, path: &DrivePath, full: &Path, is_dir: bool) -> bool {
        if path.is_root() {
            return false;
        }
        match self.rules.excluded.matched(full, is_dir) {
            Match::Ignore(_) => return true,
            Match::Whitelist(_) => return false,
            Match::None => {}
        }
        for dir in std::iter::successors(path.parent(), DrivePath::parent) {
            match self.ignores(&dir).map(|patterns| patterns.say(full, is_dir)) {
                Some(Said::Out) => return true,
                Some(Said::In) => return false,
                Some(Said::Nothing) | None => {}
            }
        }
        false
    }

    /// The patterns of a folder's own file.
    fn ignores(&mut self, dir: &DrivePath) -> Option<&Patterns> {
        let files = self.rules.ignore_files.as_ref()?;
        if !self.ignores.contains_key(dir) {
            let folder = &self.rules.folder;
            let found = files.of(folder, dir, Instant::now());
            let wrong = match &found {
                Some(Patterns::Before(_, why)) => Some((why, BEFORE)),
                Some(Patterns::Unknown(why)) => Some((why, UNKNOWN)),
                _ => None,
            };
            if let Some((why, what)) = wrong {
                let file = locate(folder, dir).join(IGNORE_FILE);
                self.warnings.push((file, format!("{why}: {what}")));
            }
            self.ignores.insert(dir.clone(), found);
        }
        self.ignores.get(dir)?.as_ref()
    }

    /// Folders of which nobody knows what is to be left out: nothing new in them is shared.
    pub fn unknown(&self) -> Vec<DrivePath> {
        let unknown = |found: &Option<Patterns>| matches!(found, Some(Patterns::Unknown(_)));
        let dirs = self.ignores.iter().filter(|(_, found)| unknown(found));
        dirs.map(|(dir, _)| dir.clone()).collect()
    }

    /// Folders whose file of patterns could not be read.
    pub fn unread(&self) -> Vec<DrivePath> {
        let unread = |found: &Option<Patterns>| {
            matches!(found, Some(Patterns::Before(..) | Patterns::Unknown(_)))
        };
        self.ignores.iter().filter(|(_, found)| unread(found)).map(|(dir, _)| dir.clone()).collect()
    }

    /// Whether [`Self::unknown`] has this folder.
    pub fn is_unknown(&mut self, dir: &DrivePath) -> bool {
        matches!(self.ignores(dir), Some(Patterns::Unknown(_)))
    }

    /// What is wrong with files of patterns.
    pub fn warnings(&mut self) -> Vec<(PathBuf, String)> {
        std::mem::take(&mut self.warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn shared(rules: &Rules, name: &str) -> bool {
        let path = DrivePath::from_user(name).unwrap();
        let full = locate(rules.folder(), &path);
        let mut judge = rules.begin().unwrap();
        let meta = Meta::at(CWD, &full).unwrap();
        judge.reaches(&path).unwrap() == Verdict::Shared
            && judge.judge(&path, &full, &meta).unwrap() == Verdict::Shared
    }

    #[test]
    fn patterns_leave_out_and_take_back_as_those_of_git() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/target/deep")).unwrap();
        for name in ["x.log", "keep.log", "a/y.log", "a/target/deep/z", "a/file", "secret.key"] {
            fs::write(at(name), "").unwrap();
        }
        fs::write(at(IGNORE_FILE), "# comment\n*.log\n!keep.log\ntarget/\n").unwrap();
        fs::write(at("a").join(IGNORE_FILE), "!y.log\n").unwrap();
        let rules = Rules::of_share(dir.path(), &["*.key".into()], false, None).unwrap();
        let cases = [
            ("x.log", false),
            ("keep.log", true),
            ("a/y.log", true),
            ("a/target", false),
            ("a/target/deep/z", false),
            ("a/file", true),
            ("secret.key", false),
        ];
        for (name, wanted) in cases {
            assert_eq!(shared(&rules, name), wanted, "{name}");
        }
        assert!(shared(&Rules::all(dir.path()), "x.log"));
        assert!(Rules::of_share(dir.path(), &["[z-a]".into()], false, None).is_err());
    }

    #[test]
    fn the_store_in_use_is_known_by_its_inode() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("any name")).unwrap();
        let meta = fs::symlink_metadata(dir.path().join("any name")).unwrap();
        let rules = Rules::of_share(dir.path(), &[], false, Some(FileId::of(&meta))).unwrap();
        assert!(!shared(&rules, "any name"));
    }
}
