//! `hdrive rm`: takes a file or a folder out of a drive that this store writes.

use super::args::Rm;
use super::context::Context;
use super::exit::{Exit, Fail, Failure, Result};
use super::target::{encryption_key, from_live, resolve, writable};
use crate::hyper::drive::{DriveError, Found};
use crate::share::import::paths_below;
use std::time::Duration;

pub async fn run(args: Rm, cx: Context) -> Result {
    let target = resolve(&cx.node, &args.target)?;
    let live = writable(&cx, &target, encryption_key(&args.secret)?).await?;
    let failed = |error| from_live(&target.key, error);
    let index = live.current(Duration::from_secs(30)).await.map_err(failed)?;
    match index.lookup(&target.path) {
        None => {
            let text = format!("no such file or directory: {}", target.path);
            return Err(Failure::new(Exit::NotFound, text));
        }
        Some(Found::Directory(_)) if !args.recursive => {
            let text = format!("{} is a folder: pass -r to remove it and all in it", target.path);
            return Err(Failure::new(Exit::Failed, text));
        }
        Some(_) => {}
    }
    let drive = live.drive().await.map_err(failed)?;
    let paths = paths_below(&index, &target.path);
    let remove = move || -> std::result::Result<usize, DriveError> {
        let mut batch = drive.batch()?;
        for path in &paths {
            batch.delete(path)?;
        }
        if !batch.is_empty() {
            batch.flush()?;
        }
        Ok(paths.len())
    };
    let removed = tokio::task::spawn_blocking(remove).await.or_exit(Exit::Failed)?;
    let removed = removed.or_exit(Exit::Store)?;
    if cx.out.json {
        let version = live.db().core().length();
        cx.out.object(&serde_json::json!({"removed": {"files": removed, "version": version}}));
    } else {
        cx.out.note(format_args!("{removed} file(s) removed"));
    }
    Ok(())
}
