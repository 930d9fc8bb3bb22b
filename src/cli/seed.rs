//! `hdrive seed`: holds whole drives, keeps them current, serves them.

use super::args::Seed;
use super::context::Context;
use super::exit::{Exit, Fail, Failure, Result};
use super::findable::findable;
use super::looking::Looking;
use super::output::Output;
use super::progress::Progress;
use super::target::{encryption_key, from_live, resolve_whole};
use crate::hyper::drive::{
    BlockSet, Content, Drive, DriveError, DriveIndex, Leaf, LiveDrive, LiveError, Named,
};
use crate::hyper::session::CoreHandle;
use crate::hyper::source::{BlockSource, SourceError};
use crate::key::{CoreKey, Topic};
use crate::node::DriveUse;
use crate::path::DrivePath;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A download that failed (no peer, say) is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// The longest the first announcement is waited for before a drive is called complete all the same.
const ANNOUNCE: Duration = Duration::from_secs(20);
/// How long peers are asked for the newest version before what is here is taken.
const UPDATE: Duration = Duration::from_secs(5);
/// How long the newest names, and the length of the contents, are waited for at a time.
const HEAD: Duration = Duration::from_secs(30);
/// A fetch goes on for this long before it turns to a newer version.
const MOVE_ON: Duration = Duration::from_secs(5);
/// More changes than this since the version that is held, and all names are looked through instead.
const MAX_CHANGES: u64 = 10_000;
/// Runs of blocks that are asked for at a time.
const RUNS: usize = 16;
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(250);

pub async fn run(args: Seed, cx: Context) -> Result {
    let secret = encryption_key(&args.secret)?;
    // All are looked at before the first is begun.
    let whole = |text| resolve_whole(&cx.node, text, "a drive is held as a whole");
    let targets =
        args.keys.iter().map(|text| Ok((text, whole(text)?))).collect::<Result<Vec<_>>>()?;
    cx.running.note_begun();
    let _relaying = match args.no_relay {
        true => None,
        false => Some(cx.node.relay(args.relaying.limits()).await?),
    };
    let mut drives = JoinSet::new();
    let fetching = Arc::new(Fetching::default());
    let mut keys = Vec::new();
    let (name_all, all_named) = watch::channel(false);
    for (text, target) in targets {
        if !cx.background {
            cx.out.once(|out| out.pair("key", target.key));
        }
        // Named by its name and by its key.
        if let Some(begun) = keys.iter().find(|(key, _)| *key == target.key).cloned() {
            keys.push(begun);
            continue;
        }
        let drive = cx.node.drive(target.key, secret, None, true).await?;
        let name = (args.keys.len() > 1).then_some(text.as_str());
        let looking = Arc::new(Looking::start(&cx.node, &cx.out, &drive, name));
        keys.push((target.key, looking.clone()));
        let (cx, fetching, named) = (cx.clone(), fetching.clone(), all_named.clone());
        drives.spawn(async move {
            let _looking = looking;
            let key = drive.key();
            let failed = hold(drive, cx, &fetching, args.history, secret, named).await;
            fetching.done(key);
            failed
        });
    }
    if cx.background {
        // Whoever started it goes its way then, and shall know by then what there is to know.
        for (key, looking) in &keys {
            looking.first_verdict().await;
            cx.out.once(|out| out.pair("key", key));
        }
    }
    name_all.send_replace(true);
    drop(keys);
    // Nothing of it ends by itself but what cannot be held; the others are held all the same.
    while let Some(failed) = drives.join_next().await {
        let failure = failed.or_exit(Exit::Failed)?;
        if drives.is_empty() {
            return Err(failure);
        }
        cx.out.warn(failure);
    }
    Ok(())
}

/// Keeps one drive whole for ever, and tells each time it is. Returns why it cannot.
async fn hold(
    drive: DriveUse,
    cx: Context,
    fetching: &Fetching,
    history: bool,
    secret: Option<[u8; 32]>,
    mut all_named: watch::Receiver<bool>,
) -> Failure {
    let joined = Instant::now();
    let mut told = None;
    let mut held = None;
    let mut unread: Option<CoreHandle> = None;
    loop {
        let versions = drive.db().versions();
        let contents = unread.as_ref().map(CoreHandle::versions);
        let fetched = fetch(&drive, &cx, fetching, history, held, &mut unread).await;
        // Now it can be told whether the key is right.
        if let Err(wrong) = drive.offer_key(secret) {
            return of_drive(&drive, wrong);
        }
        let moved_on = matches!(fetched, Ok(None));
        if !moved_on {
            fetching.done(drive.key());
        }
        match fetched {
            Ok(Some(version)) if told != Some(version) => {
                // Who is told so may rely on it: others find it here, or neighbours where nobody else is.
                let topic = Topic::from(drive.db().discovery_key());
                findable(&cx.node, topic, joined, ANNOUNCE).await;
                // Not before its key.
                let _ = all_named.wait_for(|named| *named).await;
                let tell = |out: &Output| out.pair("complete", drive.key());
                match told {
                    // By whoever held it before it was taken over, maybe.
                    None => cx.out.once(tell),
                    Some(_) => tell(&cx.out),
                }
                told = Some(version);
                held = unread.is_none().then(|| Held { version, fork: drive.db().fork() });
            }
            Ok(Some(_)) => {}
            Ok(None) => continue,
            Err(Problem::ForGood(error)) => return of_drive(&drive, error),
            Err(Problem::Now(error)) => {
                tracing::info!("drive {}: {error}", drive.key());
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        let mut versions = versions;
        let more_contents = async {
            match contents.or_else(|| unread.as_ref().map(CoreHandle::versions)) {
                Some(mut contents) => drop(contents.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = versions.changed() => {}
            () = more_contents => {}
        }
    }
}

fn of_drive(drive: &DriveUse, error: LiveError) -> Failure {
    let key = drive.key();
    let Failure { exit, text } = from_live(&key, error);
    Failure::new(exit, format_args!("drive {key}: {text}"))
}

/// Why a drive is not whole.
enum Problem {
    /// It may go well the next time: nobody has sent what is missing, say.
    Now(String),
    /// It cannot be held like this.
    ForGood(LiveError),
}

impl From<LiveError> for Problem {
    fn from(error: LiveError) -> Self {
        match error {
            LiveError::Encrypted
            | LiveError::EncryptionKey(_)
            | LiveError::Drive(DriveError::ContentKey | DriveError::ForeignContents) => {
                Self::ForGood(error)
            }
            error => Self::Now(error.to_string()),
        }
    }
}

impl From<SourceError> for Problem {
    fn from(error: SourceError) -> Self {
        Self::Now(error.to_string())
    }
}

/// A version of which everything is here.
#[derive(Clone, Copy)]
struct Held {
    version: u64,
    fork: u64,
}

/// What `files` names, or of that, after a version that is held, what came since if that is little.
async fn named(files: &Drive, held: Option<Held>) -> std::result::Result<Named, DriveError> {
    let (version, fork) = (files.version(), files.bee().source().fork());
    let near = |held: &Held| {
        held.fork == fork && (held.version..=held.version + MAX_CHANGES).contains(&version)
    };
    let mut named = Named::default();
    match held.filter(near) {
        Some(held) => named.changed_since(files, held.version).await?,
        None => named.version(files).await?,
    }
    Ok(named)
}

/// Fetches what the current version names, or with `history` all blocks of both cores as they are now; returns the
/// version that is here, none if the drive has moved on meanwhile. Of a drive that cannot be read, `unread` becomes
/// the core of its contents, and all of it is fetched.
async fn fetch(
    drive: &LiveDrive,
    cx: &Context,
    fetching: &Fetching,
    history: bool,
    held: Option<Held>,
    unread: &mut Option<CoreHandle>,
) -> std::result::Result<Option<u64>, Problem> {
    let closed = || Problem::Now("the drive was closed".into());
    let mut versions = drive.db().versions();
    tokio::select! {
        opened = versions.wait_for(|version| version.length > 0) => {
            opened.map_err(|_| closed())?;
        }
        // There is nothing to hold as long as those who know the drive say that it is empty.
        () = drive.empty() => return Ok(Some(0)),
    }
    drive.db().update(UPDATE).await;
    let version = drive.db().length();
    let files = match drive.drive().await {
        Err(LiveError::Encrypted) => return fetch_unread(drive, cx, fetching, unread).await,
        files => files?,
    };
    *unread = None;
    if history {
        drive.db().download(0..version, true).await?;
    }
    let Some(blobs) = drive.blobs() else { return Ok(Some(version)) };
    // The names say how long the contents are; that core's own head may be on its way yet.
    let index = drive.current(HEAD).await?;
    let end = contents_end(&index);
    let mut lengths = blobs.versions();
    match tokio::time::timeout(HEAD, lengths.wait_for(|version| version.length >= end)).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => return Err(closed()),
        Err(_) if blobs.length() == 0 => {
            return Err(Problem::Now("no peer told how long its contents are".into()));
        }
        // A file that claims to lie past everything does not keep the others from being held.
        Err(_) => {}
    }
    let mut wanted = BlockSet::default();
    if history {
        wanted.insert(0..blobs.length());
    } else {
        let current = files.checkout(index.version());
        let named = named(&current, held).await.map_err(LiveError::from)?;
        wanted = named.blocks.below(blobs.length());
    }
    let task = Task { drive, out: &cx.out, fetching, version };
    // What only an old version names may not be had any more, and nobody would miss it.
    task.run(blobs, &wanted, !history).await
}

/// Fetches every block of a drive that nobody gave the encryption key of: which of them the present version names
/// cannot be told.
async fn fetch_unread(
    drive: &LiveDrive,
    cx: &Context,
    fetching: &Fetching,
    unread: &mut Option<CoreHandle>,
) -> std::result::Result<Option<u64>, Problem> {
    let contents = match unread {
        Some(contents) => contents,
        None => {
            // An older drive names its contents in what cannot be read.
            let contents = drive.unread_contents().await?;
            let contents = contents.ok_or(Problem::ForGood(LiveError::Encrypted))?;
            cx.out.note(format_args!(
                "drive {} is encrypted: all of it is held and served unread; to hold only what its \
                 newest version names, pass --encryption-key",
                drive.key()
            ));
            unread.insert(contents)
        }
    };
    // The contents of a version are written before its names.
    if !contents.update(HEAD).await && contents.length() == 0 {
        return Err(Problem::Now("no peer told how long its contents are".into()));
    }
    let version = drive.db().length();
    let mut names = BlockSet::default();
    names.insert(0..version);
    let mut wanted = BlockSet::default();
    wanted.insert(0..contents.length());
    let task = Task { drive, out: &cx.out, fetching, version };
    // A block that was given back everywhere never comes; what is new is fetched all the same.
    match task.run(drive.db(), &names, true).await? {
        Some(_) => task.run(contents, &wanted, true).await,
        None => Ok(None),
    }
}

/// What is fetched now of a drive.
struct Task<'a> {
    drive: &'a LiveDrive,
    out: &'a Output,
    fetching: &'a Fetching,
    version: u64,
}

impl Task<'_> {
    /// Fetches `wanted` of a core; returns the version, none if the drive has moved on meanwhile and that matters.
    async fn run(
        &self,
        core: &CoreHandle,
        wanted: &BlockSet,
        moves_on: bool,
    ) -> std::result::Result<Option<u64>, Problem> {
        // How large each is shows when it is here; until then they are taken for as large as the average.
        let sizes = u128::from(core.byte_length()) * u128::from(wanted.len());
        let total = (sizes / u128::from(core.length().max(1))) as u64;
        let key = self.drive.key();
        let tell = || self.fetching.tell(self.out, key, bytes_here(core, wanted, total), total);
        tell();
        let download = download(core, wanted);
        tokio::pin!(download);
        let started = Instant::now();
        loop {
            tokio::select! {
                done = &mut download => {
                    done?;
                    return Ok(Some(self.version));
                }
                () = tokio::time::sleep(LOOK) => tell(),
            }
            let newer = self.drive.db().length() != self.version;
            if moves_on && newer && started.elapsed() >= MOVE_ON {
                return Ok(None);
            }
        }
    }
}

/// Fetches these blocks in order, a few runs at a time.
async fn download(blobs: &CoreHandle, wanted: &BlockSet) -> std::result::Result<(), SourceError> {
    let mut under_way = JoinSet::new();
    for run in wanted.runs() {
        if under_way.len() >= RUNS
            && let Some(done) = under_way.join_next().await
        {
            done.map_err(|_| SourceError::Closed)??;
        }
        under_way.spawn(blobs.download(run, true));
    }
    while let Some(done) = under_way.join_next().await {
        done.map_err(|_| SourceError::Closed)??;
    }
    Ok(())
}

/// The one progress display of all drives that are being fetched.
#[derive(Default)]
struct Fetching(Mutex<Display>);

#[derive(Default)]
struct Display {
    progress: Option<Progress>,
    /// Bytes here and in all, by drive.
    drives: BTreeMap<CoreKey, (u64, u64)>,
}

impl Fetching {
    fn tell(&self, out: &Output, key: CoreKey, here: u64, total: u64) {
        let mut display = self.lock();
        let known = display.drives.insert(key, (here, total)).is_some();
        let sum = |pick: fn(&(u64, u64)) -> u64| display.drives.values().map(pick).sum();
        let (here, total): (u64, u64) = (sum(|drive| drive.0), sum(|drive| drive.1));
        let progress = display.progress.get_or_insert_with(|| out.progress("fetching", total));
        progress.set_total(total);
        match known {
            true => progress.set(here),
            false => progress.resume(here),
        }
    }

    fn done(&self, key: CoreKey) {
        let mut display = self.lock();
        display.drives.remove(&key);
        if display.drives.is_empty() {
            display.progress = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Display> {
        crate::lock::lock(&self.0)
    }
}

/// The length that the core of the contents must have for all files.
fn contents_end(index: &DriveIndex) -> u64 {
    let mut end = 0;
    index.for_each_below(&DrivePath::root(), |leaf| {
        let Leaf::File(file) = leaf else { return };
        let id = match &file.content {
            Content::Blob(id) => id,
            Content::Mapped(mapped) => &mapped.0,
            Content::Damaged(_) | Content::Local(_) => return,
        };
        end = end.max(id.block_offset.saturating_add(id.block_length));
    });
    end
}

fn bytes_here(core: &CoreHandle, wanted: &BlockSet, total: u64) -> u64 {
    let here: u64 = {
        let core = core.core();
        wanted.runs().map(|run| core.count_here(run)).sum()
    };
    (u128::from(total) * u128::from(here) / u128::from(wanted.len().max(1))) as u64
}
