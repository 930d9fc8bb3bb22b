//! A mount that is written: what is told of its publication, how it ends, and what commands have to do with it.
//!
//! What was saved is published before the process ends. Where that takes too long, or fails, everything is made durable
//! where it is, and the next mount publishes it; what cannot even be that is named.

use super::context::Context;
use super::exit::{Exit, Failure, Result};
use super::words::date;
use crate::hyper::draft::{DraftError, listed};
use crate::key::CoreKey;
use crate::node::{Drafting, DriveUse, NodeError, Trouble};
use crate::path::DrivePath;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// An end that publishes for longer than this says so.
const SILENT: Duration = Duration::from_secs(1);
/// The longest that an end publishes. Who goes on with the store waits for less: see [`super::context::Cancel::given_up`].
const PATIENCE: Duration = Duration::from_secs(30);
/// Names that are told one by one.
const MAX_TOLD: usize = 20;

/// Warns when what was saved is not published, and tells when it is again. Does not end.
pub async fn tell_trouble(draft: &Drafting, point: &Path, cx: &Context) {
    let mut trouble = draft.trouble();
    let mut told: Option<Trouble> = None;
    loop {
        let now = trouble.borrow_and_update().clone();
        match &now {
            Some(now) if told.as_ref() != Some(now) => cx.out.warn(format_args!(
                "{}: {}; it is tried again",
                point.display(),
                not_published(now)
            )),
            None if told.is_some() => {
                cx.out.note(format_args!("{}: all is published again", point.display()));
            }
            _ => {}
        }
        told = now;
        if trouble.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// `not published since 2026-06-30 17:05 UTC: no space left`.
pub fn not_published(Trouble { since, why }: &Trouble) -> String {
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
    format!("not published since {} UTC: {why}", date(since))
}

/// Before a command looks at a drive that it is to change: what is saved in mounts is published, and what an earlier end
/// left. Where the mounts cannot publish it stays for later, and comes after what the command does.
///
/// # Errors
/// What an earlier end left cannot be published: it would come over what the command does.
pub async fn settle(cx: &Context, drive: &Arc<DriveUse>) -> Result {
    match cx.node.settle_draft(drive).await {
        Err(error) if cx.node.is_worked_on(drive.key()).await => {
            cx.out.warn(format_args!(
                "what was saved in a mount of the drive is not published, and comes after this: {error}"
            ));
            Ok(())
        }
        settled => Ok(settled?),
    }
}

/// The same before a share makes a drive what a folder is.
pub async fn settle_before_share(cx: &Context, key: CoreKey, secret: Option<[u8; 32]>) -> Result {
    if !cx.node.has_left(key).await? {
        return Ok(());
    }
    let drive = Arc::new(cx.node.drive_offline(key, secret, None).await?);
    cx.node.may_write(&drive, &|text| cx.out.note(text)).await?;
    settle(cx, &drive).await
}

/// Lets mounts that are written show what a command did, and tells of what they have another content of.
pub async fn show_in_mounts(cx: &Context, key: CoreKey, paths: Vec<DrivePath>) {
    match cx.node.show_in_draft(key, paths).await {
        Ok(kept) => {
            for path in kept.iter().take(MAX_TOLD) {
                cx.out.warn(format_args!(
                    "{path} is being written in a mount: what is saved there comes after this"
                ));
            }
        }
        // It is done; who looks there finds it later.
        Err(error) => cx.out.warn(format_args!("the mounts of the drive: {error}")),
    }
}

/// Publishes what is not, or keeps it for the next mount.
///
/// # Errors
/// Not all is published; it says what became of the rest.
pub async fn end(draft: Arc<Drafting>, point: &Path, cx: &Context) -> Result {
    let point = point.display();
    let publishing = draft.end();
    tokio::pin!(publishing);
    let slow = async {
        tokio::time::sleep(SILENT).await;
        cx.out.note(format_args!("{point}: what was changed last is being published"));
        match cx.cancel.is_hand_over() {
            true => cx.cancel.given_up().await,
            false => tokio::time::sleep(PATIENCE).await,
        }
    };
    let ended = tokio::select! {
        ended = &mut publishing => ended,
        () = slow => return end_slowly(&draft, point, cx).await,
    };
    match ended {
        Err(NodeError::Draft(error)) if matches!(*error, DraftError::Kept(_)) => {
            kept(format!("{point}: not all that was changed is published: {error}"), cx)
        }
        Err(error) => {
            let text = format!("{point}: not all that was changed is published: {error}");
            Err(Failure::new(Exit::Store, text))
        }
        Ok(()) => Ok(()),
    }
}

/// Nobody waits any longer for what is being published.
async fn end_slowly(draft: &Drafting, point: impl std::fmt::Display, cx: &Context) -> Result {
    let Ok(lost) = tokio::time::timeout(PATIENCE, draft.keep()).await else {
        let text = format!(
            "{point}: the disk of the store does not answer: what was written since it was synced last may be lost"
        );
        return Err(Failure::new(Exit::Store, text));
    };
    let text = format!("{point}: not all that was changed is published: it takes too long");
    match lost? {
        lost if lost.is_empty() => kept(
            format!(
                "{text}; it is kept in the store, and published when the drive is mounted next"
            ),
            cx,
        ),
        lost => {
            let text = format!("{text}; what was changed last is lost of {}", listed(&lost));
            Err(Failure::new(Exit::Store, text))
        }
    }
}

/// What is kept is no failure where another process goes on with it.
fn kept(text: String, cx: &Context) -> Result {
    match cx.cancel.is_hand_over() {
        true => cx.out.note(text),
        false => return Err(Failure::new(Exit::Store, text)),
    }
    Ok(())
}
