//! `KEY`, `KEY/path`, a link or `NAME/path`: which drive is meant, and what in it.

use super::context::Context;
use super::exit::{Exit, Fail, Failure, Result};
use crate::hyper::drive::{DriveIndex, FileReader, LiveDrive, LiveError};
use crate::key::{CoreKey, DriveLink, parse_key};
use crate::node::{Node, NodeError};
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
    let (name, rest) = text.split_once('/').unwrap_or((text, ""));
    let known =
        (!text.contains("://")).then(|| named(node, text, name, rest)).transpose()?.flatten();
    let (key, version, path) = match known {
        Some((key, path)) => (key, None, path),
        None => {
            let link: DriveLink = text.parse().map_err(|error| {
                Failure::new(
                    Exit::Usage,
                    format_args!("'{name}' is neither a drive of this store nor a key: {error}"),
                )
            })?;
            (link.key, link.version, link.path)
        }
    };
    let path =
        DrivePath::from_user(&path).or_fail(Exit::Usage, format_args!("the path '{path}'"))?;
    Ok(Target { key, version, path })
}

/// The drive called `name`, or called the whole of `text` (the default name of a share is a path).
fn named(node: &Node, text: &str, name: &str, rest: &str) -> Result<Option<(CoreKey, String)>> {
    if let Some(key) = node.drive_named(text)? {
        return Ok(Some((key, String::new())));
    }
    Ok(node.drive_named(name)?.map(|key| (key, rest.to_string())))
}

/// The bytes of `--encryption-key`.
pub fn encryption_key(secret: &super::args::Secret) -> Result<Option<[u8; 32]>> {
    let parse = |text: &String| parse_key(text).or_fail(Exit::Usage, "--encryption-key");
    secret.encryption_key.as_ref().filter(|text| !text.is_empty()).map(parse).transpose()
}

/// The longest a command looks for the newest version of a drive.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens the drive that `text` names and waits for its newest index.
pub async fn open_target(
    cx: &Context,
    text: &str,
    secret: Option<[u8; 32]>,
) -> Result<(Target, Arc<LiveDrive>, Arc<DriveIndex>)> {
    let target = resolve(&cx.node, text)?;
    let drive = cx.node.drive(target.key, secret, target.version, false).await?;
    let index = drive.current(PATIENCE).await.map_err(|error| from_live(&target.key, error))?;
    Ok((target, drive, index))
}

/// The content of a file.
pub fn content(drive: &LiveDrive, index: &DriveIndex, path: &DrivePath) -> Result<FileReader> {
    drive.content_in(index, path).map_err(|error| from_live(&drive.key(), error))
}

/// An error of a drive, with its exit code and what to do.
pub fn from_live(key: &CoreKey, error: LiveError) -> Failure {
    let exit = match &error {
        LiveError::NoPeers | LiveError::TimedOut(_) => Exit::TimedOut,
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

/// The drive of a target if this store has its secret key. Nothing is looked for on the network.
pub async fn writable(
    cx: &Context,
    target: &Target,
    secret: Option<[u8; 32]>,
) -> Result<Arc<LiveDrive>> {
    let drive = cx.node.drive_offline(target.key, secret, None)?;
    match drive.writable() {
        true => Ok(drive),
        false => Err(Failure::new(
            Exit::Failed,
            format_args!("drive {}: {}", target.key, LiveError::ReadOnly),
        )),
    }
}
