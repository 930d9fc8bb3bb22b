//! `KEY`, `KEY/path`, a link or `NAME/path`: which drive is meant, and what in it.

use super::context::Context;
use super::exit::{Exit, Fail, Failure, Result};
use super::looking::{Sought, refusal};
use super::words::printable;
use crate::hyper::drive::{DriveIndex, FileReader, Found, LiveDrive, LiveError};
use crate::hyper::session::CoreHandle;
use crate::key::{CoreKey, DriveLink, KeyError, is_link, parse_bare_key};
use crate::node::{DriveUse, Node, NodeError};
use crate::path::DrivePath;
use std::sync::Arc;
use std::time::Duration;

/// A drive, perhaps at a version, and a path in it.
#[derive(Debug, Clone)]
pub struct Target {
    pub key: CoreKey,
    pub version: Option<u64>,
    pub path: DrivePath,
}

/// Finds out what `text` means; names are looked up in the store.
pub fn resolve(node: &Node, text: &str) -> Result<Target> {
    if !is_link(text)
        && let Some((key, path)) = named(node, text)?
    {
        return Ok(Target { key, version: None, path: drive_path(path)? });
    }
    let link: DriveLink = without_space(text).parse().map_err(|error| no_drive(text, error))?;
    node.hint(link.key, link.nodes);
    Ok(Target { key: link.key, version: link.version, path: drive_path(&link.path)? })
}

/// Of a key that was copied with the space around it only the key counts. What stands behind a bare key may end with a space.
fn without_space(text: &str) -> &str {
    let text = text.trim_start();
    if is_link(text) || !text.contains('/') { text.trim_end() } else { text }
}

/// Fails for a link that is none; what may be a name is looked up later.
pub fn check_link(text: &str) -> Result {
    match text.parse::<DriveLink>() {
        Err(error) if is_link(text) => Err(no_drive(text, error)),
        _ => Ok(()),
    }
}

/// What was typed for a drive and is none. A text that could be a name is that of a drive which is not there.
fn no_drive(text: &str, error: KeyError) -> Failure {
    let usage = |text| Failure::new(Exit::Usage, text);
    let is_path = text.starts_with('/');
    // The name of a shared folder begins so.
    let name = if is_path { text } else { text.split('/').next().unwrap_or(text) };
    let text = match &error {
        _ if is_link(text) => return usage(format!("'{text}': {error}")),
        _ if text.is_empty() => return usage("no drive is named: pass its key or name".into()),
        KeyError::Length(_) if is_path => {
            format!("'{name}' is no drive of this store, nor does it lie in one")
        }
        _ => format!("'{name}' is neither a drive of this store nor a key: {error}"),
    };
    match error {
        KeyError::Length(_) | KeyError::Hints(_) => Failure::new(Exit::NotFound, text),
        _ => usage(text),
    }
}

/// [`resolve`] for a command that is about whole drives, as `what` says: with a path behind the key somebody means
/// less than it would do.
pub fn resolve_whole(node: &Node, text: &str, what: &str) -> Result<Target> {
    let target = resolve(node, text)?;
    if !target.path.is_root() {
        let text = format!("{what}: leave '{}' away", target.path);
        return Err(Failure::new(Exit::Usage, text));
    }
    refuse_version(&target, what)?;
    Ok(target)
}

/// A link with a version means less than a command that is about a drive as it is now, as `what` says.
pub fn refuse_version(target: &Target, what: &str) -> Result {
    match target.version {
        None => Ok(()),
        Some(version) => {
            let text = format!("{what}: the link names version {version}, use the key alone");
            Err(Failure::new(Exit::Usage, text))
        }
    }
}

fn drive_path(text: &str) -> Result<DrivePath> {
    DrivePath::from_user(text).or_fail(Exit::Usage, format_args!("the path '{text}'"))
}

/// The drive with the longest name that `text` begins with, and the path behind it: a name may hold slashes, as
/// that of a shared folder does.
fn named<'a>(node: &Node, text: &'a str) -> Result<Option<(CoreKey, &'a str)>> {
    let ends = text.rmatch_indices('/').map(|(at, _)| at);
    for end in std::iter::once(text.len()).chain(ends).filter(|end| *end > 0) {
        if let Some(key) = node.drive_named(&text[..end])? {
            return Ok(Some((key, &text[end..])));
        }
    }
    Ok(None)
}

/// Refuses what can never be found as a name, because it means something else where a drive is asked for.
pub fn check_name(name: &str) -> Result {
    if name.trim().is_empty() || is_link(name) || name.parse::<DriveLink>().is_ok() {
        return Err(Failure::new(Exit::Usage, "a name must not be empty and not look like a key"));
    }
    if printable(name) != name {
        let text = format!("the name '{}' has a character that cannot be shown", printable(name));
        return Err(Failure::new(Exit::Usage, text));
    }
    if name.split('/').any(|part| matches!(part, "." | "..")) {
        let text = format!("'{name}' means a folder: choose another name");
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(())
}

/// The bytes of `--encryption-key`.
pub fn encryption_key(secret: &super::args::Secret) -> Result<Option<[u8; 32]>> {
    let parse = |text: &String| parse_bare_key(text).or_fail(Exit::Usage, "--encryption-key");
    secret.encryption_key.as_ref().filter(|text| !text.is_empty()).map(parse).transpose()
}

/// Tells who just wrote a drive that nobody else can get at it, if no command serves it.
pub fn tell_unserved(cx: &Context, key: CoreKey, name: &str) {
    let open = cx.node.open_drives();
    if open.iter().any(|state| state.served && state.drive.key() == key) {
        return;
    }
    let is_plain = |c: char| c.is_alphanumeric() || "-_./".contains(c);
    let name = match name.starts_with('-') || !name.chars().all(is_plain) {
        true => key.to_string(),
        false => name.to_string(),
    };
    cx.out.note(format_args!("not served now: `hdrive seed {name}` serves it"));
}

/// The longest a command looks for the newest version of a drive.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Opens the drive that `text` names and waits for its newest index.
pub async fn open_target(
    cx: &Context,
    text: &str,
    secret: Option<[u8; 32]>,
) -> Result<(Target, Sought, Arc<DriveIndex>)> {
    let target = resolve(&cx.node, text)?;
    let drive = cx.node.drive(target.key, secret, target.version, false).await?;
    let drive = Sought::new(&cx.node, &cx.out, drive);
    let index = newest(cx, &target, &drive).await?;
    // Now it can be told whether the key is right.
    drive.offer_key(secret).map_err(|error| from_live(&target.key, error))?;
    tell_version(&drive, cx);
    if let Some(version) = target.version.filter(|_| index.version() == 0) {
        let text = format!("there is no version {version}: nothing was ever put into this drive");
        cx.out.note(text);
    }
    Ok((target, drive, index))
}

/// Waits for the newest index of a drive; the error says why there is none.
pub async fn newest(cx: &Context, target: &Target, drive: &LiveDrive) -> Result<Arc<DriveIndex>> {
    let found = drive.current(PATIENCE).await;
    if target.version.is_none() || found.is_err() {
        // What is newest cannot be told then.
        let mut cores = [Some(drive.db()), drive.blobs()].into_iter().flatten();
        let one = cores.try_for_each(CoreHandle::check_history);
        one.or_fail(Exit::Failed, format_args!("drive {}", target.key))?;
    }
    match found {
        Ok(index) => Ok(index),
        Err(LiveError::NoPeers) => {
            Err(Failure::new(Exit::TimedOut, refusal(&cx.node, &target.key).await))
        }
        Err(error) if error.is_loss() => Err(from_live(&target.key, error)),
        Err(LiveError::TimedOut(_)) if drive.db().reach().borrow().peers == 0 => {
            Err(Failure::new(Exit::TimedOut, refusal(&cx.node, &target.key).await))
        }
        Err(error) => Err(from_live(&target.key, error)),
    }
}

/// Links that are followed on the way to one file, as by the kernel.
const MAX_LINKS: usize = 40;

/// What a path means when the links of the drive are followed, as in a mount. One that goes round in circles stays.
pub fn behind_links(index: &DriveIndex, path: &DrivePath) -> DrivePath {
    let mut here = DrivePath::root();
    let mut links = 0;
    let mut todo: Vec<String> = path.names().map(String::from).collect();
    todo.reverse();
    while let Some(name) = todo.pop() {
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                here = here.parent().unwrap_or_else(DrivePath::root);
                continue;
            }
            _ => {}
        }
        let Ok(next) = here.join(&name) else { return path.clone() };
        let Some(Found::Link(link)) = index.lookup(&next) else {
            here = next;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return path.clone();
        }
        if link.target.starts_with('/') {
            here = DrivePath::root();
        }
        todo.extend(link.target.split('/').rev().map(String::from));
    }
    here
}

/// Says if another version is shown than the one that was asked for.
pub fn tell_version(drive: &LiveDrive, cx: &Context) {
    if let Some((asked, shown)) = drive.other_version() {
        cx.out.note(format_args!(
            "there is no version {asked}: the nearest before it is shown, {shown}"
        ));
    }
}

/// The content of a file.
pub fn content(drive: &LiveDrive, index: &DriveIndex, path: &DrivePath) -> Result<FileReader> {
    drive.content_in(index, path).map_err(|error| from_live(&drive.key(), error))
}

/// An error of a drive, with its exit code and what to do.
pub fn from_live(key: &CoreKey, error: LiveError) -> Failure {
    let exit = match &error {
        LiveError::NoPeers | LiveError::TimedOut(_) => Exit::TimedOut,
        error if error.is_loss() => Exit::TimedOut,
        LiveError::NotFound(_) => Exit::NotFound,
        LiveError::Store(_) => Exit::Store,
        _ => Exit::Failed,
    };
    let hint = match &error {
        LiveError::NoPeers => "; check the key, and that a peer that shares it is running",
        _ => "",
    };
    match error {
        LiveError::NoPeers | LiveError::TimedOut(_) => {
            Failure::new(exit, format_args!("drive {key}: {error}{hint}"))
        }
        error if error.is_loss() => Failure::new(exit, format_args!("drive {key}: {error}")),
        error => Failure::new(exit, error),
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        let exit = match &error {
            NodeError::Store { .. } | NodeError::Core(_) => Exit::Store,
            _ => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

/// The drive of a target if this store has its secret key. Peers are asked only where the store may be older than
/// what was published.
pub async fn writable(cx: &Context, target: &Target, secret: Option<[u8; 32]>) -> Result<DriveUse> {
    refuse_version(target, "a version never changes")?;
    let mut drive = cx.node.drive_offline(target.key, secret, None).await?;
    if !drive.writable() {
        return Err(Failure::new(
            Exit::Failed,
            format_args!("drive {}: {}", target.key, LiveError::ReadOnly),
        ));
    }
    if drive.lacks_names().await.map_err(|error| from_live(&target.key, error))? {
        cx.out.note(
            "some of the names of this drive are missing from the store: asking peers for them",
        );
        drive = cx.node.drive(target.key, secret, None, false).await?;
        // Whatever comes first of it: this is what tells that nobody has it.
        drive.current(PATIENCE).await.map_err(|error| from_live(&target.key, error))?;
    }
    cx.node.may_write(&drive, &|text| cx.out.note(text)).await?;
    Ok(drive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_without_the_space_that_was_copied_with_it() {
        for (typed, meant) in [
            (" key\n", "key"),
            ("hyper://key/a%20b ", "hyper://key/a%20b"),
            (" key/a ", "key/a "),
            ("k ey", "k ey"),
        ] {
            assert_eq!(without_space(typed), meant, "{typed}");
        }
    }
}
