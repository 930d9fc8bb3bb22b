//! `hdrive share`: a folder as a drive, announced, served and kept up to date.

use super::args::Share;
use super::context::Context;
use super::exit::{Exit, Fail, Failure, Result};
use super::looking::Looking;
use super::progress::Progress;
use super::target::{encryption_key, from_live};
use crate::hyper::drive::{Drive, DriveError};
use crate::key::Topic;
use crate::node::DriveUse;
use crate::path::DrivePath;
use crate::share::follow::{Follower, Touched};
use crate::share::import::{Import, Report};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long the first announcement is waited for at a time.
const ANNOUNCE: Duration = Duration::from_secs(20);
/// Without inotify the whole folder is looked at this often.
const POLL: Duration = Duration::from_secs(10);
/// Names left out that are told one by one.
const MAX_TOLD: usize = 10;

pub async fn run(args: Share, cx: Context) -> Result {
    let folder = cx.cwd.join(&args.folder);
    let folder = folder.canonicalize().or_fail(Exit::NotFound, folder.display())?;
    if !folder.is_dir() {
        let text = format!("{} is not a folder: `hdrive put` takes files", folder.display());
        return Err(Failure::new(Exit::Usage, text));
    }
    std::fs::read_dir(&folder).or_fail(Exit::Failed, folder.display())?;
    if cx.node.config().store.starts_with(&folder) {
        let text = format!(
            "{} holds the store itself: share another folder, or pass --store elsewhere",
            folder.display()
        );
        return Err(Failure::new(Exit::Usage, text));
    }
    let name = args.name.unwrap_or_else(|| folder.to_string_lossy().into_owned());
    let secret = encryption_key(&args.secret)?;
    let key = cx.node.create_drive(&name, secret)?.key();
    cx.out.pair("key", key);

    // Watched before it is read, so that no change falls between the two.
    let follower = Follower::new(&folder);
    let live = cx.node.drive(key, secret, None, true).await?;
    let _looking = Looking::start(&cx.node, &cx.out, &live, None);
    let shared = Shared { live, folder, cx: cx.clone(), cancelled: Arc::default() };
    let work = shared.serve(follower);
    tokio::select! {
        done = work => done,
        () = cx.cancel.cancelled() => {
            shared.cancelled.store(true, Ordering::Relaxed);
            Ok(())
        }
    }
}

struct Shared {
    live: DriveUse,
    folder: PathBuf,
    cx: Context,
    cancelled: Arc<AtomicBool>,
}

impl Shared {
    async fn serve(&self, follower: std::result::Result<Follower, String>) -> Result {
        let failed = |error| from_live(&self.live.key(), error);
        let drive = self.live.drive().await.map_err(failed)?;
        self.cx.node.may_write(&self.live, &|text| self.cx.out.note(text)).await?;
        let progress = Arc::new(self.cx.out.progress("importing", 0));
        let report = self.import(&drive, vec![DrivePath::root()], Some(progress)).await?;
        let topic = Topic::from(self.live.db().discovery_key());
        // Why that takes long is told meanwhile.
        while !self.cx.node.announced(topic, ANNOUNCE).await {}
        if self.cx.out.json {
            let (files, bytes) = (report.files, report.bytes);
            self.cx.out.object(&serde_json::json!({"shared": {"files": files, "bytes": bytes}}));
        } else {
            let shared = format!("{} files, {} bytes", report.files, report.bytes);
            self.cx.out.pair("shared", shared);
        }
        let mut follower = match follower {
            Ok(follower) => Some(follower),
            Err(error) => {
                let every = POLL.as_secs();
                self.cx.out.error(format_args!(
                    "changes cannot be watched ({error}); looking every {every} s instead"
                ));
                None
            }
        };
        loop {
            let touched = match &mut follower {
                Some(follower) => follower.next().await.unwrap_or(Touched::Everything),
                None => {
                    tokio::time::sleep(POLL).await;
                    Touched::Everything
                }
            };
            let paths = match touched {
                Touched::Paths(paths) => paths,
                Touched::Everything => vec![DrivePath::root()],
            };
            let report = self.import(&drive, paths, None).await?;
            if report.written + report.removed > 0 {
                let (written, removed) = (report.written, report.removed);
                tracing::info!(written, removed, "the folder changed");
            }
        }
    }

    /// Looks at these paths and brings the drive up to them.
    async fn import(
        &self,
        drive: &Drive,
        paths: Vec<DrivePath>,
        progress: Option<Arc<Progress>>,
    ) -> Result<Report> {
        let failed = |error| from_live(&self.live.key(), error);
        let index = self.live.current(Duration::from_secs(30)).await.map_err(failed)?;
        let (drive, folder) = (drive.clone(), self.folder.clone());
        let cancelled = self.cancelled.clone();
        let work = move || -> std::result::Result<Report, DriveError> {
            let tell = |done, total| {
                if let Some(progress) = &progress {
                    progress.set_total(total);
                    progress.set(done);
                }
            };
            let import = Import {
                drive: &drive,
                index: &index,
                folder: &folder,
                progress: &tell,
                cancelled: &|| cancelled.load(Ordering::Relaxed),
            };
            import.run(&paths)
        };
        let report = tokio::task::spawn_blocking(work).await.or_exit(Exit::Failed)?;
        let report = report.or_exit(Exit::Store)?;
        for (path, why) in report.skipped.iter().take(MAX_TOLD) {
            self.cx.out.note(format_args!("left out: {}: {why}", path.display()));
        }
        if let Some(more) = report.skipped.len().checked_sub(MAX_TOLD).filter(|n| *n > 0) {
            self.cx.out.note(format_args!("left out: {more} more"));
        }
        Ok(report)
    }
}
