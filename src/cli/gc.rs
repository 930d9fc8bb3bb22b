//! `hdrive gc`: gives back the contents that no kept version names.

use super::args::{Gc, Kept};
use super::context::Context;
use super::exit::{Exit, Failure, Result};
use super::target::{encryption_key, from_live, resolve_whole};
use super::words::bytes;
use crate::hyper::drive::{LiveError, check_readable};
use crate::hyper::session::CoreHandle;
use crate::key::CoreKey;
use crate::node::{Garbage, GcError, Keep, Survey};
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

/// How often a drive is looked through at most because somebody came to use one meanwhile.
const MAX_LOOKS: usize = 5;
/// What helps where even giving space back has no room: a database that is opened anew needs less.
pub const NO_ROOM: &str = "; free some space, or end what runs on this store, and try again";
/// How long `--dry-run` waits for who writes a drive.
const MOMENT: Duration = Duration::from_millis(200);

pub async fn run(args: Gc, cx: Context) -> Result {
    let keep = match args.keep {
        Kept::Newest(count) => Keep::Newest(count),
        Kept::Since(age) => Keep::Since(age),
    };
    let mut keys: Vec<CoreKey> = Vec::new();
    for text in &args.drives {
        keys.push(resolve_whole(&cx.node, text, "space is freed of a whole drive")?.key);
    }
    let all = keys.is_empty();
    let (mut freed, mut failed) = (0, false);
    if all {
        let stored = cx.node.stored_drives().await?;
        for error in &stored.closed {
            cx.out.room().await;
            cx.out.warn(format_args!(
                "something in this store cannot be opened and stays as it is: {error}"
            ));
        }
        (keys, failed) = (stored.keys, !stored.closed.is_empty());
    }
    let mut survey = Survey::default();
    for key in keys {
        cx.out.room().await;
        match clear(&cx, key, keep, &args, &mut survey).await {
            Ok(garbage) => {
                freed += garbage.bytes;
                // Of many drives only those are told that lose something, or would but for another.
                if !all || garbage.bytes > 0 || !garbage.held_by.is_empty() {
                    tell(&cx, key, &garbage, args.dry_run);
                }
            }
            // The others can be cleared all the same.
            Err(failure) if all => {
                cx.out.warn(&failure);
                failed = true;
            }
            Err(failure) => return Err(failure),
        }
    }
    if all {
        // Of a drive that was being made or removed when the machine stopped.
        match cx.node.remove_strays(args.dry_run).await? {
            Some(bytes) => freed += bytes,
            None => cx.out.note(
                "this store may be an older copy: files in it that it knows nothing of stay (--trust-store says that \
                 it is the newest)",
            ),
        }
    }
    if cx.out.json && all {
        cx.out.object(&json!({"freed": freed, "dryRun": args.dry_run}));
    } else if !cx.out.json {
        let what = if args.dry_run { "would be freed" } else { "freed" };
        cx.out.pair(what, bytes(freed));
    }
    match failed {
        false => Ok(()),
        true => Err(Failure::new(Exit::Failed, "not every drive could be cleared")),
    }
}

async fn clear(
    cx: &Context,
    key: CoreKey,
    keep: Keep,
    args: &Gc,
    survey: &mut Survey,
) -> Result<Garbage> {
    let dry_run = args.dry_run;
    let failed = |error: GcError| {
        let exit = match &error {
            GcError::Core(_) | GcError::Node(_) => Exit::Store,
            _ => Exit::Failed,
        };
        Failure::new(exit, format_args!("drive {key}: nothing was freed: {error}"))
    };
    let turn = match dry_run {
        // It need not be right while somebody writes.
        true => timeout(MOMENT, cx.node.turn_to_clear(key)).await.ok().flatten(),
        false => cx.node.turn_to_clear(key).await,
    };
    if turn.is_none() && !dry_run {
        let text = format!("drive {key}: nothing was freed: it is being written, try again later");
        return Err(Failure::new(Exit::Failed, text));
    }
    let stored = cx.node.stored_drive(key).await.map_err(|error| failed(error.into()))?;
    let Some(stored) = stored else {
        return Err(Failure::new(
            Exit::NotFound,
            format_args!("drive {key}: this store holds nothing of it"),
        ));
    };
    read_names(cx, &stored.db, args)?;
    let mut turn = turn;
    for _ in 0..MAX_LOOKS {
        let garbage = cx.node.garbage(&stored, keep, survey, turn.as_ref()).await;
        let garbage = garbage.map_err(failed)?;
        // Also with nothing to clear: a run that was killed may have left space to free.
        let Some((blobs, mine)) = stored.blobs.clone().zip(turn).filter(|_| !dry_run) else {
            return Ok(garbage);
        };
        let given = cx.node.give_back(blobs, &garbage, mine).await;
        turn = given.map_err(|error| {
            let hint = if error.is_disk_full() { NO_ROOM } else { "" };
            Failure::new(Exit::Store, format_args!("drive {key}: {error}{hint}"))
        })?;
        if turn.is_none() {
            return Ok(garbage);
        }
    }
    Err(failed(GcError::Busy))
}

/// What a drive needs is told by its names, which may be encrypted.
fn read_names(cx: &Context, db: &CoreHandle, args: &Gc) -> Result {
    let key = db.key();
    let failed = |error: LiveError| {
        let Failure { exit, text } = from_live(&key, error);
        Failure::new(exit, format_args!("drive {key}: nothing was freed: {text}"))
    };
    let secret = encryption_key(&args.secret)?;
    match check_readable(cx.node.store(), db, None) {
        // Of all drives, the key is that of one.
        Err(LiveError::Encrypted) => check_readable(cx.node.store(), db, secret),
        Ok(()) if !args.drives.is_empty() => check_readable(cx.node.store(), db, secret),
        read => read,
    }
    .map_err(failed)
}

fn tell(cx: &Context, key: CoreKey, garbage: &Garbage, dry_run: bool) {
    let Garbage { bytes: freed, bytes_here, oldest, newest, .. } = garbage;
    if cx.out.json {
        return cx.out.object(&json!({
            "key": key.to_string(), "bytes": freed, "blocks": garbage.block_count(),
            "bytesBefore": bytes_here, "oldest": oldest, "newest": newest, "dryRun": dry_run,
            "heldBy": garbage.held_by.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }));
    }
    let what = if dry_run { "would free" } else { "freed" };
    let kept = match oldest == newest {
        true => format!("version {newest} stays"),
        false => format!("versions {oldest} to {newest} stay"),
    };
    let (freed, here) = (bytes(*freed), bytes(*bytes_here));
    cx.out.line(format_args!("{key}: {what} {freed} of {here}; {kept}"));
    for other in &garbage.held_by {
        cx.out.note(format_args!(
            "drive {other} says that its contents are among those of {key}, and keeps some: if you do not need it, \
             `hdrive forget {other}`"
        ));
    }
}
