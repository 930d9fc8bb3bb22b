//! Which drive follows which folder, and what keeps one from following another.

use super::super::exit::{Exit, Fail, Failure, Result};
use crate::cli::context::Context;
use crate::cli::fault::joined;
use crate::key::CoreKey;
use crate::node::{Node, Writer};
use crate::share::ledger::{Ledger, SharedRoot};
use std::path::Path;
use std::sync::Arc;

/// One drive for a folder, one folder for a drive. It reads the store, and may wait for the disk.
pub(super) async fn check_roles(
    node: &Arc<Node>,
    name: &str,
    root: &SharedRoot,
    replace: bool,
) -> Result {
    let (node, name, root) = (Arc::clone(node), name.to_owned(), root.clone());
    let check = tokio::task::spawn_blocking(move || roles(&node, &name, &root, replace));
    joined(check.await)?
}

fn roles(node: &Node, name: &str, root: &SharedRoot, replace: bool) -> Result {
    let refuse = |text: String| Err(Failure::new(Exit::Failed, text));
    let at = root.path.display();
    let key = node.drive_named(name)?;
    let storage = node.store().storage();
    let names = node.names()?;
    for (other, shared) in Ledger::roots(storage).or_exit(Exit::Store)? {
        let Some((its_name, _)) = names.iter().find(|(_, key)| *key == other) else { continue };
        if Some(other) != key && (shared.path == root.path || shared.identity.is(&root.identity)) {
            return refuse(format!(
                "{at} is shared already, as the drive '{its_name}' ({other}): to go on with that one, pass \
                 --name '{its_name}'"
            ));
        }
    }
    let Some(key) = key.filter(|_| !replace) else { return Ok(()) };
    match Ledger::new(storage.clone(), key).root().or_exit(Exit::Store)? {
        Some(shared) if shared.path != root.path && !shared.identity.is(&root.identity) => {
            let before = shared.path.display();
            refuse(format!(
                "the drive '{name}' follows {before}: choose another --name, or pass --replace to make it follow {at}"
            ))
        }
        None if Path::new(name) != root.path && is_filled(node, key)? => refuse(format!(
            "the drive '{name}' holds files that were put into it: choose another --name, or pass --replace to make \
             it follow {at} and lose them"
        )),
        _ => Ok(()),
    }
}

/// Why a drive cannot follow a folder that somebody else writes.
pub(super) fn written_by(
    cx: &Context,
    writer: Writer,
    name: &str,
    (key, folder): (CoreKey, &Path),
) -> Failure {
    let text = match writer {
        Writer::Share => format!("{} is being shared already on this store", folder.display()),
        Writer::Commands(_) if cx.commands.write(key) => format!(
            "the drive '{name}' is mounted to be written: unmount it first, or share into another with --name"
        ),
        Writer::Commands(_) => {
            format!(
                "the drive '{name}' is being changed by another command: share it when that is done"
            )
        }
    };
    Failure::new(Exit::Failed, text)
}

/// The folder that the drive of this name follows.
pub(super) fn known_root(node: &Node, name: &str) -> Result<Option<SharedRoot>> {
    let Some(key) = node.drive_named(name)? else { return Ok(None) };
    Ledger::new(node.store().storage().clone(), key).root().or_exit(Exit::Store)
}

/// Whether anything was ever put into a drive.
pub(super) fn is_filled(node: &Node, key: CoreKey) -> Result<bool> {
    let core = node.store().stored(&key.discovery_key()).or_exit(Exit::Store)?;
    Ok(core.is_some_and(|core| core.core().length() > 0))
}
