//! `hdrive seed`: holds whole drives, keeps them current, serves them.

use super::args::Seed;
use super::context::Context;
use super::exit::{Exit, Fail, Result};
use super::looking::Looking;
use super::output::Output;
use super::progress::Progress;
use super::target::resolve;
use crate::hyper::drive::{
    BlockSet, Content, Drive, DriveError, DriveIndex, Leaf, LiveDrive, Named,
};
use crate::hyper::session::CoreHandle;
use crate::hyper::source::{BlockSource, SourceError};
use crate::key::{CoreKey, Topic};
use crate::node::DriveUse;
use crate::path::DrivePath;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// A download that failed (no peer, say) is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// The longest the first announcement is waited for before a drive is called complete all the same.
const ANNOUNCE: Duration = Duration::from_secs(20);
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
    let mut drives = JoinSet::new();
    let fetching = Arc::new(Fetching::default());
    for text in &args.keys {
        let target = resolve(&cx.node, text)?;
        let drive = cx.node.drive(target.key, None, None, true).await?;
        cx.out.pair("key", target.key);
        let name = (args.keys.len() > 1).then_some(text.as_str());
        let looking = Looking::start(&cx.node, &cx.out, &drive, name);
        let (cx, fetching) = (cx.clone(), fetching.clone());
        drives.spawn(async move {
            let _looking = looking;
            hold(drive, cx, fetching, args.history).await;
        });
    }
    // Nothing of it ends by itself.
    while let Some(done) = drives.join_next().await {
        done.or_exit(Exit::Failed)?;
    }
    Ok(())
}

/// Keeps one drive whole for ever, and tells each time it is.
async fn hold(drive: DriveUse, cx: Context, fetching: Arc<Fetching>, history: bool) {
    let mut told = None;
    let mut held = None;
    loop {
        let versions = drive.db().versions();
        let fetched = fetch(&drive, &cx, &fetching, history, held).await;
        let moved_on = matches!(fetched, Ok(None));
        if !moved_on {
            fetching.done(drive.key());
        }
        match fetched {
            Ok(Some(version)) if told != Some(version) => {
                // Who is told so may rely on it: others find it here.
                let topic = Topic::from(drive.db().discovery_key());
                cx.node.announced(topic, ANNOUNCE).await;
                cx.out.pair("complete", drive.key());
                told = Some(version);
                held = Some(Held { version, fork: drive.db().fork() });
            }
            Ok(Some(_)) => {}
            Ok(None) => continue,
            Err(error) => {
                tracing::info!("drive {}: {error}", drive.key());
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        let mut versions = versions;
        let _ = versions.changed().await;
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
/// version that is here, none if the drive has moved on meanwhile.
async fn fetch(
    drive: &LiveDrive,
    cx: &Context,
    fetching: &Fetching,
    history: bool,
    held: Option<Held>,
) -> std::result::Result<Option<u64>, String> {
    let text = |error: SourceError| error.to_string();
    let mut versions = drive.db().versions();
    tokio::select! {
        opened = versions.wait_for(|version| version.length > 0) => {
            opened.map_err(|_| "the drive was closed")?;
        }
        // There is nothing to hold as long as those who know the drive say that it is empty.
        () = drive.empty() => return Ok(Some(0)),
    }
    drive.db().update(Duration::from_secs(5)).await;
    let version = drive.db().length();
    if history {
        drive.db().download(0..version, true).await.map_err(text)?;
    }
    let files = drive.drive().await.map_err(|error| error.to_string())?;
    let Some(blobs) = drive.blobs() else { return Ok(Some(version)) };
    // The names say how long the contents are; that core's own head may be on its way yet.
    let index = drive.current(HEAD).await.map_err(|error| error.to_string())?;
    let end = contents_end(&index);
    let mut lengths = blobs.versions();
    match tokio::time::timeout(HEAD, lengths.wait_for(|version| version.length >= end)).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => return Err("the drive was closed".into()),
        Err(_) if blobs.length() == 0 => {
            return Err("no peer told how long its contents are".into());
        }
        // A file that claims to lie past everything does not keep the others from being held.
        Err(_) => {}
    }
    let mut wanted = BlockSet::default();
    if history {
        wanted.insert(0..blobs.length());
    } else {
        let current = files.checkout(index.version());
        let named = named(&current, held).await.map_err(|error| error.to_string())?;
        wanted = named.blocks.below(blobs.length());
    }
    // How large each is shows when it is here; until then they are taken for as large as the average.
    let sizes = u128::from(blobs.byte_length()) * u128::from(wanted.len());
    let total = (sizes / u128::from(blobs.length().max(1))) as u64;
    let tell = || fetching.tell(&cx.out, drive.key(), bytes_here(blobs, &wanted, total), total);
    tell();
    let download = download(blobs, &wanted);
    tokio::pin!(download);
    let started = Instant::now();
    loop {
        tokio::select! {
            done = &mut download => {
                done.map_err(text)?;
                return Ok(Some(version));
            }
            () = tokio::time::sleep(LOOK) => tell(),
        }
        // What only an old version names may not be had any more, and nobody would miss it.
        if !history && drive.db().length() != version && started.elapsed() >= MOVE_ON {
            return Ok(None);
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
            Content::Damaged(_) => return,
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
