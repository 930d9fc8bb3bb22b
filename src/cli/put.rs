//! `hdrive put`: a local file or folder into a drive that this store writes.
//!
//! All of it or nothing: contents are written first, and one change of the drive names them. Ctrl-C before that
//! change leaves the drive as it was. Standard input is taken in before the drive is; nobody else waits for it. Of a
//! folder, what no drive can hold and what cannot be read is left out and told, as by `share`.

use super::args::Put;
use super::context::Context;
use super::drafting::{settle, show_in_mounts};
use super::exit::{Exit, Fail, Failure, Result};
use super::fault::joined;
use super::gate::Gate;
use super::get::from_blob;
use super::output::{Input, Output};
use super::progress::Progress;
use super::share::{claim_change, private_line, refuse_shared};
use super::signals::LAST_WAIT;
use super::spool::{Spool, Taking};
use super::target::{PATIENCE, encryption_key, from_live, resolve, tell_unserved, writable};
use super::waiting::{Waiting, wait_until_shut};
use super::words::count;
use crate::disk;
use crate::hyper::blobs::{BlobError, Writer};
use crate::hyper::drive::{Drive, DriveIndex, Entry, Found};
use crate::key::CoreKey;
use crate::lease::Lease;
use crate::lock::lock;
use crate::node::{DriveUse, Node};
use crate::path::DrivePath;
use crate::share::beneath::Beneath;
use crate::share::content::{Contents, SECRET, Stored, UNSTEADY, Wanted};
use crate::share::import::{file_entry, is_entry_of};
use crate::share::ledger::Ledger;
use crate::share::permit::{Allowed, Permit};
use crate::share::place::locate;
use crate::share::rules::Rules;
use crate::share::scan::{Local, LocalKind, scan_in};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a file cannot be put.
const MOVED: &str = "it is gone, or something was mounted over it: try again";
/// Names left out that are told one by one.
const MAX_TOLD: usize = 100;

pub async fn run(args: Put, cx: Context) -> Result {
    let target = resolve(&cx.node, &args.target)?;
    refuse_shared(&cx.node, target.key)?;
    if target.path.as_str().contains('\\') {
        let text = "other programs cannot get at a name with a backslash: choose another";
        return Err(Failure::new(Exit::Usage, text));
    }
    let live = Arc::new(writable(&cx, &target, encryption_key(&args.secret)?).await?);
    let failed = |error| from_live(&target.key, error);
    let drive = live.drive().await.map_err(failed)?;
    settle(&cx, &live).await?;
    let index = live.current(PATIENCE).await.map_err(failed)?;
    let source = cx.cwd.join(&args.source);
    let from_stdin = args.reads_stdin();
    let lease = Lease::default();
    let job = Arc::new(Job {
        drive: drive.under(&lease),
        lease,
        key: target.key,
        ledger: Ledger::new(cx.node.store().storage().clone(), target.key),
        live: Mutex::new(Some(Arc::clone(&live))),
        path: target.path.clone(),
        progress: cx.out.progress("putting", 0),
        gate: Arc::default(),
        node: Arc::clone(&cx.node),
        out: Arc::clone(&cx.out),
        name: name_of(&cx, target.key)?,
    });
    let working = Arc::clone(&job);
    let mut work = pin!(async move {
        // Whoever types it may take for ever: no thread waits for that.
        let typed = match from_stdin {
            true => working.typed(&index, &args).await.map(Some),
            false => Ok(None),
        };
        let work = move || {
            let done = typed.and_then(|typed| match typed {
                Some(typed) => working.stdin(typed),
                None => working.local(&index, &source, &args),
            });
            working.end();
            done
        };
        joined(disk::ask(work).await)?
    });
    let done = tokio::select! {
        done = &mut work => Some(done),
        () = cx.cancel.cancelled() => match job.gate.shut() {
            true => None,
            // It is being made at this moment.
            false => Some(work.await),
        },
    };
    job.progress.clear();
    let Some(done) = done else {
        // The work may wait for its disk for ever; others go on with the drive.
        let end = tokio::task::spawn_blocking(move || job.end());
        let _ = tokio::time::timeout(LAST_WAIT, end).await;
        return Err(cx.called_off());
    };
    let put = done?;
    cx.node.note_version(&live);
    let entries = put.paths.len() as u64;
    show_in_mounts(&cx, target.key, put.paths).await;
    if let Some(private) = &put.private {
        cx.out.note(private);
    }
    if cx.out.json {
        cx.out.object(&serde_json::json!({"put": {"files": entries, "version": put.version}}));
    } else {
        cx.out.note(format_args!("{} put, version {}", count(entries, "file"), put.version));
    }
    tell_unserved(&cx, target.key, &job.name);
    for (path, why) in put.left_out.iter().take(MAX_TOLD) {
        if cx.room().await.is_err() {
            break;
        }
        cx.out.warn(format_args!("left out: {}: {why}", path.display()));
    }
    if let Some(more) = put.left_out.len().checked_sub(MAX_TOLD).filter(|more| *more > 0) {
        cx.out.warn(format_args!("left out: {more} more"));
    }
    match put.left_out.len() as u64 {
        0 => Ok(()),
        n => Err(Failure::new(Exit::Failed, format_args!("{} left out", count(n, "file")))),
    }
}

struct Done {
    paths: Vec<DrivePath>,
    version: u64,
    /// Told if others could not read all of it here.
    private: Option<String>,
    left_out: Vec<LeftOut>,
}

/// Files and links whose contents are in the drive.
#[derive(Default)]
struct Taken {
    /// What is to be named.
    entries: Vec<(DrivePath, Entry)>,
    left_out: Vec<LeftOut>,
}

/// What is not put, and why.
type LeftOut = (PathBuf, String);

struct Job {
    drive: Drive,
    /// All that the work may write with, and what keeps others from it.
    lease: Lease,
    key: CoreKey,
    ledger: Ledger,
    /// None after the end of the lease.
    live: Mutex<Option<Arc<DriveUse>>>,
    /// Where in the drive.
    path: DrivePath,
    progress: Progress,
    gate: Arc<Gate>,
    node: Arc<Node>,
    out: Arc<Output>,
    /// What people call the drive.
    name: String,
}

impl Job {
    /// All of standard input, which has a place in the drive.
    async fn typed(self: &Arc<Self>, index: &DriveIndex, args: &Put) -> Result<File> {
        check_folder(args, false)?;
        if self.path.is_root() {
            return Err(Failure::new(Exit::Usage, "standard input needs a name: KEY/path"));
        }
        refuse_hiding(index, &self.path)?;
        let arrival = self.out.arrival();
        let store = self.node.config().store.clone();
        let mut spool = joined(disk::ask(move || Spool::new(&store)).await)??;
        loop {
            arrival.come().await;
            let job = Arc::clone(self);
            let take = move || {
                let mut input = job.out.stdin(Arc::clone(&job.gate));
                let taken = spool.take(&mut input, Input::has_more)?;
                if let Taking::More(spool) = &taken {
                    job.progress.set(spool.length);
                }
                Ok::<_, Failure>(taken)
            };
            match joined(disk::ask(take).await)?? {
                Taking::More(more) => spool = more,
                Taking::All(file) => return Ok(file),
            }
        }
    }

    fn stdin(&self, spool: File) -> Result<Done> {
        let mut entry = Entry::default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        entry.set_mtime_ms(now.as_millis() as i64);
        let size = spool.metadata().or_fail(Exit::Store, "standard input")?.len();
        let mut writer = self.turn()?;
        let id = writer.put_long(Stoppable { gate: &self.gate, input: spool }, size);
        entry.blob = Some(id.map_err(|error| from_blob("standard input", error))?);
        writer.flush().or_exit(Exit::Store)?;
        drop(writer);
        self.commit(&[(self.path.clone(), entry)], &[])
    }

    /// The drive is written by nobody else, nor tidied up, nor made to follow a folder. That ends with the
    /// work, or when it is called off; it never lasts while something else is waited for.
    fn turn(&self) -> Result<Writer<'_>> {
        let _told = Waiting::start(&self.out, &self.name);
        let turn = wait_until_shut(&self.gate, self.node.turn_to_write(self.key))?;
        // It may have been shared while something was waited for.
        let claim = claim_change(&self.node, self.key)?;
        if !self.lease.hold((turn, claim)) {
            return Err(interrupted());
        }
        // What somebody saves in a mount meanwhile does not wait for all of it.
        match self.drive.blobs().polite_writer() {
            Err(BlobError::CalledOff) => Err(interrupted()),
            writer => writer.or_exit(Exit::Store),
        }
    }

    /// Gives back what keeps others from the drive; nothing is written after that. Waits for what is being written.
    fn end(&self) {
        self.lease.end();
        lock(&self.live).take();
    }

    /// A file, or everything below a folder.
    fn local(&self, index: &DriveIndex, source: &Path, args: &Put) -> Result<Done> {
        // What a shell passes as a file is one of its own process, not of the store's owner.
        if ["/dev/fd", "/proc/self/fd"].iter().any(|of_process| source.starts_with(of_process)) {
            let text = "a pipe of the shell cannot be put: use `… | hdrive put KEY/path -`";
            return Err(Failure::new(Exit::Usage, text));
        }
        check_folder(args, source.is_dir())?;
        let meta = std::fs::symlink_metadata(source).or_fail(Exit::Failed, source.display())?;
        let (rules, start) = if meta.is_dir() {
            let rules = Rules::of_put(&straight(source)?, &args.exclude, args.cross_mounts);
            (rules.or_fail(Exit::Usage, "--exclude")?, DrivePath::root())
        } else {
            let parent = source.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
            let name = source.file_name().and_then(|name| name.to_str());
            let name = name.and_then(|name| DrivePath::root().join(name).ok());
            let name = name.ok_or_else(|| {
                let text = format!("{}: its name is not UTF-8", source.display());
                Failure::new(Exit::Failed, text)
            })?;
            (Rules::all(&straight(&parent)?), name)
        };
        // Whatever becomes of its path: what is read is what was found.
        let held = rules.hold().or_fail(Exit::Failed, source.display())?;
        let mut found = scan_in(&rules, &held, &start);
        if let Some((path, why)) = found.warnings.first() {
            // What it leaves out must not become public for that.
            return Err(Failure::new(Exit::Failed, format_args!("{}: {why}", path.display())));
        }
        let mut left_out = std::mem::take(&mut found.skipped);
        let is_all = |(path, _): &&LeftOut| !meta.is_dir() || path == rules.folder();
        if let Some((path, why)) = left_out.iter().find(is_all) {
            return Err(Failure::new(Exit::Failed, format_args!("{}: {why}", path.display())));
        }
        if meta.is_dir()
            && matches!(
                index.lookup(&self.path),
                Some(Found::File(_) | Found::Link(_) | Found::Special(_))
            )
        {
            return Err(in_the_way(&self.path));
        }
        let mut places = Vec::new();
        for local in &found.found {
            let to = match meta.is_dir() {
                true => join(&self.path, &local.path)?,
                false if self.path.is_root() => local.path.clone(),
                false => self.path.clone(),
            };
            refuse_hiding(index, &to)?;
            places.push((to, local));
        }
        self.progress.set_total(found.found.iter().map(Local::size).sum());
        let writer = self.turn()?;
        let taken = self.entries(index, writer, (&rules, &held), places)?;
        // What nobody knows after the next time costs no more than comparing it once more.
        let noted = self.lease.during(|| self.ledger.write()).ok_or_else(interrupted)?;
        noted.or_exit(Exit::Store)?;
        let entries = taken.entries;
        if let Some((path, why)) = taken.left_out.first().filter(|_| !meta.is_dir()) {
            return Err(Failure::new(Exit::Failed, format_args!("{}: {why}", path.display())));
        }
        left_out.extend(taken.left_out);
        let mut empty =
            found.empty.iter().map(|dir| join(&self.path, dir)).collect::<Result<Vec<_>>>()?;
        if meta.is_dir() && entries.is_empty() && empty.is_empty() {
            empty.push(self.path.clone());
        }
        let private: Vec<_> = found.found.iter().filter(|local| local.private).collect();
        let private = private.first().filter(|_| meta.is_dir()).map(|example| {
            private_line(private.len() as u64, &example.path, ["is now", "are now"])
        });
        let done = self.commit(&entries, &empty)?;
        Ok(Done { private, left_out, ..done })
    }

    /// The entries of these files and links, whose contents are in the drive by now; and what could not be taken.
    fn entries(
        &self,
        index: &DriveIndex,
        writer: Writer<'_>,
        (rules, held): (&Rules, &Beneath),
        places: Vec<(DrivePath, &Local)>,
    ) -> Result<Taken> {
        let old = |to: &DrivePath| match index.lookup(to) {
            Some(Found::File(file)) => file.blob(),
            _ => None,
        };
        let is_file = |local: &Local| matches!(local.kind, LocalKind::File { .. });
        let files = places.iter().filter(|(_, local)| is_file(local));
        let wanted: Vec<_> =
            files.map(|(to, local)| Wanted { local, name: to, old: old(to) }).collect();
        let permit = Permit::new(rules);
        let allowed = |path: &DrivePath| permit.ask(path, false) == Allowed::Yes;
        let contents = Contents {
            blobs: self.drive.blobs(),
            ledger: &self.ledger,
            rules,
            held,
            allowed: &allowed,
            progress: &|read| self.progress.set(read),
            cancelled: &|| self.gate.is_shut(),
            all_or_nothing: true,
        };
        let mut stored = contents.store(writer, &wanted).or_exit(Exit::Store)?.into_iter();
        let mut taken = Taken::default();
        permit.renew();
        for (to, local) in places {
            let full = locate(rules.folder(), &local.path);
            if !allowed(&local.path) && !self.gate.is_shut() {
                return Err(forbidden(&full));
            }
            let mut leave_out = |why: String| taken.left_out.push((full.clone(), why));
            let entry = match &local.kind {
                LocalKind::Symlink { target } => {
                    let mut entry = Entry::symlink(target.clone());
                    entry.set_mtime_ms(local.mtime_ms);
                    entry
                }
                LocalKind::File { .. } => match stored.next().flatten() {
                    Some(Stored::Blob(id, look, _)) => file_entry(id, &look),
                    Some(Stored::Unsteady | Stored::Fresh) => {
                        leave_out(UNSTEADY.into());
                        continue;
                    }
                    Some(Stored::Secret) => {
                        leave_out(SECRET.into());
                        continue;
                    }
                    Some(Stored::Unread(error)) => {
                        leave_out(error.to_string());
                        continue;
                    }
                    Some(Stored::Moved) => {
                        let text = format!("{}: {MOVED}", full.display());
                        return Err(Failure::new(Exit::Failed, text));
                    }
                    Some(Stored::Forbidden) => return Err(forbidden(&full)),
                    None if self.gate.is_shut() => {
                        return Err(interrupted());
                    }
                    // It was not come to because of one that follows.
                    None => continue,
                },
            };
            taken.entries.push((to, entry));
        }
        Ok(taken)
    }

    /// Names what was written, and folders with nothing in them, in one change.
    fn commit(&self, entries: &[(DrivePath, Entry)], empty: &[DrivePath]) -> Result<Done> {
        let live = lock(&self.live).clone().ok_or_else(interrupted)?;
        // What was saved in a mount until now comes before.
        let _told = wait_until_shut(&self.gate, self.node.publish_saved(self.key))?;
        // From here on nobody else changes the drive.
        let mut batch = self.drive.batch().or_exit(Exit::Store)?;
        let current = wait_until_shut(&self.gate, live.current(PATIENCE))?;
        let index = current.map_err(|error| from_live(&self.key, error))?;
        entries.iter().try_for_each(|(path, _)| refuse_hiding(&index, path))?;
        let mut new = entries.iter().filter(|(path, entry)| !is_entry_of(&index, path, entry));
        let put = new.try_for_each(|(path, entry)| batch.put(path, entry));
        put.or_exit(Exit::Store)?;
        for dir in empty.iter().filter(|dir| index.list(dir).is_none()) {
            if index.lookup(dir).is_some() {
                return Err(in_the_way(dir));
            }
            refuse_hiding(&index, dir)?;
            batch.keep_dir(dir).or_exit(Exit::Store)?;
        }
        if !self.gate.pass() {
            return Err(interrupted());
        }
        let version = match batch.is_empty() {
            true => index.version(),
            false => batch.flush().or_exit(Exit::Store)?,
        };
        let paths = entries.iter().map(|(path, _)| path.clone()).collect();
        Ok(Done { paths, version, private: None, left_out: Vec::new() })
    }
}

/// It ends with an error when the put was called off.
struct Stoppable<'a, R> {
    gate: &'a Gate,
    input: R,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.gate.is_shut() {
            true => Err(io::Error::other("interrupted")),
            false => self.input.read(buf),
        }
    }
}

fn interrupted() -> Failure {
    Failure::new(Exit::Interrupted, "interrupted")
}

/// Options for what is in a folder make no sense without one.
fn check_folder(args: &Put, is_dir: bool) -> Result {
    let of_folder =
        [("--exclude", !args.exclude.is_empty()), ("--cross-mounts", args.cross_mounts)];
    match of_folder.iter().find(|(_, given)| *given && !is_dir) {
        None => Ok(()),
        Some((option, _)) => {
            let text = format!("{option} is for what is in a folder: this is none");
            Err(Failure::new(Exit::Usage, text))
        }
    }
}

/// Without links above it: mounts have such paths.
fn straight(folder: &Path) -> Result<PathBuf> {
    folder.canonicalize().or_fail(Exit::Failed, folder.display())
}

fn forbidden(full: &Path) -> Failure {
    let text = format!(
        "{}: what is to be left out, or what is mounted, changed meanwhile: try again",
        full.display()
    );
    Failure::new(Exit::Failed, text)
}

/// What people call a drive: its name in this store, or its key.
fn name_of(cx: &Context, key: CoreKey) -> Result<String> {
    let named = cx.node.names()?.into_iter().find(|(_, named)| *named == key);
    Ok(named.map_or_else(|| key.to_string(), |(name, _)| name))
}

/// A file below a file, or of the name of a folder, would hide what is there from everyone who reads the drive.
fn refuse_hiding(index: &DriveIndex, path: &DrivePath) -> Result {
    if let Some(Found::Directory(_)) = index.lookup(path) {
        return Err(in_the_way_as("folder", path));
    }
    let above = std::iter::successors(path.parent(), DrivePath::parent);
    for above in above {
        if let Some(Found::File(_) | Found::Link(_) | Found::Special(_)) = index.lookup(&above) {
            return Err(in_the_way(&above));
        }
    }
    Ok(())
}

fn in_the_way(file: &DrivePath) -> Failure {
    in_the_way_as("file", file)
}

fn in_the_way_as(kind: &str, path: &DrivePath) -> Failure {
    let how = if kind == "folder" { "hdrive rm -r" } else { "hdrive rm" };
    let text = format!("{path} is a {kind} of the drive: choose another name, or `{how}` it first");
    Failure::new(Exit::Failed, text)
}

fn join(dir: &DrivePath, below: &DrivePath) -> Result<DrivePath> {
    let joined = below.names().try_fold(dir.clone(), |path, name| path.join(name));
    joined.or_fail(Exit::Failed, below)
}
