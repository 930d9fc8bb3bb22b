//! `hdrive forget`: takes a drive out of the store.
//!
//! It is asked for in the process that was typed, which has the terminal; the owner of the store does it.

use super::args::Forget;
use super::context::Context;
use super::exit::{Exit, Fail, Failure, Result};
use super::gc::NO_ROOM;
use super::target::{refuse_version, resolve};
use crate::node::ForgetError;
use crate::share::ledger::Ledger;
use std::io::{BufRead, IsTerminal, Write};
use std::sync::Arc;

/// Asks whether it is meant. Without a terminal to ask on, `--yes` must be given.
pub fn confirm(args: &Forget) -> Result {
    if args.yes {
        return Ok(());
    }
    let drive = &args.drive;
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let text = "it removes a drive and its bytes for good: pass --yes to say that you mean it";
        return Err(Failure::new(Exit::Usage, text));
    }
    let mut err = std::io::stderr();
    let _ = writeln!(
        err,
        "This removes {drive} and its bytes from this store. If you made it here, its secret key goes \
         too, and\nnobody can ever change the drive again."
    );
    let _ = write!(err, "Remove it? [y/N] ").and_then(|()| err.flush());
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).or_fail(Exit::Failed, "standard input")?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "nothing was removed")),
    }
}

pub async fn run(args: Forget, cx: Context) -> Result {
    let target = resolve(&cx.node, &args.drive)?;
    if !target.path.is_root() {
        let text = "a drive is forgotten as a whole: `hdrive rm` removes a file from it";
        return Err(Failure::new(Exit::Usage, text));
    }
    refuse_version(&target, "a drive is forgotten as a whole")?;
    let key = target.key;
    // What was known of a folder that the drive followed is of use to nobody then.
    let ledger = Ledger::new(cx.node.store().storage().clone(), key);
    let also = Arc::new(move || ledger.removal());
    let done = cx.node.forget(key, also, cx.cancel.cancelled()).await.map_err(|error| {
        let exit = match &error {
            ForgetError::Unknown => Exit::NotFound,
            ForgetError::InUse | ForgetError::Held | ForgetError::Contents => Exit::Failed,
            ForgetError::GivenUp => Exit::Interrupted,
            ForgetError::Node(_) => Exit::Store,
        };
        let hint = match &error {
            ForgetError::InUse => "; `hdrive status` shows what runs".to_string(),
            ForgetError::Held => format!(
                "; `hdrive status` shows what runs, and what hangs ends with process {}",
                std::process::id()
            ),
            ForgetError::Node(error) if error.is_disk_full() => NO_ROOM.to_string(),
            _ => String::new(),
        };
        Failure::new(exit, format_args!("drive {key}: {error}{hint}"))
    })?;
    if let Some(why) = &done.closed {
        cx.out.warn(format_args!(
            "it could not be opened: {why}; its contents may still be in this store"
        ));
    }
    if cx.out.json {
        cx.out.object(&serde_json::json!({
            "forgotten": key.to_string(), "names": done.names, "own": done.own,
        }));
        return Ok(());
    }
    cx.out.pair("forgotten", key);
    if done.own {
        cx.out.note("its secret key is gone as well: nobody can change this drive any more");
    }
    Ok(())
}
