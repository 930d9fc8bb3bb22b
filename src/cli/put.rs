//! `hdrive put`: a local file or folder into a drive that this store writes.

use super::args::Put;
use super::context::Context;
use super::exit::{Exit, Fail, Failure, Result};
use super::get::from_blob;
use super::target::{encryption_key, from_live, resolve, writable};
use crate::hyper::drive::{Drive, DriveError, Entry};
use crate::path::DrivePath;
use crate::share::scan::{LocalKind, locate, open_file, scan};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub async fn run(args: Put, cx: Context) -> Result {
    let target = resolve(&cx.node, &args.target)?;
    let drive = writable(&cx, &target, encryption_key(&args.secret)?).await?;
    let writer = drive.drive().await.map_err(|error| from_live(&target.key, error))?;
    let out = Arc::clone(&cx.out);
    let source = cx.cwd.join(&args.source);
    let path = target.path.clone();
    let work = move || match args.source.as_os_str() == "-" {
        true => put_stdin(&writer, &path, out.stdin()),
        false => put_local(&writer, &path, &source),
    };
    let put = tokio::task::spawn_blocking(work).await.or_exit(Exit::Failed)?;
    let count = put?;
    let version = drive.db().core().length();
    if cx.out.json {
        cx.out.object(&serde_json::json!({"put": {"files": count, "version": version}}));
    } else {
        cx.out.note(format_args!("{count} file(s) put, version {version}"));
    }
    Ok(())
}

fn put_stdin(drive: &Drive, path: &DrivePath, input: impl std::io::Read) -> Result<usize> {
    if path.is_root() {
        return Err(Failure::new(Exit::Usage, "standard input needs a name: KEY/path"));
    }
    let mut entry = Entry::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    entry.set_mtime_ms(now.as_millis() as i64);
    drive.put(path, input, entry).map_err(|error| match error {
        DriveError::Blob(error) => from_blob(path, error),
        error => Failure::new(Exit::Store, error),
    })?;
    Ok(1)
}

/// Puts a file, or everything below a folder, in one change of the drive.
fn put_local(drive: &Drive, path: &DrivePath, source: &Path) -> Result<usize> {
    let meta = std::fs::symlink_metadata(source).or_fail(Exit::Failed, source.display())?;
    let (folder, found) = if meta.is_dir() {
        (source.to_path_buf(), scan(source, &DrivePath::root()))
    } else {
        let parent = source.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
        let name = source.file_name().and_then(|name| name.to_str());
        let name = name.and_then(|name| DrivePath::root().join(name).ok());
        let name = name.ok_or_else(|| {
            Failure::new(Exit::Failed, format_args!("{}: its name is not UTF-8", source.display()))
        })?;
        let found = scan(&parent, &name);
        (parent, found)
    };
    if let Some((path, why)) = found.skipped.first() {
        return Err(Failure::new(Exit::Failed, format_args!("{}: {why}", path.display())));
    }
    let mut entries = Vec::new();
    let mut writer = drive.blobs().writer().or_exit(Exit::Failed)?;
    for local in &found.found {
        let to = match meta.is_dir() {
            true => join(path, &local.path)?,
            false if path.is_root() => local.path.clone(),
            false => path.clone(),
        };
        let mut entry = match &local.kind {
            LocalKind::Symlink { target } => Entry::symlink(target.clone()),
            LocalKind::File { .. } => {
                let full = locate(&folder, &local.path);
                let file = open_file(&folder, &local.path).or_fail(Exit::Failed, full.display())?;
                Entry::file(writer.put(file).map_err(|error| from_blob(full.display(), error))?)
            }
        };
        if entry.linkname.is_none() {
            entry.set_mode(local.mode as u16);
        }
        entry.set_mtime_ms(local.mtime_ms);
        entries.push((to, entry));
    }
    writer.flush().or_exit(Exit::Store)?;
    drop(writer);
    let write = || -> std::result::Result<(), DriveError> {
        let mut batch = drive.batch()?;
        for (path, entry) in &entries {
            batch.put(path, entry)?;
        }
        if !batch.is_empty() {
            batch.flush()?;
        }
        Ok(())
    };
    write().or_exit(Exit::Store)?;
    Ok(entries.len())
}

fn join(dir: &DrivePath, below: &DrivePath) -> Result<DrivePath> {
    let joined = below.names().try_fold(dir.clone(), |path, name| path.join(name));
    joined.or_fail(Exit::Failed, below)
}
