//! `hdrive rm`: takes a file or a folder out of a drive that this store writes.

use super::args::Rm;
use super::context::Context;
use super::drafting::{settle, show_in_mounts};
use super::exit::{Exit, Fail, Failure, Result};
use super::fault::joined;
use super::gate::Gate;
use super::share::{claim_change, refuse_shared};
use super::target::{PATIENCE, encryption_key, from_live, resolve, writable};
use super::words::count;
use crate::hyper::drive::Found;
use crate::share::import::paths_below;
use std::sync::Arc;

pub async fn run(args: Rm, cx: Context) -> Result {
    let target = resolve(&cx.node, &args.target)?;
    if target.path.is_root() && args.recursive && !args.all {
        let text =
            "this is the whole drive, and all files in it: pass --all as well if you mean that";
        return Err(Failure::new(Exit::Usage, text));
    }
    refuse_shared(&cx.node, target.key)?;
    let live = Arc::new(writable(&cx, &target, encryption_key(&args.secret)?).await?);
    settle(&cx, &live).await?;
    let failed = |error| from_live(&target.key, error);
    let index = live.current(PATIENCE).await.map_err(failed)?;
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
    let kept = index.kept_below(&target.path);
    let gate = Arc::new(Gate::default());
    let passing = Arc::clone(&gate);
    let (node, key) = (Arc::clone(&cx.node), target.key);
    let shown = paths.clone();
    let mut work = tokio::task::spawn_blocking(move || -> Result<usize> {
        // It may have been shared while the drive was looked at.
        let _claim = claim_change(&node, key)?;
        let mut batch = drive.batch().or_exit(Exit::Store)?;
        for path in &paths {
            batch.remove(path).or_exit(Exit::Store)?;
        }
        for folder in &kept {
            batch.forget_dir(folder).or_exit(Exit::Store)?;
        }
        if !passing.pass() {
            return Err(Failure::new(Exit::Interrupted, "interrupted"));
        }
        if !batch.is_empty() {
            batch.flush().or_exit(Exit::Store)?;
        }
        Ok(paths.len())
    });
    let done = tokio::select! {
        done = &mut work => done,
        () = cx.cancel.cancelled() => match gate.shut() {
            true => {
                return Err(cx.called_off());
            }
            false => work.await,
        },
    };
    let removed = joined(done)??;
    cx.node.note_version(&live);
    show_in_mounts(&cx, target.key, shown).await;
    if cx.out.json {
        let version = live.db().core().length();
        cx.out.object(&serde_json::json!({"removed": {"files": removed, "version": version}}));
    } else {
        cx.out.note(format_args!("{} removed", count(removed as u64, "file")));
    }
    Ok(())
}
